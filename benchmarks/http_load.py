"""Clients of a server, so lean that they take little of the machine: one process, one event loop, bare HTTP/1.1."""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import os
import time
from dataclasses import dataclass
from multiprocessing.connection import Connection
from time import perf_counter, perf_counter_ns
from typing import Any

from benchmarks.workload import ACTION, ACTUAL, ESTIMATE

PATIENCE = 120.0
TENANT = "acme"
_ID = b'"reservation_id":"'


@dataclass(frozen=True)
class Load:
    """`most` lifecycles of all clients together, or as many as fit into `seconds`."""

    port: int
    api_key: str
    clients: int
    most: int
    seconds: float


@dataclass(frozen=True)
class Done:
    """`times` in ns; `cpu` are the seconds that the clients took of a core."""

    times: list[int]
    wall: float
    cpu: float


def measured(load: Load) -> Done:
    """In a process of its own, so that it takes no turn of the server's interpreter."""
    fresh = multiprocessing.get_context("spawn")
    receiver, out = fresh.Pipe(duplex=False)
    process = fresh.Process(target=_work, args=(load, out), daemon=True)
    process.start()
    try:
        if not receiver.poll(PATIENCE):
            raise TimeoutError("the clients of the benchmark gave no answer")
        done = receiver.recv()
    finally:
        process.join(5)
        process.kill()
    if isinstance(done, str):
        raise RuntimeError(done)
    assert isinstance(done, Done)
    return done


def _work(load: Load, out: Connection) -> None:
    try:
        out.send(_runner()(_all(load)))
    except Exception as error:
        out.send(f"{type(error).__name__}: {error}")


def _runner() -> Any:
    try:
        import uvloop
    except ImportError:
        return asyncio.run
    return uvloop.run


async def _all(load: Load) -> Done:
    loop = asyncio.get_running_loop()
    clients = []
    for number in range(load.clients):
        _, client = await loop.create_connection(lambda number=number: _Client(load, number), "127.0.0.1", load.port)  # type: ignore[misc]
        clients.append(client)
    began, before = perf_counter(), time.process_time()
    for client in clients:
        client.begin(began + load.seconds)
    await asyncio.gather(*(client.over for client in clients))
    wall, cpu = perf_counter() - began, time.process_time() - before
    return Done([it for client in clients for it in client.times], wall, cpu)


class _Client(asyncio.Protocol):
    """Reserve, commit, and again. A second request goes out when the answer to the first is whole."""

    def __init__(self, load: Load, number: int) -> None:
        self.over: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.times: list[int] = []
        self._most = max(1, load.most // load.clients)
        self._name = f"{os.getpid()}-{number}"
        self._buffer = b""
        self._committing = False
        subject = {"tenant": TENANT, "agent": f"c{number}"}
        amount = {"unit": "USD_MICROCENTS", "amount": ESTIMATE.amount}
        facts = {"subject": subject, "action": ACTION.wire, "estimate": amount, "ttl_ms": 60_000}
        self._reserve = b"," + json.dumps(facts)[1:].encode()
        self._commit = b"," + json.dumps({"actual": {**amount, "amount": ACTUAL.amount}})[1:].encode()
        key = load.api_key
        self._head = f"Host: 127.0.0.1\r\nX-Cycles-API-Key: {key}\r\nContent-Type: application/json\r\n".encode()

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def connection_lost(self, error: Exception | None) -> None:
        if not self.over.done():
            self.over.set_exception(error or ConnectionError("the server has closed the connection"))

    def begin(self, ends_at: float) -> None:
        self._ends_at = ends_at
        self._next()

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        head, found, body = self._buffer.partition(b"\r\n\r\n")
        if not found or len(body) < int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0]):
            return
        self._buffer = b""
        if not head.startswith(b"HTTP/1.1 200"):
            self.over.set_exception(RuntimeError(f"{head[:60]!r} {body[:300]!r}"))
            self._transport.close()
        elif self._committing:
            self.times.append(perf_counter_ns() - self._began)
            self._next()
        else:
            self._committing = True
            reservation_id = body.partition(_ID)[2].partition(b'"')[0]
            self._send(b"/v1/reservations/" + reservation_id + b"/commit", self._commit)

    def _next(self) -> None:
        if len(self.times) == self._most or perf_counter() >= self._ends_at:
            self._transport.close()
            self.over.set_result(None)
            return
        self._committing = False
        self._began = perf_counter_ns()
        self._send(b"/v1/reservations", self._reserve)

    def _send(self, path: bytes, facts: bytes) -> None:
        body = b'{"idempotency_key":"%b-%d"%b' % (self._name.encode(), len(self.times), facts)
        head = b"POST %b HTTP/1.1\r\n%bContent-Length: %d\r\n\r\n" % (path, self._head, len(body))
        self._transport.write(head + body)

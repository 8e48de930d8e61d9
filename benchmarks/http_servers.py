"""Servers for the clients of `http_load`, a process each: ours, and our HTTP stack answering a constant."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from benchmarks.http_load import TENANT
from benchmarks.workload import PLENTY

PATIENCE = 30.0
ADMIN_KEY = "an-operators-key-for-benchmarks"
SHARED, SEPARATE = "shared budget", "separate budgets"


@dataclass
class Served:
    port: int
    api_key: str
    _asking: Connection

    @property
    def cpu(self) -> float:
        """Seconds of a core that the server has taken so far."""
        self._asking.send("cpu")
        if not self._asking.poll(PATIENCE):
            raise TimeoutError("the server of the benchmark does not answer")
        seconds: float = self._asking.recv()
        return seconds


@contextmanager
def ours(ledger: Path, budgets: str, clients: int, durability: str) -> Iterator[Served]:
    with _process(_serve, str(ledger), budgets, clients, durability) as served:
        yield served


@contextmanager
def constant() -> Iterator[Served]:
    """The same sockets, parser and limits; behind them nothing is decided."""
    with _process(_serve_constant) as served:
        yield served


@contextmanager
def _process(target: Any, *arguments: Any) -> Iterator[Served]:
    fresh = multiprocessing.get_context("spawn")
    asking, answering = fresh.Pipe()
    process: BaseProcess = fresh.Process(target=target, args=(*arguments, answering), daemon=True)
    process.start()
    try:
        if not asking.poll(PATIENCE):
            raise TimeoutError("the server of the benchmark did not start")
        port, api_key = asking.recv()
        yield Served(port, api_key, asking)
    finally:
        process.kill()
        process.join()


def _serve(ledger: str, budgets: str, clients: int, durability: str, answering: Connection) -> None:
    from clearance.authority.budgets import BudgetSpec
    from clearance.connecting import open_ledger
    from clearance.server import Settings, create_app, keys
    from clearance.server.permissions import PERMISSIONS

    authority = open_ledger(ledger, durability=durability)
    scopes = [f"tenant:{TENANT}/agent:c{number}" for number in range(clients)]
    authority.apply_budgets(
        [BudgetSpec(scope=it, allocated=PLENTY) for it in (scopes if budgets == SEPARATE else [f"tenant:{TENANT}"])]
    )
    facts = {"name": "benchmark", "permissions": sorted(PERMISSIONS)}
    made = keys.new_key("key_1", TENANT, authority.now_ms(), facts)
    authority.keep(lambda tx, now_ms: tx.write(keys.written(made), now_ms))
    _run(create_app(authority, Settings(admin_key=ADMIN_KEY)), made.secret, answering)


def _serve_constant(answering: Connection) -> None:
    from clearance.authority.embedded import EmbeddedAuthority
    from clearance.server import Settings
    from clearance.server.app import App
    from clearance.store.sqlite import MEMORY, SqliteStore

    class Constant(App):
        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            if scope["type"] != "http":
                await super().__call__(scope, receive, send)
                return
            await receive()
            body = _COMMITTED if scope["path"].endswith("/commit") else _RESERVED
            headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            await send({"type": "http.response.body", "body": body})

    authority = EmbeddedAuthority(SqliteStore(MEMORY), background=False)
    _run(Constant(authority, Settings(admin_key=ADMIN_KEY)), "none", answering)


_AMOUNT = b'{"unit":"USD_MICROCENTS","amount":2000000}'
_SCOPES = b'"affected_scopes":["tenant:acme","tenant:acme/agent:c0"],"scope_path":"tenant:acme/agent:c0"'
_RESERVED = b'{"decision":"ALLOW",%b,"reservation_id":"rsv_%032d","reserved":%b}' % (_SCOPES, 0, _AMOUNT)
_COMMITTED = b'{"status":"COMMITTED","charged":%b}' % _AMOUNT


def _run(app: Any, api_key: str, answering: Connection) -> None:
    import threading

    from clearance.server.serving import listening, run

    def tell() -> None:
        while True:
            answering.recv()
            answering.send(time.process_time())

    bound = listening("127.0.0.1", 0)
    answering.send((bound.getsockname()[1], api_key))
    threading.Thread(target=tell, daemon=True).start()
    run(app, [bound])

"""A small server of the base protocol that can fail in every way that a network has. It counts what it is asked.

`faults["commit"] = ["lost", "503"]` makes the first commit answer nothing after it took effect, and the second a 503:

    refuse   the connection is cut before the request takes effect
    lost     the request takes effect, the connection is cut before the reply
    half     the request takes effect, the connection is cut in the middle of the reply
    hang     the request takes effect, the reply never comes
    trickle  the reply comes one byte every 50 ms
    garbage  200 with something that is not JSON; the request takes no effect
    empty    200 {}; the request takes effect
    other2xx the right body with status 202; the request takes effect
    500 503  that status with a protocol error body; 502 with HTML
    429:N    LIMIT_EXCEEDED with Retry-After N
    409:CODE 410:CODE 400:CODE 401:CODE 403:CODE 404:CODE   a protocol error
"""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections import Counter, defaultdict, deque
from dataclasses import dataclass
from typing import Any

CUT = object()
Json = dict[str, Any]


class Failure(Exception):
    def __init__(self, status: int, code: str, details: Json | None = None, headers: Json | None = None) -> None:
        self.status, self.code, self.details, self.headers = status, code, details, headers or {}


@dataclass
class Seen:
    verb: str
    target: str
    key: str | None
    body: Json
    headers: dict[str, str]
    at: float


class FaultyServer:
    """One tenant, one budget. `remaining` is what is left of it; `charged` maps each settled thing to its amount."""

    def __init__(self, budget: int = 10**12, port: int = 0, vendor: bool = False) -> None:
        self.budget = budget
        self.vendor = vendor
        self.port = port
        self.faults: dict[str, deque[str]] = defaultdict(deque)
        self.seen: list[Seen] = []
        self.rows: dict[str, Json] = {}
        self.events: list[Json] = []
        self.answers: dict[tuple[str, str], tuple[Json, Any]] = {}
        self.extra: dict[str, Json] = {}
        self.delay_s = 0.0
        self.down = False
        self.keys: set[str] | None = None
        self.connections = 0
        self._writers: set[asyncio.StreamWriter] = set()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        self._ready.wait(10)

    # -- what tests ask

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def fail(self, verb: str, *faults: str) -> None:
        self.faults[verb].extend(faults)

    def count(self) -> Counter[str]:
        return Counter(seen.verb for seen in self.seen)

    def of(self, verb: str) -> list[Seen]:
        return [seen for seen in self.seen if seen.verb == verb]

    def settlements(self) -> list[tuple[str, str | None]]:
        return [(seen.verb, seen.key) for seen in self.seen if seen.verb in ("commit", "event")]

    @property
    def charged(self) -> int:
        committed = sum(row["actual"] for row in self.rows.values() if row["status"] == "COMMITTED")
        return committed + sum(event["actual"]["amount"] for event in self.events)

    @property
    def open(self) -> list[Json]:
        return [row for row in self.rows.values() if row["status"] == "ACTIVE"]

    def expire(self, *ids: str) -> None:
        for row_id in ids or list(self.rows):
            if self.rows[row_id]["status"] == "ACTIVE":
                self.rows[row_id]["status"] = "EXPIRED"

    def wait_for(self, verb: str, times: int = 1, timeout_s: float = 10.0) -> None:
        deadline = time.monotonic() + timeout_s
        while self.count()[verb] < times:
            assert time.monotonic() < deadline, f"{verb} was asked {self.count()[verb]} times, not {times}"
            time.sleep(0.005)

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._stopping.set)
        self._thread.join(10)

    # -- the wire

    def _run(self) -> None:
        asyncio.run(self._serve())

    async def _serve(self) -> None:
        self._loop, self._stopping = asyncio.get_running_loop(), asyncio.Event()
        server = await asyncio.start_server(self._client, "127.0.0.1", self.port)
        self.port = server.sockets[0].getsockname()[1]
        self._ready.set()
        await self._stopping.wait()
        server.close()
        for writer in list(self._writers):
            writer.transport.abort()
        await asyncio.sleep(0.02)

    async def _client(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._writers.add(writer)
        try:
            while await self._request(reader, writer):
                pass
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass
        finally:
            self._writers.discard(writer)
            writer.transport.abort()

    async def _request(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        method, target, _ = head[0].split(" ")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:] if line)}
        raw = await reader.readexactly(int(headers.get("content-length", 0)))
        if self.down:
            return False
        body = json.loads(raw) if raw else {}
        path = target.partition("?")[0]
        verb = self._verb(method, path)
        self.seen.append(Seen(verb, target, body.get("idempotency_key"), body, headers, time.monotonic()))
        fault = self.faults[verb].popleft() if self.faults[verb] else ""
        if self.delay_s:
            await asyncio.sleep(self.delay_s)
        if fault == "refuse":
            return False
        reply, status, more = self._answer(verb, path, body, headers, fault)
        if fault == "lost":
            return False
        if fault == "hang":
            await asyncio.sleep(60)
            return False
        lines = [f"HTTP/1.1 {status} X", "Content-Type: application/json", f"Content-Length: {len(reply)}"]
        lines += [f"{name}: {value}" for name, value in more.items()]
        out = "\r\n".join([*lines, "", ""]).encode() + reply
        if fault == "half":
            writer.write(out[: len(out) - len(reply) // 2 - 1])
            await writer.drain()
            return False
        if fault == "trickle":
            for byte in out:
                writer.write(bytes([byte]))
                await asyncio.sleep(0.05)
        writer.write(out)
        await writer.drain()
        return True

    def _answer(self, verb: str, path: str, body: Json, headers: Json, fault: str) -> tuple[bytes, int, Json]:
        if fault == "garbage":
            return b"<html>it works</html>", 200, {}
        if fault == "502":
            return b"<html>bad gateway</html>", 502, {}
        try:
            if fault in ("500", "503"):
                raise Failure(int(fault), "INTERNAL_ERROR")
            if fault[:3].isdigit() and fault[3:4] == ":":
                status, _, what = fault.partition(":")
                if status == "429":
                    raise Failure(429, "LIMIT_EXCEEDED", headers={"Retry-After": what})
                raise Failure(int(status), what)
            if self.keys is not None and headers.get("x-cycles-api-key") not in self.keys:
                raise Failure(401, "UNAUTHORIZED")
            answer = {**self._do(verb, path, body, headers), **self.extra.get(verb, {})}
        except Failure as failure:
            facts = {"error": failure.code, "message": f"refused with {failure.code}", "request_id": "r", "new": 1}
            if failure.details:
                facts["details"] = failure.details
            return json.dumps(facts).encode(), failure.status, failure.headers
        if fault == "empty":
            answer = {}
        status = 201 if verb in ("event", "start_run") else 200
        return json.dumps(answer).encode(), 202 if fault == "other2xx" else status, {}

    @staticmethod
    def _verb(method: str, path: str) -> str:
        parts = path.strip("/").split("/")
        if path == "/v1/reservations":
            return "reserve" if method == "POST" else "list"
        if path == "/v1/x-clearance/runs":
            return "start_run"
        if parts[:3] == ["v1", "x-clearance", "runs"]:
            return "end_run"
        if path == "/v1/events":
            return "event"
        return parts[-1] if len(parts) != 3 or parts[1] != "reservations" else "get"

    # -- the ledger

    def _do(self, verb: str, path: str, body: Json, headers: Json) -> Json:
        if verb == "capabilities" and self.vendor:
            return {"protocol": "0.1.25", "extensions": ["runs", "stops"]}
        if verb not in ("reserve", "commit", "release", "extend", "event", "decide"):
            raise Failure(404, "NOT_FOUND")
        place = (verb if verb in ("reserve", "event") else path, body["idempotency_key"])
        if place in self.answers:
            payload, answer = self.answers[place]
            if payload != body:
                raise Failure(409, "IDEMPOTENCY_MISMATCH")
            return answer
        answer = getattr(self, "_" + verb)(path, body)
        if answer.get("decision") != "DENY":
            self.answers[place] = (body, answer)
        return answer

    def _remaining(self) -> int:
        return self.budget - self.charged - sum(row["estimate"] for row in self.open)

    def _balances(self) -> list[Json]:
        left = {"unit": "USD_MICROCENTS", "amount": self._remaining()}
        return [{"scope": "tenant:acme", "scope_path": "tenant:acme", "remaining": left, "allocated": left}]

    def _reserve(self, path: str, body: Json) -> Json:
        estimate = body["estimate"]
        if estimate["amount"] > self._remaining():
            if body.get("dry_run"):
                return {"decision": "DENY", "affected_scopes": ["tenant:acme"], "reason_code": "BUDGET_EXCEEDED"}
            raise Failure(409, "BUDGET_EXCEEDED", {"scope": "tenant:acme", "remaining": self._remaining()})
        answer: Json = {"decision": "ALLOW", "affected_scopes": ["tenant:acme"], "balances": self._balances()}
        if body.get("dry_run"):
            return answer
        row_id = f"rsv_{len(self.rows) + 1}"
        self.rows[row_id] = {"status": "ACTIVE", "estimate": estimate["amount"], "actual": 0, "asked": body}
        ttl_ms = body["ttl_ms"]
        expires_at_ms = self.rows[row_id]["expires_at_ms"] = int(time.time() * 1000) + ttl_ms
        return {**answer, "reservation_id": row_id, "expires_at_ms": expires_at_ms, "remaining_ttl_ms": ttl_ms}

    def _decide(self, path: str, body: Json) -> Json:
        return self._reserve(path, {**body, "dry_run": True})

    def _row(self, path: str) -> Json:
        row = self.rows.get(path.split("/")[3])
        if row is None:
            raise Failure(404, "NOT_FOUND")
        if row["status"] == "EXPIRED":
            raise Failure(410, "RESERVATION_EXPIRED")
        if row["status"] != "ACTIVE":
            raise Failure(409, "RESERVATION_FINALIZED")
        return row

    def _commit(self, path: str, body: Json) -> Json:
        row = self._row(path)
        actual = body["actual"]["amount"]
        if row["asked"].get("overage_policy") == "REJECT" and actual > row["estimate"]:
            raise Failure(409, "BUDGET_EXCEEDED")
        row.update(status="COMMITTED", actual=actual)
        answer: Json = {"status": "COMMITTED", "charged": body["actual"], "balances": self._balances()}
        if actual < row["estimate"]:
            answer["released"] = {"unit": body["actual"]["unit"], "amount": row["estimate"] - actual}
        return answer

    def _release(self, path: str, body: Json) -> Json:
        row = self._row(path)
        row["status"] = "RELEASED"
        return {"status": "RELEASED", "released": {"unit": "USD_MICROCENTS", "amount": row["estimate"]}}

    def _extend(self, path: str, body: Json) -> Json:
        row = self._row(path)
        row["expires_at_ms"] += body["extend_by_ms"]
        left_ms = row["expires_at_ms"] - int(time.time() * 1000)
        return {"status": "ACTIVE", "expires_at_ms": row["expires_at_ms"], "remaining_ttl_ms": left_ms}

    def _event(self, path: str, body: Json) -> Json:
        self.events.append(body)
        return {"status": "APPLIED", "event_id": f"evt_{len(self.events)}"}

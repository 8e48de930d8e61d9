"""A running server and callers of it."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx

from clearance.authority.clock import ManualClock
from clearance.authority.embedded import EmbeddedAuthority
from clearance.server.app import App, create_app
from clearance.server.serving import Serving, listening
from clearance.server.settings import Settings

ADMIN_KEY = "the-operators-own-key"
ADMIN = {"X-Admin-API-Key": ADMIN_KEY}
UNIT = "TOKENS"
ACTION = {"kind": "llm.completion", "name": "gpt"}
ALL = [
    "reservations:create",
    "reservations:commit",
    "reservations:release",
    "reservations:extend",
    "reservations:list",
    "balances:read",
    "budgets:read",
    "budgets:write",
    "webhooks:read",
    "webhooks:write",
    "events:read",
]
_numbers = itertools.count(1)


def unique(prefix: str) -> str:
    return f"{prefix}-{next(_numbers)}"


def amount(value: Any, unit: str = UNIT) -> dict[str, Any]:
    return {"unit": unit, "amount": value}


@dataclass
class Running:
    """A server in a thread of this process."""

    app: App
    server: Serving
    thread: threading.Thread
    url: str
    authority: EmbeddedAuthority

    def stop(self) -> None:
        self.server.should_exit = True
        self.thread.join(20)


@contextmanager
def running(authority: EmbeddedAuthority, settings: Settings | None = None) -> Iterator[Running]:
    app = create_app(authority, settings or Settings(admin_key=ADMIN_KEY))
    bound = listening("127.0.0.1", 0)
    server = Serving(app)
    thread = threading.Thread(target=lambda: server.run(sockets=[bound]), daemon=True)
    thread.start()
    until(lambda: server.started)
    it = Running(app, server, thread, f"http://127.0.0.1:{bound.getsockname()[1]}", authority)
    try:
        yield it
    finally:
        it.stop()


def until(condition: Any, seconds: float = 10.0) -> Any:
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.02)
    return found


@dataclass
class Tenant:
    """A tenant with a key that may do everything, and what it asks."""

    world: World
    name: str
    key_id: str
    secret: str
    keys: Iterator[int] = field(default_factory=itertools.count)

    @property
    def headers(self) -> dict[str, str]:
        return {"X-Cycles-API-Key": self.secret}

    def subject(self, **levels: str) -> dict[str, Any]:
        return {"tenant": self.name, **levels}

    def request(self, method: str, path: str, json: Any = None, **options: Any) -> httpx.Response:
        headers = {**self.headers, **options.pop("headers", {})}
        return self.world.client.request(method, path, json=json, headers=headers, **options)

    def get(self, path: str, **params: Any) -> httpx.Response:
        return self.request("GET", path, **({"params": params} if params else {}))

    def post(self, path: str, json: Any, **options: Any) -> httpx.Response:
        return self.request("POST", path, json, **options)

    def key(self) -> str:
        return f"{self.name}-{next(self.keys)}"

    def budget(self, value: int, below: str = "", unit: str = UNIT, **facts: Any) -> dict[str, Any]:
        scope = f"tenant:{self.name}{below}"
        body = {"scope": scope, "unit": unit, "allocated": amount(value, unit), **facts}
        answer = self.post("/v1/admin/budgets", body)
        assert answer.status_code == 201, answer.text
        return dict(answer.json())

    def reserve_body(self, value: Any = 100, **changes: Any) -> dict[str, Any]:
        body = {
            "idempotency_key": self.key(),
            "subject": self.subject(),
            "action": ACTION,
            "estimate": amount(value),
        }
        return {name: it for name, it in {**body, **changes}.items() if it is not ...}

    def reserve(self, value: int = 100, **changes: Any) -> httpx.Response:
        return self.post("/v1/reservations", self.reserve_body(value, **changes))

    def hold(self, value: int = 100, **changes: Any) -> str:
        answer = self.reserve(value, **changes)
        assert answer.status_code == 200, answer.text
        return str(answer.json()["reservation_id"])

    def settle(self, verb: str, reservation_id: str, **changes: Any) -> httpx.Response:
        bodies = {
            "commit": {"actual": amount(50)},
            "release": {},
            "extend": {"extend_by_ms": 1000},
        }
        body = {"idempotency_key": self.key(), **bodies[verb], **changes}
        return self.post(f"/v1/reservations/{reservation_id}/{verb}", body)

    def event(self, value: int = 10, **changes: Any) -> httpx.Response:
        body = {"idempotency_key": self.key(), "subject": self.subject(), "action": ACTION, "actual": amount(value)}
        return self.post("/v1/events", {**body, **changes})

    def decide(self, value: int = 100, **changes: Any) -> httpx.Response:
        return self.post("/v1/decide", self.reserve_body(value, **changes))

    def balance(self, below: str = "", unit: str = UNIT) -> dict[str, Any]:
        path = f"tenant:{self.name}{below}"
        found = self.get("/v1/balances", tenant=self.name, limit=200).json()["balances"]
        return next(it for it in found if it["scope_path"] == path and it["remaining"]["unit"] == unit)

    def remaining(self, below: str = "") -> int:
        return int(self.balance(below)["remaining"]["amount"])


@dataclass
class World:
    """A server with an operator and a clock."""

    running: Running
    client: httpx.Client
    clock: ManualClock | None

    def admin(self, method: str, path: str, json: Any = None, **options: Any) -> httpx.Response:
        return self.client.request(method, path, json=json, headers={**ADMIN, **options.pop("headers", {})}, **options)

    def tenant(self, name: str | None = None, *, permissions: list[str] | None = None, **facts: Any) -> Tenant:
        name = name or unique("tenant")
        made = self.admin("POST", "/v1/admin/tenants", {"tenant_id": name, "name": name, **facts})
        assert made.status_code in (200, 201), made.text
        return self.key_of(name, permissions=permissions)

    def key_of(self, name: str, *, permissions: list[str] | None = None, **facts: Any) -> Tenant:
        body = {"tenant_id": name, "name": "test", "permissions": permissions or ALL, **facts}
        key = self.admin("POST", "/v1/admin/api-keys", body)
        assert key.status_code == 201, key.text
        return Tenant(self, name, key.json()["key_id"], key.json()["key_secret"])


def problem(answer: httpx.Response) -> tuple[int, str]:
    """Status and code of an error that is as the protocol wants it."""
    body = answer.json()
    assert set(body) <= {"error", "message", "request_id", "trace_id", "details"}
    assert body["request_id"] == answer.headers["X-Request-Id"]
    assert body["trace_id"] == answer.headers["X-Cycles-Trace-Id"]
    assert body["message"]
    return answer.status_code, body["error"]

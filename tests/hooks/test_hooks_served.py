"""MiniHost with the authority behind HTTP, from its configuration file: the answers are the same."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from hooks_world import Asking

from clearance.authority.budgets import BudgetSpec
from clearance.authority.embedded import EmbeddedAuthority
from clearance.model.amount import usd
from clearance.model.caps import Caps, CapsRule
from clearance.server import Settings, create_app
from clearance.server.serving import Serving, listening
from clearance.simulator import Simulator, ToolCall, sequence
from clearance.store.interface import ReservationQuery
from clearance.store.sqlite import MEMORY, SqliteStore
from clearance_hooks import MiniHost, shut_down

ADMIN = "an-operators-key-for-tests"
PERMISSIONS = ["balances:read", *(f"reservations:{verb}" for verb in ("create", "commit", "release", "extend", "list"))]


@dataclass
class Served:
    url: str
    key: str
    authority: EmbeddedAuthority
    server: Serving
    thread: threading.Thread

    def stop(self) -> None:
        self.server.should_exit = True
        self.thread.join(20)


@pytest.fixture
def served() -> Iterator[Served]:
    authority = EmbeddedAuthority(SqliteStore(MEMORY), durability="process")
    serving = Serving(create_app(authority, Settings(admin_key=ADMIN)))
    bound = listening("127.0.0.1", 0)
    thread = threading.Thread(target=lambda: serving.run(sockets=[bound]), daemon=True)
    thread.start()
    deadline = time.monotonic() + 10
    while not serving.started:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    url = f"http://127.0.0.1:{bound.getsockname()[1]}"
    with httpx.Client(base_url=url, headers={"X-Admin-API-Key": ADMIN}) as client:
        client.post("/v1/admin/tenants", json={"tenant_id": "acme", "name": "Acme"}).raise_for_status()
        made = client.post("/v1/admin/api-keys", json={"tenant_id": "acme", "name": "k", "permissions": PERMISSIONS})
        made.raise_for_status()
    authority.set_budget(BudgetSpec(scope="tenant:acme", allocated=usd("5")))
    found = Served(url, made.json()["key_secret"], authority, serving, thread)
    yield found
    shut_down()
    found.stop()
    authority.close()


def config(folder: Path, served: Served) -> Path:
    entry = {"config": {"authority": {"url": served.url, "token": "${KEY}"}, "tenant": "acme", "run_budget": "1.00"}}
    path = folder / "host.json"
    path.write_text(json.dumps({"plugins": {"entries": {"clearance": entry}}}))
    return path


@pytest.fixture(autouse=True)
def own_journal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))


def test_a_turn_is_charged_and_a_kill_refuses_the_next(served: Served, tmp_path: Path) -> None:
    ran: list[str] = []

    def echo(text: str) -> str:
        ran.append(text)
        return text

    with Simulator(script=sequence([ToolCall("echo", {"text": "x"}), "done"])) as provider:
        model = Asking(provider.base_url)
        host = MiniHost(config(tmp_path, served), model=model, tools={"echo": echo}, environ={"KEY": served.key})
        first = host.run("hello")
        served.authority.kill("tenant:acme", reason="enough", actor="me")
        second = host.run("hello again")
        host.close()
        model.close()
        assert (first.text, first.blocked) == ("done", None)
        assert second.blocked is not None
        assert (second.blocked.code, "enough" in second.text) == ("KILLED", True)
        assert (provider.stats()["requests"], len(ran)) == (2, 1)
        assert served.authority.balance("tenant:acme").spent == provider.stats()["cost"]
    assert served.authority.reservations(ReservationQuery(status="ACTIVE")).items == []


def test_caps_of_the_server_hide_the_tool(served: Served, tmp_path: Path) -> None:
    rule = CapsRule(caps=Caps(tool_denylist=("echo",)))
    served.authority.set_budget(BudgetSpec(scope="tenant:acme", allocated=usd("5"), caps=(rule,)))
    with Simulator(script=sequence(["done"])) as provider:
        model = Asking(provider.base_url)
        host = MiniHost(config(tmp_path, served), model=model, tools={"echo": str}, environ={"KEY": served.key})
        assert host.run("hello").text == "done"
        host.close()
        model.close()
        assert "tools" not in provider.requests[0].body


def test_a_wrong_key_denies(served: Served, tmp_path: Path) -> None:
    with Simulator() as provider:
        model = Asking(provider.base_url)
        host = MiniHost(config(tmp_path, served), model=model, environ={"KEY": "wrong"})
        assert host.run("hello").blocked is not None
        host.close()
        model.close()
        assert provider.stats()["requests"] == 0

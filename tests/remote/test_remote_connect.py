"""`connect` to a server: what it takes from its arguments and from the environment."""

from __future__ import annotations

import time
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from clearance.authority.clock import ManualClock
from clearance.connecting import connect
from clearance.errors import AuthorityUnavailable, InvalidRequest
from clearance.model.amount import usd
from clearance.remote import Allowance, RemoteAuthority
from remote.conftest import ACME, TOOL, free_port, records
from remote.faulty import FaultyServer


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    for name in ("URL", "API_KEY", "ADMIN_KEY", "TENANT"):
        monkeypatch.delenv(f"CLEARANCE_{name}", raising=False)


def test_everything_may_come_from_the_environment(server: FaultyServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLEARANCE_URL", server.url)
    monkeypatch.setenv("CLEARANCE_API_KEY", "k-1")
    with closing(connect()) as client:
        assert isinstance(client, RemoteAuthority)
        client.commit(client.reserve(ACME, TOOL, usd(1)).reservation_id or "", usd(1))
    assert server.charged == usd(1).amount
    assert {seen.headers["x-cycles-api-key"] for seen in server.seen} == {"k-1"}


def test_a_key_is_needed_and_named(server: FaultyServer) -> None:
    with pytest.raises(InvalidRequest, match=r"api_key: is missing .* CLEARANCE_API_KEY"):
        connect(server.url)


@pytest.mark.parametrize("by", ["argument", "environment"])
def test_with_the_tenants_name_another_key_settles_what_is_left(
    server: FaultyServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, by: str
) -> None:
    named: dict[str, Any] = {"tenant": "acme"} if by == "argument" else {}
    if by == "environment":
        monkeypatch.setenv("CLEARANCE_TENANT", "acme")
    with closing(connect(server.url, api_key="k-1", timeout_ms=100, **named)) as client:
        held = client.reserve(ACME, TOOL, usd(1)).reservation_id or ""
        server.down = True
        with pytest.raises(AuthorityUnavailable):
            client.commit(held, usd("0.5"))
    assert len(records(tmp_path)) == 1
    server.down = False
    with closing(connect(server.url, api_key="k-2", **named)) as client:
        assert client.flush(10)
    assert (server.charged, records(tmp_path)) == (usd("0.5").amount, [])


def test_the_deadline_is_what_was_asked_for(server: FaultyServer) -> None:
    with closing(connect(server.url, api_key="k-1", timeout_ms=150)) as client:
        server.fail("reserve", *["hang"] * 5)
        began = time.monotonic()
        with pytest.raises(AuthorityUnavailable):
            client.reserve(ACME, TOOL, usd(1))
    assert time.monotonic() - began < 1
    with pytest.raises(InvalidRequest, match="timeout_ms"):
        connect(server.url, api_key="k-1", timeout_ms=60_000)


def test_an_allowance_lets_work_go_on_through_an_outage() -> None:
    url = f"http://127.0.0.1:{free_port()}"
    allowed = {"tool.call": Allowance(usd(1), every_s=3600)}
    with closing(connect(url, api_key="k-1", on_outage=allowed, timeout_ms=200)) as client:
        with client.guard(TOOL, "1", subject=ACME) as permit:
            permit.settle("0.5")
        with pytest.raises(AuthorityUnavailable), client.guard(TOOL, "1", subject=ACME):
            raise AssertionError("the allowance is used up")
    with pytest.raises(InvalidRequest, match="on_outage"):
        connect(url, api_key="k-1", on_outage="allow")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("url", "options"),
    [
        ("memory://", {"tenant": "acme"}),
        ("memory://", {"on_outage": "deny"}),
        ("memory://", {"timeout_ms": 100}),
        ("http://127.0.0.1:9", {"clock": ManualClock(), "api_key": "k"}),
    ],
)
def test_what_does_not_belong_to_the_place_is_refused(url: str, options: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest, match=r"is of (servers|ledgers) only"):
        connect(url, **options)

"""What goes on without an authority: nothing, or what an allowance covers; and it is all told later."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from clearance.errors import AuthorityUnavailable, BudgetExceeded, ReservationFinalized, UnitMismatch
from clearance.model.action import Action
from clearance.model.amount import tokens, usd
from clearance.remote import Allowance, BadAnswer, RemoteAuthority
from remote.conftest import ACME, TOOL, Open, records
from remote.faulty import FaultyServer

MODEL = Action(kind="llm.completion", name="m")


@pytest.fixture
def lenient(connect: Open, tmp_path: Path) -> RemoteAuthority:
    return connect(journal=tmp_path, timeout_ms=300, on_outage={"tool.call": Allowance(usd(1))})


def test_the_default_is_to_deny(server: FaultyServer, connect: Open) -> None:
    client = connect(timeout_ms=300)
    server.down = True
    with pytest.raises(AuthorityUnavailable), client.guard(TOOL, "0.1", subject=ACME):
        raise AssertionError("nothing happens")


def test_a_chosen_kind_goes_on_within_its_allowance(server: FaultyServer, lenient: RemoteAuthority) -> None:
    server.down = True
    ran = []
    for n in range(12):
        try:
            with lenient.guard(TOOL, "0.1", subject=ACME):
                ran.append(n)
        except AuthorityUnavailable:
            pass
    assert len(ran) == 10, "1 USD, a tenth each"
    with pytest.raises(AuthorityUnavailable), lenient.guard(MODEL, "0.1", subject=ACME):
        raise AssertionError("another kind is denied")


def test_all_of_it_is_reported_when_the_server_is_back(
    server: FaultyServer, lenient: RemoteAuthority, tmp_path: Path
) -> None:
    server.down = True
    for _ in range(3):
        with lenient.guard(TOOL, "0.1", subject=ACME) as permit:
            assert permit.decision.reason_code == "OUTAGE_ALLOWANCE"
            permit.settle("0.04")
    assert len(records(tmp_path)) == 3
    server.down = False
    lenient._exchange.breaker.leave(False, False)
    assert lenient.flush(5)
    assert server.charged == usd("0.12").amount
    assert records(tmp_path) == []
    bodies: list[dict[str, Any]] = [seen.body for seen in server.of("event")]
    assert all(body["metadata"]["outage"] == "allowed" for body in bodies)
    assert all(body["subject"] == ACME.wire and body["action"] == TOOL.wire for body in bodies)


def test_what_it_did_not_cost_may_be_used_again(server: FaultyServer, lenient: RemoteAuthority) -> None:
    server.down = True
    for _ in range(20):
        with lenient.guard(TOOL, "0.5", subject=ACME) as permit:
            permit.settle("0.02")
    held = lenient.reserve(ACME, TOOL, usd("0.4"))
    lenient.release(held.reservation_id or "")
    assert lenient.reserve(ACME, TOOL, usd("0.4")).allowed


@pytest.mark.parametrize(
    ("fault", "kind"),
    [("409:BUDGET_EXCEEDED", BudgetExceeded), ("garbage", BadAnswer), ("404:NOT_FOUND", PermissionError)],
)
def test_a_real_no_is_never_turned_into_a_yes(
    server: FaultyServer, lenient: RemoteAuthority, fault: str, kind: type[Exception]
) -> None:
    server.fail("reserve", *[fault] * 3)
    with pytest.raises(kind), lenient.guard(TOOL, "0.1", subject=ACME):
        raise AssertionError("nothing happens")


def test_a_crash_in_between_is_told_with_the_estimate(
    server: FaultyServer, lenient: RemoteAuthority, connect: Open, tmp_path: Path
) -> None:
    server.down = True
    held = lenient.reserve(ACME, TOOL, usd("0.1"), ttl_ms=1_000, grace_period_ms=0)
    assert lenient.extend(held.reservation_id or "", 500).remaining_ttl_ms > 1_000
    server.down = False
    other = connect(journal=lenient._journal.folder and tmp_path)
    assert other.flush_journal(0.1).waiting == 1, "its lease still runs"
    assert other.flush_journal(5).settled == 1
    assert server.charged == usd("0.1").amount


def test_units_and_ends_are_those_of_a_reservation(server: FaultyServer, lenient: RemoteAuthority) -> None:
    server.down = True
    held = lenient.reserve(ACME, TOOL, usd("0.1")).reservation_id or ""
    with pytest.raises(UnitMismatch):
        lenient.commit(held, tokens(1))
    assert lenient.commit(held, usd("0.1")).status == "APPLIED"
    with pytest.raises(ReservationFinalized):
        lenient.commit(held, usd("0.1"))
    assert lenient.stopped([held]) == {}


def test_the_allowance_is_per_time(server: FaultyServer, connect: Open) -> None:
    client = connect(timeout_ms=100, on_outage={"tool.call": Allowance(usd(1), every_s=60)})
    now = [1000.0]
    client._outage._clock = lambda: now[0]
    server.down = True
    assert client.reserve(ACME, TOOL, usd(1)).allowed
    with pytest.raises(AuthorityUnavailable):
        client.reserve(ACME, TOOL, usd(1))
    now[0] += 60
    assert client.reserve(ACME, TOOL, usd(1)).allowed

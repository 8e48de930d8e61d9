"""What a guard over HTTP does and logs where nobody said no: an outage, an answer that cannot be read, and a limit."""

from __future__ import annotations

import logging
import time
from pathlib import Path

import pytest

from clearance.errors import AuthorityUnavailable, BadAnswer, BudgetExceeded, Denied, LimitExceeded
from clearance.model.amount import usd
from clearance.remote import RemoteAuthority
from remote.conftest import ACME, TOOL, Open, eventually
from remote.faulty import FaultyServer

THREE = {
    "refuse": (AuthorityUnavailable, "got no answer (AuthorityUnavailable)"),
    "garbage": (BadAnswer, "got an answer that cannot be read (BadAnswer)"),
    "429:60": (LimitExceeded, "was put off by a limit (LimitExceeded)"),
}


@pytest.fixture
def client(connect: Open, tmp_path: Path) -> RemoteAuthority:
    return connect(journal=tmp_path, timeout_ms=300)


@pytest.mark.parametrize("fault", [*THREE, "409:BUDGET_EXCEEDED"])
def test_entering_tells_outage_denial_and_bad_answer_apart(
    server: FaultyServer, client: RemoteAuthority, fault: str
) -> None:
    kind = THREE[fault][0] if fault in THREE else BudgetExceeded
    server.fail("reserve", *[fault] * 3)
    answered = []
    guarded = client.guard(TOOL, "1", subject=ACME, on_deny=lambda denied: answered.append(type(denied)))
    ran: list[int] = []
    if issubclass(kind, Denied):
        guarded(lambda: ran.append(1))()
        assert answered == [kind]
    else:
        with pytest.raises(kind):
            guarded(lambda: ran.append(1))()
        assert answered == []
    assert ran == []


@pytest.mark.parametrize("fault", THREE)
def test_a_settlement_that_nobody_refused_is_kept_and_not_logged_as_refused(
    server: FaultyServer, client: RemoteAuthority, caplog: pytest.LogCaptureFixture, fault: str
) -> None:
    server.fail("commit", *[fault] * 3)
    with caplog.at_level(logging.DEBUG, "clearance.guard"):
        with client.guard(TOOL, "1", subject=ACME) as permit:
            permit.settle("0.5")
        told = [it for it in caplog.records if it.levelno >= logging.WARNING]
    (line,) = told
    assert THREE[fault][1] in line.getMessage()
    assert "refused" not in line.getMessage()
    server.faults.clear()
    if fault != "429:60":
        assert client.flush(10)
        assert server.charged == usd("0.5").amount
    assert len({seen.key for seen in server.of("commit")}) == 1


def test_nothing_is_sent_before_the_time_that_a_limit_names(server: FaultyServer, client: RemoteAuthority) -> None:
    server.fail("commit", "429:2")
    with client.guard(TOOL, "1", subject=ACME) as permit:
        permit.settle("0.5")
    eventually(lambda: server.charged == usd("0.5").amount)
    first, *_, last = server.of("commit")
    assert len(server.of("commit")) == 2
    assert last.at - first.at >= 1.99


@pytest.mark.parametrize("fault", ["garbage", "429:0"])
def test_a_release_that_nobody_refused_is_made_later(server: FaultyServer, client: RemoteAuthority, fault: str) -> None:
    server.fail("release", *[fault] * 3)
    with client.guard(TOOL, "1", subject=ACME) as permit:
        permit.release("not needed")
    eventually(lambda: [row["status"] for row in server.rows.values()] == ["RELEASED"])


@pytest.mark.parametrize("fault", THREE)
def test_a_lease_is_extended_again_after_it(server: FaultyServer, connect: Open, fault: str) -> None:
    client = connect(timeout_ms=300)
    for _ in list(THREE)[: list(THREE).index(fault)]:  # the process knows leases by id, and every server begins at 1
        client.reserve(ACME, TOOL, usd(1))
    server.fail("extend", *[fault.replace(":60", ":0")] * 3)
    with client.guard(TOOL, "1", subject=ACME, ttl_ms=4000) as permit:
        eventually(lambda: server.count()["extend"] > 3, 8)
        permit.settle("0.5")
    assert server.charged == usd("0.5").amount


def test_a_bad_answer_to_a_reserve_may_hold_and_is_taken_back(server: FaultyServer, client: RemoteAuthority) -> None:
    server.fail("reserve", "empty", "garbage", "garbage")
    with pytest.raises(BadAnswer), client.guard(TOOL, "1", subject=ACME):
        raise AssertionError("nobody said yes")
    eventually(lambda: [row["status"] for row in server.rows.values()] == ["RELEASED"])


@pytest.mark.parametrize("fault", THREE)
def test_observing_lets_the_work_happen(server: FaultyServer, client: RemoteAuthority, fault: str) -> None:
    server.fail("reserve", *[fault] * 3)
    with client.guard(TOOL, "1", subject=ACME, dry_run="observe") as permit:
        permit.settle("0.5")
    deadline = time.monotonic() + 5
    while server.charged != usd("0.5").amount and time.monotonic() < deadline:
        time.sleep(0.02)
    assert server.charged == usd("0.5").amount

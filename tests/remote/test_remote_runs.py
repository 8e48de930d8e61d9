"""Runs at a server that knows none: one reservation there, the slices kept here with the same ledger."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from clearance.errors import AuthorityUnavailable, BudgetExceeded, InvalidRequest, NotFound, ReservationFinalized
from clearance.model.amount import usd
from clearance.remote import NotOffered, RemoteAuthority
from remote.conftest import ACME, TOOL, Open, end, eventually, launch, records
from remote.faulty import FaultyServer


def test_a_run_is_one_reservation_and_one_commit(server: FaultyServer, remote: RemoteAuthority) -> None:
    with remote.run(ACME, "5") as run:
        for _ in range(3):
            with remote.guard(TOOL, "1") as permit:
                permit.settle("0.5")
        with remote.run(None, "2", name="inner"):
            with remote.guard(TOOL, "2") as permit:
                permit.settle("1")
            with pytest.raises(BudgetExceeded), remote.guard(TOOL, "1.5"):
                raise AssertionError("the slice is used up")
        remote.event(ACME, TOOL, usd("0.25"), run_id=run.id)
    assert server.count() == {"capabilities": 1, "reserve": 1, "commit": 1}
    assert server.charged == usd("2.75").amount
    assert run.settlement is not None
    assert run.settlement.charged == usd("2.75").amount
    assert server.open == []
    assert records(remote._journal.folder or Path()) == []


def test_the_budget_of_the_run_is_enforced_here(server: FaultyServer, remote: RemoteAuthority) -> None:
    with remote.run(ACME, "1") as run:
        with remote.guard(TOOL, "1") as permit:
            permit.settle("1")
        with pytest.raises(BudgetExceeded) as caught, remote.guard(TOOL, "0.01"):
            raise AssertionError
        assert caught.value.details["remaining"] == 0
        assert remote.dry_run(ACME, TOOL, usd(1), run_id=run.id).reason_code == "BUDGET_EXCEEDED"
    assert server.charged == usd(1).amount


def test_what_a_call_costs_more_is_charged_when_the_run_ends(server: FaultyServer, remote: RemoteAuthority) -> None:
    with remote.run(ACME, "1"), remote.guard(TOOL, "1") as permit:
        permit.settle("3")
    assert server.charged == usd(3).amount


def test_the_budget_there_decides_about_the_run(server: FaultyServer, remote: RemoteAuthority) -> None:
    server.budget = usd(1).amount
    with pytest.raises(BudgetExceeded), remote.run(ACME, "5"):
        raise AssertionError


def test_a_run_without_a_budget_is_a_name(server: FaultyServer, remote: RemoteAuthority) -> None:
    with remote.run(ACME) as run:
        with remote.guard(TOOL, "1") as permit:
            permit.settle("0.5")
        with remote.run(None, "2"), remote.guard(TOOL, "1") as permit:
            permit.settle("0.25")
    assert run.settlement is not None
    assert server.count() == {"capabilities": 1, "reserve": 2, "commit": 2}
    assert server.charged == usd("0.75").amount


def test_by_the_async_verbs_with_a_lease(server: FaultyServer, remote: RemoteAuthority) -> None:
    async def main() -> None:
        run = await remote.astart_run(ACME, usd(2))
        run_id = run.reservation_id or ""
        assert (await remote.aextend(run_id, 1000)).remaining_ttl_ms > 60_000
        held = await remote.areserve(ACME, TOOL, usd(1), run_id=run_id)
        assert (await remote.aextend(held.reservation_id or "", 1000)).remaining_ttl_ms > 60_000
        await remote.arelease(held.reservation_id or "")
        again = await remote.areserve(ACME, TOOL, usd(2), run_id=run_id)
        await remote.acommit(again.reservation_id or "", usd("1.5"), idempotency_key="once")
        await remote.acommit(again.reservation_id or "", usd("1.5"), idempotency_key="once")
        assert (await remote.aend_run(run_id)).charged == usd("1.5").amount
        await remote.aclose()

    asyncio.run(main())
    assert server.count()["extend"] == 1, "the lease of the run is the server's, those of its calls are ours"
    assert server.charged == usd("1.5").amount


def test_a_run_that_is_over_takes_no_more(server: FaultyServer, remote: RemoteAuthority) -> None:
    run_id = remote.start_run(ACME, usd(1)).reservation_id or ""
    server.fail("commit", "503", "503", "503")
    held = remote.reserve(ACME, TOOL, usd(1), run_id=run_id)
    remote.commit(held.reservation_id or "", usd("0.5"))
    with pytest.raises(AuthorityUnavailable):
        remote.end_run(run_id)
    with pytest.raises(ReservationFinalized):
        remote.reserve(ACME, TOOL, usd("0.1"), run_id=run_id)
    assert remote.end_run(run_id).charged == usd("0.5").amount
    with pytest.raises(NotFound):
        remote.end_run("run_unknown")
    assert len({key for _, key in server.settlements()}) == 1
    assert server.charged == usd("0.5").amount


def test_a_crash_forgets_no_spend_of_a_run(server: FaultyServer, tmp_path: Path, connect: Open) -> None:
    child = launch("worker.py", server.url, tmp_path, "k", "run")
    try:
        assert child.stdout is not None
        assert "spent" in child.stdout.readline()
        (path,) = records(tmp_path)
        child.kill()
    finally:
        end(child)
    client = connect(journal=tmp_path, tenant="acme")
    assert client.flush_journal(0.1).waiting == 1, "its lease still runs: it could be alive"
    assert server.charged == 0
    eventually(lambda: client.flush_journal(1).done, 8)
    assert server.charged == usd("0.75").amount
    assert not path.exists()


def test_stops_are_not_offered_and_it_says_so(server: FaultyServer, remote: RemoteAuthority) -> None:
    held = remote.reserve(ACME, TOOL, usd(1))
    assert remote.stopped([held.reservation_id or ""]) == {}
    with pytest.raises(NotOffered, match="Clearance server"):
        remote.kill("tenant:acme", reason="test")
    assert server.count() == {"reserve": 1, "capabilities": 1}


@pytest.mark.parametrize("fault", ["404:NOT_FOUND", "garbage", "500", "400:INVALID_REQUEST"])
def test_every_way_in_which_a_server_says_that_it_does_not_know_us(
    server: FaultyServer, remote: RemoteAuthority, fault: str
) -> None:
    server.fail("capabilities", *[fault] * 3)
    with remote.run(ACME, "1"):
        pass
    assert server.count()["reserve"] == 1


def test_an_outage_does_not_make_it_a_base_server(server: FaultyServer, remote: RemoteAuthority) -> None:
    server.fail("capabilities", "refuse", "refuse", "refuse")
    with pytest.raises(AuthorityUnavailable), remote.run(ACME, "1"):
        pass
    assert server.count()["reserve"] == 0


def test_a_run_at_a_clearance_server_is_not_opened_twice(server: FaultyServer, connect: Open) -> None:
    server.vendor = True
    client = connect()
    server.fail("start_run", "lost")
    with pytest.raises(AuthorityUnavailable):
        client.start_run(ACME, usd(1))
    assert server.count()["start_run"] == 1


def test_arguments_are_checked_like_everywhere(remote: RemoteAuthority) -> None:
    with pytest.raises(InvalidRequest):
        remote.start_run(ACME, usd(1), ttl_ms=1)
    with pytest.raises(InvalidRequest):
        remote.start_run(ACME, usd(1), name="")

"""Every answer of the authority to a settlement: the money is recorded and the user's result is kept."""

from __future__ import annotations

import asyncio
import gc
import logging
from typing import Any

import pytest

from clearance.errors import (
    AuthorityUnavailable,
    BudgetExceeded,
    NotFound,
    OverdraftLimitExceeded,
    ReservationExpired,
    ReservationFinalized,
)
from clearance.guard import Commit, Release, aopen_permit, open_permit
from clearance.guard.heartbeat import Scheduler
from clearance.model.amount import usd


def work(authority: Any, acme: Any, mode: str, actual: int | None = 7) -> int:
    guard = authority.guard("llm.completion:x", 30, subject=acme, actual=actual)
    if mode == "sync":
        return guard(lambda: 42)()  # type: ignore[no-any-return]

    async def body() -> int:
        return 42

    return asyncio.run(guard(body)())


both = pytest.mark.parametrize("mode", ["sync", "async"])


@pytest.mark.parametrize("error", [ReservationExpired("late"), NotFound("forgotten by a power cut")])
@both
def test_an_expired_or_forgotten_reservation_settles_as_an_event_with_the_same_key(
    authority: Any, acme: Any, mode: str, error: Exception
) -> None:
    authority.failures["commit"] = [error]
    assert work(authority, acme, mode) == 42
    (event,) = authority.events
    commit = next(options for verb, options in authority.calls if verb == "commit")
    assert (event["actual"], event["subject"], event["action"].kind) == (7, acme, "llm.completion")
    assert event["idempotency_key"] == commit["idempotency_key"]
    assert event["metadata"] == {"settled_as": "actual", "reservation_id": "call_1"}


@both
def test_a_reservation_settled_by_someone_else_is_only_logged(
    authority: Any, acme: Any, mode: str, caplog: pytest.LogCaptureFixture
) -> None:
    authority.failures["commit"] = [ReservationFinalized("done")]
    assert work(authority, acme, mode) == 42
    assert [record.levelno for record in caplog.records] == [logging.WARNING]


@both
@pytest.mark.parametrize("refusal", [BudgetExceeded, OverdraftLimitExceeded])
def test_a_refused_overage_is_recorded_beside_what_was_held(
    authority: Any, acme: Any, mode: str, refusal: type[Exception]
) -> None:
    authority.failures["commit"] = [refusal("too much")]
    assert work(authority, acme, mode, actual=100) == 42
    row, (event,) = authority.only(), authority.events
    assert (row.status, row.actual, event["actual"]) == ("COMMITTED", 30, 70)
    assert event["overage_policy"] == "ALLOW_IF_AVAILABLE"
    assert (row.metadata["actual"], event["metadata"]["overage_of"]) == (100, row.id)


@both
@pytest.mark.parametrize("fault", [NotFound("what"), RuntimeError("bug")])
def test_no_fault_of_the_settlement_takes_the_result(authority: Any, acme: Any, mode: str, fault: Exception) -> None:
    authority.failures["commit"] = [fault]
    assert work(authority, acme, mode) == 42


@pytest.mark.parametrize("fault", [NotFound("what"), RuntimeError("bug"), AuthorityUnavailable("gone")])
def test_no_fault_of_the_settlement_masks_the_bodys_own_error(authority: Any, acme: Any, fault: Exception) -> None:
    authority.failures["commit"] = [fault]
    with pytest.raises(ZeroDivisionError), authority.guard("tool.call:x", 1, subject=acme):
        raise ZeroDivisionError


@both
def test_an_outage_keeps_the_settlement_and_says_so_once(
    authority: Any, acme: Any, mode: str, timed: Scheduler, clock: Any, caplog: pytest.LogCaptureFixture
) -> None:
    authority.failures["commit"] = [AuthorityUnavailable("gone")] * 4
    assert work(authority, acme, mode) == 42
    assert work(authority, acme, mode) == 42
    assert [record.levelno for record in caplog.records] == [logging.ERROR]
    assert len(authority.open()) == 2
    for _ in range(6):
        wait = timed.tick()
        clock.advance(wait or 0.0)
    assert [row.actual for row in authority.rows.values()] == [7, 7]
    keys = [options["idempotency_key"] for verb, options in authority.calls if verb == "commit"]
    assert len(keys) == 6
    assert len(set(keys)) == 2
    assert timed.tick() is None


def test_retries_wait_longer_and_longer(authority: Any, acme: Any, timed: Scheduler, clock: Any) -> None:
    authority.failures["commit"] = [AuthorityUnavailable("gone")] * 12
    work(authority, acme, "sync")
    tries, began = [], clock.now
    while (wait := timed.tick()) is not None:
        commits = authority.count()["commit"]
        if commits > len(tries):
            tries.append(round(clock.now - began, 1))
        clock.advance(wait)
    assert tries[1:] == [0.1, 0.3, 0.7, 1.5, 3.1, 6.3, 12.7, 25.5, 51.1, 81.1, 111.1]
    assert authority.only().status == "COMMITTED"


def test_a_lost_answer_is_settled_once(authority: Any, acme: Any, timed: Scheduler) -> None:
    authority.lost_answers["commit"] = [AuthorityUnavailable("timeout")]
    work(authority, acme, "sync")
    assert authority.flush(1)
    assert (authority.count()["commit"], authority.only().keys) == (2, authority.only().keys[:1])


def test_a_commit_that_expires_during_the_outage_becomes_an_event(authority: Any, acme: Any, timed: Scheduler) -> None:
    authority.failures["commit"] = [AuthorityUnavailable("gone")]
    work(authority, acme, "sync")
    authority.only().status = "EXPIRED"
    assert authority.flush(1)
    assert [event["actual"] for event in authority.events] == [7]


def test_flush_gives_up_in_time(authority: Any, acme: Any, timed: Scheduler) -> None:
    authority.failures["commit"] = [AuthorityUnavailable("gone")] * 1000
    work(authority, acme, "sync")
    assert not authority.flush(0.05)
    authority.failures.clear()
    assert authority.flush(0.05)
    assert authority.open() == []


def test_the_queue_is_bounded(authority: Any, acme: Any, timed: Scheduler, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("clearance.guard.arrears.MAX_JOBS", 3)
    authority.failures["commit"] = [AuthorityUnavailable("gone")] * 5
    for _ in range(5):
        work(authority, acme, "sync")
    assert authority.flush(1)
    assert len(authority.open()) == 2


# --- permits without a guard


def test_finish_settles_once_however_often_it_is_called(authority: Any, acme: Any) -> None:
    permit = open_permit(authority, "tool.call:x", 5, subject=acme)
    assert permit.finish(Commit(usd("0.01"))) is not None
    assert permit.finish(Release("again")) is None
    assert permit.settle_now(3) is None
    assert permit.release() is None
    assert authority.count() == {"reserve": 1, "commit": 1}


def test_async_permits_do_the_same(authority: Any, acme: Any) -> None:
    async def main() -> None:
        permit = await aopen_permit(authority, "tool.call:x", 5, subject=acme)
        await permit.arelease("cached")
        await permit.afinish(Release("again"))
        other = await aopen_permit(authority, "tool.call:x", 5, subject=acme)
        settlement = await other.asettle_now(3)
        assert settlement is not None
        assert settlement.actual == 3

    asyncio.run(main())
    assert authority.count() == {"reserve": 2, "release": 1, "commit": 1}


def test_settling_inside_the_block_leaves_nothing_for_the_end(authority: Any, acme: Any) -> None:
    with authority.guard("tool.call:x", 5, subject=acme) as permit:
        permit.release("not needed")
    assert authority.only().status == "RELEASED"


def test_a_dropped_permit_is_charged(authority: Any, acme: Any, timed: Scheduler) -> None:
    permit = open_permit(authority, "tool.call:x", 5, subject=acme)
    other = open_permit(authority, "tool.call:x", 5, subject=acme)
    other.settle(3)
    del permit, other
    gc.collect()
    timed.tick()
    assert [row.actual for row in authority.rows.values()] == [5, 3]
    assert authority.rows["call_1"].metadata == {"settled_as": "estimate", "error": "Dropped"}


# --- interrupted while asking


@pytest.mark.parametrize("arrives", ["failures", "lost_answers"])
@pytest.mark.parametrize("interrupt", [KeyboardInterrupt(), AuthorityUnavailable("timeout")])
def test_a_reserve_that_got_no_answer_holds_nothing(
    authority: Any, acme: Any, timed: Scheduler, arrives: str, interrupt: BaseException
) -> None:
    getattr(authority, arrives)["reserve"] = [interrupt]
    with pytest.raises(type(interrupt)):
        authority.guard("tool.call:x", 5, subject=acme)(lambda: pytest.fail("ran"))()
    timed.tick()
    assert authority.open() == []
    assert authority.only().status == "RELEASED"


def test_an_interrupt_while_settling_is_raised_and_the_settlement_kept(
    authority: Any, acme: Any, timed: Scheduler
) -> None:
    authority.failures["commit"] = [KeyboardInterrupt()]
    with pytest.raises(KeyboardInterrupt):
        work(authority, acme, "sync")
    timed.tick()
    assert authority.only().actual == 7


def test_a_coroutine_that_is_closed_settles_without_waiting(authority: Any, acme: Any) -> None:
    began: list[bool] = []

    async def forever() -> None:
        async with authority.guard("tool.call:x", 5, subject=acme):
            began.append(True)
            await asyncio.sleep(0)

    async def main() -> None:
        coroutine = forever()
        while not began:
            coroutine.send(None)
        coroutine.close()

    asyncio.run(main())
    assert authority.only().status == "COMMITTED"

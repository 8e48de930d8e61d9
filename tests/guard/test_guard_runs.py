"""Runs, who acts in them, and how they travel."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from clearance.errors import AuthorityUnavailable, BudgetExceeded, InvalidRequest, ReservationExpired, SubjectMissing
from clearance.guard import acting_as, current_run, current_subject, open_permit
from clearance.guard.desk import desk_of
from clearance.guard.heartbeat import Scheduler
from clearance.model.amount import tokens, usd
from clearance.model.subject import Subject


def call(authority: Any, cost: int = 1, **options: Any) -> Any:
    """One guarded call; answers its row."""
    authority.guard("tool.call:x", cost, **options)(lambda: None)()
    return list(authority.rows.values())[-1]


def test_a_guard_inside_a_run_finds_run_and_subject(authority: Any, acme: Any) -> None:
    with authority.run(acme, budget=usd(5), name="job") as run:
        row = call(authority)
        assert (row.run_id, row.subject) == (run.id, acme)
        assert (current_run(), current_subject()) == (run, acme)
    assert (current_run(), current_subject()) == (None, None)
    assert authority.count() == {"start_run": 1, "reserve": 1, "commit": 1, "end_run": 1}


def test_async_runs_do_the_same(authority: Any, acme: Any) -> None:
    async def main() -> None:
        async with authority.run(acme, budget=usd(5)) as run:
            assert await asyncio.create_task(inner()) == run.id

    async def inner() -> str:
        async with authority.guard("tool.call:x", 1):
            return list(authority.rows.values())[-1].run_id or ""

    asyncio.run(main())
    assert authority.open() == []


def test_an_inner_run_is_a_slice_of_the_outer_one(authority: Any, acme: Any) -> None:
    with authority.run(acme, budget=usd(5)) as outer:
        with authority.run(budget=usd(1)) as inner:
            assert authority.rows[inner.id].run_id == outer.id
            assert inner.subject == acme
            assert call(authority).run_id == inner.id
            assert call(authority, run=outer).run_id == outer.id
        assert call(authority).run_id == outer.id


def test_the_nearest_subject_goes_first(authority: Any, acme: Any) -> None:
    other, third = Subject(tenant="acme", agent="other"), Subject(tenant="acme", agent="third")
    with authority.run(acme) as run:
        with acting_as(other):
            assert call(authority).subject == other
            assert call(authority, subject=third).subject == third
            assert call(authority, run=run).subject == acme
        assert call(authority).subject == acme
    with authority.acting_as(other), authority.run() as run:
        assert run.subject == other


def test_a_subject_without_a_tenant_is_filled_in_from_the_run(authority: Any) -> None:
    with authority.run(Subject(tenant="acme", app="desk")):
        row = call(authority, subject=Subject(agent="helper"))
        assert row.subject.scope_path == "tenant:acme/app:desk/agent:helper"


def test_another_tenant_inside_a_run_is_refused(authority: Any, acme: Any) -> None:
    with authority.run(acme):
        with pytest.raises(InvalidRequest, match="another tenant"):
            call(authority, subject=Subject(tenant="rival"))
        with acting_as(Subject(tenant="rival")), pytest.raises(InvalidRequest), authority.run():
            pytest.fail("ran")


def test_a_run_of_another_authority_is_not_ours(authority: Any, acme: Any) -> None:
    other = type(authority)()
    with other.run(acme):
        assert call(authority).run_id is None


def test_a_run_needs_somebody_who_acts(authority: Any) -> None:
    with pytest.raises(SubjectMissing), authority.run():
        pytest.fail("ran")


def test_a_denied_run_does_not_begin(authority: Any, acme: Any) -> None:
    authority.budget = 0
    with pytest.raises(BudgetExceeded), authority.run(acme, budget=usd(1)):
        pytest.fail("ran")
    assert current_run() is None


def test_a_run_is_used_once(authority: Any, acme: Any) -> None:
    run = authority.run(acme)
    with run:
        pass
    with pytest.raises(InvalidRequest, match="used before"), run:
        pytest.fail("ran")


def test_what_is_open_at_the_end_is_settled_first(authority: Any, acme: Any) -> None:
    with authority.run(acme, budget=usd(1)) as run:
        unknown = open_permit(authority, "tool.call:x", 5)
        known = open_permit(authority, "tool.call:x", 5)
        known.settle(3)
        inner = authority.run(budget=1)
        inner.__enter__()
    assert [verb for verb, _ in authority.calls][-4:] == ["end_run", "commit", "commit", "end_run"]
    assert [authority.rows[permit.id].actual for permit in (unknown, known)] == [5, 3]
    assert authority.rows[unknown.id].metadata == {"settled_as": "estimate", "error": "RunEnded"}
    assert (run.over, inner.over, authority.open()) == (True, True, [])
    assert unknown.release() is None


@pytest.mark.parametrize("fault", [AuthorityUnavailable("gone"), ReservationExpired("late"), RuntimeError("bug")])
def test_no_fault_at_the_end_masks_the_bodys_error(authority: Any, acme: Any, fault: Exception) -> None:
    authority.failures["end_run"] = [fault]
    with pytest.raises(ZeroDivisionError), authority.run(acme):
        raise ZeroDivisionError


def test_an_outage_at_the_end_is_tried_again(authority: Any, acme: Any, timed: Scheduler) -> None:
    authority.failures["end_run"] = [AuthorityUnavailable("gone")]
    with authority.run(acme):
        pass
    assert authority.flush(1)
    assert authority.open() == []


def test_the_report_counts_what_was_settled_here(authority: Any, acme: Any) -> None:
    with authority.run(acme) as outer:
        call(authority, 10, actual=4)
        with authority.run() as inner:
            authority.guard("llm.completion:x", tokens(9), actual=tokens(7))(lambda: None)()
        open_permit(authority, "tool.call:x", 1).release()
    assert [(line.kind, line.calls, line.estimate, line.actual) for line in outer.report().lines] == [
        ("llm.completion", 1, 9, 7),
        ("tool.call", 1, 10, 4),
    ]
    assert (inner.report().calls, outer.report().calls, outer.report().spent().amount) == (1, 2, 4)


def test_carry_takes_the_run_into_threads_and_executors(authority: Any, acme: Any) -> None:
    with authority.run(acme) as run, ThreadPoolExecutor(4) as pool:
        assert set(pool.map(run.carry(lambda _: call(authority).run_id), range(20))) == {run.id}
        assert pool.submit(current_run).result() is None
        seen: list[Any] = []
        thread = threading.Thread(target=run.carry(lambda: seen.append(current_run())))
        thread.start()
        thread.join()
    assert seen == [run]


def test_carry_takes_coroutines_to_other_loops(authority: Any, acme: Any) -> None:
    async def who() -> Any:
        await asyncio.sleep(0)
        return current_run()

    with authority.run(acme) as run, ThreadPoolExecutor(1) as pool:
        carried = run.carry(who)
        assert pool.submit(lambda: asyncio.run(carried())).result() is run


def test_a_task_that_outlives_its_run_falls_back_to_what_is_around(authority: Any, acme: Any) -> None:
    outside = Subject(tenant="acme", agent="outside")

    async def late(ended: asyncio.Event) -> Any:
        await ended.wait()
        return current_run(), current_subject()

    async def main() -> Any:
        ended = asyncio.Event()
        async with authority.run(acme):
            task = asyncio.create_task(late(ended))
        ended.set()
        return await task

    with acting_as(outside):
        assert asyncio.run(main()) == (None, outside)


def test_a_run_may_begin_in_one_task_and_end_in_another(authority: Any, acme: Any) -> None:
    async def main() -> None:
        run = authority.run(acme)
        guard = authority.guard("tool.call:x", 1, subject=acme)
        await asyncio.create_task(run.__aenter__())
        permit = await asyncio.create_task(guard.__aenter__())
        permit.settle(1)
        await asyncio.create_task(guard.__aexit__(None, None, None))
        await asyncio.create_task(run.__aexit__(None, None, None))

    asyncio.run(main())
    assert authority.open() == []


def test_a_run_that_is_cancelled_while_it_opens_is_ended(authority: Any, acme: Any) -> None:
    authority.pause_s = 0.05

    async def main() -> None:
        async def work() -> None:
            async with authority.run(acme, budget=10):
                raise AssertionError("the run was cancelled before it opened")

        task = asyncio.create_task(work())
        while not authority.rows:  # noqa: ASYNC110 - it has no event to wait for
            await asyncio.sleep(0.001)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    assert desk_of(authority).arrears.flush(5)
    assert not authority.open()
    assert len(authority.rows) == 1, "asked again with the same key"

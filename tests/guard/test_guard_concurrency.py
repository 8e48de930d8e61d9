"""Real threads, real tasks, real cancellations, a real fork."""

from __future__ import annotations

import asyncio
import os
import threading
from collections import Counter
from typing import Any

import pytest

from clearance.errors import Killed, Paused
from clearance.guard import Commit, acting_as, open_permit
from clearance.guard.desk import Desk, seat
from clearance.guard.heartbeat import Scheduler
from clearance.model.amount import usd
from clearance.model.results import Stop

STOP = Stop("tenant:acme", "acme", "KILLED", "test", "tester", 0)


def test_many_threads_settle_each_call_once(authority: Any, acme: Any) -> None:
    @authority.guard("tool.call:x", 10, actual=3)
    def work() -> None:
        pass

    def loop() -> None:
        with acting_as(acme):
            for _ in range(100):
                work()

    threads = [threading.Thread(target=loop) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert authority.count() == {"reserve": 800, "commit": 800}
    assert authority.open() == []


def test_many_threads_finish_one_permit_once(authority: Any, acme: Any) -> None:
    permit = open_permit(authority, "tool.call:x", 10, subject=acme)
    barrier, answers = threading.Barrier(8), []

    def finish() -> None:
        barrier.wait()
        answers.append(permit.finish(Commit(usd(1))))

    threads = [threading.Thread(target=finish) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(answer is not None for answer in answers) == 1
    assert authority.count()["commit"] == 1


def test_two_hundred_tasks_a_third_cancelled_leave_nothing_open(authority: Any, acme: Any) -> None:
    authority.pause_s = 0.002

    @authority.guard("tool.call:x", 10, actual=3, subject=acme)
    async def work() -> None:
        await asyncio.sleep(0.005)

    async def cancel_soon(task: asyncio.Task[None], n: int) -> None:
        await asyncio.sleep(0.0004 * (n % 40))  # before, during and after reserve, body and commit
        task.cancel()

    async def main() -> Counter[str]:
        tasks = [asyncio.create_task(work()) for _ in range(200)]
        killers = [asyncio.create_task(cancel_soon(task, n)) for n, task in enumerate(tasks) if n % 3 == 0]
        results = await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.gather(*killers)
        return Counter(type(result).__name__ for result in results)

    results = asyncio.run(main())
    assert set(results) == {"NoneType", "CancelledError"}
    assert results["CancelledError"] > 20
    assert authority.flush(5)
    assert authority.open() == []
    by_status = Counter((row.status, row.actual) for row in authority.rows.values())
    assert set(by_status) <= {("COMMITTED", 3), ("COMMITTED", 10), ("RELEASED", None)}


# --- a stop and everybody else's cancellations


def in_a_task(authority: Any, acme: Any, body: Any) -> Any:
    """Runs `body(permit)` in an `async with` in a task; answers the task's error and the row."""

    async def work() -> None:
        async with authority.guard("tool.call:x", 10, subject=acme) as permit:
            await body(permit)

    async def main() -> Any:
        return await asyncio.gather(work(), return_exceptions=True)

    return asyncio.run(main())[0]


def test_the_users_own_cancel_stays_a_cancel(authority: Any, acme: Any) -> None:
    async def body(permit: Any) -> None:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        await asyncio.sleep(30)

    assert isinstance(in_a_task(authority, acme, body), asyncio.CancelledError)


def test_a_stop_and_the_users_cancel_together_stay_a_cancel(authority: Any, acme: Any) -> None:
    async def body(permit: Any) -> None:
        task = asyncio.current_task()
        assert task is not None
        permit.mark(STOP)
        asyncio.get_running_loop().call_soon(task.cancel)
        await asyncio.sleep(30)

    assert isinstance(in_a_task(authority, acme, body), asyncio.CancelledError)


def test_a_timeout_around_a_stop_is_still_told_apart(authority: Any, acme: Any) -> None:
    async def body(permit: Any) -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await asyncio.sleep(30)
        permit.mark(STOP)
        async with asyncio.timeout(30):
            await asyncio.sleep(30)

    assert isinstance(in_a_task(authority, acme, body), Killed)


def test_a_stop_reaches_a_task_group(authority: Any, acme: Any) -> None:
    ended: list[str] = []

    async def child() -> None:
        try:
            await asyncio.sleep(30)
        finally:
            ended.append("child")

    async def body(permit: Any) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(child())
            await asyncio.sleep(0)
            permit.mark(STOP)
            await asyncio.sleep(30)

    assert isinstance(in_a_task(authority, acme, body), Killed)
    assert ended == ["child"]


def test_work_that_swallows_the_stop_goes_on_uncancelled(authority: Any, acme: Any) -> None:
    async def body(permit: Any) -> None:
        permit.mark(STOP)
        with pytest.raises(asyncio.CancelledError):
            await asyncio.sleep(30)
        await asyncio.sleep(0)

    assert in_a_task(authority, acme, body) is None
    assert authority.only().status == "COMMITTED"


def test_nested_stopped_work_is_cancelled_once(authority: Any, acme: Any) -> None:
    async def stopped_with(outer: Any) -> None:
        async with authority.guard("tool.call:inner", 1, subject=acme) as inner:
            paused = Stop("tenant:acme", "acme", "PAUSED", "test", "tester", 0)
            outer.mark(paused)
            inner.mark(paused)
            await asyncio.sleep(30)

    async def body(outer: Any) -> None:
        with pytest.raises(Paused):
            await stopped_with(outer)
        task = asyncio.current_task()
        assert task is not None
        assert task.cancelling() == 0
        await asyncio.sleep(0)

    assert in_a_task(authority, acme, body) is None
    assert authority.open() == []


def test_a_stop_after_the_body_cancels_nothing(authority: Any, acme: Any) -> None:
    async def body(permit: Any) -> None:
        permit.mark(STOP)

    authority.pause_s = 0.005
    assert in_a_task(authority, acme, body) is None


def test_observed_work_is_not_cancelled(authority: Any, acme: Any) -> None:
    async def main() -> None:
        async with authority.guard("tool.call:x", 10, subject=acme, dry_run="observe") as permit:
            permit.mark(STOP)
            await asyncio.sleep(0.01)
            permit.check()

    asyncio.run(main())


def test_a_kill_is_noticed_by_two_loops_in_two_threads(authority: Any, acme: Any) -> None:
    seat(authority, Desk(Scheduler()))
    errors: list[BaseException] = []
    started = threading.Barrier(3)

    @authority.guard("tool.call:x", 10, subject=acme)
    async def work() -> None:
        started.wait()
        await asyncio.sleep(30)

    def loop() -> None:
        try:
            asyncio.run(work())
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=loop) for _ in range(2)]
    for thread in threads:
        thread.start()
    started.wait()
    authority.kill("tenant:acme")
    for thread in threads:
        thread.join(5)
    assert [type(error) for error in errors] == [Killed, Killed]
    assert authority.open() == []


# --- fork


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_neither_settles_nor_shares_what_is_its_parents(authority: Any, acme: Any) -> None:
    def in_child() -> bool:
        before = len(authority.calls)
        permit.finish(Commit(usd(1)))
        guard.__exit__(None, None, None)
        run.__exit__(None, None, None)
        untouched = len(authority.calls) == before and not permit.over
        with authority.guard("tool.call:child", 1, subject=acme) as own:
            fresh = authority._guard_desk is not desk and own.id != permit.id
        return untouched and fresh and authority.rows[own.id].status == "COMMITTED"

    with authority.run(acme) as run:
        guard = authority.guard("tool.call:x", 10)
        permit = guard.__enter__()
        desk = authority._guard_desk
        pid = os.fork()
        if pid == 0:
            try:
                os._exit(0 if in_child() else 1)
            finally:
                os._exit(2)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        guard.__exit__(None, None, None)
    assert authority.rows[permit.id].status == "COMMITTED"
    assert authority.open() == []

"""The async twins: the same answers, on any loop, and a cancelled caller loses nothing."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.authority.kit import ACME, CALL, budget, figures, hold

from clearance.authority.batch import Operation
from clearance.authority.embedded import EmbeddedAuthority
from clearance.errors import BudgetExceeded, ClearanceError, StoreError
from clearance.model.amount import tokens
from clearance.store.sqlite import MEMORY, SqliteStore


def test_each_verb_has_an_async_twin_with_the_same_answer(authority: EmbeddedAuthority) -> None:
    budget(authority)

    async def all_of_them() -> list[Any]:
        ask = (ACME, CALL, tokens(10))
        first, second = await authority.areserve(*ask), await authority.areserve(*ask)
        run = await authority.astart_run(ACME, tokens(5))
        return [
            (await authority.adry_run(*ask)).decision,
            (await authority.adecide(*ask)).decision,
            (await authority.aextend(str(first.reservation_id), 1000)).remaining_ttl_ms,
            (await authority.acommit(str(first.reservation_id), tokens(4))).charged,
            (await authority.arelease(str(second.reservation_id))).released,
            (await authority.aevent(*ask)).charged,
            (await authority.aend_run(str(run.reservation_id))).charged,
        ]

    assert asyncio.run(all_of_them()) == ["ALLOW", "ALLOW", 61_000, 4, 10, 10, 0]
    assert figures(authority) == (986, 0, 14, 0)


def test_many_tasks_share_what_there_is(authority: EmbeddedAuthority) -> None:
    budget(authority, amount=1000)

    async def all_of_them() -> list[Any]:
        calls = (authority.areserve(ACME, CALL, tokens(30)) for _ in range(50))
        return await asyncio.gather(*calls, return_exceptions=True)

    found = asyncio.run(all_of_them())
    assert sum(isinstance(it, BudgetExceeded) for it in found) == 17
    assert figures(authority) == (10, 990, 0, 0)


def test_tasks_and_threads_mix_and_every_loop_is_served(authority: EmbeddedAuthority) -> None:
    budget(authority)

    def loop() -> None:
        asyncio.run(several())

    async def several() -> None:
        await asyncio.gather(*(authority.aevent(ACME, CALL, tokens(1)) for _ in range(20)))

    def plain() -> None:
        for _ in range(20):
            authority.event(ACME, CALL, tokens(1))

    threads = [threading.Thread(target=target) for target in (loop, plain, loop, plain)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert figures(authority) == (920, 0, 80, 0)


async def queued(authority: EmbeddedAuthority, count: int) -> None:
    for _ in range(10_000):
        if len(authority._batch._queue) >= count:
            return
        await asyncio.sleep(0)
    raise AssertionError("nothing came")


def test_a_cancelled_caller_does_not_undo_what_it_asked_for(open_ledger: Callable[[str], EmbeddedAuthority]) -> None:
    authority = open_ledger(MEMORY)
    budget(authority)
    entered, go = threading.Event(), threading.Event()
    blocking = Operation(lambda _: entered.set() or go.wait(20), True)

    async def cancel_in_mid_queue() -> None:
        leader = asyncio.create_task(asyncio.to_thread(authority._batch.run, blocking))
        await asyncio.to_thread(entered.wait, 20)
        asked = asyncio.create_task(authority.aevent(ACME, CALL, tokens(10)))
        neighbour = asyncio.create_task(authority.aevent(ACME, CALL, tokens(5)))
        await queued(authority, 2)
        asked.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asked
        go.set()
        assert (await neighbour).charged == 5
        assert await leader is True

    asyncio.run(cancel_in_mid_queue())
    assert figures(authority) == (985, 0, 15, 0)


def counting_threads(authority: EmbeddedAuthority, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The thread of each batch."""
    found: list[int] = []
    execute = authority._batch._execute

    def counted(batch: Any, *args: Any, **options: Any) -> None:
        execute(batch, *args, **options)
        found.append(threading.get_ident())

    monkeypatch.setattr(authority._batch, "_execute", counted)
    return found


def spend_twice_and_together(authority: EmbeddedAuthority) -> None:
    async def spend() -> None:
        for _ in range(2):
            await authority.aevent(ACME, CALL, tokens(1))
        await asyncio.gather(*(authority.aevent(ACME, CALL, tokens(1)) for _ in range(20)))

    asyncio.run(spend())
    assert figures(authority) == (978, 0, 22, 0)


@pytest.mark.parametrize("place", ["ledger.db", MEMORY])
def test_who_need_not_wait_is_answered_on_the_loop_itself(
    place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority = EmbeddedAuthority(SqliteStore(MEMORY if place == MEMORY else tmp_path / place))
    budget(authority)
    monkeypatch.setattr(authority._store, "_flush_seconds", 0.0)
    threads = counting_threads(authority, monkeypatch)
    spend_twice_and_together(authority)
    assert threads[0] == threading.get_ident()
    assert len(threads) < 22, "those of one turn of the loop share a batch"
    assert threads[-1] != threading.get_ident(), "for so many a thread waits for the disk"
    authority.close()


def test_a_hold_and_its_settlement_take_one_turn_of_the_loop_and_more_takes_another() -> None:
    authority = EmbeddedAuthority(SqliteStore(MEMORY), background=False)
    budget(authority)
    others: list[str] = []

    async def spend() -> list[list[str]]:
        asyncio.get_running_loop().call_soon(others.append, "another")
        seen = []
        held = await authority.areserve(ACME, CALL, tokens(10))
        seen.append([*others])
        await authority.acommit(str(held.reservation_id), tokens(4))
        seen.append([*others])
        await authority.areserve(ACME, CALL, tokens(10))
        return [*seen, [*others]]

    assert asyncio.run(spend()) == [[], [], ["another"]]
    authority.close()


def test_a_loop_is_not_held_up_by_a_slow_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    authority = EmbeddedAuthority(SqliteStore(tmp_path / "ledger.db"), durability="power")
    budget(authority)
    store: Any = authority._store
    commit = store._transaction.commit

    def slow() -> float:
        time.sleep(0.02)
        return 0.02 + float(commit())

    monkeypatch.setattr(store._transaction, "commit", slow)
    threads = counting_threads(authority, monkeypatch)
    spend_twice_and_together(authority)
    assert threading.get_ident() not in threads
    authority.close()


def test_a_loop_is_not_held_up_by_who_has_the_ledger(authority: EmbeddedAuthority) -> None:
    budget(authority)
    store: Any = authority._store
    store._flush_seconds = 0.0
    turns = 0

    async def ask_while_it_is_held() -> None:
        nonlocal turns
        entered, go = threading.Event(), threading.Event()

        def hold_it() -> None:
            with authority._store.transaction(flush=False):
                entered.set()
                go.wait(20)

        holder = asyncio.create_task(asyncio.to_thread(hold_it))
        await asyncio.to_thread(entered.wait, 20)
        asked = asyncio.create_task(authority.aevent(ACME, CALL, tokens(1)))
        for _ in range(50):
            await asyncio.sleep(0.001)
            turns += 1
        assert not asked.done()
        go.set()
        await holder
        assert (await asked).charged == 1

    asyncio.run(asyncio.wait_for(ask_while_it_is_held(), 20))
    assert turns == 50


def test_a_loop_that_is_gone_holds_nobody_up(open_ledger: Callable[[str], EmbeddedAuthority]) -> None:
    authority = open_ledger(MEMORY)
    budget(authority)
    entered, go = threading.Event(), threading.Event()
    blocking = Operation(lambda _: entered.set() or go.wait(20), True)
    leader = threading.Thread(target=authority._batch.run, args=(blocking,))
    leader.start()
    assert entered.wait(20)

    async def ask_and_leave() -> None:
        asyncio.get_running_loop().create_task(authority.aevent(ACME, CALL, tokens(10)))
        await queued(authority, 1)

    asyncio.run(ask_and_leave())
    go.set()
    leader.join(20)
    assert hold(authority, 1)
    assert figures(authority) == (989, 1, 10, 0)


def test_a_loop_that_ends_before_its_turn_holds_nobody_up(authority: EmbeddedAuthority) -> None:
    budget(authority)
    loop = asyncio.new_event_loop()
    asked = [loop.create_task(authority.aevent(ACME, CALL, tokens(1))) for _ in range(5)]
    loop.call_soon(loop.stop)
    loop.run_forever()
    loop.close()
    assert not all(task.done() for task in asked)
    began = time.monotonic()
    assert hold(authority, 1)
    assert asyncio.run(authority.aevent(ACME, CALL, tokens(1))).charged == 1
    assert time.monotonic() - began < 5
    for task in asked:
        task._log_destroy_pending = False  # type: ignore[attr-defined]


def test_closing_answers_what_was_asked(open_ledger: Callable[[str], EmbeddedAuthority]) -> None:
    async def ask_and_close(authority: EmbeddedAuthority) -> Any:
        asked = [asyncio.create_task(authority.aevent(ACME, CALL, tokens(10))) for _ in range(3)]
        await asyncio.sleep(0)
        authority.close()
        return await asyncio.wait_for(asyncio.gather(*asked), 5)

    for _ in range(20):
        authority = open_ledger(MEMORY)
        budget(authority)
        assert [answer.charged for answer in asyncio.run(ask_and_close(authority))] == [10, 10, 10]


def test_after_closing_every_call_says_so(authority: EmbeddedAuthority) -> None:
    authority.close()
    authority.close()
    for refused in (
        lambda: hold(authority, 1),
        lambda: authority.get("rsv_x"),
        lambda: authority.balances(),
        lambda: asyncio.run(authority.aevent(ACME, CALL, tokens(1))),
    ):
        with pytest.raises(StoreError, match="closed"):
            refused()


def test_an_async_denial_is_the_same_error(authority: EmbeddedAuthority) -> None:
    budget(authority, amount=1)
    with pytest.raises(BudgetExceeded) as refused:
        asyncio.run(authority.areserve(ACME, CALL, tokens(5)))
    assert isinstance(refused.value, ClearanceError)
    assert refused.value.details["remaining"] == 1

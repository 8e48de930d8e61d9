"""Group commit: neighbours in one transaction do not spoil each other, and nobody waits for ever."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest
from tests.authority.kit import ACME, CALL, TENANT, budget, events, figures, hold

from clearance.authority import batch
from clearance.authority.batch import GroupCommit, Operation
from clearance.authority.embedded import EmbeddedAuthority
from clearance.errors import AuthorityUnavailable, BudgetExceeded, LimitExceeded, StoreError
from clearance.model.account import Account
from clearance.model.amount import tokens
from clearance.store.interface import Changes, NewEvent, Transaction

LONG = 20.0


class Gate:
    """Holds the store, so that operations pile up and then share one transaction."""

    def __init__(self, group: GroupCommit) -> None:
        self.group = group
        self._inside, self._go = threading.Event(), threading.Event()
        self._pool = ThreadPoolExecutor(64)
        self._leader = self._pool.submit(group.run, Operation(self._wait, False))
        assert self._inside.wait(LONG)

    def _wait(self, _: Transaction) -> None:
        self._inside.set()
        assert self._go.wait(LONG)

    def queue(self, *calls: Callable[[], Any]) -> list[Future[Any]]:
        """Each call waits in the queue, in this order."""
        futures = []
        for call in calls:
            waiting = len(self.group._queue)
            futures.append(self._pool.submit(call))
            until(lambda waiting=waiting: len(self.group._queue) > waiting)
        return futures

    def open(self) -> None:
        self._go.set()
        self._leader.result(LONG)

    def close(self) -> None:
        self._go.set()
        self._pool.shutdown()


def until(true: Callable[[], bool]) -> None:
    pause = threading.Event()
    for _ in range(int(LONG * 1000)):
        if true():
            return
        pause.wait(0.001)
    raise AssertionError("it did not come")


@pytest.fixture
def gate(authority: EmbeddedAuthority) -> Iterator[Gate]:
    budget(authority)
    with contextlib.closing(Gate(authority._batch)) as gate:
        yield gate


def writing(name: str, failing: type[Exception] | None = None) -> Operation[str]:
    """Makes a budget of that name and then, perhaps, fails."""

    def apply(tx: Transaction) -> str:
        scope = f"tenant:{name}"
        tx.write(Changes(accounts=[Account(name, scope, "TOKENS")], events=[NewEvent(name, name, scope, None, {})]), 0)
        if failing:
            raise failing(name)
        return name

    return Operation(apply, True)


def scopes(authority: EmbeddedAuthority) -> set[str]:
    return {b.scope for b in authority.balances().items}


def test_what_waits_together_is_written_in_one_transaction(
    authority: EmbeddedAuthority, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[bool] = []
    original = authority._store.transaction
    monkeypatch.setattr(
        authority._store, "transaction", lambda *, flush, wait: opened.append(flush) or original(flush=flush, wait=wait)
    )
    found = gate.queue(*(lambda: hold(authority, 10) for _ in range(20)))
    gate.open()
    assert len({it.result(LONG) for it in found}) == 20
    assert len(opened) == 1
    assert figures(authority) == (800, 200, 0, 0)


def test_a_refusal_does_not_spoil_its_neighbours(authority: EmbeddedAuthority, gate: Gate) -> None:
    before, refused, after = gate.queue(
        lambda: hold(authority, 600), lambda: hold(authority, 600), lambda: hold(authority, 400)
    )
    gate.open()
    assert isinstance(refused.exception(LONG), BudgetExceeded)
    assert before.result(LONG) != after.result(LONG)
    assert figures(authority) == (0, 1000, 0, 0)


@pytest.mark.parametrize("failing", [ValueError, BudgetExceeded])
def test_an_operation_that_fails_after_its_first_write_is_rolled_back_alone(
    authority: EmbeddedAuthority, gate: Gate, failing: type[Exception]
) -> None:
    run = authority._batch.run
    first, bad, last = gate.queue(
        lambda: run(writing("a")), lambda: run(writing("b", failing)), lambda: run(writing("c"))
    )
    gate.open()
    assert (first.result(LONG), last.result(LONG)) == ("a", "c")
    assert type(bad.exception(LONG)) is failing
    assert scopes(authority) == {TENANT, "tenant:a", "tenant:c"}
    assert [event.type for event in authority.events()][-2:] == ["a", "c"]
    assert [event.seq for event in authority.events()] == [1, 2, 3]


def test_an_operation_that_fails_before_it_writes_leaves_the_transaction_alone(
    authority: EmbeddedAuthority, gate: Gate
) -> None:
    def broken(_: Transaction) -> None:
        raise ZeroDivisionError

    run = authority._batch.run
    good, bad = gate.queue(lambda: run(writing("a")), lambda: run(Operation(broken, False)))
    gate.open()
    assert good.result(LONG) == "a"
    assert isinstance(bad.exception(LONG), ZeroDivisionError)


def test_a_store_that_fails_answers_everybody_and_keeps_nothing(
    authority: EmbeddedAuthority, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    transaction = authority._store._transaction
    monkeypatch.setattr(transaction, "commit", failing_once(monkeypatch, transaction))
    found = gate.queue(*(lambda: hold(authority, 10) for _ in range(5)))
    gate.open()
    assert all(isinstance(it.exception(LONG), StoreError) for it in found)
    assert figures(authority) == (1000, 0, 0, 0)
    assert authority.reservations().items == []
    assert hold(authority, 10)
    assert len(events(authority, "reservation.created")) == 1


def failing_once(monkeypatch: pytest.MonkeyPatch, transaction: Any) -> Callable[[], None]:
    """A commit that writes its rows and then fails, but only after the gate's own, which is empty."""

    def commit() -> None:
        if not transaction._events:
            type(transaction).commit(transaction)
            return
        transaction.flush()
        monkeypatch.undo()
        raise StoreError("the disk is gone")

    return commit


def test_the_queue_has_an_end(authority: EmbeddedAuthority, gate: Gate, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch, "MAX_QUEUE", 3)
    waiting = gate.queue(*(lambda: hold(authority, 10) for _ in range(3)))
    with pytest.raises(LimitExceeded) as refused:
        hold(authority, 10)
    assert (refused.value.status, refused.value.retry_after_ms) == (429, 100)
    gate.open()
    assert len({it.result(LONG) for it in waiting}) == 3
    assert hold(authority, 10)
    assert figures(authority) == (960, 40, 0, 0)


def test_waiting_has_an_end_and_what_timed_out_is_not_done_later(authority: EmbeddedAuthority, gate: Gate) -> None:
    authority._batch._wait_seconds = 0.02
    (late,) = gate.queue(lambda: hold(authority, 10))
    assert isinstance(late.exception(LONG), AuthorityUnavailable)
    authority._batch._wait_seconds = LONG
    (patient,) = gate.queue(lambda: hold(authority, 10))
    gate.open()
    assert patient.result(LONG)
    assert figures(authority) == (990, 10, 0, 0)


def test_an_interrupt_in_the_queue_withdraws_what_was_asked(
    authority: EmbeddedAuthority, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    group = authority._batch
    monkeypatch.setattr(group, "_wait", interrupted)
    first = gate._pool.submit(hold, authority, 5)
    assert isinstance(first.exception(LONG), KeyboardInterrupt)
    assert not group._queue
    monkeypatch.undo()
    (other,) = gate.queue(lambda: hold(authority, 10))
    gate.open()
    assert other.result(LONG)
    assert figures(authority) == (990, 10, 0, 0)


def test_an_interrupt_in_whoever_was_told_to_lead_leaves_nobody_waiting(
    authority: EmbeddedAuthority, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The lead is handed over at the very moment of the Ctrl-C."""
    group = authority._batch

    def interrupted(waiting: batch._Waiting, lock: threading.Lock) -> None:
        assert lock.acquire(timeout=LONG)
        raise KeyboardInterrupt

    monkeypatch.setattr(group, "_wait", interrupted)
    (first,) = gate.queue(lambda: hold(authority, 5))
    monkeypatch.undo()
    (second,) = gate.queue(lambda: hold(authority, 10))
    gate.open()
    assert isinstance(first.exception(LONG), KeyboardInterrupt)
    assert second.result(LONG)
    assert not group._leading


def test_an_interrupt_in_the_leader_answers_everybody_and_keeps_nothing(
    authority: EmbeddedAuthority, gate: Gate
) -> None:
    def interrupted(_: Transaction) -> None:
        raise KeyboardInterrupt

    run = authority._batch.run
    leader, neighbour = gate.queue(lambda: run(Operation(interrupted, False)), lambda: hold(authority, 10))
    gate.open()
    assert isinstance(leader.exception(LONG), KeyboardInterrupt)
    assert isinstance(neighbour.exception(LONG), AuthorityUnavailable)
    assert figures(authority) == (1000, 0, 0, 0)
    assert hold(authority, 10)


def test_a_finalizer_that_asks_from_inside_is_turned_away(authority: EmbeddedAuthority, gate: Gate) -> None:
    gate.open()
    again = Operation(lambda _: authority.event(ACME, CALL, tokens(1)), False)
    with pytest.raises(AuthorityUnavailable, match="ask again later"):
        authority._batch.run(again)
    assert authority.event(ACME, CALL, tokens(1)).charged == 1


def test_callers_that_ask_again_share_the_next_batch(authority: EmbeddedAuthority) -> None:
    budget(authority)
    group, callers, rounds = authority._batch, 16, 50
    sizes: list[int] = []
    execute = group._execute

    def counted(waiting: list[Any], **options: Any) -> None:
        sizes.append(len(waiting))
        execute(waiting, **options)

    group._execute = counted  # type: ignore[method-assign]
    together = threading.Barrier(callers)

    def call() -> None:
        together.wait(LONG)
        for _ in range(rounds):
            group.run(Operation(lambda _: None, False))

    with ThreadPoolExecutor(callers) as pool:
        for done in [pool.submit(call) for _ in range(callers)]:
            done.result(LONG)
    assert sum(sizes) == callers * rounds
    assert len(sizes) < callers * rounds / 4, "each batch was led before those it had answered came back"

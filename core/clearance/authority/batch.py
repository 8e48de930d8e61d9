"""Group commit: whoever holds the store runs everybody's waiting operations in one transaction.

An idle authority costs one transaction of latency; a busy one shares each flush among all that wait. One operation's
refusal never touches its neighbours, because an operation computes first and writes last.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Generic, TypeVar

from clearance.authority.helper import Helper
from clearance.errors import AuthorityUnavailable, ClearanceError, LimitExceeded, StoreError
from clearance.store.interface import MustWait, Needs, Store, Transaction

log = logging.getLogger("clearance.authority")

R = TypeVar("R")
NOTHING = Needs()

MAX_BATCH = 256
MAX_QUEUE = 10_000
FEW = 4
"""So many an event loop flushes itself. Of more, a thread waits for the disk while the loop goes on to the next."""
PER_TURN = 2
"""A hold and its settlement: so often a task is answered before others of its event loop get their turn."""
MAX_TRIES = 12
"""How often a batch is run anew when another process has changed its rows."""
WAIT_SECONDS = 10.0
"""How long an operation waits for the store before AuthorityUnavailable."""


@dataclass(slots=True)
class Operation(Generic[R]):
    """What to do inside the transaction, and whether its answer must have reached the disk."""

    apply: Callable[[Transaction], R | Exception]
    flush: bool
    needs: Needs = NOTHING


class _Waiting:
    """One operation in the queue and how its caller is woken: as answered, or to lead the next batch."""

    # Defaults of the class, because every operation makes one of these.
    future: asyncio.Future[None] | None = None
    done = False
    promoted = False
    alone = False
    gone = False
    last = False
    next: _Waiting | None = None
    answer: Any = None
    error: BaseException | None = None

    def __init__(self, operation: Operation[Any], wake: Callable[[], None]) -> None:
        self.operation = operation
        self.wake = wake


class GroupCommit:
    """The queue in front of one store. Thread-safe; async callers that would wait are served by a helper thread."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._wait_seconds = WAIT_SECONDS
        self.after_fork()

    def after_fork(self) -> None:
        """A child begins with an empty queue: what waits in the parent is the parent's."""
        self._mutex = threading.Lock()
        self._queue: deque[_Waiting] = deque()
        self._leading = False
        self._turn_of: asyncio.Task[Any] | None = None
        self._left_in_turn = PER_TURN
        self._inside: set[int] = set()
        self._helper: Helper | None = None

    # -- callers ----------------------------------------------------------------------------------

    def run(self, operation: Operation[R]) -> R:
        gate = threading.Lock()
        gate.acquire()
        waiting = _Waiting(operation, gate.release)
        thread = self._step_in()
        try:
            if self._begin_alone(waiting):
                self._execute([waiting])
            else:
                if not self._enter(waiting):
                    self._wait(waiting, gate)
                if not waiting.done:
                    self._lead()
        except BaseException:
            self._abandon(waiting)
            raise
        finally:
            self._pass_on(waiting)
            self._inside.discard(thread)
        answer: R = _answer(waiting)
        return answer

    def _step_in(self) -> int:
        """The garbage collector may run a finalizer that settles something in a thread that is in here already."""
        thread = threading.get_ident()
        if thread in self._inside:
            raise AuthorityUnavailable("asked from inside the ledger (a finalizer); ask again later")
        self._inside.add(thread)
        return thread

    def _wait(self, waiting: _Waiting, gate: threading.Lock) -> None:
        if gate.acquire(timeout=self._wait_seconds):
            return
        if self._withdraw(waiting):
            raise AuthorityUnavailable(
                f"the ledger did not answer within {self._wait_seconds:g} s; another process may hold it"
            )
        gate.acquire()

    async def arun(self, operation: Operation[R]) -> R:
        waiting = self._run_at_once(operation) if self._has_turn() else None
        if waiting is None:
            waiting = await self._run_together(operation)
        answer: R = _answer(waiting)
        return answer

    def _has_turn(self) -> bool:
        """True for the first task that asks in a turn of the loop, PER_TURN times."""
        task = asyncio.current_task()
        if self._left_in_turn == PER_TURN:
            asyncio.get_running_loop().call_soon(self._end_turn)
            self._turn_of = task
        elif self._turn_of is not task or not self._left_in_turn:
            return False
        self._left_in_turn -= 1
        return True

    def _end_turn(self) -> None:
        self._turn_of, self._left_in_turn = None, PER_TURN

    def _run_at_once(self, operation: Operation[Any]) -> _Waiting | None:
        """On the event loop itself, for a change of threads costs more than most operations; None if it would wait."""
        waiting = _Waiting(operation, _nobody)
        thread = self._step_in()
        try:
            if not self._begin_alone(waiting):
                return None
            self._execute([waiting], wait=False)
        except MustWait:
            return None
        finally:
            self._pass_on(waiting)
            self._inside.discard(thread)
        return waiting

    async def _run_together(self, operation: Operation[Any]) -> _Waiting:
        """With all that ask in this turn of the loop: at its end, or in the helper thread if they must wait."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[None] = loop.create_future()
        waiting = _Waiting(operation, lambda: self._helper_thread().lead())
        waiting.future = future
        thread = self._step_in()
        try:
            if self._line_up(waiting):
                loop.call_soon(self._lead_at_once)
        finally:
            self._inside.discard(thread)
        # A cancelled caller does not undo what it has asked for: the hold may exist, so it must be settled.
        await future
        return waiting

    # -- the queue --------------------------------------------------------------------------------

    def _begin_alone(self, waiting: _Waiting) -> bool:
        """Take the lead if nobody has it: then no thread waits, and there is no need for the queue."""
        with self._mutex:
            if not self._leading:
                self._leading = waiting.alone = True
            return waiting.alone

    def _enter(self, waiting: _Waiting) -> bool:
        """Queue it; True if the caller must lead."""
        with self._mutex:
            self._append(waiting)
            if self._leading:
                return False
            self._leading = waiting.promoted = True
            return True

    def _line_up(self, waiting: _Waiting) -> bool:
        """Queue it; True if nobody leads now. The lead is not taken yet: a loop may end before its next turn."""
        with self._mutex:
            self._append(waiting)
            return not self._leading

    def _append(self, waiting: _Waiting) -> None:
        if len(self._queue) >= MAX_QUEUE:
            raise LimitExceeded(f"{MAX_QUEUE:,} operations are waiting for the ledger", retry_after_ms=100)
        self._queue.append(waiting)

    def _withdraw(self, waiting: _Waiting) -> bool:
        """Take it out of the queue; False if it is being run, or was told to lead."""
        with self._mutex:
            if waiting.promoted or waiting not in self._queue:
                return False
            self._queue.remove(waiting)
            return True

    def _abandon(self, waiting: _Waiting) -> None:
        """Ctrl-C, or too late. If the lead is ours, the others still need it done."""
        if waiting.alone:
            return
        if not self._withdraw(waiting) and waiting.promoted and not waiting.done:
            self._lead()
        with self._mutex:
            waiting.gone = True

    def _lead_at_once(self) -> None:
        self._end_turn()
        self._lead_who_waits(wait=False)

    def _lead_who_waits(self, *, wait: bool) -> None:
        with self._mutex:
            if self._leading or not self._queue:
                return
            self._leading = True
        self._lead_inside(wait=wait)

    def _lead_inside(self, *, wait: bool = True) -> None:
        thread = self._step_in()
        try:
            self._lead(wait=wait)
        finally:
            self._inside.discard(thread)

    def _lead(self, *, wait: bool = True) -> None:
        """Run one batch, then hand the lead to whoever waits first."""
        batch: list[_Waiting] = []
        try:
            with self._mutex:
                while self._queue and len(batch) < MAX_BATCH:
                    batch.append(self._queue.popleft())
            self._execute(batch, wait=wait)
        except MustWait:
            # Then whoever waits first leads, in a thread that may.
            with self._mutex:
                self._queue.extendleft(reversed(batch))
            batch = []
        finally:
            for waiting in batch:
                if not waiting.done:
                    waiting.done, waiting.error = True, _interrupted()
            with self._mutex:
                first = _chained(batch)
            _tell_loops(batch)
            if first is not None:
                first.wake()
            else:
                self._hand_on()

    def _pass_on(self, waiting: _Waiting) -> None:
        """Wake the next of the batch: one thread after another, for all at once would fight for the interpreter."""
        if waiting.next is not None:
            waiting.next.wake()
        elif waiting.last or waiting.alone:
            self._hand_on()

    def _hand_on(self) -> None:
        """Once all were answered, so that those who ask again are in the next batch and nobody disturbs its leader."""
        with self._mutex:
            follower = self._queue[0] if self._queue else None
            self._leading = follower is not None
            if follower is not None:
                follower.promoted = True
        if follower is not None:
            follower.wake()

    def _execute(self, batch: list[_Waiting], tries: int = 1, *, wait: bool = True) -> None:
        """Run them in one transaction. Rows that another process has changed meanwhile: all again, from the start.

        Without `wait` raises MustWait, having done nothing, if the store is not to be had at once.
        """
        flush = True in [waiting.operation.flush for waiting in batch]
        if flush and not wait and len(batch) > FEW:
            raise MustWait
        try:
            with self._store.transaction(flush=flush, wait=wait) as transaction:
                transaction.prefetch([waiting.operation.needs for waiting in batch])
                for waiting in batch:
                    _apply(waiting, transaction)
        except _Spoiled as spoiled:
            if _moved(spoiled.__cause__) and tries < MAX_TRIES:
                self._execute(batch, tries + 1)
            elif len(batch) == 1:
                batch[0].answer, batch[0].error = None, spoiled.__cause__
            else:
                # Rolled back; each alone, so that only the one that failed half-way fails.
                for waiting in batch:
                    self._execute([waiting])
        except MustWait:
            raise
        except Exception as error:
            if _moved(error) and tries < MAX_TRIES:
                self._execute(batch, tries + 1)
                return
            # The store failed: the transaction is rolled back, so nobody may keep an answer from it.
            for waiting in batch:
                waiting.answer, waiting.error = None, error
        for waiting in batch:
            waiting.done = True

    def _helper_thread(self) -> Helper:
        with self._mutex:
            if self._helper is None:
                self._helper = Helper(self._lead_inside)
            return self._helper

    def close(self) -> None:
        self._lead_who_waits(wait=True)
        with self._mutex:
            helper, self._helper = self._helper, None
        if helper:
            helper.stop()


def _interrupted() -> AuthorityUnavailable:
    return AuthorityUnavailable("interrupted; whether it was written is unknown, so ask again with the same key")


def _moved(error: BaseException | None) -> bool:
    """Nothing was written and nobody answered, because another process got to the rows first (PostgreSQL)."""
    return isinstance(error, StoreError) and error.retry_after_ms == 0


def _chained(batch: list[_Waiting]) -> _Waiting | None:
    """Link the waiting threads, each to wake the one behind it; the answer is the first, if there is any."""
    threads = [waiting for waiting in batch if waiting.future is None and not waiting.gone]
    for waiting, following in pairwise(threads):
        waiting.next = following
    if not threads:
        return None
    threads[-1].last = True
    return threads[0]


class _Spoiled(Exception):
    """An operation failed half-way; the transaction must not be committed. The cause says why."""


def _apply(waiting: _Waiting, transaction: Transaction) -> None:
    waiting.answer = waiting.error = None
    before = transaction.writes
    try:
        outcome = waiting.operation.apply(transaction)
    except ClearanceError as error:
        if transaction.writes != before:
            raise _Spoiled from error
        outcome = error
    except Exception as error:
        # A defect or the storage's failure; who knows what has become of the transaction.
        raise _Spoiled from error
    if isinstance(outcome, Exception):
        waiting.error = outcome
    else:
        waiting.answer = outcome


def _answer(waiting: _Waiting) -> Any:
    if waiting.error is not None:
        raise waiting.error
    return waiting.answer


def _nobody() -> None:
    """Who runs at once need not be woken."""


def _tell_loops(batch: list[_Waiting]) -> None:
    """Wake each event loop once for all of its callers."""
    waiting: dict[asyncio.AbstractEventLoop, list[asyncio.Future[None]]] = {}
    for future in (it.future for it in batch if it.future is not None):
        waiting.setdefault(future.get_loop(), []).append(future)
    for loop, futures in waiting.items():
        try:
            if loop is asyncio._get_running_loop():
                _finish(futures)
            else:
                loop.call_soon_threadsafe(_finish, futures)
        except RuntimeError:
            log.warning("an event loop closed before its ledger operations were answered")


def _finish(futures: list[asyncio.Future[None]]) -> None:
    for future in futures:
        if not future.done():
            future.set_result(None)

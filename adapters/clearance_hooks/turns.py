"""What is open: attempts of runs, and the calls inside. An end may come before its begin is done."""

from __future__ import annotations

import logging
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import copy_context
from dataclasses import dataclass, field
from threading import Condition, Event, RLock, Thread
from typing import Any, Protocol
from weakref import ref

from clearance.errors import Conflict, LimitExceeded
from clearance.guard import Permit, Run
from clearance.guard.outcome import Outcome
from clearance_hooks.events import HookContext

log = logging.getLogger("clearance.hooks")

MAX_TURNS = 10_000
MAX_CALLS = 10_000
"""Calls of one attempt that are open, and as many that are over and remembered."""
_SWEEP_S = 5.0

TurnKey = tuple[str, str, int]


class Ended(Protocol):
    """What an `after_...` event says, once it is known."""

    @property
    def is_void(self) -> bool:
        """True when nothing ran."""
        ...

    def outcome(self, permit: Permit) -> Outcome: ...


@dataclass(slots=True)
class Call:
    """One call from its gate to its end. `answer` is what the gate said, for whoever asks the same again."""

    key: str
    fingerprint: str
    ready: Event = field(default_factory=Event)
    permit: Permit | None = None
    answer: Any = None
    model: str | None = None
    ended: Ended | None = None


@dataclass(slots=True)
class Turn:
    """One attempt of a run. `lock` guards everything below it; nobody waits for the authority while holding it.

    `inside` counts the handlers at work in it. `is_wanted`: one of them has answered somebody, who will tell its end.
    `is_reopened`: its end was told already, and a task of the host goes on: it lasts as long as calls are open.
    """

    key: TurnKey
    lock: RLock = field(default_factory=RLock)
    opening: RLock = field(default_factory=RLock)
    run: Run | None = None
    calls: dict[str, Call] = field(default_factory=dict)
    over: OrderedDict[str, None] = field(default_factory=OrderedDict)
    tools: Counter[str] = field(default_factory=Counter)
    facts: Counter[str] = field(default_factory=Counter)
    blocked: Counter[str] = field(default_factory=Counter)
    recorded: int = 0
    begun: int = 0
    inside: int = 0
    is_wanted: bool = False
    is_reopened: bool = False
    awaits_usage: bool = False
    last_seen: float = 0.0
    close_at: float | None = None
    closed: bool = False

    # --- calls

    def begin(self, key: str, fingerprint: str) -> tuple[Call, bool]:
        """The call, and whether it is new. The same call, asked again while it is open, is not held twice."""
        with self.lock:
            known = self.calls.get(key)
            if known is not None:
                return known, False
            if len(self.calls) >= MAX_CALLS:
                raise LimitExceeded(f"{MAX_CALLS} calls of this run are open already")
            self.over.pop(key, None)
            call = self.calls[key] = Call(key, fingerprint)
            return call, True

    def refused(self, call: Call, answer: Any) -> None:
        with self.lock:
            self._forget(call)
            call.answer = answer
        call.ready.set()

    def admitted(self, call: Call, permit: Permit, answer: Any) -> Ended | None:
        """The permit is there. If the end was told meanwhile, that is answered, and the caller settles by it."""
        with self.lock:
            call.permit, call.answer = permit, answer
            if call.ended is not None:
                self._forget(call)
        call.ready.set()
        return call.ended

    def end(self, key: str, ended: Ended) -> tuple[Call | None, bool]:
        """The call whose permit is to be settled now, if any; and whether the call is known here at all."""
        with self.lock:
            call = self.calls.get(key)
            if call is None:
                return None, key in self.over
            if call.permit is None:  # still asking: it is settled as soon as the answer is there
                call.ended = call.ended or ended
                return None, True
            self._forget(call)
            return call, True

    def remember(self, key: str) -> None:
        with self.lock:
            self.over[key] = None
            while len(self.over) > MAX_CALLS:
                self.over.popitem(last=False)

    def _forget(self, call: Call) -> None:
        self.calls.pop(call.key, None)
        self.remember(call.key)

    @property
    def is_idle(self) -> bool:
        """True when nothing more is expected of it."""
        return not self.calls and not self.awaits_usage


class Turns:
    """The attempts that are open, by host, run and attempt. One background thread ends those that nobody ends.

    `open_run` opens the run of a new turn; `on_closing` is told before its run ends, `on_close` after. With
    `whole_turns` each turn awaits the usage of all its calls, which the host tells at once.
    """

    def __init__(
        self,
        open_run: Callable[[HookContext, Run | None], Run],
        on_closing: Callable[[Turn], None],
        on_close: Callable[[Turn], None],
        *,
        whole_turns: bool = False,
        settle_window_ms: int,
        idle_run_ms: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._open_run = open_run
        self._on_closing = on_closing
        self._on_close = on_close
        self._whole_turns = whole_turns
        self._settle_window_s = settle_window_ms / 1000
        self._idle_s = idle_run_ms / 1000
        self._clock = clock
        self._turns: OrderedDict[TurnKey, Turn] = OrderedDict()
        self._closing: list[Turn] = []
        self._ended: OrderedDict[TurnKey, None] = OrderedDict()
        self._wake = Condition(RLock())
        self._sweeper: Thread | None = None

    @contextmanager
    def inside(self, ctx: HookContext, *, begins: bool = False) -> Iterator[Turn]:
        """The turn of this attempt, opened if it is new. Raises what opening its run raises; then there is no turn.

        `begins`: for who will tell its end. Begun several times at once, it is over when all have ended it. A turn in
        which everybody was abandoned before they had an answer is ended, as its end may have been told already.
        """
        turn = self._entered(ctx, int(begins))
        try:
            yield turn
        finally:
            self._leave(turn, ctx, int(begins))

    def _leave(self, turn: Turn, ctx: HookContext, begins: int) -> None:
        with self._wake:
            turn.inside -= 1
            if not ctx.is_abandoned:
                turn.is_wanted = True
            elif self._turns.get(turn.key) is turn:  # else its end was told meanwhile
                turn.begun -= begins
        self._end_unwanted(turn)

    def _end_unwanted(self, turn: Turn) -> None:
        """End a turn of which nobody will tell the end."""
        with self._wake:
            is_open = self._turns.get(turn.key) is turn
            if not is_open or turn.inside or turn.calls or turn.begun > 0 or (turn.is_wanted and not turn.is_reopened):
                return
            if not turn.is_wanted:
                turn.awaits_usage = False  # nothing was allowed in it
            self._begin_closing(turn)
        if turn.is_idle:
            self._close(turn)

    def _entered(self, ctx: HookContext, begins: int) -> Turn:
        turn = self._turn(ctx, begins)
        with turn.opening:
            if turn.run is None and not turn.closed:
                self._open(turn, ctx)
        if turn.closed:
            return self._entered(ctx, begins)
        turn.last_seen = self._clock()
        return turn

    def known(self, ctx: HookContext, call_key: str | None = None) -> Turn | None:
        """The turn of this attempt, else one that is ending and has this call."""
        key = key_of(ctx)
        with self._wake:
            ending = [turn for turn in self._closing if turn.key == key]
            current = self._turns.get(key)
        if call_key is not None:
            for turn in (current, *ending):
                if turn is not None and (call_key in turn.calls or call_key in turn.over):
                    return turn
        return current or (ending[-1] if ending else None)

    def end(self, ctx: HookContext) -> None:
        """The attempt is over: closed now, or when its open calls have ended, at the latest after the settle window.

        While others have begun it too and not ended it, only counted.
        """
        key = key_of(ctx)
        with self._wake:
            turn = self._turns.get(key)
            if turn is None:
                return
            if turn.begun > 0:
                self._ended[key] = None
                while len(self._ended) > MAX_TURNS:
                    self._ended.popitem(last=False)
            turn.begun -= 1
            if turn.begun > 0:
                return
            if turn.run is None:  # never opened, so nothing was allowed in it
                turn.awaits_usage = False
            self._begin_closing(turn)
        self.settled(turn)

    def _begin_closing(self, turn: Turn) -> None:
        del self._turns[turn.key]
        turn.close_at = self._clock() + self._settle_window_s
        self._closing.append(turn)
        self._sweep_soon()

    def settled(self, turn: Turn) -> None:
        """A call of it has ended: close it if it was waiting for that."""
        if turn.close_at is not None and turn.is_idle:
            self._close(turn)
        elif turn.close_at is None and not turn.calls:
            self._end_unwanted(turn)

    def close(self) -> None:
        """End everything, whatever is open."""
        with self._wake:
            turns = [*self._turns.values(), *self._closing]
            self._turns.clear()
        for turn in turns:
            self._close(turn)

    def sweep(self) -> None:
        """End what is due: settle windows that are over, runs that nobody has heard of."""
        now = self._clock()
        with self._wake:
            idle = [turn for turn in self._turns.values() if now - turn.last_seen > self._idle_s]
            for turn in idle:
                self._turns.pop(turn.key, None)
            due = [turn for turn in self._closing if turn.close_at is not None and turn.close_at <= now]
        for turn in idle:
            log.warning("run %s was not heard of for %d s; it is ended", turn.key[1], int(self._idle_s))
        for turn in (*idle, *due):
            self._close(turn)

    # --- inside

    def _turn(self, ctx: HookContext, begins: int) -> Turn:
        key = key_of(ctx)
        with self._wake:
            turn = self._turns.get(key)
            if turn is None:
                if len(self._turns) >= MAX_TURNS:
                    raise LimitExceeded(f"{MAX_TURNS} runs are open already")
                turn = Turn(key, last_seen=self._clock(), awaits_usage=self._whole_turns)
                turn.is_reopened = key in self._ended
                self._turns[key] = turn
                self._sweep_soon()
            if begins:
                turn.is_reopened = False
                self._ended.pop(key, None)
            turn.begun += begins
            turn.inside += 1
            return turn

    def _open(self, turn: Turn, ctx: HookContext) -> None:
        try:
            run = self._open_run(ctx, self._parent(ctx))
        except BaseException:
            self._drop(turn)
            raise
        with self._wake:
            if not turn.closed:
                turn.run = run
                return
        run.__exit__(None, None, None)
        raise Conflict(f"run {ctx.run_id} has ended while it was opened")

    def _parent(self, ctx: HookContext) -> Run | None:
        if ctx.parent_run_id is None:
            return None
        with self._wake:
            found = [turn for key, turn in self._turns.items() if key[:2] == (ctx.host, ctx.parent_run_id)]
        return found[-1].run if found else None

    def _drop(self, turn: Turn) -> None:
        with self._wake:
            turn.closed = True
            self._turns.pop(turn.key, None)

    def _close(self, turn: Turn) -> None:
        with self._wake:
            if turn in self._closing:
                self._closing.remove(turn)
            if turn.closed:
                return
            turn.closed = True
        if turn.run is not None:
            try:
                self._on_closing(turn)
                turn.run.__exit__(None, None, None)
            except Exception as error:  # the others must be closed all the same
                log.error("ending run %s failed (%s)", turn.key[1], type(error).__name__)
        self._on_close(turn)

    def _sweep_soon(self) -> None:
        if self._sweeper is None or not self._sweeper.is_alive():
            self._sweeper = Thread(target=_sweeping, args=(ref(self),), name="clearance-hooks-turns", daemon=True)
            self._sweeper.start()
        self._wake.notify_all()

    def wait_for_next(self) -> bool:
        """Wait until something may be due; False when nothing is open any more."""
        with self._wake:
            if not self._turns and not self._closing:
                self._sweeper = None
                return False
            times = [turn.close_at for turn in self._closing if turn.close_at is not None]
            wait_s = min([_SWEEP_S, *(at - self._clock() for at in times)])
            self._wake.wait(max(0.01, wait_s))
            return True


def _sweeping(turns: ref[Turns]) -> None:
    while True:
        found = turns()
        if found is None or not found.wait_for_next():
            return
        found.sweep()
        del found


def key_of(ctx: HookContext) -> TurnKey:
    return ctx.host, ctx.run_id, ctx.attempt


def entered(run: Run, parent: Run | None) -> Run:
    """Open a run below its parent, without leaving a trace in the context of whoever asked."""
    begin = run.__enter__ if parent is None else parent.carry(run.__enter__)
    copy_context().run(begin)
    return run

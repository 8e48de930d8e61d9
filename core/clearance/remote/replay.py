"""Making the settlements that an outage or a crash has left in the journal: in the background, and on request."""

from __future__ import annotations

import logging
import random
import threading
import time
import weakref
from collections.abc import Callable
from dataclasses import dataclass, field
from threading import Condition, Lock, Thread
from typing import Any

from clearance.errors import ClearanceError
from clearance.remote.journal import Entry, Journal
from clearance.remote.records import BadRecord
from clearance.remote.settling import UNRESOLVED, Settling
from clearance.remote.steps import Steps

log = logging.getLogger("clearance.remote")

FIRST_DELAY_S = 0.2
MAX_DELAY_S = 30.0
RESCAN_S = 30.0
OTHERS_AGE_S = 15.0
"""A record of another living process is that old before it is taken for abandoned; its key makes a race harmless."""

Perform = Callable[[Steps[Any]], Any]


@dataclass(slots=True)
class Replayed:
    """What one look through the journal did."""

    settled: int = 0
    waiting: int = 0
    refused: int = 0
    quarantined: int = 0
    errors: list[str] = field(default_factory=list)

    @property
    def done(self) -> bool:
        return self.waiting == 0


class Replayer:
    """Goes through the records of one journal. `perform` makes steps with the sync shell; `clock` gives monotonic s."""

    def __init__(
        self,
        journal: Journal,
        settling: Settling,
        perform: Perform,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._journal = journal
        self._settling = settling
        self._perform = perform
        self._clock = clock

    def replay(self, *, ends_at: float | None = None, min_age_s: float = 0.0, refused_too: bool = False) -> Replayed:
        """One look through everything. After `ends_at` nothing more is begun; what is left stays as it is."""
        found = Replayed()
        before = len(self._journal.quarantined())
        for name in self._journal.names():
            entry = self._journal.read(name)
            if entry is None or self._settling.busy(name):
                continue
            if entry.record.refused and not refused_too:
                found.refused += 1
            elif self._too_early(entry, min_age_s) or (ends_at is not None and self._clock() >= ends_at):
                found.waiting += 1
            else:
                self._one(entry, found, None if ends_at is None else ends_at - self._clock())
        found.quarantined = len(self._journal.quarantined()) - before
        return found

    def _too_early(self, entry: Entry, min_age_s: float) -> bool:
        if entry.record.not_before_ms > self._journal.now_ms():
            return True
        name = entry.record.name
        return min_age_s > 0 and name not in self._settling.left and self._journal.age_s(name) < min_age_s

    def _one(self, entry: Entry, found: Replayed, left_s: float | None) -> None:
        try:
            self._perform(self._settling.again(entry, left_s))
        except UNRESOLVED as error:
            found.waiting += 1
            found.errors.append(error.code)
        except ClearanceError as error:
            found.refused += 1
            found.errors.append(error.code)
        except BadRecord as problem:
            self._journal.quarantine(entry.record.name, str(problem))
        else:
            found.settled += 1

    def flush(self, timeout_s: float) -> Replayed:
        """Settle what can be settled within `timeout_s`; what cannot is left exactly as it is."""
        ends_at = self._clock() + timeout_s
        total = self.replay(ends_at=ends_at, refused_too=True)
        delay_s = 0.05
        while total.waiting and self._clock() + delay_s < ends_at:
            time.sleep(delay_s)
            delay_s = min(1.0, delay_s * 2)
            latest = self.replay(ends_at=ends_at)
            total.settled += latest.settled
            total.quarantined += latest.quarantined
            total.waiting, total.errors = latest.waiting, latest.errors
        return total


class _Signal:
    """How the owner talks to its thread, which holds this and not the owner, so that the owner can be collected."""

    def __init__(self) -> None:
        self._changed = Condition()
        self._nudged = False
        self._hurried = False
        self._stopping = False

    def give(self, *, hurried: bool = False, stopping: bool = False) -> None:
        with self._changed:
            self._nudged = True
            self._hurried = self._hurried or hurried
            self._stopping = self._stopping or stopping
            self._changed.notify_all()

    def clear(self) -> None:
        with self._changed:
            self._nudged = self._hurried = False

    def wait(self, seconds: float, *, idle: bool) -> bool:
        """Until the pause is over, the server answers again, or, when idle, there is something to do. False at the
        end."""
        with self._changed:
            self._changed.wait_for(lambda: self._stopping or self._hurried or (idle and self._nudged), seconds)
            return not self._stopping


class Background:
    """The thread that replays while the process lives. It starts when there is something to do."""

    def __init__(self, replayer: Replayer, jitter: Callable[[], float] = random.random) -> None:
        self._replayer = replayer
        self._jitter = jitter
        self.renew()

    def renew(self) -> None:
        """A forked child has no thread of its own yet."""
        self._signal = _Signal()
        self._starting = Lock()
        self._thread: Thread | None = None

    def nudge(self) -> None:
        """Something is left in the journal."""
        with self._starting:
            if self._thread is None:
                work = (weakref.ref(self, lambda _, signal=self._signal: signal.give(stopping=True)), self._signal)  # type: ignore[misc]
                self._thread = Thread(target=_work, args=work, name="clearance-replay", daemon=True)
                self._thread.start()
        self._signal.give()

    def hasten(self) -> None:
        """The server answers again."""
        self._signal.give(hurried=True)

    def stop(self) -> None:
        self._signal.give(stopping=True)
        thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join(timeout=5)

    def look(self, min_age_s: float) -> Replayed:
        try:
            return self._replayer.replay(min_age_s=min_age_s)
        except Exception:  # whatever happens, the others must be replayed
            log.exception("the replay of settlements failed; it goes on")
            return Replayed(waiting=1)

    def pause_s(self, attempt: int) -> float:
        return min(MAX_DELAY_S, FIRST_DELAY_S * 2.0 ** min(attempt, 20)) * (0.5 + 0.5 * self._jitter())


def _work(reference: weakref.ref[Background], signal: _Signal) -> None:
    attempt, min_age_s = 0, 0.0
    while True:
        signal.clear()
        background = reference()
        if background is None:
            return
        found = background.look(min_age_s)
        min_age_s = OTHERS_AGE_S  # only at the start everything is taken for abandoned
        attempt = attempt + 1 if found.waiting else 0
        pause_s = background.pause_s(attempt) if attempt else RESCAN_S
        del background
        if not signal.wait(pause_s, idle=attempt == 0):
            return
        if attempt == 0 and not signal.wait(FIRST_DELAY_S, idle=False):  # what has just failed is not asked at once
            return

"""One scheduler per process: it extends the leases of live work, notices stops, and pays what is owed."""

from __future__ import annotations

import heapq
import logging
import time
from collections.abc import Callable
from itertools import count
from threading import Condition, Thread
from typing import Protocol
from weakref import WeakSet, ref

from clearance.authority.interface import Authority
from clearance.errors import Paused
from clearance.guard.arrears import UNDECIDED, Arrears
from clearance.guard.beats import Beat
from clearance.guard.process import new_key
from clearance.model.results import Stop

log = logging.getLogger("clearance.guard")

POLL_INTERVAL_S = 0.25
"""How often the authority is asked for stops while anything is live."""
MAX_POLL_PAUSE_S = 5.0


class Live(Protocol):
    """A permit or run whose lease is to be kept. `lease_end` is in seconds of the scheduler's clock."""

    id: str
    authority: Authority
    ttl_ms: int
    lease_end: float

    @property
    def over(self) -> bool: ...

    @property
    def stopped(self) -> Stop | None: ...

    def mark(self, stop: Stop) -> None: ...


class _Beating:
    __slots__ = ("beat", "live")

    def __init__(self, live: Live) -> None:
        self.live: ref[Live] = ref(live)
        self.beat = Beat(live.ttl_ms, live.lease_end)


class Scheduler:
    """Everything timed of this process, on one daemon thread that starts with the first lease.

    It holds its work weakly. While nothing is live and nothing is owed the thread sleeps without a timeout.
    `threaded=False` leaves calling `tick` to the owner (tests, with their own clock).
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic, threaded: bool = True) -> None:
        self.clock = clock
        self._threaded = threaded
        self._thread: Thread | None = None
        self._wake = Condition()  # re-entrant: finalizers may run in a thread that holds it
        self._nudged = False
        self._sleeping = True  # no sweep is planned: the next lease must wake the thread
        self._live: dict[str, ref[Live]] = {}
        self._beating: dict[str, _Beating] = {}
        self._due: list[tuple[float, int, _Beating]] = []
        self._numbers = count()
        self._owing: set[Arrears] = set()
        self._sweep_at = 0.0
        self._poll_pause: dict[int, tuple[float, float]] = {}
        self._telling: WeakSet[Authority] = WeakSet()
        self._hurried = False

    def watch(self, live: Live) -> None:
        """Keep this lease until `unwatch`, or until it is garbage."""
        self._live[live.id] = ref(live)
        if self._sleeping:  # else a sweep finds it within the poll interval, and waking the thread costs time
            self._rouse()

    def unwatch(self, live_id: str) -> None:
        self._live.pop(live_id, None)

    def owe(self, arrears: Arrears) -> None:
        with self._wake:
            self._owing.add(arrears)
        self._nudge()

    def hurry(self) -> None:
        """Ask for stops now: somebody knows of a change. From any thread; costs nothing while nothing is live."""
        if not self._sleeping:
            self._hurried = True
            self._nudge()

    def tick(self) -> float | None:
        """Do what is due. The answer is the seconds until the next tick, None when nothing is planned."""
        if not self._sleeping and (self._hurried or self.clock() >= self._sweep_at):
            self._hurried = False
            self._sweep()
        self._extend_due()
        for arrears in self.owed():
            due_at = arrears.due_at
            if due_at is not None and due_at <= self.clock():
                arrears.pay()
        return self._until_next()

    # --- the thread

    def _rouse(self) -> None:
        """Plan a sweep, not at once: most calls are over before it, and then cost no thread switch at all."""
        with self._wake:
            self._sleeping = False
            self._sweep_at = self.clock() + POLL_INTERVAL_S
        self._nudge()

    def _nudge(self) -> None:
        with self._wake:
            self._nudged = True
            if self._threaded and self._thread is None:
                self._thread = Thread(target=self._work, name="clearance-heartbeat", daemon=True)
                self._thread.start()
            self._wake.notify_all()

    def _work(self) -> None:
        while True:
            try:
                wait_s = self.tick()
            except Exception:  # whatever happens, the other leases must be kept
                log.exception("the heartbeat scheduler failed; it goes on")
                wait_s = POLL_INTERVAL_S
            with self._wake:
                self._wake.wait_for(lambda: self._nudged, wait_s)
                self._nudged = False

    def _until_next(self) -> float | None:
        times = [due_at for arrears in self.owed() if (due_at := arrears.due_at) is not None]
        if self._due:
            times.append(self._due[0][0])
        if not self._sleeping:
            times.append(self._sweep_at)
        return max(0.0, min(times) - self.clock()) if times else None

    def owed(self) -> list[Arrears]:
        """The queues in which something waits."""
        with self._wake:
            for arrears in list(self._owing):
                if arrears.due_at is None:
                    self._owing.discard(arrears)
            return list(self._owing)

    # --- leases

    def _sweep(self) -> None:
        """Take in new leases, forget those that are gone, and ask each authority for stops."""
        by_authority: dict[int, list[Live]] = {}
        for live_id, reference in list(self._live.items()):
            live = reference()
            if live is None or live.over:
                self._live.pop(live_id, None)
                continue
            if live_id not in self._beating:
                self._start(live_id, live)
            by_authority.setdefault(id(live.authority), []).append(live)
        for live_id in [known for known in self._beating if known not in self._live]:
            del self._beating[live_id]
        for lives in by_authority.values():
            self._be_told(lives[0].authority)
            self._poll(lives)
        self._poll_pause = {key: pause for key, pause in self._poll_pause.items() if key in by_authority}
        self._sweep_at = self.clock() + POLL_INTERVAL_S
        self._sleeping = True
        if self._live:  # looked at after saying that we sleep, so no lease that comes in between is missed
            self._sleeping = False

    def _start(self, live_id: str, live: Live) -> None:
        beating = self._beating[live_id] = _Beating(live)
        self._plan(beating, beating.beat.next_at(self.clock()))

    def _plan(self, beating: _Beating, at: float) -> None:
        heapq.heappush(self._due, (at, next(self._numbers), beating))

    def _extend_due(self) -> None:
        while self._due and self._due[0][0] <= self.clock():
            beating = heapq.heappop(self._due)[2]
            live = beating.live()
            if live is not None and not live.over:
                self._extend(live, beating)

    def _extend(self, live: Live, beating: _Beating) -> None:
        beat, sent = beating.beat, self.clock()
        key, by_ms = beat.attempt = beat.attempt or (new_key(), beat.extend_by_ms(sent))
        try:
            lease = live.authority.extend(live.id, by_ms, idempotency_key=key)
        except UNDECIDED as error:
            self._retry(live, beating, error)
        except Paused as error:  # refused, and may be resumed
            beat.attempt = None
            self._retry(live, beating, error)
        except Exception as error:  # expired, finalized, killed, no extensions left: it cannot be extended again
            _log_end(live, error)
        else:
            beat.extended(sent, lease.remaining_ttl_ms)
            self._plan(beating, beat.next_at(self.clock()))

    def _retry(self, live: Live, beating: _Beating, error: Exception) -> None:
        at = beating.beat.retry_at(self.clock())
        if at is None:
            _log_end(live, error)
            return
        log.warning("the lease of %s was not extended (%s); trying again", live.id, type(error).__name__)
        self._plan(beating, at)

    # --- stops

    def _be_told(self, authority: Authority) -> None:
        """By an authority that can tell of a change at once; the looks go on, for what it tells may be lost."""
        tell = getattr(authority, "on_stops_changed", None)
        if tell is not None and authority not in self._telling:
            self._telling.add(authority)
            tell(self.hurry)

    def _poll(self, lives: list[Live]) -> None:
        authority = lives[0].authority
        not_before, pause_s = self._poll_pause.get(id(authority), (0.0, POLL_INTERVAL_S))
        asked = {live.id: live for live in lives if live.stopped is None}
        if not asked or self.clock() < not_before:
            return
        try:
            stops = authority.stopped(list(asked))
        except Exception as error:
            pause_s = min(MAX_POLL_PAUSE_S, 2 * pause_s)
            self._poll_pause[id(authority)] = (self.clock() + pause_s, pause_s)
            log.debug("could not ask for stops (%s)", type(error).__name__)
            return
        self._poll_pause.pop(id(authority), None)
        for live_id, stop in stops.items():
            _mark(asked.get(live_id), stop)


def _mark(live: Live | None, stop: Stop) -> None:
    if live is None:
        return
    try:
        live.mark(stop)
    except Exception:  # a user's on_stop may fail; the other work must still be marked
        log.exception("telling %s that it was stopped failed", live.id)


def _log_end(live: Live, error: Exception) -> None:
    if not live.over:  # settled meanwhile: then there is nothing to extend and nothing to tell
        log.warning("the lease of %s is not extended any more (%s: %s)", live.id, type(error).__name__, error)

"""The circuit breaker: in an outage nobody waits for a deadline, and one call at a time finds out if it is over."""

from __future__ import annotations

import random
from collections.abc import Callable
from threading import Lock

from clearance.errors import AuthorityUnavailable

FAILURES_TO_OPEN = 5
FIRST_PAUSE_S = 0.5
MAX_PAUSE_S = 3.0


class Breaker:
    """Closed: everything passes. Open: nothing does until the pause is over. Half open: one probe.

    Only an outage counts as a failure: no answer, or a 5xx. A denial or a 429 shows that the server lives.
    Thread-safe; `clock` gives monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float], jitter: Callable[[], float] = random.random) -> None:
        self.on_recovery: Callable[[], None] | None = None
        self._clock = clock
        self._jitter = jitter
        self._lock = Lock()
        self._failures = 0
        self._pause_s = FIRST_PAUSE_S
        self._open_until: float | None = None
        self._probing = False

    @property
    def state(self) -> str:
        with self._lock:
            if self._open_until is None:
                return "closed"
            return "open" if self._clock() < self._open_until else "half-open"

    def enter(self) -> bool:
        """True if this call is the probe. Raises AuthorityUnavailable while the breaker is open."""
        if self._open_until is None:
            return False
        with self._lock:
            if self._open_until is None:
                return False
            wait_s = self._open_until - self._clock()
            if wait_s > 0 or self._probing:
                raise AuthorityUnavailable(
                    "the authority does not answer; it is asked again in a moment",
                    retry_after_ms=max(1, int(wait_s * 1000)),
                )
            self._probing = True
            return True

    def leave(self, probe: bool, outage: bool | None) -> None:
        """How the call ended; None if it was interrupted and tells nothing."""
        if outage is False and not self._failures and not probe:
            return
        with self._lock:
            recovered = self._note(probe, outage)
        if recovered and self.on_recovery is not None:
            self.on_recovery()

    def renew(self) -> None:
        """After a fork: a lock that another thread of the parent held would stay locked."""
        self._lock = Lock()
        self._probing = False

    def _note(self, probe: bool, outage: bool | None) -> bool:
        """True if the outage is over."""
        if probe:
            self._probing = False
        if outage is None:
            return False
        if not outage:
            recovered = self._failures > 0
            self._failures = 0
            self._open_until = None
            self._pause_s = FIRST_PAUSE_S
            return recovered
        self._failures += 1
        if probe:
            self._pause_s = min(MAX_PAUSE_S, self._pause_s * 2)
        if probe or (self._failures >= FAILURES_TO_OPEN and self._open_until is None):
            # Spread, so that many clients do not all knock at the same moment.
            self._open_until = self._clock() + self._pause_s * (0.75 + 0.25 * self._jitter())
        return False

"""Settlements that could not be made yet: kept per authority, oldest first, and tried again with the same keys."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable
from threading import Condition
from typing import Any, NamedTuple

from clearance.authority.interface import Authority
from clearance.errors import AuthorityUnavailable, BadAnswer, ClearanceError, LimitExceeded
from clearance.guard.steps import Steps, perform

log = logging.getLogger("clearance.guard")

MAX_JOBS = 10_000
MAX_ATTEMPTS = 60
"""With the delays below, about half an hour."""
FIRST_DELAY_S = 0.1
MAX_DELAY_S = 30.0
_FLUSH_PAUSE_S = 0.05

UNDECIDED = (AuthorityUnavailable, BadAnswer, LimitExceeded)
"""An outage, an answer that cannot be read, and a limit: none of them is a refusal, so each is asked again."""


def why(error: ClearanceError) -> str:
    """For the log: these are three different things and look different there."""
    if isinstance(error, LimitExceeded):
        return "was put off by a limit"
    return "got an answer that cannot be read" if isinstance(error, BadAnswer) else "got no answer"


def _wait_s(error: ClearanceError, delay_s: float) -> float:
    """Nothing is asked again before the time that a limit has named."""
    return max(delay_s, (error.retry_after_ms or 0) / 1000)


class Job(NamedTuple):
    """What is still to be told the authority; `what` names it in the log."""

    authority: Authority
    steps: Callable[[], Steps[Any]]
    what: str


class Arrears:
    """The queue of one authority. Thread-safe; one thread pays at a time, so the order is kept.

    `clock` gives monotonic seconds; `on_owing` is told when there is something to pay.
    """

    def __init__(self, clock: Callable[[], float], on_owing: Callable[[Arrears], None]) -> None:
        self._clock = clock
        self._on_owing = on_owing
        self._jobs: deque[Job] = deque()
        self._changed = Condition()  # re-entrant: a permit's finalizer may run while this thread holds it
        self._paying = False
        self._attempts = 0
        self._due_at = 0.0

    def add(self, job: Job) -> None:
        """Never waits for the authority. Past MAX_JOBS the job is dropped and logged."""
        with self._changed:
            if len(self._jobs) >= MAX_JOBS:
                log.error("gave up the %s: %d settlements are waiting already", job.what, MAX_JOBS)
                return
            self._jobs.append(job)
        self._on_owing(self)

    def add_undecided(self, job: Job, error: ClearanceError) -> None:
        """One of UNDECIDED: wait a moment, and say so once until all is paid."""
        with self._changed:
            first = not self._jobs
            if first:
                self._due_at = self._clock() + _wait_s(error, FIRST_DELAY_S)
        log.log(
            logging.ERROR if first else logging.DEBUG,
            "the %s %s (%s); it is kept and tried again",
            job.what,
            why(error),
            type(error).__name__,
        )
        self.add(job)

    @property
    def due_at(self) -> float | None:
        """When to pay next, on the clock; None when nothing is owed."""
        with self._changed:
            return self._due_at if self._jobs else None

    def pay(self) -> None:
        """Try the jobs in order, until all are done or the authority does not answer."""
        with self._changed:
            if self._paying:
                return
            self._paying = True
        try:
            while self._jobs and self._try(self._jobs[0]):
                self._jobs.popleft()
                self._attempts = 0
        finally:
            with self._changed:
                self._paying = False
                self._changed.notify_all()

    def _try(self, job: Job) -> bool:
        """False when it must be tried again."""
        try:
            perform(job.authority, job.steps())
        except UNDECIDED as error:
            self._attempts += 1
            if self._attempts < MAX_ATTEMPTS:
                delay_s = min(MAX_DELAY_S, FIRST_DELAY_S * 2.0 ** min(self._attempts, 20))
                self._due_at = self._clock() + _wait_s(error, delay_s)
                return False
            log.error("gave up the %s after %d attempts (%s)", job.what, self._attempts, type(error).__name__)
        except Exception as error:  # no job may stop the others
            log.error("the %s failed (%s)", job.what, type(error).__name__)
        return True

    def flush(self, timeout_s: float) -> bool:
        """Pay now, in this thread; True when nothing is owed any more."""
        deadline = time.monotonic() + timeout_s
        while True:
            self.pay()
            with self._changed:
                if not self._jobs and not self._paying:
                    return True
                left = deadline - time.monotonic()
                if left <= 0:
                    return False
                self._changed.wait(min(left, _FLUSH_PAUSE_S))

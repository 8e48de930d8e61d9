"""One call through attempts, breaker and deadline. Pure steps: the shell sends, this decides."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import Any, TypeVar

from clearance.errors import AuthorityUnavailable, ClearanceError, LimitExceeded
from clearance.remote.answers import judge
from clearance.remote.breaker import Breaker
from clearance.remote.retries import Doubt, attempt_seconds, wait_seconds
from clearance.remote.steps import Pause, Send, Steps
from clearance.remote.wire import Call, NoAnswer

T = TypeVar("T")


class Exchange:
    """Sends calls to one server. `timeout_s` is for a call with all its attempts and pauses."""

    def __init__(
        self,
        timeout_s: float,
        *,
        clock: Callable[[], float] = time.monotonic,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self.timeout_s = timeout_s
        self.breaker = Breaker(clock, jitter)
        self._clock = clock
        self._jitter = jitter

    def of(self, call: Call[T], timeout_s: float | None = None) -> Steps[T]:
        """The result, or raises: Denied and other refusals, AuthorityUnavailable, BadAnswer, LimitExceeded."""
        ends_at = self._clock() + (self.timeout_s if timeout_s is None else timeout_s)
        attempt, unanswered = 1, False
        while True:
            verdict = yield from self._attempt(call, ends_at)
            if not isinstance(verdict, Doubt):
                result: T = verdict
                return result
            left_s = ends_at - self._clock()
            wait_s = wait_seconds(verdict, attempt, left_s, repeatable=call.repeatable, jitter=self._jitter)
            if wait_s is None:
                raise _final(call, verdict, unanswered)
            unanswered = unanswered or (verdict.sent and not isinstance(verdict.error, LimitExceeded))
            yield Pause(wait_s)
            attempt += 1

    def _attempt(self, call: Call[T], ends_at: float) -> Steps[Any]:
        probe = self.breaker.enter()
        outage: bool | None = None
        try:
            try:
                response = yield Send(call.request, attempt_seconds(ends_at - self._clock()))
            except NoAnswer as lost:
                outage = True
                return Doubt(
                    AuthorityUnavailable(f"no answer to {call.verb}: {lost.what}"), sent=lost.sent, outage=True
                )
            outage = False
            verdict = judge(call, response)
            outage = isinstance(verdict, Doubt) and verdict.outage
            return verdict
        finally:
            self.breaker.leave(probe, outage)


def _final(call: Call[Any], verdict: Doubt, unanswered: bool) -> ClearanceError:
    """A limit says that this attempt took no effect. If an earlier one may have, nobody must take it for a no."""
    error = verdict.error
    if not unanswered or not isinstance(error, LimitExceeded):
        return error
    return AuthorityUnavailable(f"no answer to {call.verb}, then {error.message}", retry_after_ms=error.retry_after_ms)

"""When a request is sent again, as data. Every repetition carries the same idempotency key."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

from clearance.errors import ClearanceError

MAX_ATTEMPTS = 3
BASE_DELAY_S = 0.04
FIRST_ATTEMPT_PART = 0.6
"""The part of the deadline that one attempt may take, so that an answer that was lost can be asked for again."""
MIN_ATTEMPT_S = 0.01


@dataclass(frozen=True, slots=True)
class Doubt:
    """Nobody knows whether it took effect, or it did not yet: `error` is what the caller gets if it stays so."""

    error: ClearanceError
    retry_after_s: float | None = None
    sent: bool = True
    outage: bool = False


def attempt_seconds(left_s: float) -> float:
    return max(MIN_ATTEMPT_S, left_s if left_s < 0.1 else left_s * FIRST_ATTEMPT_PART)


def wait_seconds(
    doubt: Doubt,
    attempt: int,
    left_s: float,
    *,
    repeatable: bool,
    jitter: Callable[[], float] = random.random,
) -> float | None:
    """How long to wait before attempt number `attempt` + 1 (the first is 1), None to give up.

    A Retry-After is kept exactly, and only if it ends before the deadline; else the delay doubles, half of it random.
    """
    if attempt >= MAX_ATTEMPTS or (doubt.sent and not repeatable):
        return None
    if doubt.retry_after_s is not None:
        wait_s = doubt.retry_after_s
    else:
        wait_s = BASE_DELAY_S * 2.0 ** (attempt - 1) * (0.5 + 0.5 * jitter())
    return wait_s if wait_s + MIN_ATTEMPT_S < left_s else None

"""How many requests a key may make: a token bucket of one second each."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import NamedTuple

from clearance.server.errors import Headers, Refused

MAX_BUCKETS = 10_000
UNLIMITED: Headers = [(b"x-ratelimit-remaining", b"-1"), (b"x-ratelimit-reset", b"0")]


class _Bucket(NamedTuple):
    tokens: float
    at: float


class RateLimit:
    def __init__(self, per_second: int, clock: Callable[[], float] = time.time) -> None:
        self._per_second = per_second
        self._clock = clock
        self._buckets: dict[str, _Bucket] = {}

    def take(self, key_id: str) -> Headers:
        """The headers of an answer; raises 429 when nothing is left."""
        if not self._per_second:
            return UNLIMITED
        now = self._clock()
        bucket = self._buckets.get(key_id)
        if bucket is None:
            if len(self._buckets) >= MAX_BUCKETS:
                self._buckets.clear()
            bucket = _Bucket(float(self._per_second), now)
        tokens = min(float(self._per_second), bucket.tokens + max(0.0, now - bucket.at) * self._per_second)
        if tokens < 1:
            self._buckets[key_id] = _Bucket(tokens, now)
            seconds = max(1, math.ceil((1 - tokens) / self._per_second))
            raise Refused(
                429,
                "LIMIT_EXCEEDED",
                f"more than {self._per_second} requests a second; try again in {seconds} s",
                headers=[(b"retry-after", str(seconds).encode()), *self._headers(0, now)],
            )
        self._buckets[key_id] = _Bucket(tokens - 1, now)
        return self._headers(int(tokens - 1), now)

    def _headers(self, left: int, now: float) -> Headers:
        reset = math.ceil(now) + 1
        return [(b"x-ratelimit-remaining", str(left).encode()), (b"x-ratelimit-reset", str(reset).encode())]

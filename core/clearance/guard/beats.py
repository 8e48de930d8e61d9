"""When to extend a lease (protocol section 21.2). Times are monotonic seconds, `_ms` values milliseconds. Pure."""

from __future__ import annotations

from dataclasses import dataclass

ATTEMPT_BUDGET_MS = 5_000
SAFETY_MARGIN_MS = 1_000
MAX_RETRY_DELAY_MS = 30_000
MIN_DELAY_MS = 100
_SHORT_LEASE_PART = 8
"""On short leases the budget and the margin shrink to an eighth of the lease, else there would be no time to work."""


@dataclass(slots=True)
class Beat:
    """The heartbeat of one lease.

    `lease_end` counts from when the request was sent, so the round trip is on the safe side.
    `attempt` is an extension that was asked for and not answered: (idempotency key, ms); its retry repeats both.
    """

    ttl_ms: int
    lease_end: float
    attempt: tuple[str, int] | None = None

    @property
    def _budget_ms(self) -> float:
        return min(ATTEMPT_BUDGET_MS, self.ttl_ms / _SHORT_LEASE_PART)

    @property
    def _margin_ms(self) -> float:
        return min(SAFETY_MARGIN_MS, self.ttl_ms / _SHORT_LEASE_PART)

    def next_at(self, now: float) -> float:
        """Leaves room for two attempts and a margin before the lease ends."""
        reserve_ms = 2 * self._budget_ms + self._margin_ms
        return max(now + MIN_DELAY_MS / 1000, self.lease_end - reserve_ms / 1000)

    def extend_by_ms(self, now: float) -> int:
        """What has elapsed: the lease then ends `ttl_ms` from now, not further and further out."""
        return max(1, self.ttl_ms - int((self.lease_end - now) * 1000))

    def extended(self, sent: float, remaining_ttl_ms: int) -> None:
        self.lease_end = sent + remaining_ttl_ms / 1000
        self.attempt = None

    def retry_at(self, now: float) -> float | None:
        """When to try again after nobody answered; None when there is no time for another attempt."""
        lead_ms = (self.lease_end - now) * 1000
        window_ms = lead_ms - self._budget_ms - self._margin_ms
        if window_ms < 0:
            return None
        return now + max(MIN_DELAY_MS, min(MAX_RETRY_DELAY_MS, lead_ms / 4, window_ms)) / 1000

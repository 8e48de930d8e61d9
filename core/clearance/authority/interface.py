"""What every authority can do, embedded or remote. Guards and adapters know this and nothing below it."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, Protocol

from clearance.model.account import OveragePolicy
from clearance.model.action import Action
from clearance.model.amount import Amount
from clearance.model.results import Decision, Lease, Settlement, Stop
from clearance.model.subject import Subject

DEFAULT_TTL_MS = 60_000
MIN_TTL_MS, MAX_TTL_MS = 1_000, 86_400_000
DEFAULT_GRACE_MS = 5_000
MAX_GRACE_MS = 60_000
MAX_EXTEND_MS = 86_400_000
DEFAULT_MAX_EXTENSIONS = 10
MAX_KEY_LENGTH = 256
MAX_METADATA_BYTES = 16_384

Metadata = Mapping[str, Any]


class Authority(Protocol):
    """The decision point. Every verb has an `a`-prefixed async twin with the same arguments and result.

    Errors of every verb: InvalidRequest for bad input (nothing is written), AuthorityUnavailable when nobody could
    decide in time. `idempotency_key` may be given to make a retry safe: the same key with the same arguments answers
    what the first call answered, with other arguments it raises IdempotencyMismatch.
    """

    def reserve(
        self,
        subject: Subject,
        action: Action,
        estimate: Amount,
        *,
        ttl_ms: int = DEFAULT_TTL_MS,
        grace_period_ms: int = DEFAULT_GRACE_MS,
        overage_policy: OveragePolicy | None = None,
        run_id: str | None = None,
        idempotency_key: str | None = None,
        metadata: Metadata | None = None,
    ) -> Decision:
        """Hold `estimate` on every budgeted scope of the subject, or on the run's account when `run_id` is given.

        Raises Denied (a subclass names the reason) and then holds nothing; NotFound or Conflict for a run that is
        unknown or over.
        """
        ...

    async def areserve(
        self,
        subject: Subject,
        action: Action,
        estimate: Amount,
        *,
        ttl_ms: int = DEFAULT_TTL_MS,
        grace_period_ms: int = DEFAULT_GRACE_MS,
        overage_policy: OveragePolicy | None = None,
        run_id: str | None = None,
        idempotency_key: str | None = None,
        metadata: Metadata | None = None,
    ) -> Decision: ...

    def dry_run(
        self,
        subject: Subject,
        action: Action,
        estimate: Amount,
        *,
        run_id: str | None = None,
        idempotency_key: str | None = None,
    ) -> Decision:
        """What `reserve` would answer, with nothing held. A denial is returned as DENY, not raised."""
        ...

    async def adry_run(
        self,
        subject: Subject,
        action: Action,
        estimate: Amount,
        *,
        run_id: str | None = None,
        idempotency_key: str | None = None,
    ) -> Decision: ...

    def commit(
        self,
        reservation_id: str,
        actual: Amount,
        *,
        idempotency_key: str | None = None,
        metadata: Metadata | None = None,
    ) -> Settlement:
        """Record what it really cost and give the unused part back (protocol section 8).

        Always accepted on a killed, paused or frozen scope. Raises NotFound, ReservationFinalized, ReservationExpired
        (then record the spend with `event`), UnitMismatch, BudgetExceeded under REJECT, OverdraftLimitExceeded.
        """
        ...

    async def acommit(
        self,
        reservation_id: str,
        actual: Amount,
        *,
        idempotency_key: str | None = None,
        metadata: Metadata | None = None,
    ) -> Settlement: ...

    def release(
        self, reservation_id: str, *, reason: str | None = None, idempotency_key: str | None = None
    ) -> Settlement:
        """Give the whole hold back: it certainly cost nothing."""
        ...

    async def arelease(
        self, reservation_id: str, *, reason: str | None = None, idempotency_key: str | None = None
    ) -> Settlement: ...

    def extend(self, reservation_id: str, extend_by_ms: int, *, idempotency_key: str | None = None) -> Lease:
        """Move the end of the lease by `extend_by_ms`, counted from its present end; not past the grace.

        Raises Stopped when the scope or an enclosing run was killed, ReservationExpired, ReservationFinalized,
        MaxExtensionsExceeded (runs are exempt from the maximum).
        """
        ...

    async def aextend(self, reservation_id: str, extend_by_ms: int, *, idempotency_key: str | None = None) -> Lease: ...

    def event(
        self,
        subject: Subject,
        action: Action,
        actual: Amount,
        *,
        overage_policy: OveragePolicy | None = None,
        run_id: str | None = None,
        idempotency_key: str | None = None,
        metadata: Metadata | None = None,
    ) -> Settlement:
        """Record spend that was never reserved, or whose reservation has expired (protocol section 12)."""
        ...

    async def aevent(
        self,
        subject: Subject,
        action: Action,
        actual: Amount,
        *,
        overage_policy: OveragePolicy | None = None,
        run_id: str | None = None,
        idempotency_key: str | None = None,
        metadata: Metadata | None = None,
    ) -> Settlement: ...

    def start_run(
        self,
        subject: Subject,
        budget: Amount | None = None,
        *,
        name: str = "run",
        ttl_ms: int = DEFAULT_TTL_MS,
        overage_policy: OveragePolicy | None = None,
        run_id: str | None = None,
        idempotency_key: str | None = None,
        metadata: Metadata | None = None,
    ) -> Decision:
        """Open a run: hold `budget` and make it the account of the calls inside (design, section 5).

        `run_id` is the enclosing run, if any. `Decision.reservation_id` is the new run's id. Without a budget the run
        carries identity only: calls inside hold on the enclosing run's account or on the scopes. The lease must be
        extended while the run lives; when it expires the scopes are charged what was committed inside.
        """
        ...

    async def astart_run(
        self,
        subject: Subject,
        budget: Amount | None = None,
        *,
        name: str = "run",
        ttl_ms: int = DEFAULT_TTL_MS,
        overage_policy: OveragePolicy | None = None,
        run_id: str | None = None,
        idempotency_key: str | None = None,
        metadata: Metadata | None = None,
    ) -> Decision: ...

    def end_run(self, run_id: str, *, metadata: Metadata | None = None) -> Settlement:
        """Close a run: charge what its calls charged (calls still open count as their estimate), free the rest."""
        ...

    async def aend_run(self, run_id: str, *, metadata: Metadata | None = None) -> Settlement: ...

    def stopped(self, reservation_ids: Collection[str]) -> dict[str, Stop]:
        """Which of these open reservations lie below a kill or pause. Cheap enough to ask several times a second."""
        ...

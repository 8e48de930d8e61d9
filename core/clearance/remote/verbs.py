"""The verbs of the Authority protocol over HTTP, sync and async: each is a line around the steps in `plan`."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from clearance.authority.interface import DEFAULT_GRACE_MS, DEFAULT_TTL_MS, Metadata
from clearance.authority.requests import Ask, ask, check_id, check_key, check_metadata
from clearance.model.account import OveragePolicy
from clearance.model.action import Action
from clearance.model.amount import Amount, usd
from clearance.model.results import Decision, Lease, Settlement, Stop
from clearance.model.subject import Subject
from clearance.remote.plan import Plan
from clearance.remote.requests import key_of
from clearance.remote.steps import Shell, aperform, perform


def _asked(
    subject: Subject,
    action: Action,
    estimate: Amount,
    key: str | None,
    run_id: str | None,
    ttl_ms: int = DEFAULT_TTL_MS,
    grace_period_ms: int = DEFAULT_GRACE_MS,
    overage_policy: OveragePolicy | None = None,
    metadata: Metadata | None = None,
) -> Ask:
    return ask(
        subject,
        action,
        estimate,
        ttl_ms=ttl_ms,
        grace_period_ms=grace_period_ms,
        overage_policy=overage_policy,
        run_id=run_id,
        idempotency_key=key_of(key),
        metadata=metadata,
    )


def _run_asked(
    subject: Subject,
    budget: Amount | None,
    name: str,
    ttl_ms: int,
    policy: OveragePolicy | None,
    run_id: str | None,
    key: str | None,
    metadata: Metadata | None,
) -> Ask:
    return ask(
        subject,
        Action(kind="run", name=name),
        budget if budget is not None else usd(0),
        ttl_ms=ttl_ms,
        grace_period_ms=DEFAULT_GRACE_MS,
        overage_policy=policy,
        run_id=run_id,
        idempotency_key=key_of(key),
        metadata=metadata,
        kind="run",
        unfunded=budget is None,
    )


class Verbs:
    """What a guard uses. Errors are those of the Authority protocol, and NotAuthorized and BadAnswer."""

    _plan: Plan
    _shell: Shell

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
        asked = _asked(
            subject, action, estimate, idempotency_key, run_id, ttl_ms, grace_period_ms, overage_policy, metadata
        )
        return perform(self._shell, self._plan.reserve(asked))

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
    ) -> Decision:
        asked = _asked(
            subject, action, estimate, idempotency_key, run_id, ttl_ms, grace_period_ms, overage_policy, metadata
        )
        return await aperform(self._shell, self._plan.reserve(asked))

    def dry_run(
        self,
        subject: Subject,
        action: Action,
        estimate: Amount,
        *,
        run_id: str | None = None,
        idempotency_key: str | None = None,
    ) -> Decision:
        return perform(self._shell, self._plan.dry_run(_asked(subject, action, estimate, idempotency_key, run_id)))

    async def adry_run(
        self,
        subject: Subject,
        action: Action,
        estimate: Amount,
        *,
        run_id: str | None = None,
        idempotency_key: str | None = None,
    ) -> Decision:
        asked = _asked(subject, action, estimate, idempotency_key, run_id)
        return await aperform(self._shell, self._plan.dry_run(asked))

    def decide(
        self, subject: Subject, action: Action, estimate: Amount, *, idempotency_key: str | None = None
    ) -> Decision:
        """The protocol's preflight: like `dry_run`, with idempotency keys of its own."""
        return perform(self._shell, self._plan.decide(subject, action, estimate, key_of(idempotency_key)))

    async def adecide(
        self, subject: Subject, action: Action, estimate: Amount, *, idempotency_key: str | None = None
    ) -> Decision:
        return await aperform(self._shell, self._plan.decide(subject, action, estimate, key_of(idempotency_key)))

    def commit(
        self,
        reservation_id: str,
        actual: Amount,
        *,
        idempotency_key: str | None = None,
        metadata: Metadata | None = None,
    ) -> Settlement:
        """Like the protocol's; and a reservation of ours that has expired settles as an event with the same key, with
        status APPLIED. What gets no answer stays in the journal and is sent again."""
        steps = self._plan.commit(reservation_id, actual, check_key(idempotency_key), check_metadata(metadata))
        return perform(self._shell, steps)

    async def acommit(
        self,
        reservation_id: str,
        actual: Amount,
        *,
        idempotency_key: str | None = None,
        metadata: Metadata | None = None,
    ) -> Settlement:
        steps = self._plan.commit(reservation_id, actual, check_key(idempotency_key), check_metadata(metadata))
        return await aperform(self._shell, steps)

    def release(
        self, reservation_id: str, *, reason: str | None = None, idempotency_key: str | None = None
    ) -> Settlement:
        return perform(self._shell, self._plan.release(reservation_id, reason, key_of(idempotency_key)))

    async def arelease(
        self, reservation_id: str, *, reason: str | None = None, idempotency_key: str | None = None
    ) -> Settlement:
        return await aperform(self._shell, self._plan.release(reservation_id, reason, key_of(idempotency_key)))

    def extend(self, reservation_id: str, extend_by_ms: int, *, idempotency_key: str | None = None) -> Lease:
        return perform(self._shell, self._plan.extend(reservation_id, extend_by_ms, key_of(idempotency_key)))

    async def aextend(self, reservation_id: str, extend_by_ms: int, *, idempotency_key: str | None = None) -> Lease:
        return await aperform(self._shell, self._plan.extend(reservation_id, extend_by_ms, key_of(idempotency_key)))

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
        """Journaled like a commit."""
        key, facts = key_of(idempotency_key), check_metadata(metadata)
        return perform(self._shell, self._plan.event(subject, action, actual, overage_policy, run_id, key, facts))

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
    ) -> Settlement:
        key, facts = key_of(idempotency_key), check_metadata(metadata)
        steps = self._plan.event(subject, action, actual, overage_policy, run_id, key, facts)
        return await aperform(self._shell, steps)

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
        """At a server of the base protocol the run is one reservation there and its slices are kept here."""
        asked = _run_asked(subject, budget, name, ttl_ms, overage_policy, run_id, idempotency_key, metadata)
        return perform(self._shell, self._plan.start_run(asked))

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
    ) -> Decision:
        asked = _run_asked(subject, budget, name, ttl_ms, overage_policy, run_id, idempotency_key, metadata)
        return await aperform(self._shell, self._plan.start_run(asked))

    def end_run(self, run_id: str, *, metadata: Metadata | None = None) -> Settlement:
        facts: dict[str, Any] = check_metadata(metadata)
        return perform(self._shell, self._plan.end_run(check_id(run_id, "run_id"), facts))

    async def aend_run(self, run_id: str, *, metadata: Metadata | None = None) -> Settlement:
        facts: dict[str, Any] = check_metadata(metadata)
        return await aperform(self._shell, self._plan.end_run(check_id(run_id, "run_id"), facts))

    def stopped(self, reservation_ids: Collection[str]) -> dict[str, Stop]:
        """Empty at a server of the base protocol, which has no stop button."""
        return perform(self._shell, self._plan.stopped(reservation_ids))

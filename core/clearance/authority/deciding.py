"""The verbs that ask before something happens: reserve, dry_run, decide and start_run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from clearance.authority import answers, evaluate
from clearance.authority.batch import Operation
from clearance.authority.interface import DEFAULT_GRACE_MS, DEFAULT_TTL_MS
from clearance.authority.operating import Operating
from clearance.authority.reasons import refuse
from clearance.authority.requests import Ask, ask
from clearance.errors import Denied
from clearance.model.account import OveragePolicy
from clearance.model.action import Action
from clearance.model.amount import Amount, usd
from clearance.model.results import Decision
from clearance.model.subject import Subject
from clearance.store.interface import Transaction


class Deciding(Operating):
    """All of them run one evaluation; only the live ones write."""

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
        metadata: Mapping[str, Any] | None = None,
    ) -> Decision:
        return self._batch.run(
            self._reserve(
                subject, action, estimate, ttl_ms, grace_period_ms, overage_policy, run_id, idempotency_key, metadata
            )
        )

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
        metadata: Mapping[str, Any] | None = None,
    ) -> Decision:
        return await self._batch.arun(
            self._reserve(
                subject, action, estimate, ttl_ms, grace_period_ms, overage_policy, run_id, idempotency_key, metadata
            )
        )

    def _reserve(
        self,
        subject: Subject,
        action: Action,
        estimate: Amount,
        ttl_ms: int,
        grace_period_ms: int,
        overage_policy: OveragePolicy | None,
        run_id: str | None,
        idempotency_key: str | None,
        metadata: Mapping[str, Any] | None,
    ) -> Operation[Decision]:
        request = ask(
            subject,
            action,
            estimate,
            ttl_ms=ttl_ms,
            grace_period_ms=grace_period_ms,
            overage_policy=overage_policy,
            run_id=run_id,
            idempotency_key=idempotency_key,
            metadata=metadata,
        )
        return self._decision(request, "reserve", live=True)

    def dry_run(
        self,
        subject: Subject,
        action: Action,
        estimate: Amount,
        *,
        run_id: str | None = None,
        idempotency_key: str | None = None,
    ) -> Decision:
        return self._batch.run(self._preview("dry_run", subject, action, estimate, run_id, idempotency_key))

    async def adry_run(
        self,
        subject: Subject,
        action: Action,
        estimate: Amount,
        *,
        run_id: str | None = None,
        idempotency_key: str | None = None,
    ) -> Decision:
        return await self._batch.arun(self._preview("dry_run", subject, action, estimate, run_id, idempotency_key))

    def decide(
        self, subject: Subject, action: Action, estimate: Amount, *, idempotency_key: str | None = None
    ) -> Decision:
        """The protocol's preflight: like `dry_run`, with idempotency keys of its own."""
        return self._batch.run(self._preview("decide", subject, action, estimate, None, idempotency_key))

    async def adecide(
        self, subject: Subject, action: Action, estimate: Amount, *, idempotency_key: str | None = None
    ) -> Decision:
        return await self._batch.arun(self._preview("decide", subject, action, estimate, None, idempotency_key))

    def _preview(
        self, endpoint: str, subject: Subject, action: Action, estimate: Amount, run_id: str | None, key: str | None
    ) -> Operation[Decision]:
        request = ask(
            subject,
            action,
            estimate,
            ttl_ms=DEFAULT_TTL_MS,
            grace_period_ms=DEFAULT_GRACE_MS,
            overage_policy=None,
            run_id=run_id,
            idempotency_key=key,
            metadata=None,
        )
        return self._decision(request, endpoint, live=False)

    def _decision(self, request: Ask, endpoint: str, *, live: bool) -> Operation[Decision]:
        place = request.place(endpoint)

        def apply(tx: Transaction, now_ms: int) -> Decision | Denied:
            replay = self._replayed(tx, place)
            if replay is not None:
                held = tx.reservation(replay.reservation_id) if replay.reservation_id else None
                return answers.decision(replay, held, now_ms)
            answer, changes = evaluate.evaluate(tx, request, now_ms, self._new_id, live=live)
            if place and (answer.allowed or not live):
                changes.events = changes.events or [evaluate.previewed(request, answer)]
                changes.place = place
            if changes.events:
                tx.write(changes, now_ms)
            return refuse(answer) if live and not answer.allowed else answer

        return self._operation(apply, self._flush_holds, request.needs(place))

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
        metadata: Mapping[str, Any] | None = None,
    ) -> Decision:
        return self._batch.run(
            self._start_run(subject, budget, name, ttl_ms, overage_policy, run_id, idempotency_key, metadata)
        )

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
        metadata: Mapping[str, Any] | None = None,
    ) -> Decision:
        return await self._batch.arun(
            self._start_run(subject, budget, name, ttl_ms, overage_policy, run_id, idempotency_key, metadata)
        )

    def _start_run(
        self,
        subject: Subject,
        budget: Amount | None,
        name: str,
        ttl_ms: int,
        policy: OveragePolicy | None,
        run_id: str | None,
        key: str | None,
        metadata: Mapping[str, Any] | None,
    ) -> Operation[Decision]:
        request = ask(
            subject,
            Action(kind="run", name=name),
            budget if budget is not None else usd(0),
            ttl_ms=ttl_ms,
            grace_period_ms=DEFAULT_GRACE_MS,
            overage_policy=policy,
            run_id=run_id,
            idempotency_key=key,
            metadata=metadata,
            kind="run",
            unfunded=budget is None,
        )
        return self._decision(request, "start_run", live=True)

"""The verbs that say what became of a hold: commit, release, extend, end_run; and event, a spend without one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from clearance.authority import answers, lifecycle, settle
from clearance.authority.batch import Operation
from clearance.authority.operating import Operating, needs, write
from clearance.authority.requests import (
    check_amount,
    check_extension,
    check_id,
    check_key,
    check_metadata,
    check_policy,
    check_remark,
    check_subject,
    place_of,
)
from clearance.model.account import OveragePolicy
from clearance.model.action import Action
from clearance.model.amount import Amount
from clearance.model.results import Lease, Settlement
from clearance.model.subject import Subject
from clearance.store.interface import Changes, Transaction


class Settling(Operating):
    """None of them is refused for a kill, a pause or a frozen budget, except `extend`."""

    def commit(
        self,
        reservation_id: str,
        actual: Amount,
        *,
        idempotency_key: str | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> Settlement:
        return self._batch.run(self._commit(reservation_id, actual, idempotency_key, metadata))

    async def acommit(
        self,
        reservation_id: str,
        actual: Amount,
        *,
        idempotency_key: str | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> Settlement:
        return await self._batch.arun(self._commit(reservation_id, actual, idempotency_key, metadata))

    def _commit(
        self, reservation_id: str, actual: Amount, key: str | None, metadata: Mapping[str, Any] | None
    ) -> Operation[Settlement]:
        check_id(reservation_id, "reservation_id")
        check_amount(actual, "actual")
        facts = check_metadata(metadata)
        payload = [str(actual.unit), actual.amount, facts]

        def apply(tx: Transaction, now_ms: int) -> tuple[Settlement, Changes]:
            return settle.commit(tx, reservation_id, actual, facts, now_ms)

        return self._settlement(reservation_id, "commit", check_key(key), payload, apply)

    def release(
        self, reservation_id: str, *, reason: str | None = None, idempotency_key: str | None = None
    ) -> Settlement:
        return self._batch.run(self._release(reservation_id, reason, idempotency_key))

    async def arelease(
        self, reservation_id: str, *, reason: str | None = None, idempotency_key: str | None = None
    ) -> Settlement:
        return await self._batch.arun(self._release(reservation_id, reason, idempotency_key))

    def _release(self, reservation_id: str, reason: str | None, key: str | None) -> Operation[Settlement]:
        check_id(reservation_id, "reservation_id")
        check_remark(reason, "reason", 256)

        def apply(tx: Transaction, now_ms: int) -> tuple[Settlement, Changes]:
            return settle.release(tx, reservation_id, reason, now_ms)

        return self._settlement(reservation_id, "release", check_key(key), [reason], apply)

    def _settlement(
        self,
        reservation_id: str,
        endpoint: str,
        key: str | None,
        payload: list[Any],
        evaluated: Callable[[Transaction, int], tuple[Settlement, Changes]],
    ) -> Operation[Settlement]:
        # Keys of settlements belong to their reservation (protocol A12).
        place = place_of(reservation_id, endpoint, key, payload) if key else None

        def apply(tx: Transaction, now_ms: int) -> Settlement:
            replay = self._replayed(tx, place)
            if replay is not None:
                return answers.settlement(replay)
            return write(tx, place, now_ms, *evaluated(tx, now_ms))

        return self._operation(apply, self._flush_settlements, needs(place, reservation_id))

    def extend(self, reservation_id: str, extend_by_ms: int, *, idempotency_key: str | None = None) -> Lease:
        return self._batch.run(self._extend(reservation_id, extend_by_ms, idempotency_key))

    async def aextend(self, reservation_id: str, extend_by_ms: int, *, idempotency_key: str | None = None) -> Lease:
        return await self._batch.arun(self._extend(reservation_id, extend_by_ms, idempotency_key))

    def _extend(self, reservation_id: str, extend_by_ms: int, key: str | None) -> Operation[Lease]:
        check_id(reservation_id, "reservation_id")
        check_extension(extend_by_ms)
        place = place_of(reservation_id, "extend", key, [extend_by_ms]) if check_key(key) and key else None

        def apply(tx: Transaction, now_ms: int) -> Lease:
            replay = self._replayed(tx, place)
            if replay is not None:
                return answers.lease(replay, tx.reservation(reservation_id), now_ms)
            return write(tx, place, now_ms, *settle.extend(tx, reservation_id, extend_by_ms, now_ms))

        return self._operation(apply, self._flush_holds, needs(place, reservation_id))

    def event(
        self,
        subject: Subject,
        action: Action,
        actual: Amount,
        *,
        overage_policy: OveragePolicy | None = None,
        run_id: str | None = None,
        idempotency_key: str | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> Settlement:
        return self._batch.run(self._event(subject, action, actual, overage_policy, run_id, idempotency_key, metadata))

    async def aevent(
        self,
        subject: Subject,
        action: Action,
        actual: Amount,
        *,
        overage_policy: OveragePolicy | None = None,
        run_id: str | None = None,
        idempotency_key: str | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> Settlement:
        return await self._batch.arun(
            self._event(subject, action, actual, overage_policy, run_id, idempotency_key, metadata)
        )

    def _event(
        self,
        subject: Subject,
        action: Action,
        actual: Amount,
        policy: OveragePolicy | None,
        run_id: str | None,
        key: str | None,
        metadata: Mapping[str, Any] | None,
    ) -> Operation[Settlement]:
        check_subject(subject, action)
        check_amount(actual, "actual")
        check_policy(policy)
        check_key(key)
        if run_id is not None:
            check_id(run_id, "run_id")
        facts = check_metadata(metadata)
        payload = [subject.wire, action.wire, actual.unit, actual.amount, policy, run_id, facts]
        place = place_of(subject.tenant_key, "event", key, payload) if key else None

        def apply(tx: Transaction, now_ms: int) -> Settlement:
            replay = self._replayed(tx, place)
            if replay is not None:
                return answers.settlement(replay)
            event_id = "evt_" + self._new_id(now_ms)
            result = settle.debit_event(tx, subject, action, actual, policy, run_id, facts, now_ms, event_id)
            return write(tx, place, now_ms, *result)

        wanted = needs(place, run_id)._replace(accounts=((subject.tenant_key, subject.scopes, (str(actual.unit),)),))
        return self._operation(apply, self._flush_settlements, wanted)

    def end_run(self, run_id: str, *, metadata: Mapping[str, Any] | None = None) -> Settlement:
        return self._batch.run(self._end_run(run_id, metadata))

    async def aend_run(self, run_id: str, *, metadata: Mapping[str, Any] | None = None) -> Settlement:
        return await self._batch.arun(self._end_run(run_id, metadata))

    def _end_run(self, run_id: str, metadata: Mapping[str, Any] | None) -> Operation[Settlement]:
        check_id(run_id, "run_id")
        facts = check_metadata(metadata)

        def apply(tx: Transaction, now_ms: int) -> Settlement:
            return lifecycle.end_run(tx, run_id, facts, now_ms)

        return self._operation(apply, self._flush_settlements, needs(None, run_id))

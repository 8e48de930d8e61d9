"""The authority inside this process, over a Store. Sync and async on one object."""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, TypeVar

from clearance.authority import answers, budgets, controls, evaluate, lifecycle, settle
from clearance.authority.background import Ticker
from clearance.authority.batch import Operation
from clearance.authority.clock import Clock, SystemClock
from clearance.authority.ids import NewId, new_id
from clearance.authority.interface import DEFAULT_GRACE_MS, DEFAULT_TTL_MS
from clearance.authority.queries import Queries
from clearance.authority.records import Attributing, RecordKeeping
from clearance.authority.requests import (
    Ask,
    ask,
    check_amount,
    check_extension,
    check_id,
    check_key,
    check_kind,
    check_metadata,
    check_policy,
    check_remark,
    check_subject,
    place_of,
)
from clearance.errors import Denied, IdempotencyMismatch, InvalidRequest
from clearance.ledger.funding import FundingOperation
from clearance.model.account import ACTIVE, CLOSED, FROZEN, OveragePolicy
from clearance.model.action import Action
from clearance.model.amount import Amount, AmountLike, Unit, parse_unit, to_amount, usd
from clearance.model.balance import Balance
from clearance.model.results import Decision, Event, Lease, Settlement, Stop
from clearance.model.subject import Subject, parse_scope, tenant_of
from clearance.store.interface import Changes, Needs, Place, Store, Transaction

R = TypeVar("R")

DURABILITY = ("power", "settlements", "process")
SWEEP_EVERY_MS = 1_000

_authorities: weakref.WeakSet[EmbeddedAuthority] = weakref.WeakSet()


class EmbeddedAuthority(RecordKeeping, Queries):
    """Decides and keeps the account in a store of its own.

    Durability says which answers survive a power cut: `power` all of them; `settlements` (default) everything but new
    holds and lease extensions, which survive the death of the process; `process` none for sure.
    """

    def __init__(
        self,
        store: Store,
        *,
        durability: str = "settlements",
        clock: Clock | None = None,
        ids: NewId = new_id,
        background: bool = True,
    ) -> None:
        if durability not in DURABILITY:
            raise InvalidRequest("durability", f"{durability!r} is unknown", ", ".join(DURABILITY))
        super().__init__(store)
        self._clock = clock or SystemClock()
        self._new_id = ids
        self._flush_holds = durability == "power"
        self._flush_settlements = durability != "process"
        self._batch = Attributing(store)
        self._next_sweep_ms = 0
        self._ticker = Ticker(self, SWEEP_EVERY_MS) if background else None
        self.durability = durability
        _authorities.add(self)
        self._start_ticking()

    # -- deciding ---------------------------------------------------------------------------------

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
            return evaluate.refuse(answer) if live and not answer.allowed else answer

        return self._operation(apply, self._flush_holds, request.needs(place))

    # -- settling ---------------------------------------------------------------------------------

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
        payload = [actual.unit, actual.amount, facts]

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
            return _write(tx, place, now_ms, *evaluated(tx, now_ms))

        return self._operation(apply, self._flush_settlements, _needs(place, reservation_id))

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
            return _write(tx, place, now_ms, *settle.extend(tx, reservation_id, extend_by_ms, now_ms))

        return self._operation(apply, self._flush_holds, _needs(place, reservation_id))

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
        keys = [(subject.tenant_key, scope, actual.unit.value) for scope in subject.scopes]

        def apply(tx: Transaction, now_ms: int) -> Settlement:
            replay = self._replayed(tx, place)
            if replay is not None:
                return answers.settlement(replay)
            event_id = "evt_" + self._new_id(now_ms)
            result = settle.debit_event(tx, subject, action, actual, policy, run_id, facts, now_ms, event_id)
            return _write(tx, place, now_ms, *result)

        needs = _needs(place, run_id)._replace(accounts=keys, tenants=(subject.tenant_key,))
        return self._operation(apply, self._flush_settlements, needs)

    # -- runs -------------------------------------------------------------------------------------

    def start_run(
        self,
        subject: Subject,
        budget: Amount | None = None,
        *,
        name: str = "run",
        ttl_ms: int = DEFAULT_TTL_MS,
        overage_policy: OveragePolicy | None = None,
        run_id: str | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> Decision:
        return self._batch.run(self._start_run(subject, budget, name, ttl_ms, overage_policy, run_id, metadata))

    async def astart_run(
        self,
        subject: Subject,
        budget: Amount | None = None,
        *,
        name: str = "run",
        ttl_ms: int = DEFAULT_TTL_MS,
        overage_policy: OveragePolicy | None = None,
        run_id: str | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> Decision:
        return await self._batch.arun(self._start_run(subject, budget, name, ttl_ms, overage_policy, run_id, metadata))

    def _start_run(
        self,
        subject: Subject,
        budget: Amount | None,
        name: str,
        ttl_ms: int,
        policy: OveragePolicy | None,
        run_id: str | None,
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
            idempotency_key=None,
            metadata=metadata,
            kind="run",
            unfunded=budget is None,
        )
        return self._decision(request, "start_run", live=True)

    def end_run(self, run_id: str, *, metadata: Mapping[str, Any] | None = None) -> Settlement:
        return self._batch.run(self._end_run(run_id, metadata))

    async def aend_run(self, run_id: str, *, metadata: Mapping[str, Any] | None = None) -> Settlement:
        return await self._batch.arun(self._end_run(run_id, metadata))

    def _end_run(self, run_id: str, metadata: Mapping[str, Any] | None) -> Operation[Settlement]:
        check_id(run_id, "run_id")
        facts = check_metadata(metadata)

        def apply(tx: Transaction, now_ms: int) -> Settlement:
            return lifecycle.end_run(tx, run_id, facts, now_ms)

        return self._operation(apply, self._flush_settlements, _needs(None, run_id))

    # -- the stop button --------------------------------------------------------------------------

    def kill(self, scope: str, *, reason: str, actor: str | None = None) -> Stop:
        """Stop everything below a scope, a run (`run:<id>`) or everybody (`*`), until `resume`.

        Once this has answered, no reservation below is granted, by any process. What is in flight is named in the
        answer and may still settle.
        """
        return self._control(scope, "KILLED", reason, actor)

    def pause(self, scope: str, *, reason: str, actor: str | None = None) -> Stop:
        """Like `kill`, for work that is meant to go on later."""
        return self._control(scope, "PAUSED", reason, actor)

    def resume(self, scope: str, *, reason: str, actor: str | None = None) -> Stop:
        return self._control(scope, "RUNNING", reason, actor)

    def _control(self, scope: str, state: controls.State, reason: str, actor: str | None) -> Stop:
        target = controls.parse_target(scope)
        reason, actor = controls.check_words(reason, actor or _current_user())

        def apply(tx: Transaction) -> Stop:
            return controls.control(tx, target, state, reason, actor, self._clock.now_ms())

        return self._batch.run(Operation(apply, self._flush_settlements))

    def stopped(self, reservation_ids: Collection[str]) -> dict[str, Stop]:
        with self._store.read() as reader:
            return reader.open_stops(list(reservation_ids))

    # -- budgets ----------------------------------------------------------------------------------

    def set_budget(self, spec: budgets.BudgetSpec, *, must_be_new: bool = False) -> Balance:
        """Create a budget or bring it to its spec; what was spent and is held stays."""
        check_kind(spec, budgets.BudgetSpec, "spec")
        return self._budget(lambda tx, now_ms: budgets.put(tx, spec, now_ms, must_be_new=must_be_new))

    def apply_budgets(self, specs: Sequence[budgets.BudgetSpec]) -> list[Balance]:
        """All of them in one transaction, or none."""

        def apply(tx: Transaction) -> list[Balance]:
            now_ms = self._clock.now_ms()
            found = []
            for spec in specs:
                account, changes = budgets.put(tx, spec, now_ms)
                tx.write(changes, now_ms)
                found.append(Balance.of(account))
            return found

        return self._batch.run(Operation(apply, self._flush_settlements))

    def fund(
        self,
        scope: str,
        operation: FundingOperation,
        amount: AmountLike,
        *,
        spent: Amount | None = None,
        reason: str | None = None,
        idempotency_key: str | None = None,
    ) -> Balance:
        """CREDIT, DEBIT, RESET, RESET_SPENT or REPAY_DEBT (protocol section 17.1)."""
        funding = budgets.check_funding(scope, operation, to_amount(amount, "amount"), spent, reason)
        key = check_key(idempotency_key)
        place = place_of(tenant_of(funding.scope), "fund", key, list(funding)) if key else None

        def apply(tx: Transaction) -> Balance:
            replay = self._replayed(tx, place)
            if replay is not None:
                return answers.balance(replay)
            now_ms = self._clock.now_ms()
            account, changes = budgets.funded(tx, funding, now_ms)
            return _write(tx, place, now_ms, Balance.of(account), changes)

        return self._batch.run(Operation(apply, self._flush_settlements))

    def freeze(self, scope: str, unit: Unit = Unit.USD_MICROCENTS, *, reason: str = "") -> Balance:
        """No new holds on this budget; what is held may settle."""
        return self._status(scope, unit, FROZEN, reason)

    def unfreeze(self, scope: str, unit: Unit = Unit.USD_MICROCENTS, *, reason: str = "") -> Balance:
        return self._status(scope, unit, ACTIVE, reason)

    def close_budget(self, scope: str, unit: Unit = Unit.USD_MICROCENTS, *, reason: str = "") -> Balance:
        """For good."""
        return self._status(scope, unit, CLOSED, reason)

    def _status(self, scope: str, unit: Unit, status: str, reason: str) -> Balance:
        path, kept_in = parse_scope(scope), parse_unit(unit).value
        check_remark(reason, "reason", 512)
        return self._budget(lambda tx, _: budgets.with_new_status(tx, path, kept_in, status, reason))

    def _budget(self, change: Callable[[Transaction, int], tuple[Any, Changes]]) -> Balance:
        def apply(tx: Transaction) -> Balance:
            now_ms = self._clock.now_ms()
            account, changes = change(tx, now_ms)
            tx.write(changes, now_ms)
            return Balance.of(account)

        return self._batch.run(Operation(apply, self._flush_settlements))

    def close_tenant(self, tenant: str) -> None:
        """For good: releases open calls, charges open runs what they spent, closes the budgets."""
        key = Subject(tenant=tenant).tenant_key

        def apply(tx: Transaction) -> None:
            if (row := tx.tenant(key)) is None or row.status != CLOSED:
                lifecycle.close_tenant(tx, key, self._clock.now_ms())

        self._batch.run(Operation(apply, self._flush_settlements))

    # -- time and ending --------------------------------------------------------------------------

    def sweep(self) -> int:
        """Expire what is past its lease and grace; returns how many. Use and the background tick do it too."""

        def apply(tx: Transaction) -> int:
            return lifecycle.sweep(tx, self._clock.now_ms())

        return self._batch.run(Operation(apply, False))

    def tidy(self) -> None:
        self._store.tidy()

    def close(self) -> None:
        """Answer what was asked, stop the background tick, close the store. May be called again."""
        if self._ticker:
            self._ticker.stop()
        self._batch.close()
        self._store.close()

    def after_fork(self) -> None:
        self._batch.after_fork()
        if self._ticker:
            self._ticker.after_fork()

    def _start_ticking(self) -> None:
        """Also at the next use: a forked child has no thread yet."""
        if self._ticker:
            self._ticker.start()

    # -- one operation ----------------------------------------------------------------------------

    def _operation(self, apply: Callable[[Transaction, int], R | Exception], flush: bool, needs: Needs) -> Operation[R]:
        """With the time of the transaction, and expiry by use: at most once a second, before what comes next."""
        self._start_ticking()

        def timed(tx: Transaction) -> R | Exception:
            now_ms = self._clock.now_ms()
            if now_ms >= self._next_sweep_ms:
                self._next_sweep_ms = now_ms + SWEEP_EVERY_MS
                before = tx.writes
                lifecycle.sweep(tx, now_ms)
                # Complete by itself: what comes next may fail without undoing it.
                tx.writes = before
            return apply(tx, now_ms)

        return Operation(timed, flush, needs)

    @staticmethod
    def _replayed(tx: Transaction, place: Place | None) -> Event | None:
        if place is None:
            return None
        found = tx.answered(place.key)
        if found is None:
            return None
        if found.payload != place.payload:
            raise IdempotencyMismatch("this idempotency key was used with other arguments; use a new key")
        event = tx.event(found.seq)
        if event is None:
            raise answers.gone(found.seq)
        return event


def _write(tx: Transaction, place: Place | None, now_ms: int, answer: R, changes: Changes) -> R:
    changes.place = place
    tx.write(changes, now_ms)
    return answer


def _needs(place: Place | None, reservation_id: str | None) -> Needs:
    return Needs(
        reservations=(reservation_id,) if reservation_id else (),
        answers=(place.key,) if place else (),
    )


def _current_user() -> str:
    return (
        os.environ.get("USER") or os.environ.get("USERNAME") or f"uid {os.getuid() if hasattr(os, 'getuid') else '?'}"
    )


def _after_fork_in_child() -> None:
    for authority in list(_authorities):
        authority.after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)

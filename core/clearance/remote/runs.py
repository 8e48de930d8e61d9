"""Runs against a server of the base protocol: one reservation there, and the slices kept here with the same ledger."""

from __future__ import annotations

import threading
from dataclasses import dataclass, replace
from typing import Any

from clearance.authority.budgets import BudgetSpec
from clearance.authority.embedded import EmbeddedAuthority
from clearance.authority.ids import new_id
from clearance.authority.interface import MAX_TTL_MS
from clearance.authority.requests import Ask
from clearance.errors import NotFound, ReservationFinalized
from clearance.guard.process import new_key
from clearance.model.account import OveragePolicy
from clearance.model.action import Action
from clearance.model.amount import INT64_MAX, Amount, Unit
from clearance.model.results import Decision, Lease, Settlement
from clearance.model.subject import Subject
from clearance.remote.records import Origin, Record
from clearance.remote.settling import Settling
from clearance.store.sqlite import MEMORY, SqliteStore

ROOM = INT64_MAX // 4
"""What the local ledger may spend beyond a run: the overage is the server's to judge, when the run ends."""


@dataclass(slots=True)
class _Run:
    """A run whose money is one reservation at the server. `local_id` is its account in `ledger`."""

    ledger: EmbeddedAuthority
    local_id: str
    scope: str
    record: Record
    ended: Record | None = None


class LocalRuns:
    """Every run that is kept here. A run without a budget is a name only: its calls go to the server.

    What a run has spent so far is in the journal, due when its lease is over: if this process dies, the next one
    charges it. Thread-safe.
    """

    def __init__(self, settling: Settling) -> None:
        self._settling = settling
        self.renew()

    def renew(self) -> None:
        self._lock = threading.Lock()
        self._funded: dict[str, _Run] = {}
        self._inner: dict[str, _Run] = {}
        self._unfunded: set[str] = set()
        self._calls: dict[str, _Run] = {}

    # -- which is which

    def knows(self, run_id: str | None) -> bool:
        """A run that is kept here, of any kind."""
        return run_id is not None and (run_id in self._unfunded or self._of(run_id) is not None)

    def funded(self, run_id: str | None) -> bool:
        return run_id is not None and self._of(run_id) is not None

    def holds(self, reservation_id: str) -> bool:
        """A call or a nested run in a local ledger."""
        return reservation_id in self._calls or reservation_id in self._inner

    def is_local(self, name: str) -> bool:
        return self.holds(name) or name in self._unfunded

    def inside(self, asked: Ask) -> _Run | None:
        return None if asked.run_id is None else self._of(asked.run_id)

    def outside(self, asked: Ask) -> Ask:
        """The same request without a run that only we know."""
        return asked._replace(run_id=None)

    def _of(self, run_id: str) -> _Run | None:
        return self._funded.get(run_id) or self._inner.get(run_id)

    def _local_id(self, run_id: str) -> str:
        own = self._funded.get(run_id)
        return own.local_id if own is not None else run_id

    def _run(self, run_id: str) -> _Run:
        run = self._of(run_id)
        if run is None:
            raise NotFound(f"no run {run_id}")
        if run.ended is not None:
            raise ReservationFinalized(f"run {run_id} has ended")
        return run

    # -- beginning and ending

    def start_unfunded(self, asked: Ask) -> Decision:
        run_id = "run_" + new_id(self._settling.journal.now_ms())
        with self._lock:
            self._unfunded.add(run_id)
        unit = asked.estimate.unit
        return Decision("ALLOW", asked.subject.scopes, unit, 0, run_id, remaining_ttl_ms=asked.ttl_ms)

    def start_funded(self, asked: Ask, decision: Decision) -> None:
        """The server holds the budget; from here on the slices are kept in a ledger of this run's own."""
        reservation_id = decision.reservation_id or ""
        ledger = EmbeddedAuthority(SqliteStore(MEMORY), durability="process", background=False)
        scope = asked.subject.scopes[0]
        ledger.set_budget(BudgetSpec(scope=scope, allocated=Amount(unit=asked.estimate.unit, amount=ROOM)))
        local = ledger.start_run(asked.subject, asked.estimate, name=asked.action.name, ttl_ms=MAX_TTL_MS)
        origin = Origin(asked.subject, asked.action, asked.overage_policy, None, asked.estimate.amount)
        nothing = Amount(unit=asked.estimate.unit, amount=0)
        now_ms = self._settling.journal.now_ms()
        left_ms = asked.ttl_ms if decision.remaining_ttl_ms is None else decision.remaining_ttl_ms
        record = Record(new_key(), nothing, "commit", reservation_id, origin, {}, now_ms, now_ms + left_ms)
        self._settling.hold(record.name)
        with self._lock:
            self._funded[reservation_id] = _Run(ledger, local.reservation_id or "", scope, record)

    def start_inside(self, asked: Ask) -> Decision:
        run = self._run(asked.run_id or "")
        decision = run.ledger.start_run(
            asked.subject,
            None if asked.unfunded else asked.estimate,
            name=asked.action.name,
            ttl_ms=MAX_TTL_MS,
            overage_policy=asked.overage_policy,
            run_id=self._local_id(asked.run_id or ""),
            metadata=asked.metadata,
        )
        with self._lock:
            self._inner[decision.reservation_id or ""] = run
        return decision._replace(remaining_ttl_ms=asked.ttl_ms)

    def end(self, run_id: str, metadata: dict[str, Any]) -> Settlement | Record:
        """The settlement of a run that was only known here, or what is to be told the server of one that it funds."""
        if run_id in self._unfunded:
            with self._lock:
                self._unfunded.discard(run_id)
            return Settlement("COMMITTED", Unit.USD_MICROCENTS, 0, 0, 0, reservation_id=run_id)
        run = self._of(run_id)
        if run is None:
            raise NotFound(f"no run {run_id}")
        if run_id in self._inner:
            return run.ledger.end_run(run_id, metadata=metadata)
        if run.ended is None:
            run.ledger.end_run(run.local_id, metadata=metadata)
            spent = Amount(unit=run.record.actual.unit, amount=self._spent(run))
            run.ended = replace(run.record, actual=spent, metadata=metadata, not_before_ms=0)
        return run.ended

    def forget(self, run_id: str) -> None:
        with self._lock:
            run = self._funded.pop(run_id, None)
            if run is None:
                return
            self._inner = {name: of for name, of in self._inner.items() if of is not run}
            self._calls = {name: of for name, of in self._calls.items() if of is not run}
        run.ledger.close()

    # -- inside

    def reserve(self, run: _Run, asked: Ask) -> Decision:
        self._run(asked.run_id or "")
        decision = run.ledger.reserve(
            asked.subject,
            asked.action,
            asked.estimate,
            ttl_ms=asked.ttl_ms,
            grace_period_ms=asked.grace_period_ms,
            overage_policy=asked.overage_policy,
            run_id=self._local_id(asked.run_id or ""),
            idempotency_key=asked.idempotency_key,
            metadata=asked.metadata,
        )
        with self._lock:
            self._calls[decision.reservation_id or ""] = run
        return decision

    def dry_run(self, run: _Run, asked: Ask) -> Decision:
        return run.ledger.dry_run(
            asked.subject, asked.action, asked.estimate, run_id=self._local_id(asked.run_id or "")
        )

    def commit(self, reservation_id: str, actual: Amount, key: str, metadata: dict[str, Any]) -> Settlement:
        run = self._holder(reservation_id)
        settlement = run.ledger.commit(reservation_id, actual, idempotency_key=key, metadata=metadata)
        self._note(run, settlement.actual)
        return settlement

    def release(self, reservation_id: str, reason: str | None, key: str) -> Settlement:
        return self._holder(reservation_id).ledger.release(reservation_id, reason=reason, idempotency_key=key)

    def extend_inside(self, reservation_id: str, extend_by_ms: int) -> Lease:
        if reservation_id in self._inner:
            # A nested run lives as long as the run that funds it; its own lease is a formality.
            now_ms = self._settling.journal.now_ms()
            return Lease(reservation_id, now_ms + extend_by_ms, extend_by_ms)
        return self._holder(reservation_id).ledger.extend(reservation_id, extend_by_ms)

    def event(
        self,
        subject: Subject,
        action: Action,
        actual: Amount,
        policy: OveragePolicy | None,
        run_id: str,
        key: str,
        metadata: dict[str, Any],
    ) -> Settlement:
        run = self._run(run_id)
        settlement = run.ledger.event(
            subject,
            action,
            actual,
            overage_policy=policy,
            run_id=self._local_id(run_id),
            idempotency_key=key,
            metadata=metadata,
        )
        self._note(run, settlement.actual)
        return settlement

    def extended(self, run_id: str, lease: Lease) -> None:
        """The run lives on, and so does the moment at which another process would settle it."""
        run = self._funded.get(run_id)
        if run is not None and run.ended is None:
            due_ms = self._settling.journal.now_ms() + lease.remaining_ttl_ms
            self._change(run, 0, due_ms)

    def _note(self, run: _Run, actual: int) -> None:
        if run.ended is None:
            self._change(run, actual, run.record.not_before_ms)

    def _change(self, run: _Run, spent: int, due_ms: int) -> None:
        with self._lock:  # the later sum must be the one that stays on disk
            so_far = Amount(unit=run.record.actual.unit, amount=run.record.actual.amount + spent)
            run.record = replace(run.record, actual=so_far, not_before_ms=due_ms)
            if so_far.amount:  # a run that has spent nothing leaves nothing to settle
                self._settling.journal.write(run.record, first=True)

    def _spent(self, run: _Run) -> int:
        return run.ledger.balance(run.scope, run.record.actual.unit).spent

    def _holder(self, reservation_id: str) -> _Run:
        run = self._calls.get(reservation_id) or self._inner.get(reservation_id)
        if run is None:
            raise NotFound(f"no reservation {reservation_id}")
        return run

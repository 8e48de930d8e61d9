"""What happens while nobody can decide: deny, or for chosen action kinds go on within an allowance, and tell later."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from clearance.authority.requests import Ask
from clearance.errors import InvalidRequest, ReservationFinalized, UnitMismatch
from clearance.model.amount import Amount
from clearance.model.results import Decision, Lease, Settlement
from clearance.remote.journal import Entry, Journal
from clearance.remote.records import Origin, Record

log = logging.getLogger("clearance.remote")

PREFIX = "outage_"
REASON = "OUTAGE_ALLOWANCE"


class Allowance(NamedTuple):
    """How much may be spent without an authority, in any `every_s` seconds, by this process."""

    amount: Amount
    every_s: float = 3600.0


OnOutage = Literal["deny"] | Mapping[str, Allowance]
"""`"deny"` (default), or an allowance for each action kind that may go on: `{"tool.call": Allowance(usd(1))}`."""


@dataclass(slots=True)
class _Spending:
    began: float
    spent: int = 0


@dataclass(slots=True)
class _Going:
    """One action that went on without an authority."""

    record: Record
    kind: str
    held: int
    facts: dict[str, Any] = field(default_factory=dict)


class OutageDesk:
    """Allows within the allowances and keeps account of it in the journal. Thread-safe; `clock` in monotonic s.

    The estimate is written down before the action begins, to be sent as an event once its lease is over, so that a
    crash in between forgets nothing; the settlement takes its place.
    """

    def __init__(
        self, policy: OnOutage, journal: Journal, clock: Callable[[], float], on_left: Callable[[str], None]
    ) -> None:
        self._allowances = _checked(policy)
        self._journal = journal
        self._clock = clock
        self._on_left = on_left
        self.renew()

    def renew(self) -> None:
        self._lock = threading.Lock()
        self._spending: dict[str, _Spending] = {}
        self._going: dict[str, _Going] = {}

    def knows(self, reservation_id: str) -> bool:
        return reservation_id.startswith(PREFIX)

    def allow(self, asked: Ask) -> Decision | None:
        """None if this must wait for the authority. Only for an outage; nobody calls it for a denial."""
        if not self._take(asked.action.kind, asked.estimate):
            return None
        origin = Origin(asked.subject, asked.action, asked.overage_policy, asked.run_id, asked.estimate.amount)
        lease_ms = asked.ttl_ms + asked.grace_period_ms
        facts = {**asked.metadata, "outage": "allowed"}
        record = Record(
            f"{asked.idempotency_key}-outage"[:256],
            asked.estimate,
            "event",
            None,
            origin,
            {**facts, "settled_as": "estimate"},
            self._journal.now_ms(),
            self._journal.now_ms() + lease_ms,
        )
        self._journal.write(record)
        reservation_id = f"{PREFIX}{asked.idempotency_key}"[:128]
        with self._lock:
            self._going[reservation_id] = _Going(record, asked.action.kind, asked.estimate.amount, facts)
        log.warning("%s %s goes on without the authority, within its allowance", asked.action.kind, asked.action.name)
        return Decision(
            "ALLOW",
            asked.subject.scopes,
            asked.estimate.unit,
            asked.estimate.amount,
            reservation_id,
            remaining_ttl_ms=asked.ttl_ms,
            reason_code=REASON,
        )

    def commit(self, reservation_id: str, actual: Amount, metadata: dict[str, Any]) -> Settlement:
        """Written down; the event goes out when the authority is back."""
        going = self._ended(reservation_id, actual)
        self._give_back(going, going.held - actual.amount)
        record = going.record
        changed = Record(
            record.key, actual, "event", None, record.origin, {**metadata, **going.facts}, self._journal.now_ms()
        )
        self._journal.write(changed)
        self._on_left(changed.name)
        return Settlement(
            "APPLIED", actual.unit, going.held, actual.amount, actual.amount, reservation_id=reservation_id
        )

    def release(self, reservation_id: str) -> Settlement:
        going = self._ended(reservation_id)
        self._give_back(going, going.held)
        present = going.record
        self._journal.remove(Entry(present, present.encoded()))
        return Settlement("RELEASED", present.actual.unit, going.held, 0, 0, going.held, reservation_id=reservation_id)

    def extend(self, reservation_id: str, extend_by_ms: int) -> Lease:
        with self._lock:
            going = self._going.get(reservation_id)
        if going is None:
            raise ReservationFinalized(f"{reservation_id} is over")
        entry = Entry(going.record, going.record.encoded())
        until_ms = going.record.not_before_ms + extend_by_ms
        going.record = self._journal.hold_off(entry, until_ms).record
        return Lease(reservation_id, until_ms, until_ms - self._journal.now_ms())

    def _ended(self, reservation_id: str, actual: Amount | None = None) -> _Going:
        with self._lock:
            going = self._going.get(reservation_id)
            if going is not None and actual is not None and actual.unit is not going.record.actual.unit:
                raise UnitMismatch("actual", f"is in {actual.unit}", going.record.actual.unit)
            self._going.pop(reservation_id, None)
        if going is None:
            raise ReservationFinalized(f"{reservation_id} is over, or was begun by another process")
        return going

    def _take(self, kind: str, estimate: Amount) -> bool:
        allowance = self._allowances.get(kind)
        if allowance is None or allowance.amount.unit is not estimate.unit:
            return False
        with self._lock:
            spending = self._spending.get(kind)
            if spending is None or self._clock() - spending.began >= allowance.every_s:
                spending = self._spending[kind] = _Spending(self._clock())
            if spending.spent + estimate.amount > allowance.amount.amount:
                return False
            spending.spent += estimate.amount
            return True

    def _give_back(self, going: _Going, amount: int) -> None:
        with self._lock:
            spending = self._spending.get(going.kind)
            if spending is not None:
                spending.spent = max(0, spending.spent - amount)


def _checked(policy: OnOutage) -> Mapping[str, Allowance]:
    if policy == "deny":
        return {}
    if not isinstance(policy, Mapping) or not all(isinstance(it, Allowance) for it in policy.values()):
        raise InvalidRequest("on_outage", "cannot be read", '"deny" or {action kind: Allowance(amount, every_s)}')
    for kind, allowance in policy.items():
        if not isinstance(kind, str) or not kind.strip() or "*" in kind:
            raise InvalidRequest("on_outage", f"{kind!r} is no action kind", "each kind by its own name")
        if not isinstance(allowance.amount, Amount) or not allowance.every_s > 0:
            raise InvalidRequest(
                "on_outage", f"the allowance of {kind!r} is no amount per time", "Allowance(usd(1), 60)"
            )
    return dict(policy)

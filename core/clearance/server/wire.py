"""What the authority answers, as the protocol writes it. Pure. Absent fields are left out, never null."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from clearance.model.account import Account
from clearance.model.reservation import Reservation
from clearance.model.results import Decision, Figures, Lease, Settlement, Stop

Wire = dict[str, Any]

EXTRA = "x-clearance"
"""Under this key of the metadata the ledger keeps what the protocol takes and never gives back."""


def iso(ms: int) -> str:
    return datetime.fromtimestamp(ms / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def amount(unit: str, value: int) -> Wire:
    return {"unit": str(unit), "amount": value}  # an enum takes the writer of JSON several times as long


def balances(figures: Figures, unit: str) -> list[Wire]:
    unit = str(unit)
    return [_balance(scope, unit, *numbers) for scope, numbers in figures.items()]


def balance(account: Account) -> Wire:
    return _balance(account.scope, account.unit, *account.figures)


def _balance(
    scope: str, unit: str, allocated: int, reserved: int, spent: int, debt: int, limit: int, over: int
) -> Wire:
    wire: Wire = {
        # The leaf, as clients of the reference server expect; `scope_path` identifies (A1).
        "scope": scope.rpartition("/")[2],
        "scope_path": scope,
        "remaining": {"unit": unit, "amount": allocated - spent - reserved - debt},
        "reserved": {"unit": unit, "amount": reserved},
        "spent": {"unit": unit, "amount": spent},
        "allocated": {"unit": unit, "amount": allocated},
    }
    if debt:
        wire["debt"] = {"unit": unit, "amount": debt}
    if limit:
        wire["overdraft_limit"] = {"unit": unit, "amount": limit}
    if over:
        wire["is_over_limit"] = True
    return wire


def decision(it: Decision, name: str, *, extended: bool = False) -> Wire:
    """The answer of decide about the action of this name."""
    wire: Wire = {"decision": it.decision, "affected_scopes": it.affected_scopes}
    if it.caps is not None:
        # Strict clients of the protocol refuse a field they do not know.
        caps = it.caps if extended else it.caps.of_the_protocol(name)
        wire["caps"] = caps.wire
    if it.reason_code is not None:
        wire["reason_code"] = it.reason_code
    if it.retry_after_ms is not None:
        wire["retry_after_ms"] = it.retry_after_ms
    return wire


def reservation(it: Decision, name: str, *, extended: bool = False) -> Wire:
    """The answer of create, live or dry, about the action of this name."""
    wire = decision(it, name, extended=extended)
    wire["scope_path"] = it.affected_scopes[-1]
    if it.reservation_id is not None:
        wire["reservation_id"] = it.reservation_id
        wire["expires_at_ms"] = it.expires_at_ms
        wire["remaining_ttl_ms"] = it.remaining_ttl_ms
    if it.allowed:
        wire["reserved"] = amount(it.unit, it.estimate)
        wire["balances"] = balances(it.figures, it.unit)
    return wire


def commit(it: Settlement) -> Wire:
    wire: Wire = {"status": "COMMITTED", "charged": amount(it.unit, it.charged)}
    if it.released:
        wire["released"] = amount(it.unit, it.released)
    wire["balances"] = balances(it.figures, it.unit)
    return wire


def release(it: Settlement) -> Wire:
    return {
        "status": "RELEASED",
        "released": amount(it.unit, it.released),
        "balances": balances(it.figures, it.unit),
    }


def extend(it: Lease) -> Wire:
    return {"status": "ACTIVE", "expires_at_ms": it.expires_at_ms, "remaining_ttl_ms": it.remaining_ttl_ms}


def event(it: Settlement) -> Wire:
    wire: Wire = {"status": "APPLIED", "event_id": it.event_id}
    if it.uncharged:
        wire["charged"] = amount(it.unit, it.charged)
    wire["balances"] = balances(it.figures, it.unit)
    return wire


def kept_metadata(metadata: Mapping[str, Any] | None, **extra: Any) -> Wire | None:
    """The metadata to keep, with what else the request said (so that it counts for the idempotency of the request)."""
    said = {name: value for name, value in extra.items() if value is not None}
    if not said:
        return dict(metadata) if metadata else None
    return {**(metadata or {}), EXTRA: said}


def _shown_metadata(metadata: Mapping[str, Any] | None) -> Wire:
    return {name: value for name, value in (metadata or {}).items() if name != EXTRA}


SUMMARY_PARTS = ("metadata", "committed_metadata")


def summary(it: Reservation, include: frozenset[str]) -> Wire:
    wire: Wire = {
        "reservation_id": it.id,
        "status": it.status,
        "subject": it.subject,
        "action": it.action,
        "reserved": amount(it.unit, it.estimate),
        "created_at_ms": it.created_at_ms,
        "expires_at_ms": it.expires_at_ms,
        "scope_path": it.scope_path,
        "affected_scopes": it.affected_scopes,
    }
    if it.idempotency_key is not None:
        wire["idempotency_key"] = it.idempotency_key
    if it.finalized_at_ms is not None and it.status in ("COMMITTED", "RELEASED"):
        wire["finalized_at_ms"] = it.finalized_at_ms
    if it.status == "COMMITTED" and it.charged is not None:
        wire["committed"] = amount(it.unit, it.charged)
    for part in SUMMARY_PARTS:
        shown = _shown_metadata(getattr(it, part)) if part in include else None
        if shown:
            wire[part] = shown
    return wire


def detail(it: Reservation) -> Wire:
    return summary(it, frozenset(SUMMARY_PARTS))


def stop(it: Stop) -> Wire:
    return {
        "scope": it.scope,
        "tenant": it.tenant,
        "state": it.state,
        "reason": it.reason,
        "actor": it.actor,
        "at_ms": it.at_ms,
        "in_flight": list(it.in_flight),
    }


def ledger(it: Account) -> Wire:
    """A budget as the governance plane writes it (BudgetLedger)."""
    wire: Wire = {
        "ledger_id": f"{it.tenant}:{it.scope}:{it.unit}",
        "tenant_id": it.tenant,
        "scope": it.scope,
        "scope_path": it.scope,
        "unit": it.unit,
        "allocated": amount(it.unit, it.allocated),
        "remaining": amount(it.unit, it.remaining),
        "reserved": amount(it.unit, it.reserved),
        "spent": amount(it.unit, it.spent),
        "debt": amount(it.unit, it.debt),
        "overdraft_limit": amount(it.unit, it.overdraft_limit),
        "is_over_limit": it.over_limit,
        "status": it.status,
        "created_at": iso(it.created_at_ms),
    }
    if it.overage_policy:
        wire["commit_overage_policy"] = it.overage_policy
    if it.period_start_ms is not None and it.period_end_ms is not None:
        wire["period_start"], wire["period_end"] = iso(it.period_start_ms), iso(it.period_end_ms)
    return wire

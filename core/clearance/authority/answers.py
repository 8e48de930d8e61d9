"""An answer from the event that keeps it, so that a replay says what was said the first time (protocol section 13)."""

from __future__ import annotations

from dataclasses import replace

from clearance.errors import ClearanceError
from clearance.model.amount import Unit
from clearance.model.balance import Balance
from clearance.model.caps import Caps, CapsRule
from clearance.model.period import Period
from clearance.model.reservation import Reservation
from clearance.model.results import Decision, Event, Lease, Settlement


def decision(event: Event, reservation: Reservation | None, now_ms: int) -> Decision:
    """`remaining_ttl_ms` is computed anew from the first expiry, 0 once the reservation is no longer open."""
    data = event.data
    if event.type == "reservation.denied":
        return Decision(
            "DENY",
            tuple(data["scopes"]),
            Unit(data["unit"]),
            data["requested"],
            reason_code=data["reason_code"],
            message=data["message"],
            scope=data["scope"],
            retry_after_ms=data.get("retry_after_ms"),
            details=data["details"],
        )
    expires_at_ms = data.get("expires_at_ms")
    return Decision(
        data["decision"],
        tuple(data["scopes"]),
        Unit(data["unit"]),
        data["estimate"],
        event.reservation_id,
        expires_at_ms,
        _left(expires_at_ms, reservation, now_ms),
        Caps.model_validate(data["caps"]) if "caps" in data else None,
        figures=data["figures"],
    )


def _left(expires_at_ms: int | None, reservation: Reservation | None, now_ms: int) -> int | None:
    if expires_at_ms is None:
        return None
    return max(0, expires_at_ms - now_ms) if reservation is not None and reservation.is_open else 0


def settlement(event: Event) -> Settlement:
    data = event.data
    status = {"spend.recorded": "APPLIED", "reservation.released": "RELEASED"}.get(event.type, "COMMITTED")
    return Settlement(
        status,  # type: ignore[arg-type]
        Unit(data["unit"]),
        data.get("estimate", 0),
        data.get("actual", 0),
        data.get("charged", 0),
        data.get("released", 0),
        data.get("uncharged", 0),
        event.reservation_id,
        data.get("event_id"),
        data["figures"],
    )


def lease(event: Event, reservation: Reservation | None, now_ms: int) -> Lease:
    expires_at_ms = event.data["expires_at_ms"]
    return Lease(event.reservation_id or "", expires_at_ms, _left(expires_at_ms, reservation, now_ms) or 0)


def balance(event: Event) -> Balance:
    ((scope, figures),) = event.data["figures"].items()
    found = Balance.recorded(scope, event.data["unit"], figures)
    return replace(
        found,
        tenant=event.tenant,
        period=Period.model_validate(event.data["period"]) if "period" in event.data else None,
        period_end_ms=event.data.get("period_end_ms"),
        caps=tuple(CapsRule.model_validate(rule) for rule in event.data.get("caps", ())),
    )


def gone(seq: int) -> ClearanceError:
    return ClearanceError(f"the answer of this key (event {seq}) is no longer kept; use a new key")

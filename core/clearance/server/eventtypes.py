"""The one table from our event types to the protocol's, and an event of the log as the protocol writes it."""

from __future__ import annotations

from typing import Any, NamedTuple

from clearance.model.results import Event
from clearance.server.names import names
from clearance.server.wire import Wire, iso

SOURCE = "clearance"
SYSTEM = "__system__"
CATEGORIES = ("budget", "tenant", "api_key", "policy", "reservation", "system", "webhook")
TENANT_CATEGORIES = frozenset({"budget", "reservation", "tenant"})


class Kind(NamedTuple):
    """An event type of the protocol (ours begin with `custom.`) and its category."""

    type: str
    category: str


_SAME = names(
    "budget.created budget.updated budget.funded budget.debited budget.reset budget.reset_spent budget.debt_repaid "
    "budget.frozen budget.unfrozen budget.closed budget.closed_via_tenant_cascade budget.exhausted "
    "budget.over_limit_entered budget.over_limit_exited budget.debt_incurred "
    "reservation.denied reservation.expired reservation.commit_overage reservation.released_via_tenant_cascade "
    "tenant.created tenant.updated tenant.suspended tenant.reactivated tenant.closed tenant.settings_changed "
    "webhook.created webhook.updated webhook.paused webhook.resumed webhook.disabled webhook.deleted "
    "webhook.disabled_via_tenant_cascade "
    "api_key.created api_key.revoked api_key.revoked_via_tenant_cascade api_key.permissions_changed "
    "system.webhook_delivery_failed"
)

TABLE: dict[str, Kind] = {name: Kind(name, name.partition(".")[0]) for name in _SAME} | {
    "budget.renewed": Kind("custom.budget.renewed", "budget"),
    "budget.carried_forward": Kind("custom.budget.carried_forward", "budget"),
    "spend.recorded": Kind("custom.budget.spend_recorded", "budget"),
    "reservation.created": Kind("custom.reservation.created", "reservation"),
    "reservation.committed": Kind("custom.reservation.committed", "reservation"),
    "reservation.released": Kind("custom.reservation.released", "reservation"),
    "reservation.extended": Kind("custom.reservation.extended", "reservation"),
    "decision.previewed": Kind("custom.reservation.previewed", "reservation"),
    "run.started": Kind("custom.reservation.run_started", "reservation"),
    "run.ended": Kind("custom.reservation.run_ended", "reservation"),
    "api_key.updated": Kind("custom.api_key.updated", "api_key"),
    "control.killed": Kind("custom.tenant.killed", "tenant"),
    "control.paused": Kind("custom.tenant.paused", "tenant"),
    "control.resumed": Kind("custom.tenant.resumed", "tenant"),
}
_CASCADE = Kind("reservation.released_via_tenant_cascade", "reservation")
INTERNAL_OF = {kind.type: name for name, kind in TABLE.items()} | {_CASCADE.type: "reservation.released"}
"""For filters: where a protocol type is found in the log."""

NOT_EMITTED = frozenset(
    names(
        "budget.threshold_crossed budget.burn_rate_anomaly reservation.denial_rate_spike "
        "reservation.expiry_rate_spike api_key.expired api_key.auth_failed api_key.auth_failure_rate_spike "
        "policy.created policy.updated policy.deleted system.store_connection_lost "
        "system.store_connection_restored system.high_latency system.webhook_test"
    )
)
"""Types of the protocol that may be subscribed to and never come."""


def kind_of(event: Event) -> Kind:
    if event.type == "reservation.released" and event.data.get("reason") == "tenant_closed":
        return _CASCADE
    return TABLE.get(event.type) or Kind(f"custom.system.{event.type}", "system")


def known(event_type: str) -> bool:
    return event_type in INTERNAL_OF or event_type in NOT_EMITTED


def category_of(event_type: str) -> str:
    """Of a protocol type; of ours, the part after `custom.`."""
    return event_type.removeprefix("custom.").partition(".")[0]


def event_id(seq: int) -> str:
    return f"log_{seq:012d}"


def seq_of(text: str) -> int | None:
    digits = text.removeprefix("log_")
    return (
        int(digits) if text.startswith("log_") and digits.isascii() and digits.isdigit() and len(digits) < 19 else None
    )


def trace_of(event: Event) -> tuple[str | None, str | None]:
    """The trace that caused it and its inbound flags."""
    origin = event.data.get("origin")
    return (origin[0], origin[2]) if origin else (None, None)


def written(event: Event) -> Wire:
    """The event as the protocol's closed Event object."""
    kind = kind_of(event)
    wire: Wire = {
        "event_id": event_id(event.seq),
        "event_type": kind.type,
        "category": kind.category,
        "timestamp": iso(event.at_ms),
        "tenant_id": event.tenant or SYSTEM,
        "source": SOURCE,
        "data": _data(event, kind),
    }
    if event.scope is not None:
        wire["scope"] = event.scope
    origin = event.data.get("origin")
    if origin:
        trace_id, request_id, _, actor, key_id = origin
        wire["trace_id"], wire["request_id"] = trace_id, request_id
        wire["actor"] = {"type": actor} | ({"key_id": key_id} if key_id else {})
    else:
        wire["actor"] = {"type": "system"}
    return wire


def _data(event: Event, kind: Kind) -> Wire:
    data = {name: value for name, value in event.data.items() if name not in ("origin", "figures", "own")}
    if event.reservation_id is not None:
        data["reservation_id"] = event.reservation_id
    if event.scope is not None:
        data.setdefault("scope", event.scope)
    shape = _SHAPES.get(kind.type)
    return shape(data, event) if shape else _settled(data)


def _settled(data: Wire) -> Wire:
    return {name: value for name, value in data.items() if value is not None}


def _denied(data: Wire, event: Event) -> Wire:
    details = data.get("details") or {}
    wire = {
        "scope": data.get("scope"),
        "unit": data.get("unit"),
        "reason_code": data.get("reason_code"),
        "requested_amount": data.get("requested"),
        "remaining": details.get("remaining"),
        "action": data.get("action"),
        "subject": data.get("subject"),
    }
    return _settled(wire)


def _expired(data: Wire, event: Event) -> Wire:
    return _settled(
        {
            "reservation_id": event.reservation_id,
            "scope": event.scope,
            "unit": data.get("unit"),
            "estimated_amount": data.get("estimate"),
            "expired_at": iso(data["expired_at_ms"]) if "expired_at_ms" in data else None,
            "extensions_used": data.get("extensions_used"),
        }
    )


def _exhausted(data: Wire, event: Event) -> Wire:
    allocated = data.get("allocated", 0)
    used = data.get("spent", 0) + data.get("reserved", 0)
    return {
        **_settled(data),
        "threshold": 1.0,
        "utilization": used / allocated if allocated else 1.0,
        "remaining": 0,
        "direction": "rising",
    }


def _over_limit(data: Wire, event: Event) -> Wire:
    limit = data.get("overdraft_limit", 0)
    return {
        **_settled(data),
        "is_over_limit": True,
        "debt_utilization": data.get("debt", 0) / limit if limit else 0.0,
    }


_SHAPES: dict[str, Any] = {
    "reservation.denied": _denied,
    "reservation.expired": _expired,
    "budget.exhausted": _exhausted,
    "budget.over_limit_entered": _over_limit,
}

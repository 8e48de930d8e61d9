"""Reading what the server lists: reservations, balances, budgets and stops. Pure."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from clearance.errors import InvalidRequest
from clearance.model.amount import Unit
from clearance.model.balance import Balance
from clearance.model.caps import CapsRule
from clearance.model.period import Period
from clearance.model.reservation import Reservation
from clearance.model.results import Event, Page, Stop
from clearance.model.subject import covers, tenant_of
from clearance.remote import answers
from clearance.remote.wire import (
    Json,
    Unreadable,
    amount,
    figures,
    optional_text,
    optional_whole,
    text,
    texts,
    whole,
)
from clearance.store.interface import EventQuery, ReservationQuery

STATUSES = ("ACTIVE", "COMMITTED", "RELEASED", "EXPIRED")


def listing(query: ReservationQuery) -> dict[str, Any]:
    """The query parameters; what the protocol cannot filter by is refused, not ignored."""
    for name in ("kind", "run_id"):
        if getattr(query, name) is not None:
            raise InvalidRequest(name, "cannot be asked of a server", "no filter by " + name)
    given: dict[str, Any] = {
        "tenant": query.tenant,
        "status": query.status,
        "idempotency_key": query.idempotency_key,
        "include": "metadata,committed_metadata",
        "sort_by": query.sort_by,
        "sort_dir": "desc" if query.descending else "asc",
    }
    for segment in (*(query.scope or "").split("/"), *query.segments):
        if segment:
            level, _, value = segment.partition(":")
            given[level] = value
    for name in ("created", "expires", "finalized"):
        prefix = "" if name == "created" else name + "_"
        given[prefix + "from"] = _iso(getattr(query, f"{name}_from_ms"))
        given[prefix + "to"] = _iso(getattr(query, f"{name}_to_ms"))
    return given


def _iso(ms: int | None) -> str | None:
    return None if ms is None else datetime.fromtimestamp(ms / 1000, UTC).isoformat(timespec="milliseconds")


def reservation(data: Json) -> Reservation:
    """What the protocol does not tell is left at its neutral value: grace, policy, holders."""
    status = text(data, "status")
    if status not in STATUSES:
        raise Unreadable("status is unknown")
    held = amount(data, "reserved")
    charged = amount(data, "committed", held.unit).amount if data.get("committed") is not None else None
    scopes = texts(data, "affected_scopes")
    if not scopes:
        raise Unreadable("affected_scopes is missing")
    metadata, committed = data.get("metadata"), data.get("committed_metadata")
    subject, action = data.get("subject"), data.get("action")
    if not isinstance(subject, dict) or not isinstance(action, dict):
        raise Unreadable("subject or action is missing")
    reservation_id = text(data, "reservation_id", 128)
    return Reservation(
        id=reservation_id,
        tenant=str(subject.get("tenant") or tenant_of(scopes[0])).lower(),
        kind="run" if reservation_id.startswith("run_") else "call",
        status=status,  # type: ignore[arg-type]
        unit=held.unit.value,
        estimate=held.amount,
        subject=subject,
        action=action,
        affected_scopes=scopes,
        held_on=(),
        created_at_ms=whole(data, "created_at_ms"),
        expires_at_ms=whole(data, "expires_at_ms"),
        grace_period_ms=0,
        overage_policy="ALLOW_IF_AVAILABLE",
        max_extensions=0,
        metadata=metadata if isinstance(metadata, dict) else {},
        charged=charged,
        actual=charged,
        finalized_at_ms=optional_whole(data, "finalized_at_ms"),
        idempotency_key=optional_text(data, "idempotency_key"),
        committed_metadata=committed if isinstance(committed, dict) else None,
    )


def reservations(data: Json) -> Page[Reservation]:
    return Page([reservation(item) for item in _items(data, "reservations")], optional_text(data, "next_cursor"))


def _items(data: Json, name: str) -> list[Json]:
    found = data.get(name)
    if not isinstance(found, list) or not all(isinstance(item, dict) for item in found):
        raise Unreadable(f"{name} is no list of objects")
    return found


def balances(data: Json) -> Page[Balance]:
    found: list[Balance] = []
    for item in _items(data, "balances"):
        unit = amount_unit(item)
        for scope, row in figures({"balances": [item]}, unit).items():
            found.append(Balance.recorded(scope, unit, row))
    return Page(found, optional_text(data, "next_cursor"))


def amount_unit(item: Json) -> Unit:
    remaining = item.get("remaining")
    try:
        return Unit(remaining["unit"]) if isinstance(remaining, dict) else Unit("")
    except (KeyError, ValueError):
        raise Unreadable("remaining is missing or in an unknown unit") from None


def matches(found: Balance, path: str | None, unit: str | None) -> bool:
    """A server may answer more than was asked for."""
    return (path is None or covers(path, found.scope)) and unit in (None, found.unit.value)


def ledger(data: Json) -> Balance:
    """A budget of the governance plane (BudgetLedger)."""
    scope = optional_text(data, "scope_path") or text(data, "scope")
    unit = amount_unit(data)
    remaining = data["remaining"]
    numbers = {
        name: whole(value, "amount") if isinstance(value := data.get(name), dict) else 0
        for name in ("allocated", "reserved", "spent", "debt", "overdraft_limit")
    }
    period, rules = data.get("period"), data.get("caps")
    try:
        return Balance(
            scope,
            unit,
            remaining=whole(remaining, "amount"),
            is_over_limit=data.get("is_over_limit") is True,
            status=optional_text(data, "status") or "ACTIVE",
            period=Period(**period) if isinstance(period, dict) else None,
            period_end_ms=_ms(optional_text(data, "period_end")),
            caps=tuple(CapsRule.model_validate(rule) for rule in rules) if isinstance(rules, list) else (),
            tenant=optional_text(data, "tenant_id") or "",
            overage_policy=optional_text(data, "commit_overage_policy"),  # type: ignore[arg-type]
            **numbers,
        )
    except (InvalidRequest, ValueError) as error:
        raise Unreadable(f"the budget cannot be read ({type(error).__name__})") from None


def _ms(iso: str | None) -> int | None:
    try:
        return None if iso is None else int(datetime.fromisoformat(iso).timestamp() * 1000)
    except ValueError:
        return None


def ledgers(data: Json) -> list[Balance]:
    return [ledger(item) for item in _items(data, "ledgers")]


def log_query(query: EventQuery) -> dict[str, Any]:
    return {
        "after": query.after or None,
        "tenant": query.tenant,
        "scope": query.scope,
        "types": ",".join(query.types) or None,
        "reservation_id": query.reservation_id,
        "order": "desc" if query.descending else "asc",
    }


def events(data: Json) -> list[Event]:
    return [_event(item) for item in _items(data, "events")]


def _event(item: Json) -> Event:
    facts = item.get("data")
    return Event(
        whole(item, "seq"),
        whole(item, "at_ms"),
        optional_text(item, "tenant") or "",
        text(item, "type"),
        optional_text(item, "scope"),
        optional_text(item, "reservation_id"),
        facts if isinstance(facts, dict) else {},
    )


def stops(data: Json) -> list[Stop]:
    return [answers.stop(item) for item in _items(data, "stops")]


def tenant(data: Json) -> str:
    return text(data, "tenant_id")

"""Rows of the SQLite engine to values of the model, and back."""

from __future__ import annotations

from typing import Any

from pydantic_core import from_json, to_json

from clearance.model.account import Account
from clearance.model.caps import CapsRule
from clearance.model.period import Period
from clearance.model.reservation import Reservation
from clearance.model.results import Event
from clearance.store.interface import Record

Row = tuple[Any, ...]


def dumps(value: Any) -> str:
    return to_json(value).decode()


def account_row(account: Account) -> Row:
    caps = [rule.model_dump(mode="json", exclude_defaults=True) for rule in account.caps]
    return (
        account.tenant,
        account.scope,
        account.unit,
        account.allocated,
        account.reserved,
        account.spent,
        account.debt,
        int(account.over_limit),
        account.overdraft_limit,
        account.status,
        account.overage_policy,
        account.period.model_dump_json() if account.period else None,
        account.period_start_ms,
        account.period_end_ms,
        dumps(caps) if caps else None,
        account.created_at_ms,
    )


def to_account(row: Row) -> Account:
    period, caps = row[11], row[14]
    return Account(
        tenant=row[0],
        scope=row[1],
        unit=row[2],
        allocated=row[3],
        reserved=row[4],
        spent=row[5],
        debt=row[6],
        over_limit=bool(row[7]),
        overdraft_limit=row[8],
        status=row[9],
        overage_policy=row[10],
        period=Period.model_validate_json(period) if period else None,
        period_start_ms=row[12],
        period_end_ms=row[13],
        caps=tuple(CapsRule.model_validate(rule) for rule in from_json(caps)) if caps else (),
        created_at_ms=row[15],
    )


def reservation_row(it: Reservation) -> Row:
    facts = {
        "subject": it.subject,
        "action": it.action,
        "scopes": it.affected_scopes,
        "held_on": it.held_on,
        "runs": it.runs,
        "grace_ms": it.grace_period_ms,
        "overage": it.overage_policy,
        "max_ext": it.max_extensions,
        "metadata": it.metadata,
    }
    return (
        it.id,
        it.tenant,
        it.kind,
        it.status,
        it.unit,
        it.estimate,
        it.charged,
        it.actual,
        it.affected_scopes[-1],
        it.runs[-1] if it.runs else None,
        it.created_at_ms,
        it.expires_at_ms,
        it.finalized_at_ms,
        it.due_at_ms if it.status == "ACTIVE" else None,
        it.extension_count,
        it.idempotency_key,
        dumps(facts),
        dumps(it.committed_metadata) if it.committed_metadata else None,
    )


def reservation_update(it: Reservation) -> Row:
    return (
        it.status,
        it.charged,
        it.actual,
        it.expires_at_ms,
        it.finalized_at_ms,
        it.due_at_ms if it.status == "ACTIVE" else None,
        it.extension_count,
        dumps(it.committed_metadata) if it.committed_metadata else None,
        it.id,
    )


def to_reservation(row: Row) -> Reservation:
    facts = from_json(row[16])
    return Reservation(
        id=row[0],
        tenant=row[1],
        kind=row[2],
        status=row[3],
        unit=row[4],
        estimate=row[5],
        charged=row[6],
        actual=row[7],
        created_at_ms=row[10],
        expires_at_ms=row[11],
        finalized_at_ms=row[12],
        extension_count=row[14],
        idempotency_key=row[15],
        subject=facts["subject"],
        action=facts["action"],
        affected_scopes=tuple(facts["scopes"]),
        held_on=tuple(facts["held_on"]),
        runs=tuple(facts["runs"]),
        grace_period_ms=facts["grace_ms"],
        overage_policy=facts["overage"],
        max_extensions=facts["max_ext"],
        metadata=facts["metadata"],
        committed_metadata=from_json(row[17]) if row[17] else None,
    )


def record_row(record: Record) -> Row:
    return (record.kind, record.id, record.tenant, dumps(record.body), record.due_at_ms)


def to_record(row: Row) -> Record:
    return Record(row[0], row[1], row[2], from_json(row[3]), row[4])


def to_event(row: Row) -> Event:
    return Event(row[0], row[1], row[2], row[3], row[4], row[5], from_json(row[6]))

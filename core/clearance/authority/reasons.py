"""Reasons for no: their codes, their words and the errors that carry them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from clearance.errors import (
    BudgetClosed,
    BudgetExceeded,
    BudgetFrozen,
    BudgetNotFound,
    DebtOutstanding,
    Denied,
    Killed,
    OverdraftLimitExceeded,
    Paused,
    TenantClosed,
)
from clearance.ledger import accounts as ledger
from clearance.model.results import Decision, Stop
from clearance.store.interface import Rows

REASONS: dict[str, type[Denied]] = {
    "BUDGET_NOT_FOUND": BudgetNotFound,
    "BUDGET_EXCEEDED": BudgetExceeded,
    "BUDGET_FROZEN": BudgetFrozen,
    "BUDGET_CLOSED": BudgetClosed,
    "OVERDRAFT_LIMIT_EXCEEDED": OverdraftLimitExceeded,
    "DEBT_OUTSTANDING": DebtOutstanding,
    "TENANT_CLOSED": TenantClosed,
    "KILLED": Killed,
    "PAUSED": Paused,
}


def reach(rows: Rows, scopes: Sequence[str], runs: Sequence[str]) -> tuple[Sequence[str], Sequence[str]]:
    """The scopes and runs whose stop reaches a call: its own, and those of whoever owns the runs around it."""
    if not runs or not rows.stops():
        return scopes, runs
    owners = [scope for run_id in runs if (run := rows.reservation(run_id)) for scope in run.affected_scopes]
    return (*owners, *scopes), runs


def stop_message(stop: Stop) -> str:
    return f"{stop.scope} was {stop.state.lower()} by {stop.actor}: {stop.reason}"


def stop_details(stop: Stop) -> dict[str, Any]:
    return {"reason": stop.reason, "actor": stop.actor, "at_ms": stop.at_ms}


def refusal_message(refusal: ledger.Refusal) -> str:
    account = refusal.account
    match refusal.code:
        case "BUDGET_FROZEN":
            return f"{account.scope} is frozen"
        case "BUDGET_CLOSED":
            return f"{account.scope} is closed"
        case "OVERDRAFT_LIMIT_EXCEEDED":
            return f"{account.scope} is over its limit until an operator funds it"
        case "DEBT_OUTSTANDING":
            return f"{account.scope} owes {account.show(account.debt)} and has no overdraft"
    return f"{account.scope} has {account.show(account.remaining)} left; this needs {account.show(refusal.requested)}"


def refusal_details(refusal: ledger.Refusal) -> dict[str, Any]:
    return {"requested": refusal.requested, "remaining": refusal.account.remaining, "unit": refusal.account.unit}


def refuse(decision: Decision) -> Denied:
    """A DENY as the error that a live reserve raises."""
    kind = REASONS.get(decision.reason_code or "", Denied)
    return kind(
        decision.message or "denied",
        scope=decision.scope,
        retry_after_ms=decision.retry_after_ms,
        details=dict(decision.details),
    )

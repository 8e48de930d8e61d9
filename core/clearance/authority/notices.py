"""Events that follow from how an account has moved: exhausted, over its limit, newly in debt (protocol section 18)."""

from __future__ import annotations

from collections.abc import Sequence

from clearance.model.account import Account
from clearance.model.reservation import Reservation
from clearance.store.interface import NewEvent


def crossings(cause: Reservation | None, before: Sequence[Account], after: Sequence[Account]) -> list[NewEvent]:
    """Each once, at the operation that crossed the line. Accounts of runs are left out: they are slices."""
    events: list[NewEvent] = []
    for old, new in zip(before, after, strict=True):
        if not new.scope.startswith("run:"):
            events.extend(_crossings(cause.id if cause else None, old, new))
    return events


def _crossings(cause: str | None, old: Account, new: Account) -> list[NewEvent]:
    found: list[tuple[str, dict[str, object]]] = []
    if old.remaining > 0 and new.remaining == 0:
        found.append(("budget.exhausted", {"allocated": new.allocated, "spent": new.spent, "reserved": new.reserved}))
    if new.over_limit and not old.over_limit:
        found.append(("budget.over_limit_entered", {"debt": new.debt, "overdraft_limit": new.overdraft_limit}))
    if new.debt > old.debt:
        found.append(("budget.debt_incurred", {"debt_incurred": new.debt - old.debt, "total_debt": new.debt}))
    return [NewEvent(kind, new.tenant, new.scope, cause, {"unit": new.unit, **facts}) for kind, facts in found]

"""Where the money is: the accounts that an amount is held on, and the run around a call."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from clearance.errors import (
    BudgetNotFound,
    InvalidRequest,
    NotFound,
    ReservationExpired,
    ReservationFinalized,
    UnitMismatch,
)
from clearance.ledger.funding import renewed
from clearance.model.account import ALLOW_IF_AVAILABLE, Account
from clearance.model.reservation import Reservation, run_scope
from clearance.store.interface import NewEvent, Rows


class Purse(NamedTuple):
    """The accounts that an amount is held on, and those among them whose period has just begun anew."""

    accounts: tuple[Account, ...]
    renewed: tuple[Account, ...] = ()


def enclosing_run(rows: Rows, run_id: str, tenant: str, now_ms: int) -> Reservation:
    run = known_run(rows, run_id, tenant)
    if not run.is_open:
        if run.status == "EXPIRED":
            raise ReservationExpired(f"run {run.id} has expired", scope=run.scope_path)
        raise ReservationFinalized(f"run {run.id} has ended", scope=run.scope_path)
    if now_ms > run.expires_at_ms:
        raise ReservationExpired(f"the lease of run {run.id} has ended", scope=run.scope_path)
    return run


def known_run(rows: Rows, run_id: str, tenant: str) -> Reservation:
    run = rows.reservation(run_id)
    if run is None or run.kind != "run":
        raise NotFound(f"no run {run_id}")
    if run.tenant != tenant:
        raise InvalidRequest("subject.tenant", f"{tenant!r} is not the tenant of the run", run.tenant)
    return run


def find_purse(
    rows: Rows, scopes: Sequence[str], tenant: str, unit: str, run: Reservation | None, now_ms: int
) -> Purse:
    """The innermost run account in this unit, else the budgeted scopes."""
    if run is not None:
        for run_id in reversed((*run.runs, run.id)):
            account = rows.account(tenant, run_scope(run_id), unit)
            if account is not None:
                return Purse((account,))
    return current(rows.accounts_on(tenant, scopes, unit), now_ms)


def current(found: Sequence[Account | None], now_ms: int) -> Purse:
    """Those that exist, each in its present period. Only a boundary that was crossed counts as renewed."""
    accounts = [account for account in found if account is not None]
    began: list[Account] = []
    for place, old in enumerate(accounts):
        if old.period is not None:
            accounts[place] = new = renewed(old, now_ms)
            if new is not old and old.period_end_ms is not None:
                began.append(new)
    return Purse(tuple(accounts), tuple(began))


def held_policy(accounts: Sequence[Account]) -> str:
    """The policy of the most specific budget that names one, else the protocol's default."""
    for account in reversed(accounts):
        if account.overage_policy:
            return account.overage_policy
    return ALLOW_IF_AVAILABLE


def require_budget(rows: Rows, scopes: Sequence[str], tenant: str, unit: str) -> BudgetNotFound:
    """Nothing is budgeted in this unit: raises UnitMismatch if something is in another, else gives the denial."""
    for scope in scopes:
        units = sorted(account.unit for account in rows.accounts_of(tenant, scope))
        if units:
            raise UnitMismatch(
                "unit",
                f"{scope} has no budget in {unit}",
                ", ".join(units),
                scope=scope,
                details={"scope": scope, "requested_unit": unit, "expected_units": units},
            )
    tried = ", ".join(scopes)
    return BudgetNotFound(
        f"Budget not found for provided scope: {scopes[-1]} (tried {tried}); make one with "
        f"`clearance budget set {scopes[0]} AMOUNT`",
        scope=scopes[-1],
        details={"tried": list(scopes)},
    )


def renewals(renewed_accounts: Sequence[Account]) -> list[NewEvent]:
    if not renewed_accounts:
        return []
    return [
        NewEvent(
            "budget.renewed",
            account.tenant,
            account.scope,
            None,
            {
                "unit": account.unit,
                "period_start_ms": account.period_start_ms,
                "period_end_ms": account.period_end_ms,
                "figures": {account.scope: account.figures},
            },
        )
        for account in renewed_accounts
    ]

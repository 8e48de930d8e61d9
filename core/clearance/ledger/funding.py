"""Funding and renewal of one account. Pure. Rules: Cycles protocol v0.1.25, section 17.1."""

from __future__ import annotations

from typing import Literal

from clearance.errors import BudgetClosed, BudgetExceeded, BudgetFrozen, InvalidRequest
from clearance.model.account import CLOSED, FROZEN, Account
from clearance.model.amount import INT64_MAX

FundingOperation = Literal["CREDIT", "DEBIT", "RESET", "RESET_SPENT", "REPAY_DEBT"]
OPERATIONS: tuple[FundingOperation, ...] = ("CREDIT", "DEBIT", "RESET", "RESET_SPENT", "REPAY_DEBT")


def fund(account: Account, operation: FundingOperation, amount: int, spent: int | None = None) -> Account:
    """The account after funding.

    CREDIT and DEBIT change the allocation by `amount`, RESET sets it, RESET_SPENT sets it and what was spent
    (default 0), REPAY_DEBT lowers the debt and adds any excess to the allocation. The over-limit flag is computed
    anew. Raises BudgetFrozen, BudgetClosed, BudgetExceeded (a DEBIT below zero remaining), InvalidRequest.
    """
    require_active(account)
    funded = _apply(account, operation, amount, spent)
    if operation == "DEBIT" and funded.remaining < 0:
        raise BudgetExceeded(
            f"{account.scope} has {account.show(account.remaining)} left; {account.show(amount)} cannot be taken",
            scope=account.scope,
            details={"requested": amount, "remaining": account.remaining},
        )
    require_int64(funded)
    return funded._replace(over_limit=funded.debt > funded.overdraft_limit)


def _apply(account: Account, operation: FundingOperation, amount: int, spent: int | None) -> Account:
    match operation:
        case "CREDIT":
            return account._replace(allocated=account.allocated + amount)
        case "DEBIT":
            return account._replace(allocated=account.allocated - amount)
        case "RESET":
            return account._replace(allocated=amount)
        case "RESET_SPENT":
            return account._replace(allocated=amount, spent=spent or 0)
        case "REPAY_DEBT":
            repaid = min(account.debt, amount)
            return account._replace(debt=account.debt - repaid, allocated=account.allocated + amount - repaid)
    raise InvalidRequest("operation", f"{operation!r} is unknown", ", ".join(OPERATIONS))


def require_active(account: Account) -> None:
    if account.status == FROZEN:
        raise BudgetFrozen(f"{account.scope} is frozen; unfreeze it first", scope=account.scope)
    if account.status == CLOSED:
        raise BudgetClosed(f"{account.scope} is closed, for good", scope=account.scope)


def require_int64(account: Account) -> None:
    """Every figure of a balance must fit int64, or the change is refused as a whole (protocol A26)."""
    figures = {"allocated": account.allocated, "spent": account.spent, "debt": account.debt}
    for name, value in figures.items():
        if not 0 <= value <= INT64_MAX:
            raise InvalidRequest(name, f"{account.scope} would have {name} {value}", f"0 to {INT64_MAX}")
    if abs(account.remaining) > INT64_MAX:
        raise InvalidRequest("remaining", f"{account.scope} would have {account.remaining} remaining", "an int64")


def with_status(account: Account, status: str) -> Account:
    """ACTIVE <-> FROZEN, anything -> CLOSED. Closed is for good."""
    if account.status == CLOSED and status != CLOSED:
        raise BudgetClosed(f"{account.scope} is closed, for good", scope=account.scope)
    return account._replace(status=status)


def renewed(account: Account, now_ms: int) -> Account:
    """The account in its present period: spent starts at 0 if a boundary has passed, reserved and debt are kept."""
    if account.period is None or account.status == CLOSED:
        return account
    if account.period_end_ms is not None and now_ms < account.period_end_ms:
        return account
    start, end = account.period.window(now_ms)
    return account._replace(
        spent=0,
        over_limit=account.debt > account.overdraft_limit,
        period_start_ms=start,
        period_end_ms=end,
    )

"""Making, funding, freezing and closing budgets. Pure: rows in, changes out."""

from __future__ import annotations

from typing import Annotated, Any, NamedTuple

from pydantic import Field, field_validator

from clearance.authority.purse import current, renewals
from clearance.authority.requests import check_amount, check_remark
from clearance.errors import AlreadyExists, BudgetNotFound, InvalidRequest
from clearance.ledger.funding import OPERATIONS, FundingOperation, fund, require_int64, with_status
from clearance.model.account import ACTIVE, CLOSED, FROZEN, Account, OveragePolicy
from clearance.model.amount import INT64_MAX, Amount, Unit, to_amount
from clearance.model.base import Model
from clearance.model.caps import CapsRule
from clearance.model.period import Period
from clearance.model.subject import parse_scope, tenant_of
from clearance.store.interface import Changes, NewEvent, Rows

MAX_CAPS_RULES = 16


class BudgetSpec(Model):
    """How a budget should be. Applying the same spec twice changes nothing the second time.

    `allocated` may be given as an Amount, as USD ("12.50" or a Decimal) or as an int of microcents.

    What was spent, is reserved or owed is kept when the spec of an existing budget changes.
    """

    scope: str
    allocated: Amount
    overdraft_limit: Annotated[int, Field(ge=0, le=INT64_MAX, strict=True)] = 0
    overage_policy: OveragePolicy | None = None
    period: Period | None = None
    caps: Annotated[tuple[CapsRule, ...], Field(max_length=MAX_CAPS_RULES)] = ()

    @field_validator("allocated", mode="before")
    @classmethod
    def _money(cls, value: Any) -> Any:
        return value if isinstance(value, dict) else to_amount(value, "allocated")

    @field_validator("scope")
    @classmethod
    def _canonical(cls, value: str) -> str:
        return parse_scope(value)

    @property
    def unit(self) -> Unit:
        return self.allocated.unit


class Funding(NamedTuple):
    """One change of money, checked."""

    scope: str
    unit: str
    operation: FundingOperation
    amount: int
    spent: int | None
    reason: str | None


def put(rows: Rows, spec: BudgetSpec, now_ms: int, *, must_be_new: bool = False) -> tuple[Account, Changes]:
    """Create the budget, or bring it to its spec."""
    tenant = tenant_of(spec.scope)
    old = rows.account(tenant, spec.scope, spec.unit.value)
    if old is None:
        return _created(tenant, spec, now_ms)
    if must_be_new:
        raise AlreadyExists(
            f"{spec.scope} has a budget in {spec.unit} already; use `budget set` to change it", scope=spec.scope
        )
    new = _amended(with_status(old, ACTIVE) if old.status == CLOSED else old, spec, now_ms)
    if new == old:
        return old, Changes()
    require_int64(new)
    return new, _changed("budget.updated", new, {"before": old.figures})


def _created(tenant: str, spec: BudgetSpec, now_ms: int) -> tuple[Account, Changes]:
    blank = Account(tenant, spec.scope, spec.unit.value, created_at_ms=now_ms)
    account = _amended(blank, spec, now_ms)
    return account, _changed("budget.created", account, {})


def _amended(account: Account, spec: BudgetSpec, now_ms: int) -> Account:
    amended = account._replace(
        allocated=spec.allocated.amount,
        overdraft_limit=spec.overdraft_limit,
        overage_policy=spec.overage_policy,
        caps=spec.caps,
    )
    if spec.overdraft_limit != account.overdraft_limit or spec.allocated.amount != account.allocated:
        amended = amended._replace(over_limit=amended.debt > amended.overdraft_limit)
    if spec.period == account.period:
        return amended
    # A new period counts from now; what was spent stays in it. An unused rolling one begins at its first use.
    waits = spec.period is None or (spec.period.kind == "rolling" and not account.spent)
    start, end = (None, None) if waits or spec.period is None else spec.period.window(now_ms)
    return amended._replace(period=spec.period, period_start_ms=start, period_end_ms=end)


def check_funding(
    scope: str, operation: FundingOperation, amount: Amount, spent: Amount | None, reason: str | None
) -> Funding:
    if operation not in OPERATIONS:
        raise InvalidRequest("operation", f"{operation!r} is unknown", ", ".join(OPERATIONS))
    if spent is not None and operation != "RESET_SPENT":
        raise InvalidRequest("spent", f"does not go with {operation}", "only with RESET_SPENT")
    if spent is not None and check_amount(spent, "spent").unit is not amount.unit:
        raise InvalidRequest("spent", f"is in {spent.unit}", amount.unit)
    check_remark(reason, "reason", 512)
    return Funding(
        parse_scope(scope), amount.unit.value, operation, amount.amount, spent.amount if spent else None, reason
    )


_FUNDED = {
    "CREDIT": "budget.funded",
    "DEBIT": "budget.debited",
    "RESET": "budget.reset",
    "RESET_SPENT": "budget.reset_spent",
    "REPAY_DEBT": "budget.debt_repaid",
}


def funded(rows: Rows, funding: Funding, now_ms: int) -> tuple[Account, Changes]:
    old = existing(rows, funding.scope, funding.unit)
    purse = current([old], now_ms)
    new = fund(purse.accounts[0], funding.operation, funding.amount, funding.spent)
    # What else the answer shows, so that a replay shows it too.
    facts: dict[str, Any] = {"amount": funding.amount, "before": purse.accounts[0].figures}
    if new.period:
        facts |= {"period": new.period.model_dump(), "period_end_ms": new.period_end_ms}
    if new.caps:
        facts["caps"] = [rule.model_dump(mode="json", exclude_defaults=True) for rule in new.caps]
    if funding.reason:
        facts["reason"] = funding.reason
    changes = _changed(_FUNDED[funding.operation], new, facts)
    changes.renewals = renewals(purse.renewed)
    if old.over_limit and not new.over_limit:
        exited = NewEvent("budget.over_limit_exited", new.tenant, new.scope, None, {"unit": new.unit})
        changes.events = [*changes.events, exited]
    return new, changes


_STATUS_EVENTS = {FROZEN: "budget.frozen", ACTIVE: "budget.unfrozen", CLOSED: "budget.closed"}


def with_new_status(rows: Rows, scope: str, unit: str, status: str, reason: str) -> tuple[Account, Changes]:
    """Freeze, unfreeze or close. Asking for what is already so changes nothing."""
    old = existing(rows, scope, unit)
    new = with_status(old, status)
    if new == old:
        return old, Changes()
    return new, _changed(_STATUS_EVENTS[status], new, {"reason": reason} if reason else {})


def existing(rows: Rows, scope: str, unit: str) -> Account:
    tenant = tenant_of(scope)
    account = rows.account(tenant, scope, unit)
    if account is None:
        units = [found.unit for found in rows.accounts_of(tenant, scope)]
        hint = f"; it has one in {', '.join(units)}" if units else ""
        raise BudgetNotFound(f"{scope} has no budget in {unit}{hint}", scope=scope)
    return account


def _changed(event: str, account: Account, facts: dict[str, Any]) -> Changes:
    data = {"unit": account.unit, **facts, "figures": {account.scope: account.figures}}
    return Changes(accounts=[account], events=[NewEvent(event, account.tenant, account.scope, None, data)])

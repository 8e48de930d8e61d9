"""A budget as others see it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from clearance.model.account import ACTIVE, Account, OveragePolicy
from clearance.model.amount import Unit
from clearance.model.caps import CapsRule
from clearance.model.period import Period


@dataclass(frozen=True, slots=True)
class Balance:
    """The figures of one budget, ints in `unit`; `remaining` may be negative.

    `remaining = allocated - spent - reserved - debt` (protocol section 5).
    """

    scope: str
    unit: Unit
    allocated: int
    remaining: int
    reserved: int
    spent: int
    debt: int = 0
    overdraft_limit: int = 0
    is_over_limit: bool = False
    status: str = ACTIVE
    period: Period | None = None
    period_end_ms: int | None = None
    caps: tuple[CapsRule, ...] = ()
    tenant: str = ""
    overage_policy: OveragePolicy | None = None

    @classmethod
    def of(cls, account: Account) -> Balance:
        return cls(
            scope=account.scope,
            unit=Unit(account.unit),
            allocated=account.allocated,
            remaining=account.remaining,
            reserved=account.reserved,
            spent=account.spent,
            debt=account.debt,
            overdraft_limit=account.overdraft_limit,
            is_over_limit=account.over_limit,
            status=account.status,
            period=account.period,
            period_end_ms=account.period_end_ms,
            caps=account.caps,
            tenant=account.tenant,
            overage_policy=account.overage_policy,
        )

    @classmethod
    def recorded(cls, scope: str, unit: str, figures: list[int]) -> Balance:
        """From the figures that an event kept (`Account.figures`)."""
        allocated, reserved, spent, debt, limit, over = figures
        return cls(
            scope, Unit(unit), allocated, allocated - spent - reserved - debt, reserved, spent, debt, limit, bool(over)
        )

    def as_dict(self) -> dict[str, Any]:
        """JSON-able, without what is absent."""
        facts: dict[str, Any] = {
            "scope": self.scope,
            "unit": self.unit.value,
            "allocated": self.allocated,
            "remaining": self.remaining,
            "reserved": self.reserved,
            "spent": self.spent,
            "debt": self.debt,
            "overdraft_limit": self.overdraft_limit,
            "is_over_limit": self.is_over_limit,
            "status": self.status,
        }
        if self.overage_policy:
            facts["overage_policy"] = self.overage_policy
        if self.period:
            facts["period"] = self.period.model_dump()
            facts["period_end_ms"] = self.period_end_ms
        if self.caps:
            facts["caps"] = [rule.model_dump(mode="json", exclude_defaults=True) for rule in self.caps]
        return facts

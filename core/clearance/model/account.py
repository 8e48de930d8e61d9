"""One budget as the ledger keeps it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, NamedTuple

from clearance.model.amount import Amount, Unit
from clearance.model.caps import CapsRule
from clearance.model.period import Period

ACTIVE = "ACTIVE"
FROZEN = "FROZEN"
CLOSED = "CLOSED"

OveragePolicy = Literal["REJECT", "ALLOW_IF_AVAILABLE", "ALLOW_WITH_OVERDRAFT"]
"""What happens when the actual is more than was reserved (protocol section 8)."""
REJECT: OveragePolicy = "REJECT"
ALLOW_IF_AVAILABLE: OveragePolicy = "ALLOW_IF_AVAILABLE"
ALLOW_WITH_OVERDRAFT: OveragePolicy = "ALLOW_WITH_OVERDRAFT"


class Account(NamedTuple):
    """The row of (tenant, scope, unit); all amounts are ints in `unit`.

    Invariant (protocol section 5): remaining = allocated - spent - reserved - debt. Remaining may be negative.
    A NamedTuple because it is copied on every operation; `[:3]` names it, `[3:8]` is what operations move, `[8:]` what
    operators set.
    """

    tenant: str
    scope: str
    unit: str
    allocated: int = 0
    reserved: int = 0
    spent: int = 0
    debt: int = 0
    over_limit: bool = False
    overdraft_limit: int = 0
    status: str = ACTIVE
    overage_policy: OveragePolicy | None = None
    period: Period | None = None
    period_start_ms: int | None = None
    period_end_ms: int | None = None
    caps: tuple[CapsRule, ...] = ()
    created_at_ms: int = 0

    @property
    def key(self) -> tuple[str, str, str]:
        return self[:3]

    @property
    def remaining(self) -> int:
        return self.allocated - self.spent - self.reserved - self.debt

    def show(self, amount: int) -> str:
        """An amount in this account's unit, for people."""
        sign = "-" if amount < 0 else ""
        return sign + str(Amount(unit=Unit(self.unit), amount=abs(amount)))

    @property
    def figures(self) -> list[int]:
        return figures((self,))[self.scope]


def figures(accounts: Iterable[Account]) -> dict[str, list[int]]:
    """What an event keeps: by scope allocated, reserved, spent, debt, overdraft_limit, over_limit."""
    return {it[1]: [*it[3:7], it[8], int(it[7])] for it in accounts}

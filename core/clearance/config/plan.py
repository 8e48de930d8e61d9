"""What applying budgets would change. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from clearance.authority.budgets import BudgetSpec
from clearance.errors import BudgetClosed
from clearance.model.account import CLOSED
from clearance.model.amount import Amount
from clearance.model.balance import Balance

FIELDS = ("allocated", "period", "overdraft_limit", "overage_policy", "caps")


class Change(NamedTuple):
    """One field of one budget. Values are JSON-able; `now` of a new budget's fields is None."""

    scope: str
    unit: str
    field: str
    now: Any
    then: Any
    new: bool = False


@dataclass(frozen=True, slots=True)
class Plan:
    """`unmanaged` budgets exist but are not in the file: they stay as they are."""

    specs: tuple[BudgetSpec, ...]
    changes: tuple[Change, ...]
    unmanaged: tuple[Balance, ...]

    @property
    def changed(self) -> int:
        """How many budgets would be made or changed."""
        return len({(change.scope, change.unit) for change in self.changes})

    def as_dict(self) -> dict[str, Any]:
        return {
            "changes": [change._asdict() for change in self.changes],
            "unmanaged": [{"scope": account.scope, "unit": account.unit} for account in self.unmanaged],
            "unchanged": len(self.specs) - self.changed,
        }


def plan(wanted: Sequence[BudgetSpec], present: Iterable[Balance]) -> Plan:
    """Raises BudgetClosed if a wanted budget was closed: that is for good."""
    there: dict[tuple[str, str], Balance] = {(it.scope, it.unit): it for it in present}
    changes: list[Change] = []
    for spec in wanted:
        account = there.get((spec.scope, spec.unit.value))
        if account is not None and account.status == CLOSED:
            raise BudgetClosed(f"{spec.scope} is closed, for good; take it out of the file", scope=spec.scope)
        changes += differences(spec_of(account) if account else None, spec)
    named = {(spec.scope, spec.unit.value) for spec in wanted}
    unmanaged = [account for key, account in sorted(there.items()) if key not in named and account.status != CLOSED]
    return Plan(tuple(wanted), tuple(changes), tuple(unmanaged))


def spec_of(account: Balance) -> BudgetSpec:
    """The spec that a budget has now."""
    return BudgetSpec(
        scope=account.scope,
        allocated=Amount(unit=account.unit, amount=account.allocated),
        overdraft_limit=account.overdraft_limit,
        overage_policy=account.overage_policy,
        period=account.period,
        caps=account.caps,
    )


def differences(now: BudgetSpec | None, then: BudgetSpec) -> list[Change]:
    """Field by field; of a new budget only what is set."""
    found = []
    for name in FIELDS:
        old, new = _plain(now, name), _plain(then, name)
        if old != new and (now is not None or new not in (0, None, []) or name == "allocated"):
            found.append(Change(then.scope, then.unit.value, name, old, new, new=now is None))
    return found


def _plain(spec: BudgetSpec | None, name: str) -> Any:
    if spec is None:
        return None
    value = getattr(spec, name)
    if isinstance(value, Amount):
        return value.amount
    if name == "period":
        return value.model_dump() if value else None
    if name == "caps":
        return [rule.model_dump(mode="json", exclude_defaults=True) for rule in value]
    return value

from __future__ import annotations

import pytest

from clearance.authority.budgets import BudgetSpec
from clearance.config import differences, parse, plan, spec_of
from clearance.errors import BudgetClosed
from clearance.model.account import CLOSED, Account
from clearance.model.amount import tokens, usd
from clearance.model.caps import Caps, CapsRule
from clearance.model.period import Period

FULL = BudgetSpec(
    scope="tenant:acme",
    allocated=usd(10),
    overdraft_limit=5,
    overage_policy="REJECT",
    period=Period(every="day"),
    caps=(CapsRule(caps=Caps(max_tokens=5), below_percent=10),),
)
ACCOUNT = Account(
    "acme",
    "tenant:acme",
    "USD_MICROCENTS",
    allocated=1_000_000_000,
    spent=7,
    overdraft_limit=5,
    overage_policy="REJECT",
    period=Period(every="day"),
    caps=FULL.caps,
)


def test_a_budget_that_is_as_wanted_gives_no_change() -> None:
    assert spec_of(ACCOUNT) == FULL
    assert plan([FULL], [ACCOUNT]).changes == ()


def test_every_field_that_differs_is_a_change() -> None:
    bare = BudgetSpec(scope="tenant:acme", allocated=usd(11))
    assert [(it.field, it.now, it.then) for it in differences(FULL, bare)] == [
        ("allocated", 1_000_000_000, 1_100_000_000),
        ("period", {"every": "day", "kind": "calendar", "timezone": "UTC"}, None),
        ("overdraft_limit", 5, 0),
        ("overage_policy", "REJECT", None),
        ("caps", [{"caps": {"max_tokens": 5}, "below_percent": 10}], []),
    ]


def test_a_new_budget_shows_what_is_set() -> None:
    found = plan([BudgetSpec(scope="tenant:new", allocated=usd(0))], [ACCOUNT])
    assert [(it.scope, it.field, it.now, it.then, it.new) for it in found.changes] == [
        ("tenant:new", "allocated", None, 0, True)
    ]
    assert [it.scope for it in found.unmanaged] == ["tenant:acme"]


def test_budgets_of_other_units_are_others() -> None:
    found = plan([BudgetSpec(scope="tenant:acme", allocated=tokens(5))], [ACCOUNT])
    assert found.changed == 1
    assert [it.unit for it in found.unmanaged] == ["USD_MICROCENTS"]


def test_what_was_closed_cannot_come_back() -> None:
    closed = ACCOUNT._replace(status=CLOSED)
    with pytest.raises(BudgetClosed):
        plan([FULL], [closed])
    assert plan([], [closed]).unmanaged == ()


def test_a_file_without_budgets_plans_nothing() -> None:
    found = plan(parse("").budgets, [ACCOUNT])
    assert found.as_dict() == {
        "changes": [],
        "unmanaged": [{"scope": "tenant:acme", "unit": "USD_MICROCENTS"}],
        "unchanged": 0,
    }

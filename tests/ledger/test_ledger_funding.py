"""Funding, status and renewal of one account."""

from __future__ import annotations

from typing import Any

import pytest

from clearance.errors import BudgetClosed, BudgetExceeded, BudgetFrozen, ClearanceError, InvalidRequest
from clearance.ledger.funding import fund, renewed, with_status
from clearance.model.account import ACTIVE, CLOSED, FROZEN, Account
from clearance.model.amount import INT64_MAX
from clearance.model.period import HOUR_MS, Period

BEFORE = Account("t", "tenant:t", "TOKENS", allocated=100, reserved=10, spent=40, debt=20, overdraft_limit=50)
"""remaining 30"""


@pytest.mark.parametrize(
    ("operation", "amount", "spent", "changed", "remaining"),
    [
        ("CREDIT", 25, None, {"allocated": 125}, 55),
        ("CREDIT", 0, None, {}, 30),
        ("DEBIT", 30, None, {"allocated": 70}, 0),
        ("RESET", 500, None, {"allocated": 500}, 430),
        ("RESET", 0, None, {"allocated": 0}, -70),
        ("RESET_SPENT", 200, None, {"allocated": 200, "spent": 0}, 170),
        ("RESET_SPENT", 20, 15, {"allocated": 20, "spent": 15}, -25),
        ("REPAY_DEBT", 5, None, {"debt": 15}, 35),
        ("REPAY_DEBT", 20, None, {"debt": 0}, 50),
        ("REPAY_DEBT", 27, None, {"debt": 0, "allocated": 107}, 57),
    ],
)
def test_each_operation_does_its_arithmetic(
    operation: Any, amount: int, spent: int | None, changed: dict[str, int], remaining: int
) -> None:
    after = fund(BEFORE, operation, amount, spent)
    assert after == BEFORE._replace(**changed)
    assert after.remaining == remaining


@pytest.mark.parametrize("operation", ["CREDIT", "DEBIT", "RESET", "RESET_SPENT", "REPAY_DEBT"])
@pytest.mark.parametrize(("debt", "over"), [(0, False), (50, False), (51, True)])
def test_each_operation_computes_the_flag_anew(operation: Any, debt: int, over: bool) -> None:
    before = Account("t", "s", "TOKENS", allocated=1000, debt=debt, overdraft_limit=50, over_limit=not over)
    amount = {"RESET": 1000, "RESET_SPENT": 1000}.get(operation, 0)
    assert fund(before, operation, amount).over_limit is over


def test_a_debit_never_takes_more_than_remains() -> None:
    with pytest.raises(BudgetExceeded) as refused:
        fund(BEFORE, "DEBIT", 31)
    assert refused.value.details == {"requested": 31, "remaining": 30}


@pytest.mark.parametrize(("status", "error"), [(FROZEN, BudgetFrozen), (CLOSED, BudgetClosed)])
@pytest.mark.parametrize("operation", ["CREDIT", "DEBIT", "RESET", "RESET_SPENT", "REPAY_DEBT"])
def test_a_frozen_or_closed_budget_takes_no_money(operation: Any, status: str, error: type[ClearanceError]) -> None:
    with pytest.raises(error):
        fund(BEFORE._replace(status=status), operation, 1)


@pytest.mark.parametrize(
    ("before", "operation", "amount", "spent"),
    [
        (BEFORE, "CREDIT", INT64_MAX, None),
        (BEFORE, "REPAY_DEBT", INT64_MAX, None),
        (BEFORE._replace(reserved=INT64_MAX // 2), "RESET_SPENT", 0, INT64_MAX),
    ],
)
def test_a_figure_beyond_int64_is_refused_as_a_whole(
    before: Account, operation: Any, amount: int, spent: int | None
) -> None:
    with pytest.raises(InvalidRequest):
        fund(before, operation, amount, spent)


def test_freezing_ends_and_closing_is_for_good() -> None:
    assert with_status(with_status(BEFORE, FROZEN), ACTIVE) == BEFORE
    closed = with_status(with_status(BEFORE, FROZEN), CLOSED)
    assert with_status(closed, CLOSED) == closed
    for status in (ACTIVE, FROZEN):
        with pytest.raises(BudgetClosed):
            with_status(closed, status)


HOURLY = BEFORE._replace(period=Period(every="hour"), period_start_ms=0, period_end_ms=HOUR_MS)


def test_a_period_ends_at_its_boundary_and_not_before() -> None:
    assert renewed(HOURLY, HOUR_MS - 1) is HOURLY
    after = renewed(HOURLY, HOUR_MS)
    assert (after.period_start_ms, after.period_end_ms) == (HOUR_MS, 2 * HOUR_MS)
    assert (after.spent, after.reserved, after.debt, after.allocated) == (0, 10, 20, 100)


def test_periods_that_nobody_used_are_skipped() -> None:
    assert renewed(HOURLY, 10 * HOUR_MS + 5).period_start_ms == 10 * HOUR_MS


def test_a_new_period_clears_a_flag_that_only_a_cap_had_set() -> None:
    assert not renewed(HOURLY._replace(over_limit=True), HOUR_MS).over_limit
    assert renewed(HOURLY._replace(over_limit=True, overdraft_limit=19), HOUR_MS).over_limit


def test_a_frozen_budget_renews_and_a_closed_one_does_not() -> None:
    assert renewed(HOURLY._replace(status=FROZEN), 5 * HOUR_MS).spent == 0
    closed = HOURLY._replace(status=CLOSED)
    assert renewed(closed, 5 * HOUR_MS) is closed


def test_a_budget_without_a_period_never_renews() -> None:
    assert renewed(BEFORE, 10**15) is BEFORE

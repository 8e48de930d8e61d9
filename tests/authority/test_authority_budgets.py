"""Making, changing, funding, freezing and closing budgets."""

from __future__ import annotations

from typing import Any

import pytest
from tests.authority.kit import (
    ACME,
    AGENT,
    CALL,
    TENANT,
    balance,
    budget,
    events,
    figures,
    hold,
    kinds,
    ledger,
    put_account,
)

from clearance.authority.budgets import BudgetSpec
from clearance.authority.embedded import EmbeddedAuthority
from clearance.errors import (
    AlreadyExists,
    BudgetClosed,
    BudgetExceeded,
    BudgetFrozen,
    BudgetNotFound,
    ClearanceError,
    InvalidRequest,
    NotFound,
)
from clearance.model.amount import Unit, tokens, usd
from clearance.model.caps import Caps, CapsRule
from clearance.model.period import Period

T = Unit.TOKENS


def test_applying_the_same_spec_twice_changes_nothing(authority: EmbeddedAuthority) -> None:
    facts: dict[str, Any] = {
        "overdraft_limit": 5,
        "overage_policy": "REJECT",
        "period": Period(every="day", timezone="Europe/Berlin"),
        "caps": (CapsRule(caps=Caps(max_tokens=9, tool_denylist=("rm",)), below_percent=20),),
    }
    made = budget(authority, TENANT, 100, **facts)
    before = ledger(authority)
    assert budget(authority, TENANT, 100, **facts) == made == balance(authority)
    assert ledger(authority) == before
    assert kinds(authority) == ["budget.created"]


def test_a_changed_spec_keeps_what_was_spent_is_held_and_is_owed(authority: EmbeddedAuthority) -> None:
    put_account(authority, TENANT, allocated=100, reserved=10, spent=20, debt=5, overdraft_limit=10)
    budget(authority, TENANT, 500, overdraft_limit=50)
    assert figures(authority) == (465, 10, 20, 5)
    (changed,) = events(authority, "budget.updated")
    assert changed.data["before"] == [100, 10, 20, 5, 10, 0]
    assert changed.data["figures"] == {TENANT: [500, 10, 20, 5, 50, 0]}


@pytest.mark.parametrize(("limit", "over"), [(4, True), (5, False)])
def test_a_changed_limit_computes_the_flag_anew(authority: EmbeddedAuthority, limit: int, over: bool) -> None:
    put_account(authority, TENANT, allocated=100, debt=5, overdraft_limit=50, over_limit=not over)
    assert budget(authority, TENANT, 100, overdraft_limit=limit).is_over_limit is over


def test_one_scope_has_a_budget_a_unit(authority: EmbeddedAuthority) -> None:
    budget(authority, TENANT, 100)
    budget(authority, TENANT, usd(3))
    hold(authority, 40)
    assert authority.balance(TENANT).remaining == usd(3).amount
    assert figures(authority) == (60, 40, 0, 0)


def test_a_budget_that_must_be_new_is_not_changed(authority: EmbeddedAuthority) -> None:
    budget(authority, TENANT, 100)
    with pytest.raises(AlreadyExists):
        authority.set_budget(BudgetSpec(scope=TENANT, allocated=tokens(5)), must_be_new=True)
    assert balance(authority).allocated == 100


def test_several_specs_are_applied_all_or_none(authority: EmbeddedAuthority) -> None:
    budget(authority, AGENT, 100)
    authority.close_budget(AGENT, T)
    before = ledger(authority)
    specs = [BudgetSpec(scope=TENANT, allocated=tokens(1)), BudgetSpec(scope=AGENT, allocated=tokens(1))]
    with pytest.raises(BudgetClosed):
        authority.apply_budgets(specs)
    assert ledger(authority) == before
    assert [b.scope for b in authority.apply_budgets(specs[:1])] == [TENANT]


# -- funding --------------------------------------------------------------------------------------

FUNDING: list[tuple[str, int, int | None, tuple[int, int, int, int], int, str]] = [
    ("CREDIT", 25, None, (55, 10, 40, 20), 125, "budget.funded"),
    ("DEBIT", 30, None, (0, 10, 40, 20), 70, "budget.debited"),
    ("RESET", 500, None, (430, 10, 40, 20), 500, "budget.reset"),
    ("RESET_SPENT", 200, None, (170, 10, 0, 20), 200, "budget.reset_spent"),
    ("RESET_SPENT", 20, 15, (-25, 10, 15, 20), 20, "budget.reset_spent"),
    ("REPAY_DEBT", 27, None, (57, 10, 40, 0), 107, "budget.debt_repaid"),
]


@pytest.mark.parametrize(("operation", "amount", "spent", "after", "allocated", "event"), FUNDING)
def test_funding_changes_the_budget_and_is_told(
    authority: EmbeddedAuthority,
    operation: Any,
    amount: int,
    spent: int | None,
    after: tuple[int, int, int, int],
    allocated: int,
    event: str,
) -> None:
    put_account(authority, TENANT, allocated=100, reserved=10, spent=40, debt=20, overdraft_limit=50)
    answer = authority.fund(
        TENANT, operation, tokens(amount), spent=None if spent is None else tokens(spent), reason="top up"
    )
    assert (figures(authority), answer.allocated) == (after, allocated)
    assert answer == balance(authority)
    (told,) = events(authority, event)
    assert told.data["amount"] == amount
    assert told.data["reason"] == "top up"
    assert told.data["before"] == [100, 10, 40, 20, 50, 0]


def test_a_debit_beyond_what_remains_is_refused(authority: EmbeddedAuthority) -> None:
    budget(authority, TENANT, 100)
    hold(authority, 60)
    with pytest.raises(BudgetExceeded):
        authority.fund(TENANT, "DEBIT", tokens(41))
    assert figures(authority) == (40, 60, 0, 0)


def test_money_beyond_int64_is_refused(authority: EmbeddedAuthority) -> None:
    budget(authority, TENANT, 2**63 - 1)
    with pytest.raises(InvalidRequest, match="allocated"):
        authority.fund(TENANT, "CREDIT", tokens(1))
    assert balance(authority).allocated == 2**63 - 1


def test_an_unknown_budget_cannot_be_funded_and_the_units_there_are_are_named(authority: EmbeddedAuthority) -> None:
    budget(authority, TENANT, usd(1))
    with pytest.raises(NotFound, match="no budget in TOKENS; it has one in USD_MICROCENTS"):
        authority.fund(TENANT, "CREDIT", tokens(1))
    with pytest.raises(BudgetNotFound):
        authority.freeze(AGENT)


# -- freezing and closing -------------------------------------------------------------------------

Ending = list[tuple[str, type[ClearanceError]]]
ENDINGS: Ending = [("freeze", BudgetFrozen), ("close_budget", BudgetClosed)]


@pytest.mark.parametrize(("verb", "error"), ENDINGS)
def test_a_frozen_or_closed_budget_takes_no_new_hold_event_or_money(
    authority: EmbeddedAuthority, verb: str, error: type[ClearanceError]
) -> None:
    budget(authority)
    getattr(authority, verb)(TENANT, T)
    for refused in (
        lambda: hold(authority),
        lambda: authority.start_run(ACME, tokens(1)),
        lambda: authority.event(ACME, CALL, tokens(1)),
        lambda: authority.fund(TENANT, "CREDIT", tokens(1)),
    ):
        with pytest.raises(error):
            refused()
    assert figures(authority) == (1000, 0, 0, 0)


@pytest.mark.parametrize(("verb", "error"), ENDINGS)
def test_what_was_held_before_is_settled(authority: EmbeddedAuthority, verb: str, error: type[ClearanceError]) -> None:
    budget(authority, TENANT, 1000)
    committed, released, extended, inside = (
        hold(authority),
        hold(authority),
        hold(authority),
        authority.start_run(ACME, tokens(50)),
    )
    getattr(authority, verb)(TENANT, T)
    assert authority.commit(committed, tokens(150)).charged == 150
    assert authority.release(released).released == 100
    assert authority.extend(extended, 1000).remaining_ttl_ms == 61_000
    assert authority.end_run(str(inside.reservation_id)).status == "COMMITTED"
    assert figures(authority) == (750, 100, 150, 0)


def test_freezing_twice_is_told_once_and_unfreezing_ends_it(authority: EmbeddedAuthority) -> None:
    budget(authority)
    for _ in range(2):
        assert authority.freeze(TENANT, T, reason="audit").status == "FROZEN"
    for _ in range(2):
        assert authority.unfreeze(TENANT, T).status == "ACTIVE"
    assert kinds(authority) == ["budget.created", "budget.frozen", "budget.unfrozen"]
    assert events(authority, "budget.frozen")[0].data["reason"] == "audit"
    assert hold(authority)


def test_closed_is_for_good(authority: EmbeddedAuthority) -> None:
    budget(authority)
    authority.close_budget(TENANT, T)
    assert authority.close_budget(TENANT, T).status == "CLOSED"
    for again in (
        lambda: authority.unfreeze(TENANT, T),
        lambda: authority.freeze(TENANT, T),
        lambda: budget(authority, TENANT, 5),
    ):
        with pytest.raises(BudgetClosed):
            again()
    assert balance(authority).status == "CLOSED"

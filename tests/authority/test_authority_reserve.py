"""A hold: on which budgets, in which order they are asked, and that a refusal changes nothing."""

from __future__ import annotations

from typing import Any

import pytest
from tests.authority.kit import (
    AGENT,
    BOT,
    CALL,
    TENANT,
    balance,
    budget,
    events,
    figures,
    hold,
    ledger,
    put_account,
)

from clearance.authority.clock import ManualClock
from clearance.authority.embedded import EmbeddedAuthority
from clearance.errors import (
    BudgetClosed,
    BudgetExceeded,
    BudgetFrozen,
    BudgetNotFound,
    ClearanceError,
    DebtOutstanding,
    OverdraftLimitExceeded,
    UnitMismatch,
)
from clearance.model.amount import credits, risk_points, tokens, usd
from clearance.model.period import Period
from clearance.model.subject import Subject

DEEP = Subject(tenant="acme", workspace="w", app="a", agent="bot")


def test_a_hold_is_on_every_budgeted_scope_and_the_answer_tells_all(
    authority: EmbeddedAuthority, clock: ManualClock
) -> None:
    budget(authority, TENANT, 1000)
    budget(authority, "tenant:acme/workspace:w/app:a/agent:bot", 500)
    answer = authority.reserve(DEEP, CALL, tokens(100), ttl_ms=30_000)
    assert answer.decision == "ALLOW"
    assert answer.affected_scopes == DEEP.scopes
    assert answer.scope_path == "tenant:acme/workspace:w/app:a/agent:bot"
    assert answer.reserved == tokens(100)
    assert (answer.expires_at_ms, answer.remaining_ttl_ms) == (clock.now_ms() + 30_000, 30_000)
    assert [(b.scope, b.remaining, b.reserved) for b in answer.balances] == [
        (TENANT, 900, 100),
        ("tenant:acme/workspace:w/app:a/agent:bot", 400, 100),
    ]
    assert answer.balances[0].remaining == balance(authority).remaining


def test_levels_that_are_skipped_make_another_scope(authority: EmbeddedAuthority) -> None:
    budget(authority, AGENT, 10)
    with pytest.raises(BudgetNotFound):
        hold(authority, 1, Subject(tenant="acme", workspace="w", agent="bot"))
    assert hold(authority, 1, BOT)


def test_names_differ_by_more_than_case(authority: EmbeddedAuthority) -> None:
    budget(authority, "tenant:ACME/agent:Bot", 10)
    reservation = authority.get(hold(authority, 4, Subject(tenant="Acme", agent="BOT")))
    assert figures(authority, AGENT) == (6, 4, 0, 0)
    assert reservation.subject == {"tenant": "Acme", "agent": "BOT"}
    assert reservation.scope_path == AGENT


def test_two_tenants_with_an_agent_of_the_same_name_share_nothing(authority: EmbeddedAuthority) -> None:
    budget(authority, "tenant:a/agent:bot", 10)
    budget(authority, "tenant:b/agent:bot", 10)
    budget(authority, "agent:bot", 10)
    hold(authority, 10, Subject(tenant="a", agent="bot"))
    assert figures(authority, "tenant:b/agent:bot") == (10, 0, 0, 0)
    assert figures(authority, "agent:bot") == (10, 0, 0, 0)


def test_an_ancestor_with_a_budget_in_another_unit_is_skipped(authority: EmbeddedAuthority) -> None:
    budget(authority, TENANT, usd(1))
    budget(authority, AGENT, 10)
    hold(authority, 10, BOT)
    assert authority.balance(TENANT).reserved == 0


@pytest.mark.parametrize("call", ["reserve", "dry_run", "decide", "event"])
def test_a_unit_that_no_scope_is_kept_in_is_a_mismatch_that_names_the_units(
    authority: EmbeddedAuthority, call: str
) -> None:
    budget(authority, AGENT, usd(1))
    budget(authority, AGENT, credits(1))
    budget(authority, TENANT, risk_points(1))
    before = ledger(authority)
    with pytest.raises(UnitMismatch) as refused:
        getattr(authority, call)(BOT, CALL, tokens(1))
    assert refused.value.details == {"scope": TENANT, "requested_unit": "TOKENS", "expected_units": ["RISK_POINTS"]}
    assert ledger(authority) == before


@pytest.mark.parametrize("call", ["reserve", "event"])
def test_no_budget_anywhere_is_not_found_and_says_what_was_tried(authority: EmbeddedAuthority, call: str) -> None:
    with pytest.raises(BudgetNotFound, match="Budget not found for provided scope: tenant:acme/agent:bot") as refused:
        getattr(authority, call)(BOT, CALL, tokens(1))
    assert refused.value.details == {"tried": [TENANT, AGENT]}
    assert (refused.value.status, refused.value.code, refused.value.reason_code) == (
        404,
        "NOT_FOUND",
        "BUDGET_NOT_FOUND",
    )


def test_the_budgets_of_a_hold_are_those_of_the_time_it_was_made(authority: EmbeddedAuthority) -> None:
    budget(authority, TENANT, 1000)
    first, second = hold(authority, 100, BOT), hold(authority, 100, BOT)
    budget(authority, AGENT, 1000)
    authority.commit(first, tokens(60))
    authority.release(second)
    assert figures(authority, TENANT) == (940, 0, 60, 0)
    assert figures(authority, AGENT) == (1000, 0, 0, 0)


# -- refusals -------------------------------------------------------------------------------------

REASONS: list[tuple[dict[str, Any], type[ClearanceError]]] = [
    ({"status": "FROZEN", "debt": 5, "over_limit": True}, BudgetFrozen),
    ({"status": "CLOSED", "debt": 5, "over_limit": True}, BudgetClosed),
    ({"debt": 5, "over_limit": True}, OverdraftLimitExceeded),
    ({"debt": 5}, DebtOutstanding),
    ({"debt": 5, "overdraft_limit": 5}, BudgetExceeded),
    ({"allocated": 9}, BudgetExceeded),
]


@pytest.mark.parametrize(("state", "error"), REASONS)
def test_the_gravest_reason_of_a_scope_is_named(
    authority: EmbeddedAuthority, state: dict[str, Any], error: type[ClearanceError]
) -> None:
    put_account(authority, TENANT, **state)
    with pytest.raises(error) as refused:
        hold(authority, 10)
    assert type(refused.value) is error
    assert refused.value.scope == TENANT


@pytest.mark.parametrize(("state", "error"), REASONS)
def test_the_first_failing_scope_from_the_root_decides(
    authority: EmbeddedAuthority, state: dict[str, Any], error: type[ClearanceError]
) -> None:
    put_account(authority, TENANT, allocated=9)
    put_account(authority, AGENT, **state)
    with pytest.raises(BudgetExceeded) as refused:
        hold(authority, 10, BOT)
    assert refused.value.scope == TENANT


@pytest.mark.parametrize(("state", "error"), REASONS)
def test_a_scope_in_the_middle_that_fails_changes_nothing_anywhere(
    authority: EmbeddedAuthority, state: dict[str, Any], error: type[ClearanceError]
) -> None:
    budget(authority, TENANT, 1000)
    put_account(authority, "tenant:acme/workspace:w", **state)
    budget(authority, "tenant:acme/workspace:w/app:a", 1000)
    before = authority.balances().items
    with pytest.raises(error) as refused:
        hold(authority, 10, DEEP)
    assert refused.value.scope == "tenant:acme/workspace:w"
    assert authority.balances().items == before
    assert authority.reservations().items == []


def test_a_denial_is_in_the_log_with_its_reason(authority: EmbeddedAuthority) -> None:
    budget(authority, TENANT, 50)
    with pytest.raises(BudgetExceeded, match="has 50 tokens left; this needs 100 tokens") as refused:
        hold(authority, 100)
    assert refused.value.details == {"requested": 100, "remaining": 50, "unit": "TOKENS"}
    (denied,) = events(authority, "reservation.denied")
    assert (denied.tenant, denied.scope, denied.reservation_id) == ("acme", TENANT, None)
    assert denied.data["reason_code"] == "BUDGET_EXCEEDED"
    assert denied.data["requested"] == 100


@pytest.mark.parametrize("policy", ["REJECT", "ALLOW_IF_AVAILABLE", "ALLOW_WITH_OVERDRAFT"])
def test_no_policy_loosens_a_hold(authority: EmbeddedAuthority, policy: Any) -> None:
    budget(authority, TENANT, 100, overdraft_limit=1000)
    with pytest.raises(BudgetExceeded):
        hold(authority, 101, overage_policy=policy)
    assert hold(authority, 100, overage_policy=policy)


def test_nothing_may_be_held_on_nothing_but_not_below_zero(authority: EmbeddedAuthority) -> None:
    put_account(authority, TENANT, allocated=0)
    assert hold(authority, 0)
    put_account(authority, TENANT, allocated=0, debt=1, overdraft_limit=1)
    with pytest.raises(BudgetExceeded):
        hold(authority, 0)


def test_debt_below_a_positive_overdraft_limit_does_not_block(authority: EmbeddedAuthority) -> None:
    put_account(authority, TENANT, allocated=100, debt=20, overdraft_limit=10)
    assert hold(authority, 80)


def test_a_denial_by_a_period_says_when_another_try_could_succeed(
    authority: EmbeddedAuthority, clock: ManualClock
) -> None:
    budget(authority, TENANT, 100, period=Period(every="hour", kind="rolling"))
    hold(authority, 60)
    clock.advance(1000)
    with pytest.raises(BudgetExceeded) as refused:
        hold(authority, 60)
    assert refused.value.retry_after_ms == 3_599_000
    with pytest.raises(BudgetExceeded) as never:
        hold(authority, 101)
    assert never.value.retry_after_ms is None

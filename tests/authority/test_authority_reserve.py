"""A hold: on which budgets, in which order they are asked, and that a refusal changes nothing."""

from __future__ import annotations

from typing import Any

import pytest

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
from clearance.model.amount import Unit, credits, risk_points, tokens, usd
from clearance.model.subject import Subject
from tests.authority.kit import ACME, AGENT, BOT, CALL, TENANT, balance, budget, events, figures, hold, ledger

DEEP = Subject(tenant="acme", workspace="w", app="a", agent="bot")


def test_a_hold_is_on_every_budgeted_scope_and_the_answer_tells_all(authority: EmbeddedAuthority, clock: ManualClock) -> None:
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
def test_a_unit_that_no_scope_is_kept_in_is_a_mismatch_that_names_the_units(authority: EmbeddedAuthority, call: str) -> None:
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
    assert (refused.value.status, refused.value.code, refused.value.reason_code) == (404, "NOT_FOUND", "BUDGET_NOT_FOUND")


def test_the_budgets_of_a_hold_are_those_of_the_time_it_was_made(authority: EmbeddedAuthority) -> None:
    budget(authority, TENANT, 1000)
    first, second = hold(authority, 100, BOT), hold(authority, 100, BOT)
    budget(authority, AGENT, 1000)
    authority.commit(first, tokens(60))
    authority.release(second)
    assert figures(authority, TENANT) == (940, 0, 60, 0)
    assert figures(authority, AGENT) == (1000, 0, 0, 0)


# -- refusals -------------------------------------------------------------------------------------


def frozen(authority: EmbeddedAuthority, scope: str) -> None:
    over(authority, scope)
    authority.freeze(scope, Unit.TOKENS)


def closed(authority: EmbeddedAuthority, scope: str) -> None:
    over(authority, scope)
    authority.close_budget(scope, Unit.TOKENS)


def over(authority: EmbeddedAuthority, scope: str) -> None:
    """Over its limit, in debt, and nothing left."""
    owing(authority, scope)
    authority.event(subject_of(scope), CALL, tokens(1))


def owing(authority: EmbeddedAuthority, scope: str) -> None:
    """In debt without an overdraft, and nothing left."""
    budget(authority, scope, 10, overdraft_limit=5)
    authority.event(subject_of(scope), CALL, tokens(15), overage_policy="ALLOW_WITH_OVERDRAFT")
    authority.fund(scope, "RESET", tokens(0))
    budget(authority, scope, 0, overdraft_limit=5)
    # Less overdraft than debt marks the budget; the next credit lowers the flag only if the debt fits, so repay and owe anew.
    set_limit_to_zero(authority, scope)


def set_limit_to_zero(authority: EmbeddedAuthority, scope: str) -> None:
    """A debt of 5 on a budget that lost its overdraft and whose flag is not set."""
    found = balance(authority, scope)
    with authority._store.transaction(flush=False) as tx:
        from clearance.store.interface import Changes

        account = tx.account(found.tenant, scope, "TOKENS")
        assert account is not None
        tx.write(Changes(accounts=[account._replace(overdraft_limit=0, over_limit=False)]), 0)


def empty(authority: EmbeddedAuthority, scope: str) -> None:
    budget(authority, scope, 9)


def subject_of(scope: str) -> Subject:
    return Subject(**dict(part.split(":") for part in scope.split("/")))


REASONS: list[tuple[Any, type[ClearanceError]]] = [
    (frozen, BudgetFrozen),
    (closed, BudgetClosed),
    (over, OverdraftLimitExceeded),
    (owing, DebtOutstanding),
    (empty, BudgetExceeded),
]

"""What happens when the actual is more than was held: the worked cases, the policies, debt and the sticky flag."""

from __future__ import annotations

from typing import Any

import pytest
from tests.authority.kit import (
    ACME,
    AGENT,
    BOT,
    CALL,
    TENANT,
    balance,
    budget,
    events,
    figures,
    hold,
    kinds,
    put_account,
    write,
)

from clearance.authority.embedded import EmbeddedAuthority
from clearance.errors import BudgetExceeded, DebtOutstanding, OverdraftLimitExceeded
from clearance.model.account import ALLOW_IF_AVAILABLE as AIA
from clearance.model.account import ALLOW_WITH_OVERDRAFT as AWO
from clearance.model.account import REJECT
from clearance.model.amount import tokens
from clearance.store.interface import Changes, Tenant


def over(authority: EmbeddedAuthority, scope: str = TENANT) -> bool:
    return balance(authority, scope).is_over_limit


# -- the worked cases -----------------------------------------------------------------------------


def test_c1_a_capped_commit_marks_only_the_scope_that_could_not_cover(authority: EmbeddedAuthority) -> None:
    budget(authority, TENANT, 150)
    budget(authority, AGENT, 1000)
    answer = authority.commit(hold(authority, 100, BOT, overage_policy=AIA), tokens(200))
    assert (answer.charged, answer.uncharged) == (150, 50)
    assert (figures(authority, TENANT), over(authority, TENANT)) == ((0, 0, 150, 0), True)
    assert (figures(authority, AGENT), over(authority, AGENT)) == ((850, 0, 150, 0), False)


def test_c2_debt_may_reach_the_limit_and_then_nothing_more_is_held(authority: EmbeddedAuthority) -> None:
    budget(authority, TENANT, 150, overdraft_limit=60)
    answer = authority.commit(hold(authority, 100, overage_policy=AWO), tokens(210))
    assert (answer.charged, answer.uncharged) == (210, 0)
    assert (figures(authority), over(authority)) == ((-60, 0, 150, 60), False)
    for amount in (0, 1):
        with pytest.raises(BudgetExceeded):
            hold(authority, amount)


def test_c3_debt_beyond_the_limit_is_refused_and_the_hold_stays(authority: EmbeddedAuthority) -> None:
    budget(authority, TENANT, 150, overdraft_limit=9)
    held = hold(authority, 100, overage_policy=AWO)
    with pytest.raises(OverdraftLimitExceeded):
        authority.commit(held, tokens(210), idempotency_key="k")
    assert authority.get(held).status == "ACTIVE"
    assert figures(authority) == (50, 100, 0, 0)
    assert authority.commit(held, tokens(159), idempotency_key="k").charged == 159


def test_c4_a_scope_without_overdraft_caps_the_whole_charge(authority: EmbeddedAuthority) -> None:
    budget(authority, TENANT, 150)
    budget(authority, AGENT, 110, overdraft_limit=1000)
    answer = authority.commit(hold(authority, 100, BOT, overage_policy=AWO), tokens(200))
    assert (answer.charged, answer.uncharged) == (150, 50)
    assert (figures(authority, TENANT), over(authority, TENANT)) == ((0, 0, 150, 0), True)
    assert (figures(authority, AGENT), over(authority, AGENT)) == ((-40, 0, 110, 40), False)


def test_c5_what_is_held_by_others_is_not_available_and_the_flag_outlives_its_return(
    authority: EmbeddedAuthority,
) -> None:
    budget(authority, TENANT, 150)
    first, second = hold(authority, 100, overage_policy=AIA), hold(authority, 40)
    assert authority.commit(first, tokens(200)).charged == 110
    assert over(authority)
    authority.release(second)
    assert figures(authority) == (40, 0, 110, 0)
    with pytest.raises(OverdraftLimitExceeded):
        hold(authority, 1)


def test_c6_spending_all_there_is_is_not_over_the_limit(authority: EmbeddedAuthority) -> None:
    budget(authority, TENANT, 100)
    answer = authority.commit(hold(authority, 10, overage_policy=AIA), tokens(100))
    assert (answer.charged, answer.uncharged) == (100, 0)
    assert (figures(authority), over(authority)) == ((0, 0, 100, 0), False)


# -- policies -------------------------------------------------------------------------------------


@pytest.mark.parametrize("policy", [REJECT, AIA, AWO, None])
def test_up_to_the_estimate_every_policy_charges_the_actual_and_frees_the_rest(
    authority: EmbeddedAuthority, policy: Any
) -> None:
    budget(authority)
    answer = authority.commit(hold(authority, 100, overage_policy=policy), tokens(30))
    assert (answer.status, answer.charged, answer.released, answer.uncharged) == ("COMMITTED", 30, 70, 0)
    assert figures(authority) == (970, 0, 30, 0)


def test_reject_refuses_one_more_than_the_estimate_and_the_hold_stays(authority: EmbeddedAuthority) -> None:
    budget(authority)
    held = hold(authority, 100, overage_policy=REJECT)
    with pytest.raises(BudgetExceeded):
        authority.commit(held, tokens(101))
    assert figures(authority) == (900, 100, 0, 0)
    assert authority.commit(held, tokens(100)).charged == 100


def test_what_is_available_is_the_default(authority: EmbeddedAuthority) -> None:
    budget(authority, TENANT, 150, overdraft_limit=1000)
    held = hold(authority, 100)
    assert authority.get(held).overage_policy == AIA
    assert authority.commit(held, tokens(200)).charged == 150
    assert balance(authority).debt == 0


def test_the_most_specific_budget_names_the_policy_and_the_request_overrides_it(authority: EmbeddedAuthority) -> None:
    budget(authority, TENANT, overage_policy=AWO)
    budget(authority, AGENT, overage_policy=REJECT)
    assert authority.get(hold(authority, 1, ACME)).overage_policy == AWO
    assert authority.get(hold(authority, 1, BOT)).overage_policy == REJECT
    assert authority.get(hold(authority, 1, BOT, overage_policy=AIA)).overage_policy == AIA


def test_the_tenants_own_default_holds_for_holds_and_for_events(authority: EmbeddedAuthority) -> None:
    budget(authority, TENANT, 10)
    write(authority, Changes(tenants=[Tenant("acme", overage_policy=REJECT)]))
    assert authority.get(hold(authority, 1)).overage_policy == REJECT
    with pytest.raises(BudgetExceeded):
        authority.event(ACME, CALL, tokens(11))


def test_a_charge_is_never_below_the_estimate(authority: EmbeddedAuthority) -> None:
    budget(authority, TENANT, 100)
    held = hold(authority, 100)
    authority.fund(TENANT, "RESET", tokens(10))
    answer = authority.commit(held, tokens(150))
    assert (answer.charged, answer.uncharged) == (100, 50)
    assert figures(authority) == (-90, 0, 100, 0)


# -- debt and the flag ----------------------------------------------------------------------------


def test_a_flag_stops_every_hold_and_no_settlement(authority: EmbeddedAuthority) -> None:
    budget(authority, TENANT, 1000)
    committed, released = hold(authority, 10), hold(authority, 10)
    put_account(authority, TENANT, allocated=1000, reserved=20, over_limit=True)
    for call in (authority.reserve, authority.start_run):
        with pytest.raises(OverdraftLimitExceeded):
            call(ACME, *((CALL, tokens(0)) if call == authority.reserve else (tokens(0),)))
    assert authority.commit(committed, tokens(5)).charged == 5
    assert authority.release(released).released == 10
    assert authority.event(ACME, CALL, tokens(5)).charged == 5
    assert over(authority)


@pytest.mark.parametrize("operation", ["CREDIT", "DEBIT", "RESET", "RESET_SPENT", "REPAY_DEBT"])
def test_any_funding_clears_a_flag_that_a_cap_set(authority: EmbeddedAuthority, operation: Any) -> None:
    put_account(authority, TENANT, allocated=100, over_limit=True)
    authority.fund(TENANT, operation, tokens(100 if "RESET" in operation else 0))
    assert not over(authority)
    assert events(authority, "budget.over_limit_exited")
    assert hold(authority, 1)


def test_debt_without_an_overdraft_blocks_until_it_is_repaid(authority: EmbeddedAuthority) -> None:
    put_account(authority, TENANT, allocated=1000, debt=20)
    with pytest.raises(DebtOutstanding):
        hold(authority, 1)
    authority.fund(TENANT, "REPAY_DEBT", tokens(20))
    assert hold(authority, 1)


def test_an_event_is_charged_in_debt_and_over_the_limit(authority: EmbeddedAuthority) -> None:
    put_account(authority, TENANT, allocated=80, spent=80, debt=20, overdraft_limit=100)
    assert figures(authority) == (-20, 0, 80, 20)
    assert authority.event(ACME, CALL, tokens(10), overage_policy=AWO).charged == 10
    assert figures(authority) == (-30, 0, 80, 30)
    capped = authority.event(ACME, CALL, tokens(10), overage_policy=AIA)
    assert (capped.charged, capped.uncharged) == (0, 10)
    assert over(authority)
    assert authority.event(ACME, CALL, tokens(70), overage_policy=AWO).charged == 70
    with pytest.raises(OverdraftLimitExceeded):
        authority.event(ACME, CALL, tokens(1), overage_policy=AWO)


def test_an_event_is_a_direct_debit_on_every_budgeted_scope(authority: EmbeddedAuthority) -> None:
    budget(authority, TENANT, 1000)
    budget(authority, AGENT, 100)
    answer = authority.event(BOT, CALL, tokens(150), metadata={"why": "late"})
    assert (answer.status, answer.actual, answer.charged, answer.uncharged) == ("APPLIED", 150, 100, 50)
    assert answer.event_id is not None
    assert (figures(authority, TENANT), figures(authority, AGENT)) == ((900, 0, 100, 0), (0, 0, 100, 0))
    assert (over(authority, TENANT), over(authority, AGENT)) == (False, True)
    (recorded,) = events(authority, "spend.recorded")
    assert recorded.data["event_id"] == answer.event_id
    assert recorded.data["metadata"] == {"why": "late"}
    assert recorded.data["uncharged"] == 50


def test_crossing_a_line_is_told_once(authority: EmbeddedAuthority) -> None:
    budget(authority, TENANT, 100, overdraft_limit=50)
    authority.event(ACME, CALL, tokens(100))
    authority.event(ACME, CALL, tokens(20), overage_policy=AWO)
    authority.event(ACME, CALL, tokens(20), overage_policy=AWO)
    authority.event(ACME, CALL, tokens(20), overage_policy=AIA)
    authority.event(ACME, CALL, tokens(20), overage_policy=AIA)
    told = [kind for kind in kinds(authority) if kind.startswith("budget.")]
    assert told == [
        "budget.created",
        "budget.exhausted",
        "budget.debt_incurred",
        "budget.debt_incurred",
        "budget.over_limit_entered",
    ]

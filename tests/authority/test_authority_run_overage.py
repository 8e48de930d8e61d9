"""A call that costs more than its run has left is recorded in full: with the run, its parents, then the scopes."""

from __future__ import annotations

from typing import Any

import pytest
from tests.authority.kit import ACME, CALL, TENANT, balance, budget, events, figures, hold, run

from clearance.authority.embedded import EmbeddedAuthority
from clearance.errors import BudgetExceeded
from clearance.model.amount import tokens


def test_what_the_run_has_left_is_taken_first(authority: EmbeddedAuthority) -> None:
    budget(authority)
    inside = run(authority, 100)
    answer = authority.commit(hold(authority, 10, run_id=inside), tokens(100))
    assert (answer.charged, answer.uncharged) == (100, 0)
    assert figures(authority) == (900, 100, 0, 0)
    assert authority.end_run(inside).charged == 100
    assert figures(authority) == (900, 0, 100, 0)


def test_the_rest_goes_to_the_parent_and_then_to_the_scopes(authority: EmbeddedAuthority) -> None:
    budget(authority, TENANT, 1000)
    outer = run(authority, 100)
    inner = run(authority, 40, run_id=outer)
    answer = authority.commit(hold(authority, 40, run_id=inner), tokens(150))
    assert (answer.charged, answer.uncharged) == (150, 0)
    assert {b.scope: b.spent for b in answer.balances} == {f"run:{inner}": 40, f"run:{outer}": 60, TENANT: 50}
    assert figures(authority) == (850, 100, 50, 0)
    authority.end_run(inner)
    authority.end_run(outer)
    assert figures(authority) == (850, 0, 150, 0)


POLICIES: list[tuple[Any, int, int, tuple[int, int, int, int], bool]] = [
    # policy of the run, limit, charged of an actual of 500, balance after the run's end, over its limit
    ("REJECT", 0, 100, (200, 0, 100, 0), False),
    ("ALLOW_IF_AVAILABLE", 0, 300, (0, 0, 300, 0), True),
    ("ALLOW_IF_AVAILABLE", 900, 300, (0, 0, 300, 0), True),
    ("ALLOW_WITH_OVERDRAFT", 900, 500, (-200, 0, 300, 200), False),
    ("ALLOW_WITH_OVERDRAFT", 200, 500, (-200, 0, 300, 200), False),
    ("ALLOW_WITH_OVERDRAFT", 199, 300, (0, 0, 300, 0), True),
    ("ALLOW_WITH_OVERDRAFT", 0, 300, (0, 0, 300, 0), True),
]


@pytest.mark.parametrize(("policy", "limit", "charged", "after", "over"), POLICIES)
def test_the_policy_of_the_run_says_what_the_scopes_take_and_the_rest_stays_visible(
    authority: EmbeddedAuthority, policy: Any, limit: int, charged: int, after: tuple[int, int, int, int], over: bool
) -> None:
    budget(authority, TENANT, 300, overdraft_limit=limit)
    inside = run(authority, 100, overage_policy=policy)
    held = hold(authority, 100, run_id=inside)
    answer = authority.commit(held, tokens(500))
    assert (answer.actual, answer.charged, answer.uncharged) == (500, charged, 500 - charged)
    (recorded,) = events(authority, "reservation.committed")
    assert (recorded.data["actual"], recorded.data.get("uncharged", 0)) == (500, 500 - charged)
    assert (authority.get(held).actual, authority.get(held).charged) == (500, charged)
    authority.end_run(inside)
    assert (figures(authority), balance(authority).is_over_limit) == (after, over)


@pytest.mark.parametrize(("policy", "charged"), [("REJECT", 100), ("ALLOW_IF_AVAILABLE", 300)])
def test_an_event_inside_a_run_is_never_refused(authority: EmbeddedAuthority, policy: Any, charged: int) -> None:
    budget(authority, TENANT, 300)
    inside = run(authority, 100, overage_policy=policy)
    answer = authority.event(ACME, CALL, tokens(500), run_id=inside, overage_policy="REJECT")
    assert (answer.charged, answer.uncharged) == (charged, 500 - charged)


def test_a_call_that_asked_to_be_rejected_is(authority: EmbeddedAuthority) -> None:
    budget(authority)
    inside = run(authority, 100)
    held = hold(authority, 10, run_id=inside, overage_policy="REJECT")
    with pytest.raises(BudgetExceeded):
        authority.commit(held, tokens(11))
    assert authority.get(held).is_open
    assert authority.commit(held, tokens(10)).charged == 10


def test_spend_beyond_a_run_without_a_budget_is_the_scopes_own_overage(authority: EmbeddedAuthority) -> None:
    budget(authority, TENANT, 100)
    inside = run(authority, None)
    answer = authority.commit(hold(authority, 60, run_id=inside), tokens(200))
    assert (answer.charged, answer.uncharged) == (100, 100)
    assert balance(authority).is_over_limit


def test_calls_of_one_run_share_what_it_has(authority: EmbeddedAuthority) -> None:
    budget(authority, TENANT, 1000)
    inside = run(authority, 100)
    first, second = hold(authority, 30, run_id=inside), hold(authority, 40, run_id=inside)
    assert authority.commit(first, tokens(80)).charged == 80
    assert figures(authority) == (880, 100, 20, 0)
    assert authority.commit(second, tokens(40)).charged == 40
    assert authority.end_run(inside).charged == 100
    assert figures(authority) == (880, 0, 120, 0)

"""Caps of budgets reach the decision: always, or below a share; merged over the scopes; inside runs too."""

from __future__ import annotations

from typing import Any

import pytest
from tests.authority.kit import ACME, AGENT, BOT, CALL, TENANT, budget, events, hold, run

from clearance.authority.budgets import BudgetSpec
from clearance.authority.clock import ManualClock
from clearance.authority.embedded import EmbeddedAuthority
from clearance.model.action import Action
from clearance.model.amount import credits, tokens, usd
from clearance.model.caps import Caps, CapsRule
from clearance.model.period import HOUR_MS, Period

ALWAYS = (CapsRule(caps=Caps(max_tokens=100)),)
LATE = (CapsRule(caps=Caps(max_tokens=10, tool_denylist=("search",)), below_percent=20),)
ASKS = pytest.mark.parametrize("ask", ["reserve", "dry_run", "decide"])


def caps(authority: EmbeddedAuthority, subject: Any = ACME, **options: Any) -> Caps | None:
    answer = authority.dry_run(subject, CALL, tokens(0), **options)
    assert answer.decision == ("ALLOW_WITH_CAPS" if answer.caps else "ALLOW")
    return answer.caps


@ASKS
def test_caps_make_the_decision_allow_with_caps(authority: EmbeddedAuthority, ask: str) -> None:
    budget(authority, caps=ALWAYS)
    answer = getattr(authority, ask)(ACME, CALL, tokens(1))
    assert (answer.decision, answer.caps, answer.allowed) == ("ALLOW_WITH_CAPS", Caps(max_tokens=100), True)


def test_caps_are_in_the_log(authority: EmbeddedAuthority) -> None:
    budget(authority, caps=ALWAYS)
    hold(authority, 1)
    assert events(authority, "reservation.created")[0].data["caps"] == {"max_tokens": 100}


@pytest.mark.parametrize(("spent", "capped"), [(0, False), (800, False), (801, True), (1000, True)])
def test_caps_below_a_share_begin_when_less_than_it_remains(
    authority: EmbeddedAuthority, spent: int, capped: bool
) -> None:
    budget(authority, TENANT, 1000, caps=LATE)
    authority.event(ACME, CALL, tokens(spent))
    assert caps(authority) == (LATE[0].caps if capped else None)


def test_what_is_held_counts_as_gone_and_what_comes_back_lifts_the_caps(authority: EmbeddedAuthority) -> None:
    budget(authority, TENANT, 1000, caps=LATE)
    held = hold(authority, 900)
    assert caps(authority) is not None
    authority.release(held)
    assert caps(authority) is None


def test_a_hold_is_judged_by_what_remains_before_it(authority: EmbeddedAuthority) -> None:
    budget(authority, TENANT, 1000, caps=LATE)
    assert authority.reserve(ACME, CALL, tokens(900)).caps is None
    assert authority.reserve(ACME, CALL, tokens(1)).caps is not None


def test_caps_of_all_scopes_and_rules_are_merged_to_the_tightest(authority: EmbeddedAuthority) -> None:
    budget(authority, TENANT, 1000, caps=(*ALWAYS, CapsRule(caps=Caps(cooldown_ms=5))))
    budget(authority, AGENT, 1000, caps=(CapsRule(caps=Caps(max_tokens=50, tool_allowlist=("a", "b"))),))
    assert caps(authority, ACME) == Caps(max_tokens=100, cooldown_ms=5)
    assert caps(authority, BOT) == Caps(max_tokens=50, cooldown_ms=5, tool_allowlist=("a", "b"))


def test_only_budgets_in_the_unit_that_is_asked_for_give_caps(authority: EmbeddedAuthority) -> None:
    budget(authority, TENANT, usd(1), caps=ALWAYS)
    budget(authority, AGENT, 1000)
    assert caps(authority, BOT) is None


@pytest.mark.parametrize("inside", [False, True])
def test_a_tool_list_holds_in_whatever_unit_the_tool_is_paid(authority: EmbeddedAuthority, inside: bool) -> None:
    lists = Caps(tool_denylist=("pay",), approval_tools=("send_*",))
    rules = (CapsRule(caps=lists.model_copy(update={"max_tokens": 5})), CapsRule(caps=Caps(cooldown_ms=9)))
    authority.set_budget(BudgetSpec(scope=TENANT, allocated=usd(1), caps=rules))
    authority.set_budget(BudgetSpec(scope=AGENT, allocated=credits(10)))
    options: Any = {"run_id": authority.start_run(BOT, credits(5)).reservation_id} if inside else {}
    for kind in ("tool.call", "message.email.send"):
        answer = authority.reserve(BOT, Action(kind=kind, name="pay"), credits(1), **options)
        assert answer.caps == lists
    assert authority.reserve(BOT, Action(kind="llm.completion", name="m"), credits(1), **options).caps is None


def test_inside_a_run_the_caps_of_the_scopes_hold_as_well(authority: EmbeddedAuthority) -> None:
    budget(authority, TENANT, 1000, caps=ALWAYS)
    inside = run(authority, 100)
    nested = run(authority, 10, run_id=inside)
    for run_id in (inside, nested):
        assert caps(authority, run_id=run_id) == Caps(max_tokens=100)
        assert authority.reserve(ACME, CALL, tokens(1), run_id=run_id).caps == Caps(max_tokens=100)


def test_a_new_period_lifts_caps_inside_a_run_too(authority: EmbeddedAuthority, clock: ManualClock) -> None:
    budget(authority, TENANT, 1000, caps=LATE, period=Period(every="hour", kind="rolling"))
    inside = run(authority, 100, ttl_ms=3 * HOUR_MS)
    authority.event(ACME, CALL, tokens(850))
    assert caps(authority, run_id=inside) == LATE[0].caps
    clock.advance(HOUR_MS)
    assert caps(authority) is None
    assert caps(authority, run_id=inside) is None


@pytest.mark.parametrize("funded", [True, False])
def test_starting_a_run_tells_the_caps(authority: EmbeddedAuthority, funded: bool) -> None:
    budget(authority, TENANT, 1000, caps=ALWAYS)
    answer = authority.start_run(ACME, tokens(10) if funded else None)
    assert answer.caps == (Caps(max_tokens=100) if funded else None)


def test_changed_caps_hold_from_the_next_decision(authority: EmbeddedAuthority) -> None:
    budget(authority, caps=ALWAYS)
    budget(authority)
    assert caps(authority) is None

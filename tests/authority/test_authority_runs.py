"""Runs: a reservation that is an account for the calls inside it."""

from __future__ import annotations

import pytest
from tests.authority.kit import ACME, AGENT, BOT, CALL, MINUTE, TENANT, budget, events, figures, hold, kinds, run

from clearance.authority.clock import ManualClock
from clearance.authority.embedded import EmbeddedAuthority
from clearance.errors import (
    BudgetExceeded,
    InvalidRequest,
    NotFound,
    ReservationExpired,
    ReservationFinalized,
)
from clearance.model.amount import tokens, usd
from clearance.model.subject import Subject
from clearance.store.interface import ReservationQuery


def spend(authority: EmbeddedAuthority, amount: int, run_id: str) -> None:
    authority.commit(hold(authority, amount, run_id=run_id), tokens(amount))


def test_a_run_holds_its_budget_once_and_its_calls_hold_on_the_run(authority: EmbeddedAuthority) -> None:
    budget(authority, TENANT, 1000)
    budget(authority, AGENT, 500)
    inside = run(authority, 200, BOT)
    call = authority.reserve(BOT, CALL, tokens(150), run_id=inside)
    assert [(b.scope, b.remaining, b.reserved) for b in call.balances] == [(f"run:{inside}", 50, 150)]
    assert figures(authority, TENANT) == (800, 200, 0, 0)
    assert figures(authority, AGENT) == (300, 200, 0, 0)
    with pytest.raises(BudgetExceeded) as refused:
        hold(authority, 51, BOT, run_id=inside)
    assert refused.value.scope == f"run:{inside}"
    assert authority.get(str(call.reservation_id)).runs == (inside,)


def test_ending_a_run_charges_what_its_calls_charged_and_frees_the_rest(authority: EmbeddedAuthority) -> None:
    budget(authority)
    inside = run(authority, 200)
    spend(authority, 70, inside)
    authority.release(hold(authority, 50, run_id=inside))
    answer = authority.end_run(inside, metadata={"steps": 2})
    assert (answer.status, answer.estimate, answer.actual, answer.charged, answer.released) == (
        "COMMITTED",
        200,
        70,
        70,
        130,
    )
    assert figures(authority) == (930, 0, 70, 0)
    ended = authority.get(inside)
    assert (ended.kind, ended.status, ended.charged, ended.committed_metadata) == ("run", "COMMITTED", 70, {"steps": 2})
    assert kinds(authority)[-1] == "run.ended"


def test_calls_that_are_open_at_the_end_count_as_their_estimate(authority: EmbeddedAuthority) -> None:
    budget(authority)
    inside = run(authority, 200)
    open_call = hold(authority, 60, run_id=inside)
    nested = run(authority, 100, run_id=inside)
    spend(authority, 10, nested)
    deep_call = hold(authority, 30, run_id=nested)
    assert authority.end_run(inside).charged == 100
    assert figures(authority) == (900, 0, 100, 0)
    for call in (open_call, deep_call):
        assert authority.get(call).status == "COMMITTED"
        with pytest.raises(ReservationFinalized):
            authority.commit(call, tokens(1))
    assert {e.data.get("why") for e in events(authority, "reservation.committed")} == {None, "run ended"}


def test_a_nested_run_is_a_slice_of_its_parent(authority: EmbeddedAuthority) -> None:
    budget(authority)
    outer = run(authority, 100)
    inner = run(authority, 60, run_id=outer)
    with pytest.raises(BudgetExceeded):
        hold(authority, 41, run_id=outer)
    with pytest.raises(BudgetExceeded):
        run(authority, 41, run_id=outer)
    spend(authority, 50, inner)
    assert authority.end_run(inner).charged == 50
    assert hold(authority, 50, run_id=outer)
    assert figures(authority) == (900, 100, 0, 0)
    assert authority.get(inner).held_on == (f"run:{outer}",)


@pytest.mark.parametrize("outer_budget", [100, None])
def test_a_run_without_a_budget_only_carries_identity(authority: EmbeddedAuthority, outer_budget: int | None) -> None:
    budget(authority)
    outer = run(authority, outer_budget)
    inner = run(authority, None, run_id=outer)
    call = authority.get(hold(authority, 40, run_id=inner))
    assert call.runs == (outer, inner)
    assert call.held_on == ((f"run:{outer}",) if outer_budget else (TENANT,))
    authority.commit(call.id, tokens(40))
    assert authority.end_run(inner).charged == 0
    assert authority.end_run(outer).charged == (40 if outer_budget else 0)
    assert figures(authority) == (960, 0, 40, 0)


def test_a_run_without_a_budget_needs_none_on_its_scopes(authority: EmbeddedAuthority) -> None:
    inside = run(authority, None)
    with pytest.raises(NotFound):
        hold(authority, 1, run_id=inside)
    assert authority.end_run(inside).charged == 0


def test_calls_in_another_unit_go_to_the_scopes(authority: EmbeddedAuthority) -> None:
    budget(authority, TENANT, 1000)
    budget(authority, TENANT, usd(1))
    inside = run(authority, 100)
    answer = authority.reserve(ACME, CALL, usd("0.25"), run_id=inside)
    assert authority.balance(TENANT).reserved == usd("0.25").amount
    authority.commit(str(answer.reservation_id), usd("0.20"))
    left_open = authority.reserve(ACME, CALL, usd("0.10"), run_id=inside)
    assert authority.end_run(inside).charged == 0
    assert authority.balance(TENANT).spent == usd("0.30").amount
    assert authority.get(str(left_open.reservation_id)).status == "COMMITTED"


def test_an_event_inside_a_run_is_charged_to_the_run(authority: EmbeddedAuthority) -> None:
    budget(authority)
    inside = run(authority, 100)
    authority.event(ACME, CALL, tokens(30), run_id=inside)
    assert figures(authority) == (900, 100, 0, 0)
    assert authority.end_run(inside).charged == 30


def test_an_expired_run_charges_what_was_committed_inside(authority: EmbeddedAuthority, clock: ManualClock) -> None:
    budget(authority)
    outer = run(authority, 200, ttl_ms=MINUTE)
    inner = run(authority, 100, run_id=outer, ttl_ms=2 * MINUTE)
    spend(authority, 30, outer)
    spend(authority, 20, inner)
    open_call = hold(authority, 60, run_id=inner, ttl_ms=2 * MINUTE)
    clock.advance(MINUTE + 5_001)
    assert authority.sweep() == 1
    assert figures(authority) == (950, 0, 50, 0)
    assert [authority.find(it).status for it in (outer, inner, open_call)] == ["COMMITTED", "COMMITTED", "EXPIRED"]
    assert [e.data.get("why") for e in events(authority, "run.ended")] == ["lease expired"] * 2
    assert authority.sweep() == 0


def test_a_run_lives_as_long_as_it_is_extended(authority: EmbeddedAuthority, clock: ManualClock) -> None:
    budget(authority)
    inside = run(authority, 100, ttl_ms=MINUTE)
    for _ in range(15):
        clock.advance(MINUTE)
        authority.extend(inside, MINUTE)
    assert hold(authority, 1, run_id=inside)
    clock.advance(MINUTE + 1)
    with pytest.raises(ReservationExpired):
        hold(authority, 1, run_id=inside)
    with pytest.raises(ReservationExpired):
        authority.extend(inside, MINUTE)
    assert authority.end_run(inside).charged == 1


def test_a_run_that_is_over_takes_no_calls_and_ends_once(authority: EmbeddedAuthority, clock: ManualClock) -> None:
    budget(authority)
    ended, expired = run(authority, 10), run(authority, 10)
    authority.end_run(ended)
    clock.advance(MINUTE + 5_001)
    authority.sweep()
    for run_id in (ended, expired):
        for refused in (
            lambda it: hold(authority, 1, run_id=it),
            lambda it: run(authority, 1, run_id=it),
            lambda it: authority.end_run(it),
            lambda it: authority.extend(it, 1000),
        ):
            with pytest.raises(ReservationFinalized):
                refused(run_id)
    assert figures(authority) == (1000, 0, 0, 0)


def test_late_spend_of_an_ended_run_goes_to_the_scopes(authority: EmbeddedAuthority) -> None:
    budget(authority)
    inside = run(authority, 10)
    authority.end_run(inside)
    authority.event(ACME, CALL, tokens(7), run_id=inside)
    assert figures(authority) == (993, 0, 7, 0)


@pytest.mark.parametrize("verb", ["reserve", "dry_run", "event", "start_run"])
def test_a_run_of_another_tenant_and_an_unknown_one_are_refused(authority: EmbeddedAuthority, verb: str) -> None:
    budget(authority, TENANT, 100)
    budget(authority, "tenant:other", 100)
    inside = run(authority, 50)
    other = Subject(tenant="other")
    ask = (other, tokens(1)) if verb == "start_run" else (other, CALL, tokens(1))
    with pytest.raises(InvalidRequest, match="acme") as refused:
        getattr(authority, verb)(*ask, run_id=inside)
    assert refused.value.field == "subject.tenant"
    for unknown in ("run_none", hold(authority, 1)):
        with pytest.raises(NotFound):
            getattr(authority, verb)(*ask, run_id=unknown)
    assert figures(authority, "tenant:other") == (100, 0, 0, 0)


def test_a_run_is_settled_by_its_end_and_a_call_by_its_commit(authority: EmbeddedAuthority) -> None:
    budget(authority)
    inside = run(authority, 10)
    for refused in (lambda: authority.commit(inside, tokens(1)), lambda: authority.release(inside)):
        with pytest.raises(ReservationFinalized, match="end_run"):
            refused()
    with pytest.raises(NotFound):
        authority.end_run(hold(authority, 1))


def test_runs_have_no_balance_of_their_own_in_lists(authority: EmbeddedAuthority) -> None:
    budget(authority)
    inside = run(authority, 10)
    assert [b.scope for b in authority.balances().items] == [TENANT]
    assert [r.id for r in authority.reservations(ReservationQuery(kind="run")).items] == [inside]

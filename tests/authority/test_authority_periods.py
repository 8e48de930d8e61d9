"""Budgets that renew themselves, at the first use after the boundary."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from tests.authority.kit import ACME, AGENT, BOT, CALL, TENANT, balance, budget, events, figures, hold, put_account, run

from clearance.authority.clock import ManualClock
from clearance.authority.embedded import EmbeddedAuthority
from clearance.errors import BudgetExceeded
from clearance.model.amount import Unit, tokens
from clearance.model.period import HOUR_MS, Period

HOURLY = Period(every="hour", kind="rolling")


def move_to(clock: ManualClock, text: str, zone: str = "UTC") -> int:
    moment = int(datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone)).timestamp() * 1000)
    clock.advance(moment - clock.now_ms())
    return moment


BOUNDARIES: list[tuple[Any, str, str, str]] = [
    ("hour", "UTC", "2026-03-10T12:59:59.999", "2026-03-10T13:00"),
    ("day", "UTC", "2026-03-10T23:59:59.999", "2026-03-11T00:00"),
    ("week", "UTC", "2026-03-15T23:59:59.999", "2026-03-16T00:00"),
    ("month", "UTC", "2026-02-28T23:59:59.999", "2026-03-01T00:00"),
    ("month", "UTC", "2028-02-29T23:59:59.999", "2028-03-01T00:00"),
    ("month", "UTC", "2026-12-31T23:59:59.999", "2027-01-01T00:00"),
    ("day", "Europe/Berlin", "2026-03-29T23:59:59.999", "2026-03-30T00:00"),
    ("day", "Europe/Berlin", "2026-10-25T23:59:59.999", "2026-10-26T00:00"),
    ("day", "America/New_York", "2026-11-01T23:59:59.999", "2026-11-02T00:00"),
    ("month", "Asia/Kolkata", "2026-04-30T23:59:59.999", "2026-05-01T00:00"),
]


@pytest.mark.parametrize(("every", "zone", "last", "first"), BOUNDARIES)
def test_a_budget_renews_at_the_boundary_and_not_a_millisecond_before(
    authority: EmbeddedAuthority, clock: ManualClock, every: Any, zone: str, last: str, first: str
) -> None:
    move_to(clock, last, zone)
    budget(authority, TENANT, 100, period=Period(every=every, timezone=zone))
    authority.event(ACME, CALL, tokens(100))
    with pytest.raises(BudgetExceeded) as refused:
        hold(authority, 1)
    assert refused.value.retry_after_ms == 1
    boundary = move_to(clock, first, zone)
    assert clock.now_ms() == boundary
    assert hold(authority, 100)
    (renewed,) = events(authority, "budget.renewed")
    assert renewed.data["period_start_ms"] == boundary
    assert balance(authority).period_end_ms == renewed.data["period_end_ms"]


def test_a_rolling_period_begins_with_its_first_use(authority: EmbeddedAuthority, clock: ManualClock) -> None:
    budget(authority, TENANT, 100, period=HOURLY)
    clock.advance(10 * HOUR_MS)
    held = hold(authority, 60)
    start = clock.now_ms()
    assert balance(authority).period_end_ms == start + HOUR_MS
    authority.commit(held, tokens(60))
    clock.advance(HOUR_MS - 1)
    with pytest.raises(BudgetExceeded):
        hold(authority, 60)
    clock.advance(5 * HOUR_MS)
    assert hold(authority, 100)
    assert balance(authority).period_end_ms == clock.now_ms() + HOUR_MS
    assert len(events(authority, "budget.renewed")) == 1


def test_a_new_period_keeps_what_is_held_and_what_is_owed(authority: EmbeddedAuthority, clock: ManualClock) -> None:
    put_account(
        authority,
        TENANT,
        allocated=100,
        reserved=10,
        spent=50,
        debt=20,
        overdraft_limit=30,
        period=HOURLY,
        period_start_ms=0,
        period_end_ms=clock.now_ms(),
    )
    hold(authority, 5)
    assert figures(authority) == (65, 15, 0, 20)


USES: list[Any] = ["hold", "event", "fund", "denial", "run", "commit", "release", "expiry"]


@pytest.mark.parametrize("use", USES)
def test_every_use_renews_and_tells_it_once(authority: EmbeddedAuthority, clock: ManualClock, use: str) -> None:
    budget(authority, TENANT, 100, period=HOURLY)
    held = hold(authority, 40, ttl_ms=2 * HOUR_MS if use != "expiry" else HOUR_MS - 5_000)
    authority.event(ACME, CALL, tokens(30))
    clock.advance(HOUR_MS + 1)
    for _ in range(2):
        match use:
            case "hold":
                hold(authority, 1)
            case "event":
                authority.event(ACME, CALL, tokens(1))
            case "fund":
                authority.fund(TENANT, "CREDIT", tokens(0))
            case "denial":
                with pytest.raises(BudgetExceeded):
                    hold(authority, 61)
            case "run":
                run(authority, 1)
            case "commit" | "release":
                authority.commit(held, tokens(0)) if use == "commit" else authority.release(held)
                held = hold(authority, 1)
            case "expiry":
                authority.sweep()
    (renewed,) = events(authority, "budget.renewed")
    assert balance(authority).spent <= 2
    assert renewed.data["period_start_ms"] == clock.now_ms()


@pytest.mark.parametrize("preview", ["dry_run", "decide"])
def test_a_preview_sees_the_new_period_and_does_not_begin_it(
    authority: EmbeddedAuthority, clock: ManualClock, preview: str
) -> None:
    budget(authority, TENANT, 100, period=HOURLY)
    authority.event(ACME, CALL, tokens(100))
    before = balance(authority)
    clock.advance(HOUR_MS)
    for amount in (100, 101):
        assert getattr(authority, preview)(ACME, CALL, tokens(amount)).allowed is (amount == 100)
    assert balance(authority) == before
    assert events(authority, "budget.renewed") == []


def test_a_commit_after_the_boundary_counts_in_the_new_period(authority: EmbeddedAuthority, clock: ManualClock) -> None:
    budget(authority, TENANT, 100, period=HOURLY)
    held = hold(authority, 40, ttl_ms=2 * HOUR_MS)
    authority.event(ACME, CALL, tokens(60))
    clock.advance(HOUR_MS)
    authority.commit(held, tokens(30))
    assert figures(authority) == (70, 0, 30, 0)
    held = hold(authority, 40, ttl_ms=2 * HOUR_MS)
    clock.advance(HOUR_MS)
    authority.commit(held, tokens(90))
    assert figures(authority) == (10, 0, 90, 0)


def test_a_run_that_ends_after_the_boundary_counts_in_the_new_period(
    authority: EmbeddedAuthority, clock: ManualClock
) -> None:
    budget(authority, TENANT, 100, period=HOURLY)
    inside = run(authority, 50, ttl_ms=2 * HOUR_MS)
    authority.commit(hold(authority, 20, run_id=inside), tokens(20))
    clock.advance(HOUR_MS)
    authority.end_run(inside)
    assert figures(authority) == (80, 0, 20, 0)


def test_scopes_renew_each_by_its_own_period(authority: EmbeddedAuthority, clock: ManualClock) -> None:
    budget(authority, TENANT, 1000)
    budget(authority, AGENT, 100, period=HOURLY)
    authority.event(BOT, CALL, tokens(100))
    clock.advance(HOUR_MS)
    authority.event(BOT, CALL, tokens(100))
    assert (figures(authority, TENANT), figures(authority, AGENT)) == ((800, 0, 200, 0), (0, 0, 100, 0))
    assert [event.scope for event in events(authority, "budget.renewed")] == [AGENT]


def test_periods_without_any_use_are_told_as_one(authority: EmbeddedAuthority, clock: ManualClock) -> None:
    budget(authority, TENANT, 100, period=Period(every="day"))
    authority.event(ACME, CALL, tokens(100))
    clock.advance(30 * 24 * HOUR_MS)
    hold(authority, 100)
    assert len(events(authority, "budget.renewed")) == 1


def test_what_settles_on_a_frozen_budget_counts_in_the_period_it_settles_in(
    authority: EmbeddedAuthority, clock: ManualClock
) -> None:
    budget(authority, TENANT, 100, period=HOURLY)
    held = hold(authority, 40, ttl_ms=3 * HOUR_MS)
    authority.event(ACME, CALL, tokens(10))
    authority.freeze(TENANT, Unit.TOKENS)
    clock.advance(HOUR_MS)
    authority.commit(held, tokens(40))
    assert figures(authority) == (60, 0, 40, 0)
    authority.unfreeze(TENANT, Unit.TOKENS)
    assert hold(authority, 60)
    assert figures(authority) == (0, 60, 40, 0)


def test_changing_the_period_keeps_what_was_spent(authority: EmbeddedAuthority, clock: ManualClock) -> None:
    budget(authority, TENANT, 100)
    authority.event(ACME, CALL, tokens(70))
    budget(authority, TENANT, 100, period=HOURLY)
    assert figures(authority) == (30, 0, 70, 0)
    clock.advance(HOUR_MS)
    assert hold(authority, 100)
    budget(authority, TENANT, 100)
    clock.advance(HOUR_MS)
    assert balance(authority).period is None
    assert figures(authority)[1] == 100

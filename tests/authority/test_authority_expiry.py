"""The ends of a lease and of its grace, to the millisecond; and expiry, exactly once."""

from __future__ import annotations

from typing import Any

import pytest
from tests.authority.kit import ACME, CALL, TENANT, budget, events, figures, hold, ledger

from clearance.authority.clock import ManualClock
from clearance.authority.embedded import EmbeddedAuthority
from clearance.errors import ReservationExpired
from clearance.model.amount import tokens
from clearance.model.subject import Subject
from clearance.store.interface import ReservationQuery

TTL, GRACE = 10_000, 2_000


def held_until(authority: EmbeddedAuthority, clock: ManualClock, age: int) -> str:
    """A reservation of that age which no sweep has seen."""
    budget(authority)
    held = hold(authority, 100, ttl_ms=TTL, grace_period_ms=GRACE)
    clock.advance(min(age, TTL + GRACE))
    authority.dry_run(Subject(tenant="nobody"), CALL, tokens(0))
    clock.advance(age - min(age, TTL + GRACE))
    return held


def call(authority: EmbeddedAuthority, verb: str, held: str) -> Any:
    arguments: dict[str, tuple[Any, ...]] = {"commit": (held, tokens(60)), "release": (held,), "extend": (held, 5_000)}
    return getattr(authority, verb)(*arguments[verb])


BOUNDARIES = [
    ("commit", TTL - 1, True),
    ("commit", TTL, True),
    ("commit", TTL + 1, True),
    ("commit", TTL + GRACE - 1, True),
    ("commit", TTL + GRACE, True),
    ("commit", TTL + GRACE + 1, False),
    ("release", TTL - 1, True),
    ("release", TTL, True),
    ("release", TTL + 1, True),
    ("release", TTL + GRACE - 1, True),
    ("release", TTL + GRACE, True),
    ("release", TTL + GRACE + 1, False),
    ("extend", TTL - 1, True),
    ("extend", TTL, True),
    ("extend", TTL + 1, False),
    ("extend", TTL + GRACE, False),
    ("extend", TTL + GRACE + 1, False),
]


@pytest.mark.parametrize(("verb", "age", "accepted"), BOUNDARIES)
def test_settling_and_extending_end_to_the_millisecond(
    authority: EmbeddedAuthority, clock: ManualClock, verb: str, age: int, accepted: bool
) -> None:
    held = held_until(authority, clock, age)
    if accepted:
        call(authority, verb, held)
        return
    before = ledger(authority)
    with pytest.raises(ReservationExpired):
        call(authority, verb, held)
    assert ledger(authority) == before
    assert authority.get(held).status == "ACTIVE"


@pytest.mark.parametrize(("age", "swept"), [(TTL, 0), (TTL + GRACE - 1, 0), (TTL + GRACE, 0), (TTL + GRACE + 1, 1)])
def test_a_sweep_takes_only_what_is_past_its_grace(
    authority: EmbeddedAuthority, clock: ManualClock, age: int, swept: int
) -> None:
    held_until(authority, clock, age)
    assert authority.sweep() == swept
    assert figures(authority) == ((1000, 0, 0, 0) if swept else (900, 100, 0, 0))


def test_an_expired_reservation_is_gone_for_get_and_a_row_for_lists(
    authority: EmbeddedAuthority, clock: ManualClock
) -> None:
    held = held_until(authority, clock, TTL + GRACE + 1)
    assert authority.get(held).is_open
    assert authority.sweep() == 1
    with pytest.raises(ReservationExpired) as gone:
        authority.get(held)
    assert gone.value.status == 410
    (row,) = authority.reservations(ReservationQuery(status="EXPIRED")).items
    assert (row.id, row.charged, row.finalized_at_ms) == (held, None, None)
    assert authority.find(held) == row


def test_expiry_happens_once_and_is_told_once(authority: EmbeddedAuthority, clock: ManualClock) -> None:
    held = held_until(authority, clock, TTL + GRACE + 1)
    assert [authority.sweep() for _ in range(3)] == [1, 0, 0]
    clock.advance(5_000)
    for verb in ("commit", "release", "extend"):
        with pytest.raises(ReservationExpired):
            call(authority, verb, held)
    (told,) = events(authority, "reservation.expired")
    assert (told.reservation_id, told.data["released"], told.data["extensions_used"]) == (held, 100, 0)
    assert figures(authority) == (1000, 0, 0, 0)


def test_use_expires_without_a_sweeper(authority: EmbeddedAuthority, clock: ManualClock) -> None:
    budget(authority, TENANT, 100)
    hold(authority, 100, ttl_ms=TTL, grace_period_ms=0)
    clock.advance(TTL + 1)
    assert hold(authority, 100)
    assert figures(authority) == (0, 100, 0, 0)


def test_a_call_that_fails_does_not_undo_the_expiry_for_those_after_it(
    authority: EmbeddedAuthority, clock: ManualClock
) -> None:
    held = held_until(authority, clock, TTL + GRACE)
    clock.advance(1_000)
    with pytest.raises(ReservationExpired):
        authority.commit(held, tokens(1))
    assert figures(authority) == (1000, 0, 0, 0)


def test_an_extended_lease_counts_from_its_present_end(authority: EmbeddedAuthority, clock: ManualClock) -> None:
    budget(authority)
    start = clock.now_ms()
    held = hold(authority, 100, ttl_ms=TTL, grace_period_ms=GRACE)
    clock.advance(4_000)
    lease = authority.extend(held, 5_000)
    assert (lease.reservation_id, lease.expires_at_ms, lease.remaining_ttl_ms) == (held, start + 15_000, 11_000)
    clock.advance(11_000)
    assert authority.extend(held, 1).remaining_ttl_ms == 1
    found = authority.get(held)
    assert (found.extension_count, found.estimate, found.grace_period_ms) == (2, 100, GRACE)
    clock.advance(1 + GRACE)
    assert authority.commit(held, tokens(1)).charged == 1


def test_many_expire_in_one_go_each_with_its_own_event(authority: EmbeddedAuthority, clock: ManualClock) -> None:
    budget(authority, TENANT, 10_000)
    held = {hold(authority, 10, ttl_ms=TTL, grace_period_ms=0) for _ in range(250)}
    assert authority.commit(held.pop(), tokens(5)).charged == 5
    clock.advance(TTL + 1)
    assert [authority.sweep(), authority.sweep(), authority.sweep()] == [200, 49, 0]
    assert {event.reservation_id for event in events(authority, "reservation.expired")} == held
    assert figures(authority) == (9_995, 0, 5, 0)


def test_a_late_cost_is_recorded_as_an_event(authority: EmbeddedAuthority, clock: ManualClock) -> None:
    held = held_until(authority, clock, TTL + GRACE + 1)
    authority.sweep()
    assert authority.event(ACME, CALL, tokens(60), metadata={"reservation_id": held}).charged == 60
    assert figures(authority) == (940, 0, 60, 0)

"""Known failures of budget keepers, second part: storage that fails, processes that die, records that vanish.

Not here: F15 and F18 as a framework's own counting (they are tested with the adapters); F16, an approval that resolves
when the call can no longer be refused, needs approvals, which are not built yet.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.failures.faults import FaultyStore
from tests.failures.kit import ACTION, SCOPE, SUBJECT, fund, hold, microcents, spend, standing
from tests.properties.replay import audit

from clearance import BudgetExceeded, EventQuery, ManualClock, StoreError
from clearance.authority.embedded import EmbeddedAuthority


@pytest.fixture
def store(tmp_path: Path) -> FaultyStore:
    return FaultyStore(tmp_path / "ledger.db")


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def authority(store: FaultyStore, clock: ManualClock) -> Iterator[EmbeddedAuthority]:
    opened = EmbeddedAuthority(store, clock=clock, background=False)  # type: ignore[arg-type]
    fund(opened, 100)
    yield opened
    opened.close()


def lines(authority: EmbeddedAuthority) -> list[tuple[int, str, str | None]]:
    found = authority.events(EventQuery(), limit=1000)
    return [(event.seq, event.type, event.reservation_id) for event in found]


def test_f05_after_a_store_error_the_limit_is_what_it_was(authority: EmbeddedAuthority, store: FaultyStore) -> None:
    """The counter is thrown away after an error and seeded from a column that lags, so the limit starts anew."""
    spend(authority, 70)
    held = hold(authority, 20)
    for _ in range(3):
        store.lose = 2
        with pytest.raises(StoreError):
            hold(authority, 5)
        with pytest.raises(StoreError):
            authority.commit(held, microcents(20))
        assert standing(authority) == (10, 20, 70)
        with pytest.raises(BudgetExceeded):
            hold(authority, 11)
    authority.commit(held, microcents(20))
    spend(authority, 10)
    assert standing(authority) == (0, 0, 100)
    assert audit(authority) == []


def test_f06_a_write_whose_answer_was_lost_counts_once_when_it_is_tried_again(
    authority: EmbeddedAuthority, store: FaultyStore
) -> None:
    """After a timeout nobody knows whether the write arrived; each retry that cannot tell counts it once more."""
    for _ in range(3):
        store.answer_lost = 1
        with pytest.raises(StoreError):
            hold(authority, 30, key="hold")
    held = hold(authority, 30, key="hold")
    assert standing(authority) == (70, 30, 0)
    for _ in range(3):
        store.answer_lost = 1
        with pytest.raises(StoreError):
            authority.commit(held, microcents(25), idempotency_key="commit")
        store.answer_lost = 1
        with pytest.raises(StoreError):
            authority.event(SUBJECT, ACTION, microcents(5), idempotency_key="event")
    assert authority.commit(held, microcents(25), idempotency_key="commit").charged == 25
    assert authority.event(SUBJECT, ACTION, microcents(5), idempotency_key="event").charged == 5
    assert standing(authority) == (70, 0, 30)
    assert audit(authority) == []


def test_f11_what_was_spent_beyond_a_limit_is_recorded(authority: EmbeddedAuthority) -> None:
    """A cost that does not fit is refused, although the provider has charged it: it vanishes from the books."""
    spend(authority, 90)
    answer = authority.event(SUBJECT, ACTION, microcents(50))
    assert (answer.actual, answer.charged, answer.uncharged) == (50, 10, 40)
    (line,) = authority.events(EventQuery(types=("spend.recorded",)))
    assert (line.data["actual"], line.data["charged"], line.data["uncharged"]) == (50, 10, 40)
    balance = authority.balance(SCOPE)
    assert (balance.spent, balance.remaining, balance.is_over_limit) == (100, 0, True)


def test_f11_a_call_that_costs_more_than_its_run_has_left_is_recorded_in_full(authority: EmbeddedAuthority) -> None:
    """The same inside a run, whose scopes have nothing left either and refuse every overage."""
    run = authority.start_run(SUBJECT, microcents(100), overage_policy="REJECT").reservation_id
    held = authority.reserve(SUBJECT, ACTION, microcents(100), run_id=run).reservation_id or ""
    answer = authority.commit(held, microcents(130))
    assert (answer.actual, answer.charged, answer.uncharged) == (130, 100, 30)
    (line,) = authority.events(EventQuery(reservation_id=held, types=("reservation.committed",)))
    assert (line.data["actual"], line.data["charged"], line.data["uncharged"]) == (130, 100, 30)
    assert authority.end_run(run or "").charged == 100


def test_f12_an_ambiguous_error_deletes_no_evidence(authority: EmbeddedAuthority, store: FaultyStore) -> None:
    """Cleaning up after an error that might have been a success destroys the only proof of what was done."""
    held = hold(authority, 30, key="evidence")
    before = lines(authority)
    store.answer_lost = 1
    with pytest.raises(StoreError):
        authority.commit(held, microcents(10))
    store.lose = 1
    with pytest.raises(StoreError):
        authority.release(held)
    after = lines(authority)
    assert after[: len(before)] == before
    assert [line[1] for line in after[len(before) :]] == ["reservation.committed"]
    assert authority.get(held).charged == 10
    assert hold(authority, 30, key="evidence") == held


def test_f13_a_key_and_a_hold_whose_owner_died_lock_nothing_for_ever(
    authority: EmbeddedAuthority, clock: ManualClock
) -> None:
    """A key that was claimed by a process that then died, with no end or one tomorrow, locks its budget until then."""
    hold(authority, 100, key="of the dead")
    with pytest.raises(BudgetExceeded):
        hold(authority, 1, key="of the living")
    clock.advance(60_000 + 5_000 + 1)
    living = hold(authority, 100, key="of the living")
    assert standing(authority) == (0, 100, 0)
    authority.release(living)
    # The dead one's key still says what it said, and holds nothing by it.
    replay = authority.reserve(SUBJECT, ACTION, microcents(100), idempotency_key="of the dead")
    assert replay.remaining_ttl_ms == 0
    assert standing(authority) == (100, 0, 0)


def test_f13_a_key_that_was_denied_can_be_used_again(authority: EmbeddedAuthority) -> None:
    """A claim that outlives its failure refuses the retry that would have been right."""
    with pytest.raises(BudgetExceeded):
        hold(authority, 101, key="too early")
    authority.fund(SCOPE, "CREDIT", microcents(1))
    assert hold(authority, 101, key="too early")

"""Compaction takes what is settled and old; what is left still tells every balance. Also run on PostgreSQL."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.authority.kit import ACME, AGENT, BOT, CALL, TENANT, budget, events, figures, hold, kinds, run
from tests.properties.replay import Replay, audit

from clearance.authority.clock import ManualClock
from clearance.authority.embedded import EmbeddedAuthority
from clearance.errors import BudgetExceeded, InvalidRequest, NotFound
from clearance.model.amount import tokens
from clearance.model.period import Period
from clearance.model.subject import Subject
from clearance.store import compaction
from clearance.store.compaction import DAY_MS, Compaction, compact
from clearance.store.interface import ReservationQuery

HOUR_MS = DAY_MS // 24
TEAM = Subject(tenant="beta", agent="bot")


def work(authority: EmbeddedAuthority, clock: ManualClock, rng: random.Random, actions: int) -> None:
    """Calls that cost less, as much or more, releases, expiries, runs in runs, spend without a hold, new periods."""
    outer: str | None = None
    for n in range(actions):
        clock.advance(rng.randint(1, 400_000))
        subject = rng.choice((ACME, BOT, BOT, TEAM))
        mine = outer if subject is not TEAM and rng.random() < 0.5 else None
        held = hold(authority, rng.randint(1, 9), subject, run_id=mine, idempotency_key=f"{n}-{rng.random()}")
        fate = rng.random()
        if fate < 0.6:
            authority.commit(held, tokens(rng.randint(0, 14)), idempotency_key="c")
        elif fate < 0.8:
            authority.release(held)
        if n % 7 == 3:
            authority.event(subject, CALL, tokens(2), run_id=mine)
        if n % 9 == 1 and outer is None:
            outer = run(authority, 60, BOT, ttl_ms=DAY_MS)
            inner = run(authority, 20, BOT, run_id=outer)
            authority.commit(hold(authority, 5, BOT, run_id=inner), tokens(30))
        elif n % 9 == 8 and outer is not None:
            authority.end_run(outer)
            outer = None
    if outer:
        authority.end_run(outer)


@pytest.fixture
def old(authority: EmbeddedAuthority, clock: ManualClock) -> EmbeddedAuthority:
    """Three days of work, a day without, and a day more."""
    budget(authority, TENANT, 10**6)
    budget(authority, AGENT, 10**6, period=Period(every="hour", kind="calendar"))
    budget(authority, "tenant:beta", 10**6, overdraft_limit=10)
    rng = random.Random(4)
    work(authority, clock, rng, 120)
    clock.advance(DAY_MS)
    work(authority, clock, rng, 40)
    authority.sweep()
    return authority


def state(authority: EmbeddedAuthority) -> tuple[object, ...]:
    """Everything that nobody may see a change of."""
    return (
        authority.balances(limit=200).items,
        authority.reservations(ReservationQuery(status="ACTIVE"), limit=200).items,
        authority.stops(),
    )


def shrink(authority: EmbeddedAuthority, older_than_ms: int = DAY_MS, **options: object) -> Compaction:
    return compact(authority._store, older_than_ms, authority.now_ms(), **options)  # type: ignore[arg-type]


def test_what_is_left_of_the_log_tells_the_balances(old: EmbeddedAuthority) -> None:
    before, lines = state(old), len(kinds(old))
    done = shrink(old)
    assert state(old) == before
    assert audit(old) == []
    assert old.check() == []
    assert len(kinds(old)) == lines - done.lines_removed + 1
    assert done.lines_removed > 150
    assert done.reservations_removed > 80
    # One line at most for each account that was never touched again.
    assert done.lines_carried <= 3
    young = old.now_ms() - DAY_MS
    gone = [it for it in old.reservations(limit=200).items if it.finalized_at_ms and it.finalized_at_ms < young]
    assert gone == []


def test_a_log_without_its_opening_balances_would_not(old: EmbeddedAuthority) -> None:
    done = shrink(old)
    assert done.lines_carried
    opening = [event for event in old.events(limit=1000) if event.type == "budget.carried_forward"]
    replay = Replay()
    replay.feed(event for event in old.events(limit=1000) if event not in opening)
    assert any("by deltas" in problem for problem in audit(old, replay))


def test_compacting_again_finds_nothing_and_writes_nothing(old: EmbeddedAuthority) -> None:
    shrink(old)
    lines = kinds(old)
    again = shrink(old)
    assert again.is_empty
    assert kinds(old) == lines


def test_the_log_says_that_it_was_compacted(old: EmbeddedAuthority) -> None:
    done = shrink(old)
    (event,) = events(old, "ledger.compacted")
    assert event.data["through_seq"] == done.through_seq
    assert event.data["lines_removed"] == done.lines_removed


def test_a_dry_run_tells_the_same_and_changes_nothing(old: EmbeddedAuthority) -> None:
    before = old.events(limit=1000), old.reservations(limit=200).items
    told = shrink(old, dry_run=True)
    assert (old.events(limit=1000), old.reservations(limit=200).items) == before
    done = shrink(old)
    assert told.as_dict() == {**done.as_dict(), "dry_run": True}


def test_whatever_is_open_stays_and_can_be_settled(old: EmbeddedAuthority, clock: ManualClock) -> None:
    outer = run(old, 50, BOT, ttl_ms=DAY_MS)
    held = hold(old, 7, BOT, run_id=outer, ttl_ms=DAY_MS, idempotency_key="mine")
    clock.advance(20 * HOUR_MS)
    for name in (outer, held):
        old.extend(name, DAY_MS)
    clock.advance(20 * HOUR_MS)
    shrink(old)
    assert audit(old) == []
    assert hold(old, 7, BOT, run_id=outer, ttl_ms=DAY_MS, idempotency_key="mine") == held
    old.commit(held, tokens(9))
    old.end_run(outer)
    assert audit(old) == []
    clock.advance(2 * DAY_MS)
    shrink(old)
    assert audit(old) == []
    assert old.check() == []
    with pytest.raises(NotFound):
        old.get(held)


def test_keys_answer_for_the_time_that_was_promised(old: EmbeddedAuthority, clock: ManualClock) -> None:
    first = hold(old, 3, idempotency_key="one")
    old.commit(first, tokens(3), idempotency_key="done")
    clock.advance(DAY_MS - HOUR_MS)
    shrink(old)
    assert hold(old, 3, idempotency_key="one") == first
    assert old.commit(first, tokens(3), idempotency_key="done").charged == 3
    spent = figures(old)[2]
    clock.advance(2 * HOUR_MS)
    hold(old, 1)
    shrink(old)
    assert hold(old, 3, idempotency_key="one") != first
    assert figures(old)[2] == spent


def test_less_than_a_day_is_refused(old: EmbeddedAuthority) -> None:
    with pytest.raises(InvalidRequest, match="1d"):
        shrink(old, DAY_MS - 1)


def test_the_newest_line_stays_so_that_numbers_never_come_again(old: EmbeddedAuthority, clock: ManualClock) -> None:
    with pytest.raises(BudgetExceeded):
        hold(old, 10**9)
    newest = old.events(limit=1000)[-1].seq
    clock.advance(10 * DAY_MS)
    shrink(old)
    assert [event.seq for event in old.events(limit=1000) if event.seq == newest] == [newest]
    hold(old, 1)
    assert old.events(limit=1000)[-1].seq > newest
    assert audit(old) == []


def test_an_empty_ledger_is_compacted_to_nothing(authority: EmbeddedAuthority) -> None:
    assert shrink(authority).is_empty
    assert kinds(authority) == []


class Interrupted(Exception):
    pass


def test_an_interruption_between_any_two_batches_loses_nothing(
    old: EmbeddedAuthority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compaction, "LINES", 11)
    monkeypatch.setattr(compaction, "KEYS", 23)
    before, interruptions, left = state(old), 0, 0

    def progress(stage: str, done: Compaction) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise Interrupted

    while True:
        left = interruptions
        try:
            shrink(old, progress=progress)
            break
        except Interrupted:
            interruptions += 1
        assert audit(old, half_compacted=True) == []
        assert old.check() == []
        assert state(old) == before
    assert interruptions > 10
    assert audit(old) == []
    # As if it had never been interrupted: one opening balance an account at most, nothing old besides.
    assert len([kind for kind in kinds(old) if kind == "budget.carried_forward"]) <= 3
    assert shrink(old).is_empty


def test_a_ledger_that_is_compacted_does_not_grow(old: EmbeddedAuthority, clock: ManualClock) -> None:
    rng, sizes = random.Random(5), []
    for _ in range(6):
        clock.advance(2 * DAY_MS)
        work(old, clock, rng, 25)
        shrink(old)
        assert audit(old) == []
        sizes.append(len(kinds(old)))
    assert max(sizes[1:]) < 1.5 * min(sizes[1:]), sizes


def test_traffic_goes_on_beside_it(
    old: EmbeddedAuthority, clock: ManualClock, monkeypatch: pytest.MonkeyPatch, open_ledger: Callable[..., object]
) -> None:
    monkeypatch.setattr(compaction, "LINES", 5)
    monkeypatch.setattr(compaction, "KEYS", 5)
    over, errors, waits = threading.Event(), [], []

    def spend() -> None:
        try:
            while not over.is_set():
                began = time.monotonic()
                old.commit(hold(old, 2, BOT), tokens(3))
                waits.append(time.monotonic() - began)
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=spend) for _ in range(3)]
    for thread in threads:
        thread.start()
    while len(waits) < 10 and not errors:
        time.sleep(0.001)
    before = len(waits)
    done = shrink(old)
    beside = len(waits) - before
    over.set()
    for thread in threads:
        thread.join()
    assert errors == []
    assert done.lines_removed > 150
    assert beside > 0
    assert max(waits) < 2
    assert audit(old) == []
    assert old.check() == []


def test_two_at_a_time_do_what_one_would(old: EmbeddedAuthority, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compaction, "LINES", 7)
    before, errors = state(old), []

    def go(age_ms: int) -> None:
        try:
            shrink(old, age_ms)
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=go, args=(age,)) for age in (DAY_MS, DAY_MS + HOUR_MS, 2 * DAY_MS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert state(old) == before
    assert audit(old) == []
    assert old.check() == []


def test_only_ledgers_of_ours_are_compacted(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match="cannot compact"):
        compact(object(), DAY_MS, 0)  # type: ignore[arg-type]

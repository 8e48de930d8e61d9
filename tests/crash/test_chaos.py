"""After a minute (or an hour) of everything that can break, the books are as if nothing had."""

from __future__ import annotations

import os
import random
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
from tests.crash.chaos import LOGS, World
from tests.crash.processes import SEED
from tests.properties.replay import Replay, audit, pages

from clearance.authority.budgets import BudgetSpec
from clearance.authority.clock import ManualClock, SystemClock
from clearance.authority.embedded import EmbeddedAuthority
from clearance.model.amount import Amount, Unit
from clearance.model.results import Event
from clearance.store.interface import EventQuery, ReservationQuery
from clearance.store.postgres import PostgresStore

SECONDS = float(os.environ.get("CLEARANCE_SOAK_SECONDS", "60"))
pytestmark = pytest.mark.timeout(SECONDS * 3 + 240)

ALLOCATED = {"tenant:hot": 10**12, "tenant:t0": 300, "tenant:t1": 10**12, "tenant:t2": 10**12}
ENDS = {"reservation.committed": "committed", "reservation.released": "released", "spend.recorded": "event"}
HOUR_MS = 3_600_000


def credits_(amount: int) -> Amount:
    return Amount(unit=Unit.CREDITS, amount=amount)


def test_the_books_survive_everything(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    world = World(random.Random(SEED), tmp_path)
    try:
        world.begin()
        authority = EmbeddedAuthority(PostgresStore(world.url), background=False)
        for scope, allocated in ALLOCATED.items():
            authority.set_budget(BudgetSpec(scope=scope, allocated=credits_(allocated)))
        authority.close()
        stop = time.monotonic() + SECONDS
        while time.monotonic() < stop:
            time.sleep(world.rng.uniform(0.5, 2.5))
            world.strike()
        world.rest()
        with capsys.disabled():
            sys.stdout.write(f"\n{sum(world.counts.values()):,} answers {dict(world.counts)} {dict(world.faults)}\n")
        assert world.counts["committed"] > 100
        assert world.counts["denied"] > 0, "the small budget was never exhausted"
        assert len(world.faults) >= 7, world.faults
        judge(world)
    finally:
        world.close()


def judge(world: World) -> None:
    """At the end: acknowledged is present once, balances are the log's, nothing is open, nothing was oversold."""
    clock = ManualClock(SystemClock().now_ms() + HOUR_MS)
    authority = EmbeddedAuthority(PostgresStore(world.url), background=False, clock=clock)
    try:
        while authority.sweep():
            pass
        assert pages(authority.reservations, ReservationQuery(status="ACTIVE")) == []
        assert authority.check() == []
        replay = Replay()
        missing, seen = dict(world.acknowledged), Counter[tuple[str, str]]()
        while page := authority.events(EventQuery(after=replay.seq), limit=1000):
            replay.feed(page)
            for event in page:
                never_oversold(event)
                take(event, missing, seen)
        assert audit(authority, replay) == []
        assert missing == {}, f"{len(missing)} acknowledged settlements are not in the log"
        assert max(seen.values()) == 1
        assert {b.reserved for b in authority.balances(limit=200).items} == {0}
    finally:
        authority.close()


def take(event: Event, missing: dict[tuple[str, str], int], seen: Counter[tuple[str, str]]) -> None:
    word = ENDS.get(event.type)
    if word is None:
        return
    name = event.data["event_id"] if word == "event" else event.reservation_id
    seen[word, name] += 1
    figure = LOGS[word]
    told = missing.pop((word, name), None)
    assert told is None or told == (event.data[figure] if figure else 0), f"{word} {name}: told {told}, logged {event}"


def never_oversold(event: Event) -> None:
    for scope, (allocated, reserved, spent, debt, _, _) in event.data.get("figures", {}).items():
        assert reserved >= 0
        assert reserved + spent + debt <= allocated, f"{scope} is oversold after {event}"

"""Hundreds of async tasks, a third cancelled at random moments: no hold outlives its lease, the totals agree."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

from tests.crash.processes import SCOPE, SEED, microcents, new_ledger
from tests.properties.replay import Replay, audit

from clearance.authority.clock import ManualClock
from clearance.authority.embedded import EmbeddedAuthority
from clearance.model.action import Action
from clearance.model.subject import Subject
from clearance.store.interface import EventQuery
from clearance.store.sqlite import SqliteStore

TASKS = 500
CALLS = 3
SUBJECT = Subject(tenant="acme", agent="bot")
ACTION = Action(kind="llm.completion", name="model")


async def act(authority: EmbeddedAuthority, rng: random.Random, told: dict[str, int]) -> None:
    for _ in range(CALLS):
        held = await authority.areserve(SUBJECT, ACTION, microcents(10))
        await asyncio.sleep(rng.random() * 0.01)
        settled = await authority.acommit(held.reservation_id or "", microcents(rng.randint(0, 10)))
        told[settled.reservation_id or ""] = settled.charged


async def crowd(authority: EmbeddedAuthority, told: dict[str, int]) -> int:
    """How many tasks were cancelled before they were done."""
    rng = random.Random(SEED)
    tasks = [asyncio.create_task(act(authority, random.Random(SEED + n), told)) for n in range(TASKS)]
    for task in rng.sample(tasks, TASKS // 3):
        asyncio.get_running_loop().call_later(rng.random() * 0.3, task.cancel)
    ends = await asyncio.gather(*tasks, return_exceptions=True)
    assert all(end is None or isinstance(end, asyncio.CancelledError) for end in ends), ends
    return sum(end is not None for end in ends)


def test_cancelled_tasks_leak_no_hold_beyond_their_lease_and_lose_no_spend(tmp_path: Path) -> None:
    new_ledger(tmp_path / "ledger.db", 10**9)
    clock = ManualClock()
    authority = EmbeddedAuthority(SqliteStore(tmp_path / "ledger.db"), clock=clock, background=False)
    told: dict[str, int] = {}
    cancelled = asyncio.run(crowd(authority, told))
    authority.sweep()  # Behind everything that was queued.
    assert cancelled > TASKS // 20, "the cancellations came too late to matter"
    assert len(told) >= (TASKS - cancelled) * CALLS

    replay = Replay()
    assert audit(authority, replay) == []
    committed = spent_by_reservation(authority)
    assert told.items() <= committed.items()
    assert authority.balance(SCOPE).spent == sum(committed.values())
    clock.advance(3_600_000)
    while authority.sweep():
        pass
    assert audit(authority, replay) == []
    balance = authority.balance(SCOPE)
    assert (balance.reserved, balance.spent) == (0, sum(committed.values()))
    assert set(replay.settled) == set(replay.estimates)
    authority.close()


def spent_by_reservation(authority: EmbeddedAuthority) -> dict[str, int]:
    found: dict[str, int] = {}
    query = EventQuery(types=("reservation.committed",))
    while page := authority.events(query, limit=1000):
        found |= {event.reservation_id or "": event.data["charged"] for event in page}
        query = EventQuery(types=query.types, after=page[-1].seq)
    return found

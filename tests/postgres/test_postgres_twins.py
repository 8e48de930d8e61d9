"""SQLite and PostgreSQL side by side: the same walk, the same answer at every step, the same lines in the log.

Beside each other they walk with the machine of the ledger, so both also agree with the model of the protocol. Each walk
ends with a compaction of both, after which the shorter logs must still tell the balances.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from tests.postgres.kit import empty
from tests.properties.places import SOAK_STEPS, Place, walk
from tests.properties.replay import audit

from clearance.authority.clock import ManualClock
from clearance.authority.embedded import EmbeddedAuthority
from clearance.errors import ClearanceError
from clearance.model.results import Event
from clearance.store.compaction import DAY_MS, compact
from clearance.store.interface import EventQuery, Store
from clearance.store.postgres import PostgresStore
from clearance.store.sqlite import MEMORY, SqliteStore

pytestmark = pytest.mark.timeout(0 if SOAK_STEPS else 300)

STEPS = 1_500


class Twins:
    """One authority to look at, two behind it. An answer is given only if both give it."""

    def __init__(self, clock: ManualClock, *stores: Store) -> None:
        self.clock = clock
        self.both = [
            EmbeddedAuthority(store, clock=clock, background=False, durability="process", ids=Numbers())
            for store in stores
        ]
        self._seqs: list[list[int]] = [[], []]

    def __getattr__(self, name: str) -> Callable[..., Any]:
        def ask(*args: Any, **options: Any) -> Any:
            first, second = (_answer(authority, name, args, options) for authority in self.both)
            told = [_plain(first), _plain(second)]
            assert told[0] == told[1], f"{name} {args} {options}:\n  SQLite     {told[0]}\n  PostgreSQL {told[1]}"
            if isinstance(first, ClearanceError):
                raise first
            return first

        return ask

    def events(self, query: EventQuery, *, limit: int) -> list[Event]:
        """Line by line the same; PostgreSQL's numbers have gaps, so both are counted from 1."""
        pages = []
        for authority, seqs in zip(self.both, self._seqs, strict=True):
            after = seqs[query.after - 1] if query.after else 0
            found = authority.events(replace(query, after=after), limit=limit)
            start = query.after
            assert len(seqs) == start
            seqs += [event.seq for event in found]
            pages.append([replace(event, seq=start + n) for n, event in enumerate(found, start=1)])
        assert pages[0] == pages[1]
        return pages[0]

    def compact(self) -> None:
        before = self.balances(limit=200)
        for authority in self.both:
            compact(authority._store, DAY_MS, self.clock.now_ms())
        assert self.balances(limit=200) == before
        logs = [[(event.type, event.data) for event in authority.events(limit=1000)] for authority in self.both]
        shown = [[line for line in log if line[0] != "ledger.compacted"] for log in logs]
        assert shown[0] == shown[1]
        for authority in self.both:
            assert audit(authority) == []
            assert authority.check() == []

    def close(self) -> None:
        for authority in self.both:
            authority.close()


class Numbers:
    """Ids that rise: two of these give the same, if they are asked as often."""

    def __init__(self) -> None:
        self.made = 0

    def __call__(self, now_ms: int) -> str:
        self.made += 1
        return f"{now_ms:012x}{self.made:06d}"


def _answer(authority: EmbeddedAuthority, name: str, args: Any, options: Any) -> Any:
    try:
        return getattr(authority, name)(*args, **options)
    except ClearanceError as error:
        return error


def _plain(answer: Any) -> Any:
    """What is compared: of a refusal its kind, its words and all that it carries."""
    if isinstance(answer, ClearanceError):
        return type(answer), str(answer), vars(answer)
    return answer


def place(url: str) -> type[Place]:
    class TwinPlace(Place):
        authority: Any

        def open(self) -> Any:
            empty(url)
            return Twins(self.clock, SqliteStore(MEMORY), PostgresStore(url))

        def close(self) -> None:
            try:
                self.authority.compact()
            finally:
                self.authority.close()

    return TwinPlace


def test_sqlite_and_postgres_agree_step_by_step(url: str) -> None:
    wanted = max(STEPS, SOAK_STEPS // 10)
    assert walk(place(url), wanted) >= wanted

"""The model of the protocol and a ledger on PostgreSQL give the same answers, step by step."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from tests.postgres.kit import empty
from tests.properties.places import Place, walk

from clearance.authority.embedded import EmbeddedAuthority
from clearance.model.results import Event
from clearance.store.interface import EventQuery
from clearance.store.postgres import PostgresStore

STEPS = 1_000


class Counting(EmbeddedAuthority):
    """Numbers the log without gaps, because the machine's replay wants every line to follow the one before."""

    def __init__(self, *args: Any, seqs: list[int], **options: Any) -> None:
        super().__init__(*args, **options)
        self._seqs = seqs

    def events(self, query: EventQuery | None = None, *, limit: int = 100) -> list[Event]:
        query = query or EventQuery()
        after = self._seqs[query.after - 1] if query.after else 0
        found = super().events(replace(query, after=after), limit=limit)
        self._seqs.extend(event.seq for event in found if not self._seqs or event.seq > self._seqs[-1])
        return [replace(event, seq=self._seqs.index(event.seq) + 1) for event in found]


def place(url: str) -> Callable[[], Place]:
    class PostgresPlace(Place):
        can_reopen = True

        def __init__(self) -> None:
            empty(url)
            self.seqs: list[int] = []
            super().__init__()

        def open(self) -> EmbeddedAuthority:
            return Counting(
                PostgresStore(url),
                seqs=self.seqs,
                clock=self.clock,
                background=False,
                durability="process",
                ids=self.next_id,
            )

        def reopen(self) -> None:
            self.authority.close()
            self.authority = self.open()

        def close(self) -> None:
            problems = self.authority.check()
            super().close()
            assert problems == []

    return PostgresPlace


def test_postgres_agrees_with_the_model_step_by_step(url: str) -> None:
    assert walk(place(url), STEPS) >= STEPS

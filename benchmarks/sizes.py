"""How much is measured: the full run takes about ten minutes, the quick one about one, the tiny one seconds."""

from __future__ import annotations

from dataclasses import dataclass

from benchmarks.samples import Limit


@dataclass(frozen=True)
class Sizes:
    """Counts are lifecycles (one reserve and one commit) unless they say otherwise."""

    name: str
    rounds: int
    per_round: int
    """Of one contestant in one round."""
    seconds: float
    """The most that one contestant may take in one round."""
    callers: tuple[int, ...]
    caller_rounds: int
    at_once: int
    """In one round of many callers, all together."""
    processes: tuple[int, ...]
    process_seconds: float
    past: tuple[int, ...]
    """Past reservations."""
    operations: int
    """Operations on one authority, two a lifecycle."""
    memory_seconds: float
    """The most that they may take."""
    busy_seconds: float
    http_clients: tuple[int, ...]
    http_lifecycles: int
    """In one round of all HTTP clients together."""
    http_seconds: float
    """The most that they may take."""
    imports: int

    @property
    def one_round(self) -> Limit:
        return Limit(self.per_round, self.seconds)

    @property
    def warm(self) -> Limit:
        return Limit(max(1, self.per_round // 10), self.seconds)


FULL = Sizes(
    name="full",
    rounds=9,
    per_round=1_000,
    seconds=1.5,
    callers=(1, 8, 64),
    caller_rounds=3,
    at_once=6_400,
    processes=(1, 4, 8),
    process_seconds=5.0,
    past=(1_000, 100_000, 1_000_000),
    operations=1_000_000,
    memory_seconds=300.0,
    busy_seconds=6.0,
    http_clients=(1, 8, 32, 200),
    http_lifecycles=20_000,
    http_seconds=8.0,
    imports=10,
)
QUICK = Sizes(
    name="quick",
    rounds=3,
    per_round=300,
    seconds=0.4,
    callers=(1, 8, 64),
    caller_rounds=1,
    at_once=1_920,
    processes=(1, 4, 8),
    process_seconds=1.0,
    past=(1_000, 100_000),
    operations=100_000,
    memory_seconds=30.0,
    busy_seconds=1.0,
    http_clients=(1, 8, 32, 200),
    http_lifecycles=3_000,
    http_seconds=1.5,
    imports=3,
)
TINY = Sizes(
    name="tiny",
    rounds=1,
    per_round=6,
    seconds=1.0,
    callers=(1, 4),
    caller_rounds=1,
    at_once=16,
    processes=(2,),
    process_seconds=0.05,
    past=(10, 50),
    operations=100,
    memory_seconds=10.0,
    busy_seconds=0.1,
    http_clients=(1, 4),
    http_lifecycles=16,
    http_seconds=2.0,
    imports=1,
)

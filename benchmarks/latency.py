"""One caller: what a reserve and a commit cost, next to the same rows written by hand."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

from benchmarks.floor import SYNCHRONOUS, Floor, Shapes, shapes
from benchmarks.results import Goal, Row, Say, Section, at_most, cell
from benchmarks.samples import Measure, Samples, contest
from benchmarks.sizes import Sizes
from benchmarks.workload import DURABILITY, MEMORY, folder, one_caller, open_ledger

HOW = (
    "One thread; a lifecycle is one reserve and one commit, each with an idempotency key, on four budgeted scopes. "
    "The floor writes the same rows by hand, one BEGIN IMMEDIATE to COMMIT an operation, and takes its turn in every "
    "round. It decides nothing, looks nothing up and takes no lock between processes. `settlements`, the default, "
    "flushes at the commit only; it has no floor, because a bare connection switches nothing between operations."
)
GOALS = {"process": 3.0, "power": 2.0}
SLOW_DISK = 10
"""Where flushing makes the floor so many times slower, both only wait for the disk and their ratio tells nothing."""


def run(sizes: Sizes, say: Say) -> Section:
    section = Section("latency", "One caller", HOW)
    with folder() as place:
        rows = shapes(place)
        unflushed = 0.0
        for durability in (*DURABILITY, MEMORY):
            say(durability)
            found = _measured(place, durability, rows, sizes)
            floor = found.get("floor")
            section.rows.append(_row(durability, "Clearance", found["ours"], floor))
            if floor is not None:
                section.rows.append(_row(durability, "bare SQL floor", floor, None))
            if floor is not None and durability in GOALS:
                unflushed = unflushed or floor.p50
                section.goals.append(_goal(durability, found["ours"].over(floor), floor.p50 / unflushed))
    return section


def _goal(durability: str, ratio: float, flushing: float) -> Goal:
    limit = GOALS[durability]
    text = f"one caller, `{durability}`: p50 at most {limit:g} times the floor"
    if flushing > SLOW_DISK:
        return Goal(text, f"{cell(ratio)} times, but flushing alone made the floor {flushing:.0f} times slower", None)
    return at_most(text, ratio, limit, " times")


def _measured(place: Path, durability: str, rows: Shapes, sizes: Sizes) -> dict[str, Samples]:
    memory = durability == MEMORY
    with ExitStack() as stack:
        contestants: dict[str, Measure] = {}
        ledger = open_ledger(MEMORY if memory else place / f"{durability}.db", "process" if memory else durability)
        stack.callback(ledger.close)
        if memory or durability in SYNCHRONOUS:
            bare = Floor(
                MEMORY if memory else place / f"{durability}-floor.db", "process" if memory else durability, rows
            )
            stack.callback(bare.close)
            contestants["floor"] = bare.measure
        contestants["ours"] = lambda limit: one_caller(ledger, limit)
        return contest(contestants, sizes.rounds, sizes.one_round)


def _row(durability: str, who: str, samples: Samples, floor: Samples | None) -> Row:
    return {
        "durability": durability,
        "who": who,
        "p50 us": samples.p50,
        "p99 us": samples.p99,
        "p99.9 us": samples.tail,
        "lifecycles/s": samples.rate,
        "p50 / floor": samples.over(floor) if floor else None,
    }

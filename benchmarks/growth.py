"""What a lifecycle costs when much has happened before."""

from __future__ import annotations

import os
from contextlib import ExitStack
from pathlib import Path

from benchmarks.floor import Floor, shapes
from benchmarks.prefill import prefill
from benchmarks.results import Say, Section, at_most
from benchmarks.samples import Measure, contest
from benchmarks.sizes import Sizes
from benchmarks.workload import folder, one_caller, open_ledger, warm_up

HOW = (
    "Ledgers filled beforehand by bulk SQL with settled reservations of the real row sizes (a reservation, two events "
    "and two used keys each), then one caller at durability `process`; all ledgers and the floor, on an empty ledger, "
    "take turns. *Times the first* compares p50 with that of the smallest ledger, round by round."
)
LIMIT = 1.2


def run(sizes: Sizes, say: Say) -> Section:
    section = Section("growth", "After many past reservations", HOW)
    with folder() as place, ExitStack() as stack:
        rows = shapes(place)
        bare = Floor(place / "floor.db", "process", rows)
        stack.callback(bare.close)
        contestants: dict[str, Measure] = {"floor": bare.measure}
        for past in sizes.past:
            say(f"fill in {past:,}")
            contestants[f"{past:,}"] = _filled(place / f"{past}.db", past, stack)
        say("measure")
        found = contest(contestants, sizes.rounds, sizes.one_round)
        floor, first = found.pop("floor"), found[f"{sizes.past[0]:,}"]
        for past, samples in zip(sizes.past, found.values(), strict=True):
            section.rows.append(
                {
                    "past reservations": f"{past:,}",
                    "p50 us": samples.p50,
                    "p99 us": samples.p99,
                    "p99.9 us": samples.tail,
                    "lifecycles/s": samples.rate,
                    "p50 / floor": samples.over(floor),
                    "times the first": samples.over(first),
                    "file MB": os.path.getsize(place / f"{past}.db") / 1e6,
                }
            )
        text = f"p50 after {sizes.past[-1]:,} past reservations within 20 % of that after {sizes.past[0]:,}"
        section.goals.append(at_most(text, samples.over(first), LIMIT, " times"))
    return section


def _filled(path: Path, past: int, stack: ExitStack) -> Measure:
    ledger = open_ledger(path, "process")
    warm_up(ledger, 1)
    ledger.close()
    prefill(path, past)
    ledger = open_ledger(path, "process")
    stack.callback(ledger.close)
    return lambda limit: one_caller(ledger, limit)

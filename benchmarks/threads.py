"""Many callers in one process: group commit at work."""

from __future__ import annotations

import gc
from pathlib import Path

from benchmarks.callers import Crowd, tasks, threads
from benchmarks.floor import SYNCHRONOUS, Floor, Shapes, shapes
from benchmarks.results import Row, Say, Section, at_least
from benchmarks.samples import Limit, Samples
from benchmarks.sizes import Sizes
from benchmarks.workload import DURABILITY, folder, open_ledger, warm_up

HOW = (
    "Callers share one authority: threads, or tasks of one event loop. Everybody takes a turn in each round, the bare "
    "floor (one connection, one caller) too. *Times one caller* compares with one thread at the same durability."
)
KINDS: dict[str, Crowd] = {"threads": threads, "tasks": tasks}
Key = tuple[str, int]


def run(sizes: Sizes, say: Say) -> Section:
    section = Section("threads", "Many callers in one process", HOW)
    with folder() as place:
        rows = shapes(place)
        for durability in DURABILITY:
            say(durability)
            found, floor = _measured(place, durability, rows, sizes)
            alone = found["threads", 1].rate
            section.rows += [_row(durability, key, samples, alone, floor) for key, samples in found.items()]
    _judge(section, sizes.callers[-1])
    return section


def _measured(place: Path, durability: str, rows: Shapes, sizes: Sizes) -> tuple[dict[Key, Samples], Samples | None]:
    found: dict[Key, Samples] = {(kind, callers): Samples() for kind in KINDS for callers in sizes.callers}
    floor = Samples()
    ledger = open_ledger(place / f"{durability}.db", durability)
    bare = Floor(place / f"{durability}-floor.db", durability, rows) if durability in SYNCHRONOUS else None
    try:
        warm_up(ledger, sizes.warm.most)
        for _ in range(sizes.caller_rounds):
            if bare is not None:
                floor.add(bare.measure(sizes.one_round))
            for (kind, callers), samples in found.items():
                gc.collect()
                # One at a time is slow: a part of the count is enough.
                count = sizes.at_once // (4 if callers == 1 else 1)
                samples.add(*KINDS[kind](ledger, callers, Limit(count, sizes.seconds)))
    finally:
        ledger.close()
        if bare is not None:
            bare.close()
    return found, floor if bare is not None else None


def _row(durability: str, key: Key, samples: Samples, alone: float, floor: Samples | None) -> Row:
    kind, callers = key
    return {
        "durability": durability,
        "callers": f"{callers} {kind}",
        "lifecycles/s": samples.rate,
        "times one caller": samples.rate / alone,
        "times the floor": samples.rate / floor.rate if floor else None,
        "p50 ms": samples.p50 / 1_000,
        "p99 ms": samples.p99 / 1_000,
        "p99.9 ms": samples.tail / 1_000,
    }


def _judge(section: Section, most: int) -> None:
    many = section.row("power", f"{most} threads")
    assert many is not None
    rate, gain = many["lifecycles/s"], many["times one caller"]
    assert isinstance(rate, float)
    assert isinstance(gain, float)
    section.goals.append(at_least(f"{most} threads, `power`: at least 3 times one caller", gain, 3, " times"))
    section.goals.append(at_least(f"{most} threads, `power`: at least 8,000 lifecycles/s", rate, 8_000, "/s"))

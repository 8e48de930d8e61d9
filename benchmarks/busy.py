"""One caller beside a thread that computes: every release of the interpreter's lock is a wait."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from benchmarks.floor import Floor, shapes
from benchmarks.results import Say, Section
from benchmarks.samples import Limit, Measure, Samples
from benchmarks.sizes import Sizes
from benchmarks.workload import MEMORY, folder, one_caller, open_ledger

HOW = (
    "One caller while another thread of the process computes without a pause. Each statement gives up the "
    "interpreter's lock, and to get it back can take a switch interval ({interval:g} ms): what counts is how often it "
    "is given up. The floor gives it up at every statement, too."
)


MOST = 5_000
"""Lifecycles; the time is over long before."""


def run(sizes: Sizes, say: Say) -> Section:
    interval = sys.getswitchinterval() * 1_000
    section = Section("busy", "Beside a busy thread", HOW.format(interval=interval))
    with folder() as place:
        rows = shapes(place)
        for durability in ("process", "power", MEMORY):
            say(durability)
            memory = durability == MEMORY
            flushed = "process" if memory else durability
            ledger = open_ledger(MEMORY if memory else place / f"{durability}.db", flushed)
            bare = Floor(MEMORY if memory else place / f"{durability}-floor.db", flushed, rows)
            contestants: dict[str, Measure] = {
                "Clearance": lambda limit, ledger=ledger: one_caller(ledger, limit),  # type: ignore[misc]
                "bare SQL floor": bare.measure,
            }
            for who, measure in contestants.items():
                measure(sizes.warm)
                samples = Samples()
                with _computing():
                    samples.add(measure(Limit(MOST, sizes.busy_seconds)))
                section.rows.append(
                    {
                        "durability": durability,
                        "who": who,
                        "mean ms": samples.mean / 1_000,
                        "p50 ms": samples.p50 / 1_000,
                        "p99 ms": samples.p99 / 1_000,
                        "intervals waited (mean)": samples.mean / 1_000 / interval,
                        "lifecycles": len(samples.rounds[0]),
                    }
                )
            ledger.close()
            bare.close()
    return section


@contextmanager
def _computing() -> Iterator[None]:
    enough = threading.Event()

    def compute() -> None:
        while not enough.is_set():
            sum(range(1_000))

    thread = threading.Thread(target=compute, daemon=True)
    thread.start()
    try:
        yield
    finally:
        enough.set()
        thread.join()

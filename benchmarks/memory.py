"""Does a process that runs for long grow?"""

from __future__ import annotations

import multiprocessing
import os
import resource
import sys
from multiprocessing.connection import Connection
from pathlib import Path
from time import perf_counter

import apsw

from benchmarks.results import Say, Section, at_most
from benchmarks.sizes import Sizes
from benchmarks.workload import folder, open_ledger, warm_up

HOW = (
    "A fresh process, one authority on a file at durability `process`, one caller. The resident memory is read as it "
    "goes. SQLite's own part (its page cache, which fills up to a fixed size) is shown apart. Flat means that the rest "
    "grows by at most 5 MB from the first tenth to the end."
)
STEPS = 10
PIECE = 1_000
"""Lifecycles whose keys are made at once."""
LIMIT_MB = 5.0
PATIENCE = 60.0
Reading = tuple[int, float, float]
"""(operations done, MB resident, MB of SQLite)"""


def run(sizes: Sizes, say: Say) -> Section:
    say(f"{sizes.operations:,} operations")
    with folder() as place:
        readings = _apart(place / "ledger.db", sizes)
    done = readings[-1][0]
    section = Section("memory", f"Memory over {done:,} operations", HOW)
    for operations, resident, sqlite in readings:
        section.rows.append(
            {
                "operations": f"{operations:,}",
                "resident MB": resident,
                "of it SQLite MB": sqlite,
                "the rest MB": resident - sqlite,
            }
        )
    rest = [resident - sqlite for _, resident, sqlite in readings]
    text = f"memory flat over {done:,} operations (growth without SQLite's cache)"
    section.goals.append(at_most(text, rest[-1] - rest[1], LIMIT_MB, " MB"))
    return section


def _apart(path: Path, sizes: Sizes) -> list[Reading]:
    fresh = multiprocessing.get_context("spawn")
    receiver, out = fresh.Pipe(duplex=False)
    worker = fresh.Process(target=_work, args=(str(path), sizes.operations, sizes.memory_seconds, out))
    worker.start()
    try:
        if not receiver.poll(sizes.memory_seconds + PATIENCE):
            raise TimeoutError("the process of the benchmark gave no answer")
        readings: list[Reading] = receiver.recv()
        return readings
    finally:
        worker.kill()
        worker.join()


def _work(path: str, operations: int, seconds: float, out: Connection) -> None:
    authority = open_ledger(path, "process")
    warm_up(authority, 1)
    readings = [(0, *_now())]
    end = perf_counter() + seconds
    chunk = max(1, operations // 2 // STEPS)
    for step in range(1, STEPS + 1):
        for begin in range(0, chunk, PIECE):
            warm_up(authority, min(PIECE, chunk - begin))
        readings.append((step * chunk * 2, *_now()))
        if perf_counter() > end:
            break
    authority.close()
    out.send(readings)


def _now() -> tuple[float, float]:
    return _resident() / 1e6, apsw.memory_used() / 1e6


def _resident() -> int:
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    except OSError:
        # Elsewhere only the highest mark is known: bytes on macOS, KiB on the others.
        most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return most if sys.platform == "darwin" else most * 1024
    return pages * os.sysconf("SC_PAGE_SIZE")

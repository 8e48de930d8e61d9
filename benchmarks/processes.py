"""Several processes on one ledger file and one budget: speed, the worst wait, and fairness."""

from __future__ import annotations

import multiprocessing
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Barrier
from pathlib import Path
from time import perf_counter, perf_counter_ns

from benchmarks.floor import Floor, Shapes, shapes
from benchmarks.results import Row, Say, Section, at_most
from benchmarks.samples import Samples
from benchmarks.sizes import Sizes
from benchmarks.workload import folder, keys, lifecycle, open_ledger, warm_up
from clearance import connect

HOW = (
    "Processes without think time on one file, all on the same four budgets, for a fixed time. *Shares* is the slowest "
    "process's lifecycles divided by the fastest's. The floor is one bare connection, alone, just before."
)
PATIENCE = 60.0
KEYS = 1_000


def run(sizes: Sizes, say: Say) -> Section:
    section = Section("processes", "Several processes", HOW)
    with folder() as place:
        rows = shapes(place)
        for durability in ("process", "power"):
            for count in sizes.processes:
                say(f"{durability}, {count}")
                section.rows.append(_measured(place, durability, count, rows, sizes))
    most = f"{sizes.processes[-1]}"
    for durability in ("process", "power"):
        row = section.row(durability, most)
        assert row is not None
        tail = row["p99.9 ms"]
        assert isinstance(tail, float)
        section.goals.append(at_most(f"{most} processes, `{durability}`: p99.9 at most 100 ms", tail, 100, " ms"))
    return section


def _measured(place: Path, durability: str, count: int, rows: Shapes, sizes: Sizes) -> Row:
    floor = Samples()
    bare = Floor(place / f"{durability}-{count}-floor.db", durability, rows)
    floor.add(bare.measure(sizes.one_round))
    bare.close()
    path = place / f"{durability}-{count}.db"
    open_ledger(path, durability).close()
    times = _all_at_once(path, durability, count, sizes.process_seconds)
    shares = [len(mine) for mine in times]
    ours = Samples()
    ours.add([time for mine in times for time in mine], sizes.process_seconds)
    return {
        "durability": durability,
        "processes": f"{count}",
        "lifecycles/s": ours.rate,
        "times the floor": ours.rate / floor.rate,
        "p50 ms": ours.p50 / 1_000,
        "p99 ms": ours.p99 / 1_000,
        "p99.9 ms": ours.tail / 1_000,
        "longest ms": ours.longest / 1_000,
        "shares": min(shares) / max(shares),
    }


def _all_at_once(path: Path, durability: str, count: int, seconds: float) -> list[list[int]]:
    fresh = multiprocessing.get_context("spawn")
    gate = fresh.Barrier(count)
    pipes = [fresh.Pipe(duplex=False) for _ in range(count)]
    workers = [fresh.Process(target=_work, args=(str(path), durability, seconds, gate, out)) for _, out in pipes]
    for worker in workers:
        worker.start()
    try:
        return [_received(receiver) for receiver, _ in pipes]
    finally:
        for worker in workers:
            worker.join(PATIENCE)
            worker.kill()


def _received(receiver: Connection) -> list[int]:
    if not receiver.poll(PATIENCE):
        raise TimeoutError("a process of the benchmark gave no answer")
    times: list[int] = receiver.recv()
    return times


def _work(path: str, durability: str, seconds: float, gate: Barrier, out: Connection) -> None:
    authority = connect(path, durability=durability)
    warm_up(authority, 20)
    times: list[int] = []
    made = keys(KEYS)
    gate.wait(PATIENCE)
    end = perf_counter() + seconds
    while perf_counter() < end:
        if not made:
            made = keys(KEYS)
        began = perf_counter_ns()
        lifecycle(authority, made.pop())
        times.append(perf_counter_ns() - began)
    authority.close()
    out.send(times)

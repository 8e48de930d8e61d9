"""What a guard adds to the two calls that it makes, and what the import costs."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Awaitable, Callable
from statistics import median
from time import perf_counter_ns

from benchmarks.results import Row, Say, Section
from benchmarks.samples import Limit, Measure, Samples, contest, timed
from benchmarks.sizes import Sizes
from benchmarks.workload import ACTION, ACTUAL, ESTIMATE, MEMORY, SUBJECT, alifecycle, keys, one_caller, open_ledger
from clearance.connecting import LocalAuthority

HOW = (
    "In memory, so that the guard itself shows and no disk. *Bare* are the two authority calls with keys; all take "
    "turns. Imports are timed inside a fresh interpreter, median of several."
)
IMPORTS = {
    "import clearance": "import clearance",
    "import clearance; clearance.connect (everything)": "import clearance; clearance.connect",
}


def run(sizes: Sizes, say: Say) -> Section:
    section = Section("guard", "Guards and imports", HOW)
    authority = open_ledger(MEMORY, "process")
    try:
        for name, contestants in (("sync", _sync(authority)), ("async", _async(authority))):
            say(name)
            found = contest(contestants, sizes.rounds, sizes.one_round)
            section.rows += [_row(f"{name}, {what}", it, found["bare calls"]) for what, it in found.items()]
    finally:
        authority.close()
    say("imports")
    for name, code in IMPORTS.items():
        row: Row = dict.fromkeys(section.rows[0])
        section.rows.append(row | {"what": name, "p50 us": median(_import_us(code) for _ in range(sizes.imports))})
    return section


def _row(what: str, samples: Samples, bare: Samples) -> Row:
    return {
        "what": what,
        "p50 us": samples.p50,
        "p99 us": samples.p99,
        "added us": samples.p50 - bare.p50,
        "times bare": samples.over(bare),
    }


def _sync(authority: LocalAuthority) -> dict[str, Measure]:
    def within(_: int) -> None:
        with authority.guard(ACTION, ESTIMATE, subject=SUBJECT) as permit:
            permit.settle(ACTUAL)

    @authority.guard(ACTION, ESTIMATE, subject=SUBJECT, actual=ACTUAL)
    def decorated() -> None:
        pass

    return {
        "bare calls": lambda limit: one_caller(authority, limit),
        "with guard": lambda limit: timed(within, limit),
        "decorator": lambda limit: timed(lambda _: decorated(), limit),
    }


def _async(authority: LocalAuthority) -> dict[str, Measure]:
    async def within(_: str) -> None:
        async with authority.guard(ACTION, ESTIMATE, subject=SUBJECT) as permit:
            permit.settle(ACTUAL)

    @authority.guard(ACTION, ESTIMATE, subject=SUBJECT, actual=ACTUAL)
    async def decorated() -> None:
        pass

    return {
        "bare calls": _awaited(lambda key: alifecycle(authority, key)),
        "with guard": _awaited(within),
        "decorator": _awaited(lambda _: decorated()),
    }


def _awaited(step: Callable[[str], Awaitable[None]]) -> Measure:
    async def work(limit: Limit) -> list[int]:
        times: list[int] = []
        end = perf_counter_ns() + int(limit.seconds * 1e9)
        for key in keys(limit.most):
            began = perf_counter_ns()
            if began > end:
                break
            await step(key)
            times.append(perf_counter_ns() - began)
        return times

    return lambda limit: asyncio.run(work(limit))


def _import_us(code: str) -> float:
    script = f"import time; began = time.perf_counter(); {code}; print((time.perf_counter() - began) * 1e6)"
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60)
    return float(found.stdout)

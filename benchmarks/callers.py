"""Many callers of one authority: threads, or tasks of one event loop."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from time import perf_counter_ns

from benchmarks.samples import Limit
from benchmarks.workload import alifecycle, keys, lifecycle
from clearance.connecting import LocalAuthority

Crowd = Callable[[LocalAuthority, int, Limit], tuple[list[int], float]]
"""(authority, callers, limit of all together) -> the time of each in ns, and the seconds from first start to last end.
"""
PATIENCE = 60.0


def threads(authority: LocalAuthority, callers: int, limit: Limit) -> tuple[list[int], float]:
    gate = threading.Barrier(callers + 1)
    times: list[list[int]] = [[] for _ in range(callers)]
    errors: list[BaseException] = []

    def work(mine: list[int], made: list[str]) -> None:
        try:
            gate.wait(PATIENCE)
            end = _end(limit)
            for key in made:
                began = perf_counter_ns()
                if began > end:
                    break
                lifecycle(authority, key)
                mine.append(perf_counter_ns() - began)
        except BaseException as error:
            errors.append(error)

    crowd = [threading.Thread(target=work, args=(mine, keys(max(1, limit.most // callers)))) for mine in times]
    for thread in crowd:
        thread.start()
    gate.wait(PATIENCE)
    began = perf_counter_ns()
    for thread in crowd:
        thread.join()
    wall = (perf_counter_ns() - began) / 1e9
    if errors:
        raise errors[0]
    return [time for mine in times for time in mine], wall


def tasks(authority: LocalAuthority, callers: int, limit: Limit) -> tuple[list[int], float]:
    made = [keys(max(1, limit.most // callers)) for _ in range(callers)]
    times: list[int] = []

    async def work(mine: list[str]) -> None:
        end = _end(limit)
        for key in mine:
            began = perf_counter_ns()
            if began > end:
                break
            await alifecycle(authority, key)
            times.append(perf_counter_ns() - began)

    async def crowd() -> float:
        began = perf_counter_ns()
        await asyncio.gather(*(work(mine) for mine in made))
        return (perf_counter_ns() - began) / 1e9

    wall = asyncio.run(crowd())
    return times, wall


def _end(limit: Limit) -> int:
    return perf_counter_ns() + int(limit.seconds * 1e9)

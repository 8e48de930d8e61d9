"""Wall time and CPU of contestants that take turns, and what each adds to another one of the same round."""

from __future__ import annotations

import asyncio
import gc
from collections import deque
from collections.abc import Awaitable, Callable, Hashable
from contextlib import ExitStack
from dataclasses import dataclass, field
from statistics import median
from time import monotonic, perf_counter_ns, process_time_ns
from typing import NamedTuple, TypeVar

from benchmarks.samples import Limit, quantile, timed

K = TypeVar("K", bound=Hashable)


class Took(NamedTuple):
    """What one operation took in one turn, in microseconds. CPU is the whole process's, so of all its threads."""

    wall: float
    cpu: float


Turn = Callable[[Limit], Took]
"""Operations one after another or all at once; how long one of them took."""
AsyncStep = Callable[[], Awaitable[object]]


@dataclass
class Cost:
    """The turns of one contestant. Everything is a median over the rounds."""

    turns: list[Took] = field(default_factory=list)

    @property
    def wall(self) -> float:
        return median(it.wall for it in self.turns)

    def added(self, plain: Cost) -> Took:
        """To the plain one of the same round: what is slow in one is so in both."""
        pairs = list(zip(self.turns, plain.turns, strict=True))
        return Took(median(our.wall - its.wall for our, its in pairs), median(our.cpu - its.cpu for our, its in pairs))


def contest(contestants: dict[K, Turn], limit: Limit, seconds: float) -> dict[K, Cost]:
    """Each once in every round, as many rounds as fit into `seconds`, one at least; before it, a shorter one that is
    not kept. Many small turns stand more noise than few large ones.

    What exists beforehand is hidden from the garbage collector: it is the same for all, and large.
    """
    found = {key: Cost() for key in contestants}
    with ExitStack() as stack:
        gc.collect()
        gc.freeze()
        stack.callback(gc.unfreeze)
        for turn in contestants.values():
            turn(Limit(max(1, limit.most // 5), limit.seconds))
        order = deque(contestants)
        began = before = monotonic()
        while True:
            for key in order:
                gc.collect()
                found[key].turns.append(contestants[key](limit))
            order.rotate(1)  # else the same one always comes after the slowest
            now = monotonic()
            if now + (now - before) > began + seconds:  # another round like the last would take too long
                return found
            before = now


def sync_turn(step: Callable[[], object]) -> Turn:
    def turn(limit: Limit) -> Took:
        began = process_time_ns()
        times = timed(lambda _: step(), limit)
        return _took(times, process_time_ns() - began)

    return turn


def async_turn(runner: asyncio.Runner, step: AsyncStep) -> Turn:
    """On one loop for all turns, as clients keep to theirs."""

    async def work(limit: Limit) -> Took:
        times: list[int] = []
        end = perf_counter_ns() + int(limit.seconds * 1e9)
        cpu = process_time_ns()
        for _ in range(limit.most):
            began = perf_counter_ns()
            if began > end:
                break
            await step()
            times.append(perf_counter_ns() - began)
        return _took(times, process_time_ns() - cpu)

    return lambda limit: runner.run(work(limit))


def crowd_turn(runner: asyncio.Runner, step: AsyncStep, at_once: int) -> Turn:
    """So many tasks at once. The time of one operation is that of all divided by their number."""

    async def work(limit: Limit) -> Took:
        done, tasks = 0, min(at_once, limit.most)
        end = perf_counter_ns() + int(limit.seconds * 1e9)

        async def one() -> None:
            nonlocal done
            for _ in range(max(1, limit.most // at_once)):
                await step()
                done += 1
                if perf_counter_ns() > end:
                    break

        cpu, began = process_time_ns(), perf_counter_ns()
        await asyncio.gather(*(one() for _ in range(tasks)))
        wall = perf_counter_ns() - began
        return Took(wall / done / 1_000, (process_time_ns() - cpu) / done / 1_000)

    return lambda limit: runner.run(work(limit))


def _took(times: list[int], cpu: int) -> Took:
    return Took(quantile(sorted(times), 0.5) / 1_000, cpu / len(times) / 1_000)

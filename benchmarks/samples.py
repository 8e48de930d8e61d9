"""Times of many operations, and contests in which everybody takes a turn in every round."""

from __future__ import annotations

import gc
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from math import ceil
from statistics import median
from time import perf_counter_ns
from typing import NamedTuple


class Limit(NamedTuple):
    """As many lifecycles as `most`, or as fit into `seconds` if those are fewer."""

    most: int
    seconds: float


Measure = Callable[[Limit], list[int]]
"""How long each lifecycle took, in ns."""


def quantile(ordered: Sequence[int], share: float) -> int:
    """Nearest rank: a time that was really measured."""
    return ordered[max(0, ceil(len(ordered) * share) - 1)]


@dataclass
class Samples:
    """The rounds of one contestant, each sorted. Percentiles are medians over the rounds, in microseconds.

    Only the p99.9 is taken over all rounds together: one round has too few times for it.
    """

    rounds: list[list[int]] = field(default_factory=list)
    walls: list[float] = field(default_factory=list)
    """Seconds of each round from the first start to the last end."""

    def add(self, times: Sequence[int], wall: float | None = None) -> None:
        self.rounds.append(sorted(times))
        self.walls.append(sum(times) / 1e9 if wall is None else wall)

    def us(self, share: float) -> float:
        return median(quantile(times, share) for times in self.rounds) / 1_000

    @property
    def p50(self) -> float:
        return self.us(0.5)

    @property
    def p99(self) -> float:
        return self.us(0.99)

    @property
    def mean(self) -> float:
        return median(sum(times) / len(times) for times in self.rounds) / 1_000

    @property
    def tail(self) -> float:
        return quantile(sorted(time for times in self.rounds for time in times), 0.999) / 1_000

    @property
    def longest(self) -> float:
        return max(times[-1] for times in self.rounds) / 1_000

    @property
    def rate(self) -> float:
        """Lifecycles a second."""
        return median(len(times) / wall for times, wall in zip(self.rounds, self.walls, strict=True))

    def over(self, floor: Samples) -> float:
        """The median over the rounds of p50 / p50 of the floor in the same round: what is slow in one is so in both."""
        pairs = zip(self.rounds, floor.rounds, strict=True)
        return median(quantile(ours, 0.5) / quantile(theirs, 0.5) for ours, theirs in pairs)


def timed(step: Callable[[int], object], limit: Limit) -> list[int]:
    times: list[int] = []
    end = perf_counter_ns() + int(limit.seconds * 1e9)
    for number in range(limit.most):
        began = perf_counter_ns()
        if began > end:
            break
        step(number)
        times.append(perf_counter_ns() - began)
    return times


def contest(contestants: dict[str, Measure], rounds: int, limit: Limit) -> dict[str, Samples]:
    """Everybody once in each round, so that a noisy minute falls on all; before it, a short round that is not kept."""
    found = {name: Samples() for name in contestants}
    for measure in contestants.values():
        measure(Limit(max(1, limit.most // 10), limit.seconds))
    for _ in range(rounds):
        for name, measure in contestants.items():
            gc.collect()
            found[name].add(measure(limit))
    return found

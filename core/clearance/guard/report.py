"""What a run has used, counted from the settlements made in this process."""

from __future__ import annotations

from dataclasses import dataclass
from threading import RLock

from clearance.model.amount import Amount, Unit


@dataclass(frozen=True, slots=True)
class Line:
    """One action kind in one unit; `estimate` and `actual` are sums, ints in `unit`."""

    kind: str
    unit: Unit
    calls: int
    estimate: int
    actual: int


@dataclass(frozen=True, slots=True)
class RunReport:
    """The settled calls of a run and of the runs inside it. Released calls cost nothing and are not counted."""

    lines: tuple[Line, ...]

    @property
    def calls(self) -> int:
        return sum(line.calls for line in self.lines)

    def spent(self, unit: Unit = Unit.USD_MICROCENTS) -> Amount:
        return Amount(unit=unit, amount=sum(line.actual for line in self.lines if line.unit == unit))


class Tally:
    """Sums up settlements; `parent` is the tally of the enclosing run. Thread-safe."""

    def __init__(self, parent: Tally | None = None) -> None:
        self._parent = parent
        self._lock = RLock()  # a dropped permit may be counted while this thread holds it
        self._sums: dict[tuple[str, Unit], list[int]] = {}

    def add(self, kind: str, estimate: Amount, actual: Amount) -> None:
        with self._lock:
            sums = self._sums.setdefault((kind, actual.unit), [0, 0, 0])
            sums[0] += 1
            sums[1] += estimate.amount
            sums[2] += actual.amount
        if self._parent is not None:
            self._parent.add(kind, estimate, actual)

    def report(self) -> RunReport:
        with self._lock:
            lines = [Line(kind, unit, *sums) for (kind, unit), sums in sorted(self._sums.items())]
        return RunReport(tuple(lines))

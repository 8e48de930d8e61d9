"""What a crew has used, by agent, task, model and tool: counted from settlements, not from CrewAI's counters."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from operator import attrgetter
from threading import Lock
from typing import Literal, NamedTuple, get_args

from clearance.errors import ClearanceError, InvalidRequest
from clearance.model.amount import Amount, Unit

MAX_LINES = 10_000
"""Different lines kept; past it calls are summed under the last agent and task `(others)`."""

By = Literal["agent", "task", "kind", "model", "tool", "name"]
FIELDS: tuple[str, ...] = get_args(By)
_KEYS = ("agent", "task", "kind", "model", "tool")
_OTHERS = "(others)"
_key: Callable[[CrewLine], tuple[str, ...]] = attrgetter(*_KEYS, "unit")


class CrewLine(NamedTuple):
    """One agent's use of one model or tool in one task. `estimate` and `actual` are sums, ints in `unit`.

    Of `model` and `tool` one is set, `kind` is the action kind, e.g. `llm.completion`. In a grouped report the fields
    that were summed over are empty. Tools have no tokens.
    """

    agent: str
    task: str
    kind: str
    model: str
    tool: str
    unit: Unit
    calls: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    estimate: int = 0
    actual: int = 0

    @property
    def name(self) -> str:
        """The model or the tool."""
        return self.model or self.tool

    @property
    def tokens(self) -> int:
        return self.input_tokens + self.output_tokens


@dataclass(frozen=True, slots=True)
class CrewReport:
    """What was settled until now, also in runs inside. Released calls cost nothing and are not counted.

    Attributes:
        run_id: the run, for `clearance kill run:<id>`.
        lines: the sums, ordered.
        refused: how many calls were refused, tools and models.
        denied: the denial that ended the run, or None.
    """

    run_id: str
    lines: tuple[CrewLine, ...]
    refused: int = 0
    denied: ClearanceError | None = None

    @property
    def calls(self) -> int:
        return sum(line.calls for line in self.lines)

    @property
    def tokens(self) -> int:
        return sum(line.tokens for line in self.lines)

    def spent(self, unit: Unit = Unit.USD_MICROCENTS) -> Amount:
        return Amount(unit=unit, amount=sum(line.actual for line in self.lines if line.unit == unit))

    def by(self, *fields: By) -> tuple[CrewLine, ...]:
        """The lines summed up over all but these fields (and the unit): `report.by("agent")`.

        `by("model")` is of the model calls only, `by("tool")` of the tools; `name` is either of the two. Raises
        InvalidRequest for other fields.
        """
        unknown = [field for field in fields if field not in FIELDS]
        if unknown:
            raise InvalidRequest("by", f"{unknown[0]!r} is no field of a line", ", ".join(FIELDS))
        kept = {*fields, *(("model", "tool") if "name" in fields else ())}
        asked_for = kept & {"model", "tool"}
        book = _Book()
        for line in self.lines:
            if not asked_for or any(getattr(line, one) for one in asked_for):
                agent, task, kind, model, tool = (getattr(line, key) if key in kept else "" for key in _KEYS)
                book.add(line._replace(agent=agent, task=task, kind=kind, model=model, tool=tool))
        return book.lines()


class _Book:
    def __init__(self) -> None:
        self._sums: dict[tuple[str, ...], CrewLine] = {}

    def add(self, line: CrewLine) -> None:
        key = _key(line)
        if key not in self._sums and len(self._sums) >= MAX_LINES:
            line = line._replace(agent=_OTHERS, task=_OTHERS)
            key = _key(line)
        known = self._sums.get(key)
        self._sums[key] = line if known is None else _sum(known, line)

    def lines(self) -> tuple[CrewLine, ...]:
        return tuple(self._sums[key] for key in sorted(self._sums))


class Ledger:
    """Collects the settlements of one run and of the runs inside it; `outer` is that of the run around. Thread-safe."""

    outer: Ledger | None = None

    def __init__(self) -> None:
        self._lock = Lock()
        self._book = _Book()
        self._refused = 0

    def add(self, line: CrewLine) -> None:
        with self._lock:
            self._book.add(line)
        if self.outer is not None:
            self.outer.add(line)

    def refused(self) -> None:
        with self._lock:
            self._refused += 1
        if self.outer is not None:
            self.outer.refused()

    def report(self, run_id: str, denied: ClearanceError | None) -> CrewReport:
        with self._lock:
            return CrewReport(run_id, self._book.lines(), self._refused, denied)


def _sum(one: CrewLine, other: CrewLine) -> CrewLine:
    return one._replace(
        calls=one.calls + other.calls,
        input_tokens=one.input_tokens + other.input_tokens,
        output_tokens=one.output_tokens + other.output_tokens,
        estimate=one.estimate + other.estimate,
        actual=one.actual + other.actual,
    )

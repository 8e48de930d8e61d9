"""What a benchmark gives: rows of figures, and the goals that were set for them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

Cell = str | int | float | None
Row = dict[str, Cell]
Say = Callable[[str], None]
"""Tells the person who waits how far it is."""


@dataclass(frozen=True)
class Goal:
    """What was hoped for, what was measured, and whether that is enough; None where that cannot be told."""

    text: str
    measured: str
    met: bool | None

    @property
    def verdict(self) -> str:
        return "cannot be told" if self.met is None else "met" if self.met else "missed"


@dataclass
class Section:
    """One benchmark: how it was measured, a table, and its goals. Rows share their columns."""

    name: str
    title: str
    how: str
    rows: list[Row] = field(default_factory=list)
    goals: list[Goal] = field(default_factory=list)

    def row(self, *where: str) -> Row | None:
        """The row whose first cells are these."""
        return next((row for row in self.rows if tuple(row.values())[: len(where)] == where), None)


def at_most(text: str, figure: float | None, limit: float, unit: str = "") -> Goal:
    return Goal(text, shown(figure, unit), None if figure is None else figure <= limit)


def at_least(text: str, figure: float | None, limit: float, unit: str = "") -> Goal:
    return Goal(text, shown(figure, unit), None if figure is None else figure >= limit)


def shown(figure: float | None, unit: str = "") -> str:
    if figure is None:
        return "-"
    return f"{cell(figure)}{unit}"


def cell(value: Cell) -> str:
    """Three figures are as many as such a measurement is worth."""
    if value is None:
        return "-"
    if isinstance(value, str):
        return value
    if isinstance(value, int) or abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"

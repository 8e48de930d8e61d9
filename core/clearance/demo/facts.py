"""What a scenario tells: figures, checks and where the ledger is. Plain data; how it looks is for the views."""

from __future__ import annotations

import inspect
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol


@dataclass(frozen=True, slots=True)
class Check:
    """One claim, whether it holds, and the figures that say so."""

    claim: str
    holds: bool
    seen: str


@dataclass(frozen=True, slots=True)
class Lane:
    """What is shown while it runs: one agent, tool, worker or budget.

    `spent`, `budget` and `held` are in `unit`; no budget is no limit; `held` None is not shown. The bar is what
    is spent of `bar_of`, else of the budget.
    """

    name: str
    calls: int | None
    spent: int
    budget: int | None = None
    held: int | None = None
    unit: str = "USD_MICROCENTS"
    bar_of: int | None = None

    @property
    def left(self) -> int | None:
        return None if self.budget is None else self.budget - self.spent - (self.held or 0)


@dataclass(frozen=True, slots=True)
class Facts:
    """What every scenario ends with; each has figures of its own, whose names carry their units."""

    ledger: Path
    checks: tuple[Check, ...]

    @property
    def ok(self) -> bool:
        return all(check.holds for check in self.checks)

    def as_dict(self) -> dict[str, Any]:
        """JSON-able."""
        figures = asdict(self)
        del figures["ledger"], figures["checks"]
        checks = [asdict(check) for check in self.checks]
        return {"ok": self.ok, "figures": figures, "checks": checks, "ledger": str(self.ledger)}


class Screen(Protocol):
    """Where a scenario shows what happens."""

    def act(self, title: str, code: str) -> None:
        """A new part begins; `code` is the user's code that it runs."""
        ...

    def show(self, lanes: Sequence[Lane]) -> None:
        """The figures now; called several times a second."""
        ...

    def say(self, text: str) -> None:
        """Something that happened once."""
        ...


def money(microcents: int, decimals: int = 8) -> str:
    """Microcents as dollars, always with the same decimals, so that columns align; rounded half up."""
    step = 10 ** (8 - decimals)
    whole, part = divmod((abs(microcents) + step // 2) // step, 10**decimals)
    return f"{'-' if microcents < 0 else ''}{whole:,}.{part:0{decimals}d} USD"


def body_of(function: Callable[..., object]) -> str:
    """The lines inside a function, as they stand in its file."""
    lines, _ = inspect.getsourcelines(function)
    start = next(number for number, line in enumerate(lines) if line.rstrip().endswith(":"))
    return textwrap.dedent("".join(lines[start + 1 :])).strip()

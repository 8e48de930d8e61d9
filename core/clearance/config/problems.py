"""What is wrong in a configuration: all of it at once, each with its place."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from clearance.errors import InvalidRequest

Path = tuple[str | int, ...]
"""A place in the document: `("budgets", 2, "period")`."""

_MAX_SHOWN = 60


@dataclass(frozen=True, slots=True)
class Unquoted:
    """A scalar that YAML would turn into something else than its text: 12.50, 0x1F, 1:30."""

    text: str


@dataclass(frozen=True, slots=True)
class Problem:
    file: str
    line: int | None
    path: str
    problem: str
    allowed: str = ""

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}" if self.line else self.file
        parts = [part for part in (place, self.path) if part]
        return ": ".join([*parts, self.problem]) + (f"; allowed: {self.allowed}" if self.allowed else "")


class ConfigInvalid(InvalidRequest):
    """The configuration was refused as a whole. `problems` has every problem, in the order of the file."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        first = problems[0]
        super().__init__(
            first.path or "config",
            first.problem,
            first.allowed,
            details={"problems": [asdict(problem) for problem in problems]},
        )
        self.message = "\n".join(str(problem) for problem in problems)
        self.args = (self.message,)
        self.problems = tuple(problems)


@dataclass
class Report:
    """Collects problems while a document is read."""

    file: str
    lines: Mapping[Path, int] = field(default_factory=dict)
    found: list[tuple[Path, Problem]] = field(default_factory=list)

    def refuse(self, path: Path, problem: str, allowed: str = "") -> None:
        self.found.append((path, Problem(self.file, self._line(path), dotted(path), problem, allowed)))

    def refuse_as(self, path: Path, error: InvalidRequest) -> None:
        self.refuse(path, error.problem, error.allowed)

    def mapping(self, value: Any, path: Path, known: Iterable[str]) -> dict[str, Any] | None:
        """The mapping, or None after a refusal. Unknown keys are refused one by one and left out."""
        names = tuple(known)
        if not isinstance(value, Mapping):
            self.refuse(path, f"{shown(value)} is not a mapping", "a mapping with " + ", ".join(names))
            return None
        for key in value:
            if key not in names:
                near = difflib.get_close_matches(str(key), names, n=1)
                hint = f"; did you mean {near[0]}?" if near else ""
                self.refuse((*path, key), f"is not known here{hint}", ", ".join(names))
        return {key: value[key] for key in value if key in names}

    def _line(self, path: Path) -> int | None:
        for end in range(len(path), -1, -1):
            if path[:end] in self.lines:
                return self.lines[path[:end]]
        return None


def dotted(path: Path) -> str:
    """`budgets[2].period`."""
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path)
    return text.removeprefix(".")


def shown(value: Any) -> str:
    """A value of the document in a message."""
    if isinstance(value, Unquoted):
        text = value.text
    elif isinstance(value, Mapping):
        return "a mapping"
    elif isinstance(value, list):
        return "a list"
    elif value is None:
        return "nothing"
    elif isinstance(value, bool):
        text = str(value).lower()
    else:
        text = repr(value)
    return text if len(text) <= _MAX_SHOWN else text[:_MAX_SHOWN] + "..."


def quoted(value: Unquoted) -> InvalidRequest:
    return InvalidRequest(
        "", f"{value.text} is not quoted, and YAML may read it inexactly", f'quote it: "{value.text}"'
    )

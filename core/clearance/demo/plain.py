"""How a scenario looks where there is no terminal: plain lines, or nothing at all."""

from __future__ import annotations

import shlex
import textwrap
from collections.abc import Callable, Sequence
from typing import Self

from clearance.demo.facts import Facts, Lane, money
from clearance.demo.sheets import TITLES, sheet
from clearance.model.amount import Unit

_WIDTH = 78


class Silent:
    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None: ...
    def begin(self, scenario: str) -> None: ...
    def act(self, title: str, code: str) -> None: ...
    def show(self, lanes: Sequence[Lane]) -> None: ...
    def say(self, text: str) -> None: ...
    def end(self, facts: Facts, seconds: float) -> None: ...


def commands(facts: Facts) -> list[str]:
    """What to type for a look at the ledger that was left."""
    ledger = shlex.quote(str(facts.ledger))
    return [f"clearance --ledger {ledger} {rest}" for rest in ("budget tree", "reservations", "events")]


def spent_text(lane: Lane, amount: int | None) -> str:
    if amount is None:
        return "no limit"
    return money(amount, 4) if lane.unit == Unit.USD_MICROCENTS else f"{amount:,} {lane.unit.lower()}"


class Plain(Silent):
    """ASCII lines without escape codes; figures once for each part, when it is over."""

    def __init__(self) -> None:
        self._lanes: Sequence[Lane] = ()

    def begin(self, scenario: str) -> None:
        self._print(f"Clearance demo: {TITLES[scenario]}")

    def act(self, title: str, code: str) -> None:
        self._print("", title, "", textwrap.indent(code, "  | "), "")

    def show(self, lanes: Sequence[Lane]) -> None:
        self._lanes = lanes

    def say(self, text: str) -> None:
        self._print(*_aligned([_plain(lane) for lane in self._lanes]), *_wrapped(text))

    def end(self, facts: Facts, seconds: float) -> None:
        table = sheet(facts)
        self._print("", table.title, *_aligned([table.head, *table.rows]), *_wrapped(table.note), "")
        for check in facts.checks:
            self._print(f"  {'ok    ' if check.holds else 'FAILED'}  {check.claim}", f"          {check.seen}")
        self._print("", f"{verdict(facts)} Took {seconds:.1f} s. The ledger was kept for you:")
        self._print(*(f"  {command}" for command in commands(facts)))

    @staticmethod
    def _print(*lines: str) -> None:
        for line in lines:
            print(line.rstrip(), flush=True)


def _plain(lane: Lane) -> tuple[str, ...]:
    calls = "" if lane.calls is None else f"{lane.calls:,} calls"
    held = "" if lane.held is None else f"{spent_text(lane, lane.held)} held"
    left = "" if lane.bar_of else "no limit" if lane.left is None else f"{spent_text(lane, lane.left)} left"
    return lane.name, calls, f"{spent_text(lane, lane.spent)} spent", held, left


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Columns of one width each, the first to the left, the others to the right; none that is empty in every row."""
    names, *others = [column for column in zip(*rows, strict=True) if any(column)] or [()]
    padded = [_padded(names, str.ljust), *(_padded(column, str.rjust) for column in others)]
    return ["  " + "  ".join(row) for row in zip(*padded, strict=True)]


def _padded(column: Sequence[str], justify: Callable[[str, int], str]) -> list[str]:
    width = max(map(len, column), default=0)
    return [justify(cell, width) for cell in column]


def _wrapped(text: str) -> list[str]:
    return textwrap.wrap(text, _WIDTH, initial_indent="  ", subsequent_indent="  ", break_on_hyphens=False)


def verdict(facts: Facts) -> str:
    failed = sum(not check.holds for check in facts.checks)
    return f"{failed} of {len(facts.checks)} checks FAILED." if failed else f"All {len(facts.checks)} checks hold."

"""How a scenario looks: live in a terminal, as plain lines anywhere else."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any, Protocol, Self

from rich.box import ROUNDED, SIMPLE_HEAD
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.padding import Padding
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.rule import Rule
from rich.syntax import Syntax
from rich.table import Table
from rich.text import Text

from clearance.demo.facts import Check, Facts, Lane, Screen
from clearance.demo.plain import Plain, Silent, commands, spent_text, verdict
from clearance.demo.sheets import TITLES, Sheet, sheet

_WIDEST = 96


class View(Screen, Protocol):
    """A screen with a beginning and an end; used `with`, so that a terminal is left as it was."""

    def __enter__(self) -> Self: ...
    def __exit__(self, *_: object) -> None: ...
    def begin(self, scenario: str) -> None: ...
    def end(self, facts: Facts, seconds: float) -> None: ...


def view(*, silent: bool) -> View:
    """The one that fits: nothing, rich for a terminal, plain lines for a pipe or a dumb terminal."""
    if silent:
        return Silent()
    console = Console(highlight=False)
    if not sys.stdout.isatty() or console.is_dumb_terminal:  # FORCE_COLOR must not put escape codes into a pipe
        return Plain()
    return Terminal(Console(highlight=False, width=min(console.width, _WIDEST)))


class Terminal:
    """Rich: each part has its code, then figures that move in place, then a line on how it ended."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live: Live | None = None
        self._status = console.status(Text("Loading the agent framework", "dim"))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._status.stop()
        self._still()

    def begin(self, scenario: str) -> None:
        self._console.print()
        self._console.print(Rule(f"[bold]Clearance demo[/bold]: {TITLES[scenario]}", style="cyan", align="left"))
        self._status.start()

    def act(self, title: str, code: str) -> None:
        self._status.stop()
        self._still()
        shown = Syntax(code, "python", theme="ansi_dark", background_color="default", word_wrap=True)
        self._console.print()
        self._console.print(
            Panel(shown, title=Text(title, "bold"), title_align="left", border_style="dim", box=ROUNDED)
        )

    def show(self, lanes: Sequence[Lane]) -> None:
        if self._live is None:
            self._live = Live(console=self._console, auto_refresh=False)
            self._live.start()
        self._live.update(Padding(_lanes(lanes), (0, 2)), refresh=True)

    def say(self, text: str) -> None:
        self._still()
        self._console.print(Padding(Text(text, "italic"), (0, 2)))

    def end(self, facts: Facts, seconds: float) -> None:
        self._still()
        body = Group(_table(sheet(facts)), Text(), *(self._check(check) for check in facts.checks))
        style = "green" if facts.ok else "red"
        title = Text(verdict(facts), f"bold {style}")
        self._console.print()
        self._console.print(
            Panel(body, title=title, title_align="left", border_style=style, box=ROUNDED, padding=(1, 2))
        )
        self._console.print(Padding(Text(f"Took {seconds:.1f} s. The ledger was kept for you:", "dim"), (0, 2)))
        for command in commands(facts):
            self._console.print(f"  {command}", style="cyan", soft_wrap=True, markup=False)
        self._console.print()

    def _check(self, check: Check) -> RenderableType:
        unicode = self._console.encoding.lower().startswith("utf")
        sign = ("✓" if unicode else "ok") if check.holds else ("✗" if unicode else "no")
        style = "green" if check.holds else "bold red"
        line = Table.grid(padding=(0, 1))
        line.add_row(Text(sign, style), Text(check.claim, "" if check.holds else style))
        line.add_row("", Text(check.seen, "dim" if check.holds else "red"))
        return line

    def _still(self) -> None:
        """The moving figures stay as they are."""
        live, self._live = self._live, None
        if live is not None:
            live.stop()


def _lanes(lanes: Sequence[Lane]) -> Table:
    with_held = any(lane.held is not None for lane in lanes)
    with_left = any(lane.bar_of is None for lane in lanes)
    table = Table(box=None, expand=True, padding=(0, 1), header_style="dim", pad_edge=False)
    table.add_column("", no_wrap=True)
    table.add_column("calls", justify="right", width=6)
    table.add_column("spent", justify="right", width=11)
    if with_held:
        table.add_column("held", justify="right", width=11)
    if with_left:
        table.add_column("left", justify="right", width=11)
    table.add_column("", ratio=1)
    for lane in lanes:
        cells: list[Any] = [lane.name, "" if lane.calls is None else f"{lane.calls:,}", spent_text(lane, lane.spent)]
        if with_held:
            cells.append("" if lane.held is None else spent_text(lane, lane.held))
        if with_left:
            cells.append("" if lane.bar_of is not None else Text(spent_text(lane, lane.left), _colour(lane)))
        table.add_row(*cells, _bar(lane))
    return table


def _bar(lane: Lane) -> RenderableType:
    whole = lane.bar_of or lane.budget
    if not whole:
        return ""
    colour = "cyan" if lane.bar_of else _colour(lane)
    return ProgressBar(total=whole, completed=min(lane.spent, whole), complete_style=colour, finished_style=colour)


def _colour(lane: Lane) -> str:
    if lane.budget is None:
        return "red"
    return "green" if lane.spent * 2 < lane.budget else "yellow" if lane.spent * 10 < lane.budget * 9 else "magenta"


def _table(it: Sheet) -> RenderableType:
    table = Table(
        title=Text(it.title, "bold"),
        title_justify="left",
        box=SIMPLE_HEAD,
        header_style="dim",
        show_edge=False,
        pad_edge=False,
    )
    for number, name in enumerate(it.head):
        table.add_column(name, justify="right" if number else "left", no_wrap=bool(number))
    for row in it.rows:
        table.add_row(*row)
    return Group(table, Text(), Text(it.note, "dim"))

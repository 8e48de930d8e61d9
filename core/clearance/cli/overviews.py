"""Rich views of what the whole ledger and the installation look like."""

from __future__ import annotations

from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from clearance.cli.output import plain
from clearance.cli.views import bar, pairs, styled, table_of, whom
from clearance.cli.words import clock, money

_LEVELS = {"ok": "green", "warn": "yellow", "fail": "red"}


def status(facts: dict[str, Any]) -> RenderableType:
    opened = facts["open_reservations"]
    more = " or more" if opened["more"] else ""
    parts: list[RenderableType] = [_ledger(facts["ledger"])]
    for stop in facts["stops"]:
        who = f"{plain(stop['actor'])}, {clock(stop['at_ms'])}"
        words = f"{stop['state']} {whom(stop['scope'])}: {plain(stop['reason'])} ({who})"
        parts.append(Text(words, style="bold red" if stop["state"] == "KILLED" else "bold yellow"))
    parts.append(Text(f"open: {opened['calls']} calls, {opened['runs']} runs{more}"))
    table = table_of("budget", "", "spent", "held", "left", "of", "state", right=("spent", "held", "left", "of"))
    for it in facts["budgets"]:
        figures = (money(it[name], it["unit"]) for name in ("spent", "reserved", "remaining", "allocated"))
        table.add_row(it["scope"], bar(it), *figures, styled(it["status"]))
    parts.append(table if facts["budgets"] else Text("no budgets yet"))
    return Group(*parts)


def _ledger(facts: dict[str, Any]) -> Text:
    if facts["engine"] == "server":
        return Text(f"server {facts['path']}")
    name = {"sqlite": "SQLite", "postgresql": "PostgreSQL"}[facts["engine"]]
    return Text(f"ledger {facts['path']} ({facts.get('bytes', 0):,} bytes, {name} {facts[facts['engine']]})")


def price(facts: dict[str, Any]) -> RenderableType:
    rows: list[tuple[str, str | Text]] = [
        ("model", plain(f"{facts['model']} ({facts['provider'] or 'any provider'})")),
        ("price from", plain(facts["source"])),
        *((name, f"{usd} {facts['unit']}") for name, usd in facts["rates"].items()),
        ("per_request", f"{facts['per_request']} USD"),
        *(
            (name, f"{value:,}" if isinstance(value, int) else plain(value or "-"))
            for name, value in facts["limits"].items()
        ),
        *(("note", plain(note)) for note in facts["notes"]),
    ]
    if "call" in facts:
        call = facts["call"]
        counts = ", ".join(f"{count:,} {name}" for name, count in call["usage"].items())
        rows.append(("this call", Text(f"{money(call['amount'], call['unit'])} for {counts}", style="bold")))
    else:
        rows.append(("example", f"{facts['example']['price']} for {'; '.join(facts['example']['steps'])}"))
    return pairs(rows)


def versions(facts: dict[str, Any]) -> RenderableType:
    return pairs([(name, plain(value)) for name, value in facts.items()])


def doctor(facts: dict[str, Any]) -> RenderableType:
    table = table_of("", "check", "found", "what to do")
    for it in facts["checks"]:
        table.add_row(Text(it["level"], style=_LEVELS[it["level"]]), it["name"], plain(it["text"]), plain(it["todo"]))
    return Group(table, Text(f"{facts['failed']} failed, {facts['warned']} warnings"))

"""Facts as rich tables, trees and text. Looks at nothing but the facts."""

from __future__ import annotations

from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from clearance.cli.output import plain
from clearance.cli.words import caps_rule, clock, event_summary, field_value, money, renewal

BAR = 24
MAX_ROWS = 50
_STATES = {
    "ACTIVE": "green",
    "FROZEN": "yellow",
    "PAUSED": "yellow",
    "CLOSED": "dim",
    "KILLED": "red",
    "EXPIRED": "red",
}


def table_of(*columns: str, right: tuple[str, ...] = ()) -> Table:
    table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 2, 0, 0))
    for column in columns:
        table.add_column(column, justify="right" if column in right else "left", overflow="fold")
    return table


def pairs(rows: list[tuple[str, str | Text]]) -> Table:
    table = Table.grid(padding=(0, 2, 0, 0))
    for name, value in rows:
        table.add_row(Text(name, style="dim"), value)
    return table


def facts(values: dict[str, Any]) -> Table:
    """Whatever there is to say, name by name; groups are told in one line."""
    return pairs([(name.replace("_", " "), _plain(value)) for name, value in values.items()])


def _plain(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {_plain(inner)}" for name, inner in value.items())
    return " / ".join(map(_plain, value)) if isinstance(value, list) else str(value)


def styled(word: str) -> Text:
    return Text(word, style=_STATES.get(word, ""))


def bar(budget: dict[str, Any]) -> Text:
    """Spent and owed, held, left: shares of what was allocated."""
    whole = max(budget["allocated"], 1)
    used = budget["spent"] + budget["debt"]
    spent = min(BAR, max(round(BAR * used / whole), 1 if used else 0))
    held = min(BAR - spent, max(round(BAR * budget["reserved"] / whole), 1 if budget["reserved"] else 0))
    text = Text("█" * spent, style="red" if used >= whole else "cyan")
    return text.append("▒" * held, style="yellow").append("░" * (BAR - spent - held), style="dim")


# -- budgets --------------------------------------------------------------------------------------


def _budget(facts: dict[str, Any]) -> Table:
    unit = facts["unit"]
    rows: list[tuple[str, str | Text]] = [
        ("budget", facts["scope"]),
        ("", bar(facts)),
        *((name, money(facts[name], unit)) for name in ("allocated", "spent", "reserved", "remaining")),
    ]
    if facts["debt"] or facts["overdraft_limit"]:
        over = " (over the limit)" if facts["is_over_limit"] else ""
        rows.append(("debt", f"{money(facts['debt'], unit)} of {money(facts['overdraft_limit'], unit)}{over}"))
    if facts.get("period"):
        rows.append(("period", renewal(facts)))
    rows += [("caps" if number == 0 else "", caps_rule(rule)) for number, rule in enumerate(facts.get("caps", []))]
    return pairs([*rows, ("status", styled(facts["status"]))])


def budget_show(facts: dict[str, Any]) -> RenderableType:
    return Group(*(_budget(it) for it in facts["budgets"]))


def budget_set(facts: dict[str, Any]) -> RenderableType:
    word = "made" if facts["created"] else "changed" if facts["changes"] else "is as asked, nothing to change"
    return Group(
        Text(f"budget {word}"), *([_changes(facts["changes"])] if facts["changes"] else []), _budget(facts["budget"])
    )


def budget_funded(facts: dict[str, Any]) -> RenderableType:
    budget = facts["budget"]
    return Group(Text(f"{facts['operation']} {money(facts['amount'], budget['unit'])}"), _budget(budget))


def budget_status(facts: dict[str, Any]) -> RenderableType:
    return _budget(facts["budget"])


def budget_tree(facts: dict[str, Any]) -> RenderableType:
    if not facts["tree"]:
        return Text("no budgets yet; `clearance budget set tenant:acme 10` makes one")
    top = Tree(Text("budgets", style="bold"), guide_style="dim")
    _grow(top, facts["tree"], "")
    return top


def _grow(branch: Tree, nodes: list[dict[str, Any]], above: str) -> None:
    for node in nodes:
        label = Text(node["scope"].removeprefix(above), style="bold" if node["budgets"] else "dim")
        for budget in node["budgets"]:
            label.append("\n").append_text(bar(budget)).append("  " + _glance(budget), style="not bold")
        _grow(branch.add(label), node["below"], node["scope"] + "/")


def _glance(it: dict[str, Any]) -> str:
    unit = it["unit"]
    spent = f"{money(it['spent'], unit)} of {money(it['allocated'], unit)} spent"
    held = f", {money(it['reserved'], unit)} held" if it["reserved"] else ""
    debt = f", {money(it['debt'], unit)} owed" if it["debt"] else ""
    state = "" if it["status"] == "ACTIVE" else f" [{it['status']}]"
    return f"{spent}{held}{debt}, {money(it['remaining'], unit)} left{state}"


# -- apply ----------------------------------------------------------------------------------------


def _changes(changes: list[dict[str, Any]]) -> Table:
    table = table_of("budget", "field", "now", "then")
    for change in changes:
        name, unit = change["field"], change["unit"]
        now = Text("(new)", style="green") if change["new"] else field_value(name, change["now"], unit)
        table.add_row(change["scope"], name, now, field_value(name, change["then"], unit))
    return table


def plan(facts: dict[str, Any]) -> RenderableType:
    parts: list[RenderableType] = [_changes(facts["changes"])] if facts["changes"] else [Text("nothing to change")]
    if facts["unmanaged"]:
        names = ", ".join(f"{it['scope']} ({it['unit']})" for it in facts["unmanaged"])
        parts.append(Text(f"not in the file, left alone: {names}", style="dim"))
    return Group(*parts)


def applied(facts: dict[str, Any]) -> RenderableType:
    return Text(f"applied: {facts['changed']} budgets made or changed, {facts['unchanged']} unchanged")


# -- the stop button ------------------------------------------------------------------------------


def whom(scope: str) -> str:
    return "everybody (*)" if scope == "*" else scope


def stopped(facts: dict[str, Any]) -> RenderableType:
    rows: list[tuple[str, str | Text]] = [
        ("stopped", whom(facts["scope"])),
        ("state", styled(facts["state"])),
        ("reason", plain(facts["reason"])),
        ("by", f"{plain(facts['actor'])}, {clock(facts['at_ms'])}"),
        ("in flight", f"{facts['in_flight_count']:,}" if facts["in_flight_count"] else "nothing"),
    ]
    if facts["state"] != facts["asked"]:
        rows.append(("note", "it was killed before, and a kill outranks a pause"))
    if "untold" in facts:
        rows.append(("note", f"it is in force; more cannot be told: {plain(facts['untold'])}"))
    elif not facts["known"]:
        rows.append(("warning", "nothing is known below this scope yet; is it spelt right, with its tenant first?"))
    parts: list[RenderableType] = [pairs(rows)]
    if facts["in_flight"]:
        parts.append(_reservation_table(facts["in_flight"][:MAX_ROWS]))
    if len(facts["in_flight"]) > MAX_ROWS:
        parts.append(Text(f"and {len(facts['in_flight']) - MAX_ROWS:,} more; --json names all"))
    return Group(*parts)


def resumed(facts: dict[str, Any]) -> RenderableType:
    text = "resumed" if facts["was_stopped"] else "was not stopped; nothing to resume:"
    lines = [Text(f"{text} {whom(facts['scope'])}")]
    for stop in facts["still_stopped_by"]:
        lines.append(Text(f"still {stop['state']} by {whom(stop['scope'])}: {plain(stop['reason'])}", style="yellow"))
    return Group(*lines)


# -- records --------------------------------------------------------------------------------------


def _reservation_table(items: list[dict[str, Any]]) -> Table:
    table = table_of(
        "reservation", "status", "action", "scope", "estimate", "charged", "made", right=("estimate", "charged")
    )
    for it in items:
        action, unit = it.get("action", {}), it.get("unit", "")
        name = action.get("name", "")
        table.add_row(
            it["reservation_id"],
            styled(it.get("status", "")),
            plain(name if action.get("kind") == name else f"{action.get('kind', '')}:{name}") if action else "",
            it.get("scope_path", ""),
            money(it.get("estimate"), unit),
            money(it.get("charged"), unit),
            clock(it.get("created_at_ms")),
        )
    return table


def reservations(facts: dict[str, Any]) -> RenderableType:
    found = facts["reservations"]
    parts: list[RenderableType] = [_reservation_table(found) if found else Text("no reservations")]
    if facts["next_cursor"]:
        parts.append(Text(f"more: --cursor {facts['next_cursor']}", style="dim"))
    return Group(*parts)


def reservation(facts: dict[str, Any]) -> RenderableType:
    rows: list[tuple[str, str | Text]] = []
    for name, value in facts.items():
        if name in ("estimate", "charged", "actual"):
            rows.append((name, money(value, facts["unit"])))
        elif name.endswith("_ms"):
            rows.append((name.removesuffix("_ms"), clock(value)))
        elif name == "status":
            rows.append((name, styled(value)))
        else:
            rows.append((name, plain(", ".join(value) if isinstance(value, list) else value)))
    return pairs(rows)


def event_line(it: dict[str, Any]) -> Text:
    text = Text(f"{it['seq']:>6}  {clock(it['at_ms'])}  ", style="dim")
    text.append(f"{it['type']:<24}", style="bold").append(f"  {it['scope'] or '-'}")
    return text.append(f"  {it['reservation_id'] or ''}  {event_summary(it['data'])}".rstrip())


def events(facts: dict[str, Any]) -> RenderableType:
    return Group(*(event_line(it) for it in facts["events"])) if facts["events"] else Text("no events")

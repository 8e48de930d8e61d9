"""Facts as words: money, times, periods, caps, fields. No rich here."""

from __future__ import annotations

import time
from typing import Any

from clearance.cli.output import plain

USD = "USD_MICROCENTS"


def money(amount: int | None, unit: str) -> str:
    if amount is None:
        return "-"
    if unit != USD:
        return f"{amount:,} {unit}"
    from clearance.model.amount import dollars

    return f"{dollars(amount)} USD"


def clock(at_ms: int | None) -> str:
    """Local time."""
    if at_ms is None:
        return "-"
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at_ms / 1000))


def period(facts: dict[str, Any] | None) -> str:
    if not facts:
        return "none"
    zone = "" if facts["kind"] == "rolling" else f" ({facts['timezone']})"
    return f"{'rolling ' if facts['kind'] == 'rolling' else 'each '}{facts['every']}{zone}"


def caps_rule(rule: dict[str, Any]) -> str:
    when = f"below {rule['below_percent']}%: " if rule.get("below_percent") else "always: "
    limits = []
    for name, value in rule.get("caps", {}).items():
        limits.append(f"{name} {', '.join(value) if isinstance(value, list) else value}")
    return plain(when + "; ".join(limits))


def field_value(name: str, value: Any, unit: str) -> str:
    """One side of a difference."""
    if name in ("allocated", "overdraft_limit"):
        return money(value, unit)
    if name == "period":
        return period(value)
    if name == "caps":
        return "\n".join(caps_rule(rule) for rule in value or []) or "none"
    return plain(value) if value is not None else "default"


def renewal(budget: dict[str, Any]) -> str:
    """When a budget begins anew; one whose period has passed does so at its next use."""
    end = budget.get("period_end_ms")
    if not budget.get("period"):
        return "-"
    if end is None:
        return f"{period(budget['period'])}, from its first use"
    over = end <= time.time_ns() // 1_000_000
    return f"{period(budget['period'])}, " + ("renews at its next use" if over else f"until {clock(end)}")


_SHOWN = ("reason_code", "message", "reason", "actor", "in_flight_count", "decision")
_AMOUNTS = ("amount", "requested", "estimate", "actual", "charged", "released", "uncharged")


def event_summary(data: dict[str, Any]) -> str:
    unit = str(data.get("unit", ""))
    parts = [f"{name} {money(data[name], unit)}" for name in _AMOUNTS if isinstance(data.get(name), int)]
    parts += [f"{name}: {data[name]}" for name in _SHOWN if data.get(name) not in (None, "")]
    return plain(", ".join(parts))

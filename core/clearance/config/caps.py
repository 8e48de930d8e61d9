"""Caps as `clearance.yaml` and the command line give them."""

from __future__ import annotations

import re
from typing import Any

from clearance.config.problems import Path, Report, shown
from clearance.errors import InvalidRequest
from clearance.model.caps import Caps, CapsRule

KEYS = ("below", "max_tokens", "models", "tools", "cooldown", "max_steps_remaining", "approval_tools")
_DURATION = re.compile(r"([0-9]{1,12})(ms|s|m|h)", re.ASCII)
_MS = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000}
_PERCENT = re.compile(r"([0-9]{1,3})%", re.ASCII)


def read_rules(report: Report, value: Any, path: Path) -> tuple[CapsRule, ...]:
    if value is None:
        return ()
    if not isinstance(value, list):
        report.refuse(path, f"{shown(value)} is not a list", "a list of caps: - {below: 20%, max_tokens: 500}")
        return ()
    rules = [read_rule(report, entry, (*path, number)) for number, entry in enumerate(value)]
    return tuple(rule for rule in rules if rule is not None)


def read_rule(report: Report, entry: Any, path: Path) -> CapsRule | None:
    given = report.mapping(entry, path, KEYS)
    if given is None:
        return None
    before = len(report.found)
    fields = _tools(report, given.pop("tools", None), (*path, "tools"))
    for name in ("models", "approval_tools"):
        if given.get(name) is not None:
            fields[name] = _names(report, given[name], (*path, name))
    below = _percent(report, given.get("below"), (*path, "below"))
    fields["cooldown_ms"] = _duration(report, given.get("cooldown"), (*path, "cooldown"))
    for name in ("max_tokens", "max_steps_remaining"):
        fields[name] = _count(report, given.get(name), (*path, name))
    if len(report.found) > before:
        return None
    return _rule(report, fields, below, path)


def _rule(report: Report, fields: dict[str, Any], below: int | None, path: Path) -> CapsRule | None:
    try:
        rule = CapsRule(caps=Caps(**fields), below_percent=below)
    except InvalidRequest as error:
        report.refuse(path, f"{error.field}: {error.problem}", error.allowed)
        return None
    if rule.caps == Caps():
        report.refuse(path, "limits nothing", "at least one of " + ", ".join(KEYS[1:]))
        return None
    return rule


def _tools(report: Report, value: Any, path: Path) -> dict[str, Any]:
    if value is None:
        return {}
    given = report.mapping(value, path, ("allow", "deny")) or {}
    found: dict[str, Any] = {}
    for key, name in (("allow", "tool_allowlist"), ("deny", "tool_denylist")):
        if given.get(key) is not None:
            found[name] = _names(report, given[key], (*path, key))
    for name in sorted({*found.get("tool_allowlist", ())} & {*found.get("tool_denylist", ())}):
        report.refuse((*path, "deny"), f"{shown(name)} is allowed as well", "each tool in one of the lists")
    if "allow" in given and not found.get("tool_allowlist"):
        report.refuse((*path, "allow"), "names no tool", "at least one name, or leave it out to allow all")
    return found


def _names(report: Report, value: Any, path: Path) -> tuple[str, ...]:
    entries = value if isinstance(value, list) else [value]
    bad = [entry for entry in entries if not isinstance(entry, str) or not entry.strip()]
    for entry in bad:
        report.refuse(path, f"{shown(entry)} is not a name", "text, in quotes where YAML reads it as something else")
    return () if bad else tuple(entry.strip() for entry in entries)


def _count(report: Report, value: Any, path: Path) -> int | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        report.refuse(path, f"{shown(value)} is refused", "a whole number, 0 or more")
        return None
    return value


def _percent(report: Report, value: Any, path: Path) -> int | None:
    if value is None:
        return None
    match = _PERCENT.fullmatch(value.strip()) if isinstance(value, str) else None
    if match is None or not 1 <= int(match[1]) <= 100:
        report.refuse(path, f"{shown(value)} is not a share of the budget", "1% to 100%")
        return None
    return int(match[1])


def _duration(report: Report, value: Any, path: Path) -> int | None:
    if value is None:
        return None
    match = _DURATION.fullmatch(value.strip()) if isinstance(value, str) else None
    if match is None:
        report.refuse(path, f"{shown(value)} is not a duration", "a whole number and ms, s, m or h, such as 30s")
        return None
    return int(match[1]) * _MS[match[2]]

"""The plugin's entry in OpenClaw's own file, as the authority will get it; for the doctor, which reads that file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from clearance.config.problems import Path, Report, dotted
from clearance_hooks.misplaced import entries_elsewhere
from clearance_hooks.plugin import PLUGIN_ID

PLACE: Path = ("plugins", "entries", PLUGIN_ID)
TENANT_OF_THE_KEY = "tenant-of-the-api-key"
"""Stands for the tenant, which OpenClaw's file does not name."""
MIN_MS, MAX_MS = 100, 14_000
"""What `config.timeout_ms` may be: the host gives a gate 15 s."""


def own_entry(value: Any, report: Report) -> dict[str, Any]:
    """A `Shape` for `clearance_hooks.load`. What belongs to OpenClaw is left out; a missing grant is a problem."""
    report.found = [it for it in report.found if it[0][: len(PLACE)] == PLACE[: len(it[0])]]
    plugins = _mapping(value, "plugins")
    entry = _mapping(plugins, "entries").get(PLUGIN_ID)
    kept = {key: plugins[key] for key in ("enabled", "deny") if key in plugins}
    if isinstance(kept.get("deny"), list):
        kept["deny"] = [id for id in kept["deny"] if id == PLUGIN_ID]
    if isinstance(plugins.get("allow"), list):
        kept["allow"] = [id for id in plugins["allow"] if id == PLUGIN_ID]
    if entry is None:
        for place in entries_elsewhere(value, (PLUGIN_ID,)):
            report.refuse(PLACE, f"is missing; what stands at {dotted(place)} is not read", dotted(PLACE))
        return {"plugins": {key: found for key, found in kept.items() if key != "allow"}}
    return {"plugins": {**kept, "entries": {PLUGIN_ID: _entry(entry, report)}}}


def _entry(entry: Any, report: Report) -> Any:
    if not isinstance(entry, Mapping):
        return entry
    if entry.get("enabled", True) is True and _mapping(entry, "hooks").get("allowConversationAccess") is not True:
        report.refuse((*PLACE, "hooks", "allowConversationAccess"), "is not true, so turns cannot be gated", "true")
    config = entry.get("config")
    kept = {key: entry[key] for key in ("enabled", "config") if key in entry}
    if isinstance(config, Mapping):
        kept["config"] = {"tenant": TENANT_OF_THE_KEY, **_without_timeout(config, report)}
    return kept


def _without_timeout(config: Mapping[str, Any], report: Report) -> dict[str, Any]:
    ms = config.get("timeout_ms")
    fits = isinstance(ms, int) and not isinstance(ms, bool) and MIN_MS <= ms <= MAX_MS
    if "timeout_ms" in config and not fits:
        report.refuse((*PLACE, "config", "timeout_ms"), "is refused", f"{MIN_MS} to {MAX_MS}")
    if config.get("authority") is None:
        report.refuse((*PLACE, "config", "authority"), "is missing", "url and token")
    return {key: value for key, value in config.items() if key != "timeout_ms"}


def _mapping(value: Any, name: str) -> Mapping[str, Any]:
    found = value.get(name) if isinstance(value, Mapping) else None
    return found if isinstance(found, Mapping) else {}

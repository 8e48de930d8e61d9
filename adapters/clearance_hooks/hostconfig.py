"""`plugins:` of a host's configuration file: what it says, and everything that is wrong with it.

    plugins:
      enabled: true
      allow: [clearance]                 # only these; absent: all that are enabled
      deny: []                           # goes before everything else
      entries:
        clearance:
          enabled: true
          priority: -1000                # higher is asked first
          on_error: deny                 # or allow, which is logged and counted
          timeout_ms: 5000
          required: true                 # a plugin that cannot be loaded denies
          config:
            authority: {url: "${CLEARANCE_URL}", token: "${CLEARANCE_API_KEY}"}
            tenant: acme

`load` reads; nothing is opened and nobody is asked. `activate` (in `clearance_hooks.activation`) does the rest.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path as FilePath
from typing import Any

from clearance.config.problems import ConfigInvalid, Path, Problem, Report, shown
from clearance_hooks.capabilities import Capabilities
from clearance_hooks.documents import interpolated, read
from clearance_hooks.plugin import PLUGIN_ID, PRIORITY
from clearance_hooks.registry import DEFAULT_TIMEOUT_MS, MAX_TIMEOUT_MS, OnError
from clearance_hooks.settings import Settings, read_settings

_KEYS = ("enabled", "allow", "deny", "entries")
_ENTRY_KEYS = ("enabled", "priority", "on_error", "timeout_ms", "required", "config")
_ENTRIES: Path = ("plugins", "entries")


@dataclass(frozen=True, slots=True)
class Entry:
    """One enabled plugin. `problems` is empty when it can work; `settings` is of Clearance's own plugin only."""

    id: str
    priority: int = 0
    on_error: OnError = "deny"
    timeout_ms: int = DEFAULT_TIMEOUT_MS
    required: bool = True
    config: Mapping[str, Any] = field(default_factory=dict, repr=False)
    settings: Settings | None = field(default=None, repr=False)
    problems: tuple[Problem, ...] = ()


@dataclass(frozen=True, slots=True)
class HostConfig:
    """What was read. `problems` are all that were found, `warnings` keep nobody from working."""

    file: str
    entries: tuple[Entry, ...] = ()
    problems: tuple[Problem, ...] = ()
    warnings: tuple[Problem, ...] = ()

    def raise_if_errors(self) -> None:
        """For hosts that would rather not start. Raises ConfigInvalid with every problem."""
        if self.problems:
            raise ConfigInvalid(self.problems)

    def entry(self, id: str) -> Entry | None:
        return next((entry for entry in self.entries if entry.id == id), None)


def load(
    path: str | FilePath,
    capabilities: Capabilities,
    *,
    environ: Mapping[str, str] | None = None,
    known: Iterable[str] = (PLUGIN_ID,),
) -> HostConfig:
    """Read a host's configuration file. Never raises for what is wrong in it: see `HostConfig.problems`.

    A file that cannot be read at all has one problem and, as it may well have enabled the guard, one entry that
    denies. `known` are the ids of the plugins that are installed.
    """
    from clearance.errors import InvalidRequest

    try:
        value, report = read(FilePath(path))
    except InvalidRequest as error:
        problem = Problem(str(path), None, "", error.problem, error.allowed)
        return _unreadable(str(path), problem)
    if any(not place for place, _ in report.found):
        return _unreadable(str(path), report.found[0][1])
    return parse(value, report, capabilities, environ=environ, known=known)


def parse(
    value: Any,
    report: Report,
    capabilities: Capabilities,
    *,
    environ: Mapping[str, str] | None = None,
    known: Iterable[str] = (PLUGIN_ID,),
) -> HostConfig:
    """`load` for values that a host has read itself; `report` gets the problems."""
    whole = value if isinstance(value, Mapping) else {}
    if whole.get("plugins") is None:
        return HostConfig(report.file)
    warnings = Report(report.file, report.lines)
    given = report.mapping(whole["plugins"], ("plugins",), _KEYS)
    if given is None:
        return _unreadable(report.file, report.found[-1][1])
    reader = _Reader(report, warnings, capabilities, os.environ if environ is None else environ, tuple(known))
    entries = reader.entries(given)
    problems = tuple(problem for place, problem in report.found if not place or place[0] == "plugins")
    return HostConfig(report.file, entries, problems, tuple(problem for _, problem in warnings.found))


def _unreadable(file: str, problem: Problem) -> HostConfig:
    return HostConfig(file, (Entry(PLUGIN_ID, PRIORITY, problems=(problem,)),), (problem,))


@dataclass(frozen=True, slots=True)
class _Reader:
    report: Report
    warnings: Report
    capabilities: Capabilities
    environ: Mapping[str, str]
    known: tuple[str, ...]

    def entries(self, given: Mapping[str, Any]) -> tuple[Entry, ...]:
        enabled = self._truth(given, ("plugins",), "enabled", True)
        allow, deny = self._ids(given, "allow"), self._ids(given, "deny")
        raw = given.get("entries")
        if raw is not None and not isinstance(raw, Mapping):
            self.report.refuse(_ENTRIES, f"{shown(raw)} is not a mapping", "a mapping from a plugin's id to its entry")
            return (Entry(PLUGIN_ID, PRIORITY, problems=(self.report.found[-1][1],)),) if enabled else ()
        for id in sorted({*(raw or {}), *(allow or ()), *deny} - {*self.known}):
            self._unknown(id, ("plugins", "entries", id) if id in (raw or {}) else ("plugins",))
        chosen = [id for id in raw or {} if id not in deny and (allow is None or id in allow)]
        found = [self._entry(id, (raw or {})[id]) for id in chosen] if enabled else []
        return tuple(entry for entry in found if entry is not None)

    def _entry(self, id: str, value: Any) -> Entry | None:
        path = (*_ENTRIES, id)
        before = len(self.report.found)
        given = self.report.mapping({} if value is None else value, path, _ENTRY_KEYS)
        if given is not None and not self._truth(given, path, "enabled", True):
            del self.report.found[before:]  # what is switched off harms nobody
            return None
        given = given or {}
        own = id == PLUGIN_ID
        place = (*path, "config")
        unfilled = len(self.report.found)
        config = interpolated(given.get("config") or {}, place, self.report, self.environ)
        # Where a variable is missing, what would be said of the empty place helps nobody.
        is_filled = len(self.report.found) == unfilled
        settings = self._settings(config, place) if own and is_filled else None
        return Entry(
            id=id,
            priority=self._number(given, path, "priority", PRIORITY if own else 0, None),
            on_error=self._on_error(given, path),
            timeout_ms=self._number(given, path, "timeout_ms", DEFAULT_TIMEOUT_MS, MAX_TIMEOUT_MS),
            required=self._truth(given, path, "required", own),
            config=config if isinstance(config, Mapping) else {},
            settings=settings,
            problems=tuple(problem for _, problem in self.report.found[before:]),
        )

    def _settings(self, config: Any, place: Path) -> Settings | None:
        settings = read_settings(self.report, config, place)
        if settings is not None:
            _fits(self.report, place, settings, self.capabilities)
        return settings

    def _unknown(self, id: str, place: Path) -> None:
        near = difflib.get_close_matches(id, self.known, n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        self.warnings.refuse(place, f"no plugin {shown(id)} is installed{hint}", ", ".join(self.known))

    def _ids(self, given: Mapping[str, Any], name: str) -> Any:
        value = given.get(name)
        if value is None:
            return None if name == "allow" else ()
        if not isinstance(value, list) or not all(isinstance(it, str) for it in value):
            self.report.refuse(("plugins", name), f"{shown(value)} is not a list of ids", "[clearance]")
            return None if name == "allow" else ()
        return tuple(value)

    def _truth(self, given: Mapping[str, Any], path: Path, name: str, default: bool) -> bool:
        value = given.get(name)
        if value is None:
            return default
        if not isinstance(value, bool):
            self.report.refuse((*path, name), f"{shown(value)} is refused", "true, false")
            return default
        return value

    def _number(self, given: Mapping[str, Any], path: Path, name: str, default: int, most: int | None) -> int:
        value = given.get(name)
        if value is None:
            return default
        is_number = isinstance(value, int) and not isinstance(value, bool)
        if not is_number or (most is not None and not 1 <= value <= most):
            allowed = "a whole number" if most is None else f"1 to {most}"
            self.report.refuse((*path, name), f"{shown(value)} is refused", allowed)
            return default
        return int(value)

    def _on_error(self, given: Mapping[str, Any], path: Path) -> OnError:
        value = given.get("on_error")
        if value is None or value == "deny":
            return "deny"
        if value == "allow":
            return "allow"
        near = difflib.get_close_matches(str(value), ("deny", "allow"), n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        self.report.refuse((*path, "on_error"), f"{shown(value)} is unknown{hint}", "deny, allow")
        return "deny"


def _fits(report: Report, path: Path, settings: Settings, host: Capabilities) -> None:
    """Settings that this host cannot keep are refused, and not silently weakened."""
    if settings.enforce is not None and not host.enforces(settings.enforce):
        report.refuse((*path, "enforce"), f"{host.name} cannot enforce {settings.enforce}", "per_turn")
    if not host.model_call and settings.run_budget is None:
        problem = f"is missing: {host.name} is asked once a turn, which must hold what the turn may spend"
        report.refuse((*path, "run_budget"), problem, 'USD such as "1.00"')
    if settings.downgrade.models and not host.overrides_model:
        report.refuse((*path, "downgrade"), f"{host.name} cannot change the model of a call", "no downgrade")
    if settings.budget_hint and not host.patches_prompt:
        report.refuse((*path, "budget_hint"), f"{host.name} cannot add to the prompt", "false")

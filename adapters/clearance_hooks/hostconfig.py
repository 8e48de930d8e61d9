"""`plugins:` of a host's configuration file: what it says, and everything that is wrong with it.

    plugins:
      enabled: true
      allow: [clearance]                 # every enabled entry must be here; absent: no such list
      deny: []                           # switched off, whatever their entries say
      entries:
        clearance:
          enabled: true
          priority: -1000                # higher is asked first
          on_error: deny                 # or allow, which is logged and counted
          timeout_ms: 5000
          required: true                 # false: the host may go on without a plugin that cannot be loaded
          config:
            authority: {url: "${CLEARANCE_URL}", token: "${CLEARANCE_API_KEY}"}
            tenant: acme

`load` reads; nothing is opened and nobody is asked. `activate` (in `clearance_hooks.activation`) does the rest.

Whatever is wrong may be what keeps a guard from its work, so one problem denies everything until it is corrected. Only
what is switched off (`enabled: false`, `deny`) is not looked at.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path as FilePath
from typing import Any

from clearance.config.problems import ConfigInvalid, Path, Problem, Report, dotted, shown
from clearance.errors import InvalidRequest
from clearance_hooks.capabilities import Capabilities
from clearance_hooks.documents import interpolated, read
from clearance_hooks.misplaced import entries_elsewhere, like_the_section
from clearance_hooks.plugin import PLUGIN_ID, PRIORITY
from clearance_hooks.registry import DEFAULT_TIMEOUT_MS, MAX_PLUGINS, MAX_TIMEOUT_MS, OnError
from clearance_hooks.settings import Settings, read_settings

_KEYS = ("enabled", "allow", "deny", "entries")
_ENTRY_KEYS = ("enabled", "priority", "on_error", "timeout_ms", "required", "config")
_ENTRIES: Path = ("plugins", "entries")

Shape = Callable[[Any, Report], Any]
"""Makes the section `plugins` of a host's own file the one that is read here."""


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
    """What was read. With `problems` everything is denied; `warnings` keep nobody from working."""

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
    shape: Shape | None = None,
) -> HostConfig:
    """Read a host's configuration file. Never raises for what is wrong in it: see `HostConfig.problems`.

    A file that cannot be read at all has one problem and, as it may well have enabled the guard, one entry that
    denies. `known` are the ids of the plugins that are installed.
    """
    try:
        value, report = read(FilePath(path))
    except InvalidRequest as error:
        problem = Problem(str(path), None, "", error.problem, error.allowed)
        return _unreadable(str(path), problem)
    if any(not place for place, _ in report.found):
        return _unreadable(str(path), report.found[0][1])
    shaped = value if shape is None else shape(value, report)
    return parse(shaped, report, capabilities, environ=environ, known=known)


def parse(
    value: Any,
    report: Report,
    capabilities: Capabilities,
    *,
    environ: Mapping[str, str] | None = None,
    known: Iterable[str] = (PLUGIN_ID,),
) -> HostConfig:
    """`load` for values that a host has read itself; `report` gets the problems."""
    report.found = [it for it in report.found if it[0][:1] in ((), ("plugins",))]  # the rest of the file is the host's
    whole = {} if value is None else value
    if not isinstance(whole, Mapping):
        report.refuse((), f"{shown(whole)} is not a mapping", "a mapping with plugins")
        return _unreadable(report.file, report.found[-1][1])
    warnings = Report(report.file, report.lines)
    reader = _Reader(report, warnings, capabilities, os.environ if environ is None else environ, tuple(known))
    entries = reader.plugins(whole)
    problems = tuple(problem for _, problem in report.found)
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

    def plugins(self, whole: Mapping[str, Any]) -> tuple[Entry, ...]:
        section = whole.get("plugins")
        given = self.report.mapping({} if section is None else section, ("plugins",), _KEYS)
        if given is not None and not self._truth(given, ("plugins",), "enabled", True):
            self._forget_all_but(("plugins",), ("plugins", "enabled"))
            return ()
        given = given or {}
        raw = given.get("entries")
        if raw is not None and not isinstance(raw, Mapping):
            self.report.refuse(_ENTRIES, f"{shown(raw)} is not a mapping", "a mapping from a plugin's id to its entry")
        present = raw if isinstance(raw, Mapping) else {}
        self._elsewhere(whole, section is None, present)
        return self._entries(present, self._ids(given, "allow"), self._ids(given, "deny") or ())

    def _entries(
        self, raw: Mapping[str, Any], allow: tuple[str, ...] | None, deny: tuple[str, ...]
    ) -> tuple[Entry, ...]:
        for id in deny:
            self._forget_all_but((*_ENTRIES, id))
            if id not in self.known:
                self._unknown(self.warnings, id, ("plugins", "deny"))
        for id in (id for id in allow or () if id not in raw and id not in deny):
            self._allowed_only(id, raw)
        if len(raw) > MAX_PLUGINS:
            self.report.refuse(_ENTRIES, f"has {len(raw)} entries", f"at most {MAX_PLUGINS}")
            return ()
        found = [self._entry(id, raw[id], allow) for id in raw if id not in deny]
        return tuple(entry for entry in found if entry is not None)

    def _elsewhere(self, whole: Mapping[str, Any], is_missing: bool, present: Mapping[str, Any]) -> None:
        """Something that was meant to be read here and stands where nobody reads it."""
        for path in entries_elsewhere(whole, [id for id in self.known if id not in present]):
            self.report.refuse(path, "is not read here", f"{dotted((*_ENTRIES, path[-1]))}")
        for key in like_the_section(whole) if is_missing else ():
            problem = "is not read; did you mean plugins?"
            self.report.refuse((key,), problem, "plugins, or plugins: {enabled: false} beside a key of the host's own")

    def _entry(self, id: str, value: Any, allow: tuple[str, ...] | None) -> Entry | None:
        path = (*_ENTRIES, id)
        before = len(self.report.found)
        given = self.report.mapping({} if value is None else value, path, _ENTRY_KEYS)
        if given is not None and not self._truth(given, path, "enabled", True):
            self._forget_all_but((*_ENTRIES, id), (*_ENTRIES, id, "enabled"))  # what is switched off harms nobody
            return None
        given = given or {}
        own = id == PLUGIN_ID
        place = (*path, "config")
        required = self._truth(given, path, "required", True)
        if id not in self.known:
            self._unknown(self.report if required else self.warnings, id, path)
        if allow is not None and id not in allow:
            allowed = f"{id} in plugins.allow, or enabled: false here"
            self.report.refuse(path, "is enabled, but plugins.allow leaves it out", allowed)
        unfilled = len(self.report.found)
        told = given.get("config")
        if told is not None and not own and not isinstance(told, Mapping):
            self.report.refuse(place, f"{shown(told)} is not a mapping", "a mapping")
        config = interpolated({} if told is None else told, place, self.report, self.environ)
        # Where a variable is missing, what would be said of the empty place helps nobody.
        is_filled = len(self.report.found) == unfilled
        settings = self._settings(config, place) if own and is_filled else None
        return Entry(
            id=id,
            priority=self._number(given, path, "priority", PRIORITY if own else 0, None),
            on_error=self._on_error(given, path),
            timeout_ms=self._number(given, path, "timeout_ms", DEFAULT_TIMEOUT_MS, MAX_TIMEOUT_MS),
            required=required,
            config=config if isinstance(config, Mapping) else {},
            settings=settings,
            problems=tuple(problem for _, problem in self.report.found[before:]),
        )

    def _settings(self, config: Any, place: Path) -> Settings | None:
        settings = read_settings(self.report, config, place)
        if settings is not None:
            _fits(self.report, place, settings, self.capabilities)
        return settings

    def _allowed_only(self, id: str, raw: Mapping[str, Any]) -> None:
        """An id in `allow` enables nothing: one that was meant to is a problem, a plugin that is elsewhere is not."""
        if id in self.known:
            allowed = f"{dotted((*_ENTRIES, id))}, with enabled: false if it is not wanted"
            self.report.refuse(("plugins", "allow"), f"names {id}, which has no entry", allowed)
        else:
            is_near = difflib.get_close_matches(id, [*self.known, *raw], n=1)
            self._unknown(self.report if is_near else self.warnings, id, ("plugins", "allow"))

    def _unknown(self, report: Report, id: str, place: Path) -> None:
        near = difflib.get_close_matches(id, self.known, n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        report.refuse(place, f"no plugin {shown(id)} is installed{hint}", ", ".join(self.known))

    def _forget_all_but(self, path: Path, *kept: Path) -> None:
        """Drop what was found below a place that is switched off; that it may not be switched off stays."""
        n = len(path)
        self.report.found = [
            it for it in self.report.found if it[0][:n] != path or len(it[0]) == n or it[0][: n + 1] in kept
        ]

    def _ids(self, given: Mapping[str, Any], name: str) -> tuple[str, ...] | None:
        value = given.get(name)
        if value is None:
            return None
        if not isinstance(value, list) or not all(isinstance(it, str) for it in value):
            self.report.refuse(("plugins", name), f"{shown(value)} is not a list of ids", "[clearance]")
            return None
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
    possible = "per_call" if host.model_call else "per_turn"
    if settings.enforce is not None and not host.enforces(settings.enforce):
        report.refuse((*path, "enforce"), f"{host.name} cannot enforce {settings.enforce}", possible)
    if settings.deny_style == "error" and not host.raises:
        report.refuse((*path, "deny_style"), f"{host.name} cannot raise what is refused", "completion")
    if not host.model_call and settings.run_budget is None:
        problem = f"is missing: {host.name} is asked once a turn, which must hold what the turn may spend"
        report.refuse((*path, "run_budget"), problem, 'USD such as "1.00"')
    if settings.downgrade.models and not host.overrides_model:
        report.refuse((*path, "downgrade"), f"{host.name} cannot change the model of a call", "no downgrade")
    if settings.budget_hint and not host.patches_prompt:
        report.refuse((*path, "budget_hint"), f"{host.name} cannot add to the prompt", "false")

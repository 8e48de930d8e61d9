"""From a configuration to a runner with its plugins, or with what denies in their place."""

from __future__ import annotations

import logging
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from threading import Lock
from typing import Any

from clearance.errors import InvalidRequest
from clearance.guard.process import current_pid
from clearance_hooks.capabilities import Capabilities
from clearance_hooks.denying import DenyingPlugin
from clearance_hooks.failures import place_of
from clearance_hooks.hostconfig import Entry, HostConfig, load
from clearance_hooks.plugin import PLUGIN_ID, ClearancePlugin
from clearance_hooks.registry import Registry
from clearance_hooks.runner import Runner
from clearance_hooks.settings import Settings
from clearance_hooks.specs import ENTRY_POINTS, HOOKS

log = logging.getLogger("clearance.hooks")

CONFIGURATION = "configuration"
"""The id of what denies because of the file, whichever plugin it is about."""
_FIRST = 1_000_000
"""Asked before everybody else, so that nobody does anything for what is refused."""


@dataclass(frozen=True, slots=True)
class PluginInfo:
    """What a plugin is, known without configuration and without I/O."""

    id: str
    version: str
    hooks: tuple[str, ...]


def inspect() -> PluginInfo:
    """Clearance's plugin, for hosts that list plugins or install them."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        own = version("clearance")
    except PackageNotFoundError:
        own = "0"
    return PluginInfo(PLUGIN_ID, own, tuple(name for name in HOOKS if callable(getattr(ClearancePlugin, name, None))))


def installed() -> dict[str, EntryPoint | None]:
    """The ids of the plugins that can be enabled; ours is there without an entry point."""
    found: dict[str, EntryPoint | None] = {point.name: point for point in entry_points(group=ENTRY_POINTS)}
    return {PLUGIN_ID: None, **{id: point for id, point in found.items() if id != PLUGIN_ID}}


def load_runner(path: str | Path, capabilities: Capabilities, **options: Any) -> Runner:
    """Read the file and activate what it enables. Never raises for what is wrong in it; what is broken denies.

    Args:
        options: of `activate`, and `environ` in the place of the process's own variables.
    """
    environ = options.pop("environ", None)
    return activate(load(path, capabilities, environ=environ, known=tuple(installed())), capabilities, **options)


def activate(
    config: HostConfig,
    capabilities: Capabilities,
    *,
    runner: Runner | None = None,
    authority: Any = None,
    prices: Any = None,
) -> Runner:
    """Register what the configuration enables. Doing it again, for the same runner or another, changes nothing.

    Instances with equal settings in one process are one plugin: they share what is open, and a call that two of them
    see is held once. `authority` and `prices` stand in for those of the settings.
    """
    runner = runner or Runner(capabilities=capabilities)

    def make(settings: Settings) -> ClearancePlugin:
        key = (settings.fingerprint, capabilities.id, id(authority), id(prices))
        plugin, number = _shared.get(
            key, lambda: ClearancePlugin(settings, capabilities, authority=authority, prices=prices)
        )
        _banner(plugin, capabilities, number)
        return plugin

    for warning in config.warnings:
        log.warning("%s", warning)
    found = stands_in(config, make)
    if not found and _shared.first_time(f"nothing:{config.file}"):
        log.warning("%s enables no plugin: nothing is gated in %s", config.file, capabilities.name)
    for it in found:
        _register(runner, it)
    return runner


@dataclass(frozen=True, slots=True)
class StandsIn:
    """What is registered for an entry: its plugin, or what denies in its place. None: the host goes on without it.

    `why` is there when the plugin itself cannot work.
    """

    entry: Entry
    plugin: Any
    why: str = ""


def stands_in(config: HostConfig, make: Callable[[Settings], ClearancePlugin]) -> list[StandsIn]:
    """The one rule of what becomes of a configuration, for hosts and for the doctor. Plugins of others are loaded.

    A problem anywhere may be what keeps a guard from its work: then one plugin that denies stands in for all.
    """
    problems = [*config.problems, *(it for entry in config.entries for it in entry.problems)]
    if problems:
        why = "; ".join(dict.fromkeys(str(problem) for problem in problems))
        text = f"The plugins of this host are not configured correctly, so everything is denied: {why}"
        return [StandsIn(Entry(CONFIGURATION, _FIRST), DenyingPlugin(CONFIGURATION, why, text), why)]
    return [_stands_in(entry, make) for entry in config.entries]


def _stands_in(entry: Entry, make: Callable[[Settings], ClearancePlugin]) -> StandsIn:
    if entry.settings is not None:
        return StandsIn(entry, make(entry.settings))
    plugin, why = None, ""
    try:
        point = installed().get(entry.id)
        plugin = None if point is None else _made(point, entry)
        why = f"is not installed; allowed: {', '.join(installed())}" if point is None else _misfit(plugin, entry.id)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # also an exit: a plugin must not take the host with it, nor be let pass
        why = f"cannot be loaded ({type(error).__name__}){place_of(error)}"
    if not why:
        return StandsIn(entry, plugin)
    why = f"plugins.entries.{entry.id}: {why}"
    return StandsIn(entry, DenyingPlugin(entry.id, why) if entry.required else None, why)


def _made(point: EntryPoint, entry: Entry) -> Any:
    """A plugin of somebody else: the entry point itself, or what it makes of its configuration."""
    made = point.load()
    plugin = made(entry.config) if callable(made) else made
    if isinstance(plugin, Coroutine):
        plugin.close()
    return plugin


def _misfit(plugin: Any, id: str) -> str:
    """Why this is no plugin, "" if it is one."""
    try:
        Registry().register(plugin, id=id)
    except InvalidRequest as error:
        return error.message
    return ""


def _register(runner: Runner, found: StandsIn) -> None:
    entry, plugin = found.entry, found.plugin
    if found.why and _shared.first_time(f"{entry.id}:{found.why}"):
        log.error("%s", f"{found.why}; the host goes on without it" if plugin is None else plugin.text)
    if plugin is None:
        return
    try:
        new = runner.register(
            plugin, id=entry.id, priority=entry.priority, on_error=entry.on_error, timeout_ms=entry.timeout_ms
        )
    except InvalidRequest as error:  # it does not go with what is registered already
        plugin = DenyingPlugin(entry.id, error.message)
        log.error("%s", plugin.text)
        new = runner.register(plugin, priority=_FIRST)
    if isinstance(plugin, ClearancePlugin) and new:
        plugin.bind(runner)


def _banner(plugin: ClearancePlugin, capabilities: Capabilities, number: int) -> None:
    if number > 1:
        log.debug("Clearance is armed already for these settings (instance=%d)", number)
        return
    who, budget = plugin.settings.subject.scope_path, plugin.settings.run_budget
    gates = [name for name in ("turn", "model_call", "tool") if getattr(capabilities, name)]
    limit = "" if budget is None else f", {budget} for each run"
    log.warning("Clearance is armed in %s for %s%s; it gates: %s", capabilities.name, who, limit, ", ".join(gates))


class _Shared:
    """Hosts load a plugin several times in one process: what it has open, and what it has said, is kept once."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._begin()

    def _begin(self) -> None:
        self._pid = current_pid()
        self._plugins: dict[Any, tuple[ClearancePlugin, int]] = {}
        self._said: set[str] = set()

    def get(self, key: Any, make: Callable[[], ClearancePlugin]) -> tuple[ClearancePlugin, int]:
        with self._lock:
            self._renew()
            plugin, count = self._plugins.get(key) or (make(), 0)
            self._plugins[key] = plugin, count + 1
            return plugin, count + 1

    def first_time(self, text: str) -> bool:
        with self._lock:
            self._renew()
            if text in self._said or len(self._said) > 1000:
                return False
            self._said.add(text)
            return True

    def forget(self) -> list[ClearancePlugin]:
        with self._lock:
            plugins = [plugin for plugin, _ in self._plugins.values()]
            self._begin()
            return plugins

    def _renew(self) -> None:
        if self._pid != current_pid():
            self._begin()


_shared = _Shared()


def shut_down() -> None:
    """End all runs of this process's plugins and close their authorities: for the end of a host, and for tests."""
    for plugin in _shared.forget():
        plugin.close()


def statuses(runner: Runner) -> Mapping[str, str]:
    """Plugin id -> `armed`, or why it denies."""
    found = {id: runner.registry.plugin(id) for id in runner.registry.ids}
    return {id: plugin.reason if isinstance(plugin, DenyingPlugin) else "armed" for id, plugin in found.items()}

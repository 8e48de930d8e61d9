"""From a configuration to a runner with its plugins, or with what denies in their place."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from threading import Lock
from typing import Any

from clearance.guard.process import current_pid
from clearance_hooks.capabilities import Capabilities
from clearance_hooks.denying import DenyingPlugin
from clearance_hooks.hostconfig import Entry, HostConfig, load
from clearance_hooks.plugin import PLUGIN_ID, ClearancePlugin
from clearance_hooks.runner import Runner
from clearance_hooks.specs import ENTRY_POINTS, HOOKS

log = logging.getLogger("clearance.hooks")


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
    for warning in config.warnings:
        log.warning("%s", warning)
    for entry in config.entries:
        _register(runner, entry, capabilities, authority, prices)
    return runner


def _register(runner: Runner, entry: Entry, capabilities: Capabilities, authority: Any, prices: Any) -> None:
    plugin = _plugin(entry, capabilities, authority, prices)
    if plugin is None:
        return
    new = runner.register(
        plugin, id=entry.id, priority=entry.priority, on_error=entry.on_error, timeout_ms=entry.timeout_ms
    )
    if isinstance(plugin, ClearancePlugin) and new:
        plugin.bind(runner)


def _plugin(entry: Entry, capabilities: Capabilities, authority: Any, prices: Any) -> Any:
    if entry.problems:
        return _denying(entry.id, "; ".join(str(problem) for problem in entry.problems))
    if entry.settings is not None:
        settings = entry.settings
        key = (settings.fingerprint, capabilities.id, id(authority), id(prices))
        plugin, number = _shared.get(
            key, lambda: ClearancePlugin(settings, capabilities, authority=authority, prices=prices)
        )
        _banner(plugin, capabilities, number)
        return plugin
    return _foreign(entry)


def _foreign(entry: Entry) -> Any:
    """A plugin of somebody else. `required: true` makes one that cannot be loaded deny."""
    point = installed().get(entry.id)
    try:
        if point is None:
            raise LookupError("it is not installed")
        made = point.load()
        return made(entry.config) if callable(made) else made
    except Exception as error:
        why = f"plugins.entries.{entry.id}: cannot be loaded ({type(error).__name__})"
        if entry.required:
            return _denying(entry.id, why)
        log.error("%s; the host goes on without it", why)
        return None


def _denying(id: str, reason: str) -> DenyingPlugin:
    if _shared.first_time(f"{id}:{reason}"):
        log.error("the plugin %s is enabled, but cannot work, so everything is denied: %s", id, reason)
    return DenyingPlugin(id, reason)


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

"""Which plugins there are, in which order they are asked, and how long each may take."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count
from threading import Lock
from typing import Any, Literal

import pluggy

from clearance.errors import InvalidRequest
from clearance_hooks.specs import HOOKS, PROJECT, HookSpecs, is_inline

OnError = Literal["deny", "allow"]
DEFAULT_TIMEOUT_MS = 5_000
MAX_TIMEOUT_MS = 600_000
MAX_PLUGINS = 100


@dataclass(frozen=True, slots=True)
class Impl:
    """One handler of one plugin for one hook."""

    plugin: str
    hook: str
    function: Callable[..., Any]
    argnames: tuple[str, ...]
    priority: int
    on_error: OnError
    timeout_s: float
    is_async: bool
    is_inline: bool

    def __str__(self) -> str:
        return f"{self.hook} of plugin {self.plugin!r}"


@dataclass(frozen=True, slots=True)
class _Terms:
    priority: int
    number: int
    on_error: OnError
    timeout_s: float


class Registry:
    """Plugins by id. Registering an id that is there already changes nothing, as hosts load plugins several times."""

    def __init__(self) -> None:
        self._manager = pluggy.PluginManager(PROJECT)
        self._manager.add_hookspecs(HookSpecs)
        self._terms: dict[str, _Terms] = {}
        self._impls: dict[str, tuple[Impl, ...]] = dict.fromkeys(HOOKS, ())
        self._numbers = count()
        self._lock = Lock()

    def register(
        self,
        plugin: object,
        *,
        id: str | None = None,
        priority: int = 0,
        on_error: OnError = "deny",
        timeout_ms: int = DEFAULT_TIMEOUT_MS,
    ) -> bool:
        """Add a plugin; False when its id is registered already.

        Args:
            id: by default the plugin's attribute `id`.
            priority: higher is asked first; among equals the one that was registered first. A plugin that reserves
                should be asked last, so that no other blocks after it.
            on_error: what a gate of this plugin answers when it fails: `deny`, or `allow`, which is logged and counted.
            timeout_ms: how long one of its handlers may take.

        Raises InvalidRequest for a handler of a hook that does not exist, for wrong arguments, hook wrappers and
        handlers without their mark, and for what handles no hook at all.
        """
        name = name_of(plugin, id)
        _check_terms(priority, on_error, timeout_ms)
        with self._lock:
            if name in self._terms:
                return False
            if len(self._terms) >= MAX_PLUGINS:
                raise InvalidRequest("plugins", "are too many", f"at most {MAX_PLUGINS}")
            self._add(plugin, name)
            self._terms[name] = _Terms(priority, next(self._numbers), on_error, timeout_ms / 1000)
            self._impls = {hook: self._ordered(hook) for hook in HOOKS}
        return True

    def unregister(self, id: str) -> bool:
        with self._lock:
            if id not in self._terms:
                return False
            self._manager.unregister(name=id)
            del self._terms[id]
            self._impls = {hook: self._ordered(hook) for hook in HOOKS}
        return True

    @property
    def ids(self) -> tuple[str, ...]:
        return tuple(self._terms)

    def plugin(self, id: str) -> Any:
        return self._manager.get_plugin(id)

    def impls(self, hook: str) -> tuple[Impl, ...]:
        """Those that are asked, in this order."""
        return self._impls[hook]

    def _add(self, plugin: object, name: str) -> None:
        if plugin is None:
            raise _no_plugin(plugin, name)
        if any(self._manager.get_plugin(known) is plugin for known in self._terms):
            raise InvalidRequest(f"plugin {name!r}", "is registered already, with another id", "one id for each")
        try:
            self._manager.register(plugin, name)
            self._manager.check_pending()
            self._check(plugin, name)
        except BaseException as error:
            if self._manager.get_plugin(name) is not None:
                self._manager.unregister(name=name)
            if not isinstance(error, pluggy.PluginValidationError):
                raise
            raise InvalidRequest(f"plugin {name!r}", _what(error), "see clearance_hooks.specs.HookSpecs") from None

    def _check(self, plugin: object, name: str) -> None:
        if wrapped := _wrappers(self._manager, plugin):
            raise InvalidRequest(f"plugin {name!r}", f"has a hook wrapper for {wrapped}", "plain handlers")
        marked = {caller.name for caller in self._manager.get_hookcallers(plugin) or ()}
        for hook in HOOKS:
            if hook not in marked and callable(getattr(plugin, hook, None)):
                raise InvalidRequest(f"plugin {name!r}", f"has a {hook} that is not marked", f"@hookimpl above {hook}")
        if not marked:
            raise _no_plugin(plugin, name)

    def _ordered(self, hook: str) -> tuple[Impl, ...]:
        found = [impl for impl in getattr(self._manager.hook, hook).get_hookimpls() if impl.plugin_name in self._terms]
        found.sort(key=self._place)
        return tuple(self._impl(hook, impl) for impl in found)

    def _place(self, impl: pluggy.HookImpl) -> tuple[int, int, int]:
        terms = self._terms[impl.plugin_name]
        return -terms.priority, impl.trylast - impl.tryfirst, terms.number

    def _impl(self, hook: str, impl: pluggy.HookImpl) -> Impl:
        terms = self._terms[impl.plugin_name]
        return Impl(
            plugin=impl.plugin_name,
            hook=hook,
            function=impl.function,
            argnames=tuple(impl.argnames),
            priority=terms.priority,
            on_error=terms.on_error,
            timeout_s=terms.timeout_s,
            is_async=inspect.iscoroutinefunction(impl.function),
            is_inline=is_inline(impl.function),
        )


def name_of(plugin: object, id: str | None) -> str:
    return id or getattr(plugin, "id", None) or type(plugin).__name__


def _wrappers(manager: pluggy.PluginManager, plugin: object) -> str:
    """A wrapper could turn a Block into something else."""
    callers = manager.get_hookcallers(plugin) or []
    impls = [impl for caller in callers for impl in caller.get_hookimpls() if impl.plugin is plugin]
    return ", ".join(sorted(impl.function.__name__ for impl in impls if impl.wrapper or impl.hookwrapper))


def _no_plugin(plugin: object, name: str) -> InvalidRequest:
    problem = f"is a {type(plugin).__name__} that handles no hook"
    return InvalidRequest(f"plugin {name!r}", problem, "an object with handlers marked @hookimpl")


def _what(error: pluggy.PluginValidationError) -> str:
    text = " ".join(str(error).split())
    unknown = text.partition("unknown hook '")[2].partition("'")[0]
    near = difflib.get_close_matches(unknown, HOOKS, n=1) if unknown else []
    if unknown:
        return f"has a handler for {unknown}, which is no hook" + (f"; did you mean {near[0]}?" if near else "")
    return text


def _check_terms(priority: object, on_error: object, timeout_ms: object) -> None:
    if isinstance(priority, bool) or not isinstance(priority, int):
        raise InvalidRequest("priority", f"{priority!r} is refused", "a whole number")
    if on_error not in ("deny", "allow"):
        raise InvalidRequest("on_error", f"{on_error!r} is unknown", "deny, allow")
    if isinstance(timeout_ms, bool) or not isinstance(timeout_ms, int) or not 1 <= timeout_ms <= MAX_TIMEOUT_MS:
        raise InvalidRequest("timeout_ms", f"{timeout_ms!r} is refused", f"1 to {MAX_TIMEOUT_MS}")

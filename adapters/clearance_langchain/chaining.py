"""What LangChain builds out of a guarded object stays governed: fallbacks, alternatives, fields that are configured."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache, wraps
from typing import Any

from langchain_core.runnables import Runnable, RunnableConfig, RunnableSequence, RunnableWithFallbacks
from langchain_core.runnables.base import RunnableBindingBase
from langchain_core.runnables.configurable import RunnableConfigurableFields

Hook = Callable[..., Any]
Guarding = Callable[[Any, Any], Any]
"""`(part, like) -> part`, guarded like the guarded object `like`, as far as it can be."""

_KEPT = "_clearance_kept"
_BUILDERS = ("bind", "bind_tools", "with_config", "with_retry", "with_types", "with_listeners", "with_alisteners")


def chaining_hooks(base: type[Runnable[Any, Any]], guarding: Guarding) -> dict[str, Any]:
    """Of a guarded subclass of `base`, or of a binding of one."""
    hooks = {name: _building(getattr(base, name), guarding) for name in _BUILDERS if name in dir(base)}
    hooks["with_fallbacks"] = _with_fallbacks(base.with_fallbacks, guarding)
    if hasattr(base, "configurable_alternatives"):
        hooks["configurable_alternatives"] = _alternatives(base.configurable_alternatives, guarding)
    return hooks


def core_of(obj: Any) -> Any:
    """The guarded object inside bindings and fallbacks."""
    while isinstance(obj, RunnableBindingBase | RunnableWithFallbacks):
        obj = obj.bound if isinstance(obj, RunnableBindingBase) else obj.runnable
    return obj


def kept_guarded(obj: Any, guarding: Guarding) -> Any:
    """A binding or fallbacks of a guarded object, from which nothing ungoverned can be built either."""
    if isinstance(obj, RunnableBindingBase | RunnableWithFallbacks):
        object.__setattr__(obj, "__class__", _chain_class(type(obj), guarding))
    return obj


def parts_guarded(obj: Any, guarded: Callable[[Any], Any]) -> Any:
    """A chain of which each part went through `guarded`; other things as they are."""
    if isinstance(obj, RunnableSequence):
        first, *middle, last = (guarded(step) for step in obj.steps)
        return obj.model_copy(update={"first": first, "middle": middle, "last": last})
    if isinstance(obj, RunnableWithFallbacks):
        fallbacks = [guarded(fallback) for fallback in obj.fallbacks]
        return obj.model_copy(update={"runnable": guarded(obj.runnable), "fallbacks": fallbacks})
    if isinstance(obj, RunnableBindingBase):
        return obj.model_copy(update={"bound": guarded(obj.bound)})
    return obj


def configurable_fields(hook: Hook, guarding: Guarding) -> Hook:
    @wraps(hook)
    def configurable_fields(self: Any, **kwargs: Any) -> Any:
        plain = hook(self, **kwargs)
        return _fields_class(guarding)(default=plain.default, fields=plain.fields)

    return configurable_fields


@cache
def _fields_class(guarding: Guarding) -> type[Any]:
    base: Any = RunnableConfigurableFields

    class ConfigurableFields(base):  # type: ignore[misc]
        """LangChain makes a new object for each call; it becomes guarded like the one that it is made of."""

        def _prepare(self, config: RunnableConfig | None = None) -> tuple[Runnable[Any, Any], RunnableConfig]:
            made, config = super()._prepare(config)
            return (made if made is self.default else guarding(made, self.default)), config

    return ConfigurableFields


def _building(hook: Hook, guarding: Guarding) -> Hook:
    @wraps(hook)
    def build(self: Any, *args: Any, **kwargs: Any) -> Any:
        return kept_guarded(hook(self, *args, **kwargs), guarding)

    return build


@cache
def _chain_class(base: type[Any], guarding: Guarding) -> type[Any]:
    if getattr(base, _KEPT, False):
        return base
    hooks = chaining_hooks(base, guarding)
    body = {"__module__": base.__module__, "__qualname__": base.__qualname__, "__doc__": base.__doc__, **hooks}
    metaclass: Any = type(base)
    made: type[Any] = metaclass(base.__name__, (base,), body)
    setattr(made, _KEPT, True)  # in the body pydantic would take it for a private attribute
    return made


def _with_fallbacks(hook: Hook, guarding: Guarding) -> Hook:
    @wraps(hook)
    def with_fallbacks(self: Any, fallbacks: Sequence[Any], **kwargs: Any) -> Any:
        core = core_of(self)
        return kept_guarded(hook(self, [guarding(fallback, core) for fallback in fallbacks], **kwargs), guarding)

    return with_fallbacks


def _alternatives(hook: Hook, guarding: Guarding) -> Hook:
    @wraps(hook)
    def configurable_alternatives(self: Any, which: Any, **kwargs: Any) -> Any:
        core = core_of(self)
        settings = {name: kwargs.pop(name) for name in ("default_key", "prefix_keys") if name in kwargs}
        return hook(self, which, **settings, **{name: alternative(kwargs[name], core) for name in kwargs})

    def alternative(given: Any, core: Any) -> Any:
        return guarding(given, core) if isinstance(given, Runnable) else lambda: guarding(given(), core)

    return configurable_alternatives

"""Caps on the wire: what a model call may carry when the authority allowed it with limits."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

from langchain_core.language_models import BaseChatModel

from clearance.model.caps import Caps
from clearance_langchain.usage import OUTPUT_CAPS

_TOOL_SETTINGS = ("tools", "functions", "tool_choice", "function_call", "parallel_tool_calls")


def capped(model: BaseChatModel, caps: Caps | None, kwargs: dict[str, Any], requested: int | None) -> dict[str, Any]:
    """The keyword arguments of a provider hook, kept within the caps.

    Args:
        requested: the most tokens that the request would have asked for, None without a limit. Where `cap_name` knows
            none it is within the cap already: the gate has denied all others.
    """
    if caps is None:
        return kwargs
    if caps.max_tokens is not None:
        most = caps.max_tokens if requested is None else min(caps.max_tokens, requested)
        kwargs = _with_cap(model, kwargs, most)
    if caps.tool_allowlist or caps.tool_denylist:
        kwargs = _with_tools(kwargs, caps)
    return kwargs


def is_openai(model: BaseChatModel) -> bool:
    """By the name of the class, so that langchain-openai need not be installed."""
    return _is_openai(type(model))


@cache
def _is_openai(kind: type[BaseChatModel]) -> bool:
    return any(base.__name__ == "BaseChatOpenAI" for base in kind.__mro__)


def _with_cap(model: BaseChatModel, kwargs: dict[str, Any], most: int) -> dict[str, Any]:
    """One name for the cap, the one that the class puts on the wire; every other name is taken out."""
    name = cap_name(model)
    if name is None:
        return kwargs
    rest = {key: value for key, value in kwargs.items() if key not in OUTPUT_CAPS}
    extra = kwargs.get("extra_body", getattr(model, "extra_body", None))
    if isinstance(extra, Mapping) and any(key in extra for key in OUTPUT_CAPS):
        # It is merged into the request last, and would undo the cap.
        rest["extra_body"] = {key: value for key, value in extra.items() if key not in OUTPUT_CAPS}
    return {**rest, name: most}


def cap_name(model: BaseChatModel) -> str | None:
    """Under which name the class takes the most tokens to generate, None where it takes none that we know."""
    return _cap_name(type(model))


@cache
def _cap_name(kind: type[BaseChatModel]) -> str | None:
    if _is_openai(kind):
        return "max_completion_tokens"  # for both of its APIs; `max_tokens` yields to the constructor in one of them
    return next((name for name in OUTPUT_CAPS[1:] if name in kind.model_fields), None)


def _with_tools(kwargs: dict[str, Any], caps: Caps) -> dict[str, Any]:
    """Tools that are not allowed are not shown to the model; calling them all the same is denied by their own gate."""
    offered = [*(kwargs.get("tools") or ()), *(kwargs.get("functions") or ())]
    hidden = {name for tool in offered if (name := _tool_name(tool)) and not caps.allows_tool(name)}
    if not hidden:
        return kwargs
    kept = dict(kwargs)
    for key in ("tools", "functions"):
        if kept.get(key):
            kept[key] = [tool for tool in kept[key] if _tool_name(tool) not in hidden]
    if not kept.get("tools") and not kept.get("functions"):
        return {key: value for key, value in kept.items() if key not in _TOOL_SETTINGS}
    if _tool_name(kept.get("tool_choice")) in hidden:
        del kept["tool_choice"]
    return kept


def _tool_name(tool: Any) -> str | None:
    """The name of a tool in any of the shapes that go over the wire; a provider's own tool is named by its type."""
    if isinstance(tool, str):
        return tool
    if not isinstance(tool, Mapping):
        return getattr(tool, "name", None)
    function = tool.get("function")
    named = function.get("name") if isinstance(function, Mapping) else None
    found = named or tool.get("name") or tool.get("type")
    return found if isinstance(found, str) else None

"""What OpenClaw says, read with care: a value of the wrong kind counts as not said."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from clearance.errors import InvalidRequest
from clearance.pricing import Usage
from clearance_hooks.events import HookContext, ToolOutcome

HOST = "openclaw"
MAX_TEXT = 256
MAX_COUNT = 2**53
"""JavaScript knows no larger whole number."""


def text(facts: Mapping[str, Any], name: str) -> str | None:
    value = facts.get(name)
    return value[:MAX_TEXT] if isinstance(value, str) and value.strip() else None


def count(facts: Mapping[str, Any], name: str) -> int | None:
    value = facts.get(name)
    if not isinstance(value, int) or isinstance(value, bool):
        return None
    return value if 0 <= value <= MAX_COUNT else None


def mapping(facts: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = facts.get(name)
    return value if isinstance(value, Mapping) else {}


def names(facts: Mapping[str, Any], name: str) -> tuple[str, ...]:
    value = facts.get(name)
    return tuple(it for it in value if isinstance(it, str)) if isinstance(value, list) else ()


def run_id(event: Mapping[str, Any], ctx: Mapping[str, Any]) -> str:
    """Raises InvalidRequest: what belongs to no run cannot be admitted."""
    found = text(ctx, "runId") or text(event, "runId")
    if found is None:
        raise InvalidRequest("runId", "is missing, so nobody knows which run this belongs to", "the id of a run")
    return found


def context(
    event: Mapping[str, Any], ctx: Mapping[str, Any], attempt: int, parent: str | None, deadline: float | None
) -> HookContext:
    return HookContext(
        run_id=run_id(event, ctx),
        attempt=attempt,
        host=HOST,
        session_key=text(ctx, "sessionKey"),
        agent_id=text(ctx, "agentId"),
        parent_run_id=parent,
        requester=text(ctx, "senderId"),
        trace=text(mapping(ctx, "trace"), "traceId"),
        deadline=deadline,
    )


def model(event: Mapping[str, Any], ctx: Mapping[str, Any]) -> tuple[str | None, str | None]:
    """Model and provider: what the host is about to use, else what the event says, else what is configured."""
    for facts, name, provider in ((ctx, "modelId", "modelProviderId"), (event, "model", "provider")):
        found = text(facts, name)
        if found is not None:
            return found, text(facts, provider)
    default = text(ctx, "defaultModel")
    if default is None:
        return None, None
    provider_id, slash, name = default.partition("/")
    return (name, provider_id) if slash else (default, None)


def usage(event: Mapping[str, Any]) -> Usage | None:
    """None where nothing was told. OpenClaw counts what the provider cached beside the input, not inside."""
    told = mapping(event, "usage")
    read, written = count(told, "cacheRead") or 0, count(told, "cacheWrite") or 0
    found = Usage(
        input_tokens=(count(told, "input") or 0) + read + written,
        cached_input_tokens=read,
        cache_write_tokens=written,
        output_tokens=count(told, "output") or 0,
    )
    # What only the total knows is output, the dearer kind.
    hidden = (count(told, "total") or 0) - found.input_tokens - found.output_tokens
    if hidden > 0:
        found = Usage(found.input_tokens, read, written, found.output_tokens + hidden)
    return found if found.input_tokens or found.output_tokens else None


def tool_outcome(event: Mapping[str, Any]) -> ToolOutcome:
    """The event comes for calls that were not made as well."""
    status = text(event, "status")
    if status == "blocked":
        return "blocked"
    if status in ("denied", "cancelled", "timeout") and event.get("unapproved") is True:
        return "denied"
    return "error" if event.get("failed") is True else "ok"

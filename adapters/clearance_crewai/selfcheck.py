"""Is this the CrewAI that the adapter was written for? Asked at import: an unknown one is refused, never ungated."""

from __future__ import annotations

import importlib
from contextvars import copy_context
from importlib.metadata import PackageNotFoundError, version
from types import SimpleNamespace
from typing import Any

SUPPORTED = "crewai>=1.15.30,<1.16"

_SEAMS = {
    "chromadb.api.models.CollectionCommon": "CollectionCommon._embed",
    "crewai.events.base_events": "BaseEvent",
    "crewai.events.event_bus": "crewai_event_bus",
    "crewai.events.stream_context": "add_stream_sink reset_stream_sinks",
    "crewai.events.types.llm_events": (
        "LLMCallCompletedEvent LLMCallFailedEvent LLMCallStartedEvent LLMStreamChunkEvent"
    ),
    "crewai.events.types.task_events": "TaskCompletedEvent TaskStartedEvent",
    "crewai.events.types.tool_usage_events": "ToolUsageErrorEvent ToolUsageFinishedEvent ToolUsageStartedEvent",
    "crewai.agents.agent_executor": ("AgentExecutor._execute_single_native_tool_call execute_tool_and_check_finality"),
    "crewai.agents.step_executor": "execute_single_native_tool_call execute_tool_and_check_finality",
    "crewai.hooks.dispatch": (
        "HookAborted InterceptionPoint _resolve_hooks dispatch get_scoped_hooks register_scoped scoped_hooks"
    ),
    "crewai.hooks.llm_hooks": "before_llm_call_reducer",
    "crewai.lite_agent": "execute_tool_and_check_finality",
    "crewai.hooks.tool_hooks": "ToolCallHookContext run_before_tool_call_hooks run_after_tool_call_hooks",
    "crewai.llm": "LLM._prepare_completion_params LLM._handle_tool_call",
    "crewai.llms.base_llm": (
        "BaseLLM._track_token_usage_internal BaseLLM._emit_call_started_event BaseLLM._handle_tool_execution "
        "LLMCallBlockedError _current_call_id"
    ),
    "crewai.llms.providers.openai.completion": (
        "OpenAICompletion._prepare_completion_params OpenAICompletion._prepare_responses_params "
        "OpenAICompletion._get_sync_client OpenAICompletion._get_async_client"
    ),
    "crewai.memory.encoding_flow": "embed_texts",
    "crewai.memory.recall_flow": "embed_texts",
    "crewai.memory.unified_memory": "embed_text",
    "crewai.project.wrappers": "DecoratedMethod.unwrap TaskMethod.unwrap",
    "crewai.tools.base_tool": "BaseTool._claim_usage BaseTool.arun BaseTool.run Tool",
    "crewai.tools.structured_tool": (
        "CrewStructuredTool._increment_usage_count CrewStructuredTool.ainvoke CrewStructuredTool.invoke"
    ),
    "crewai.types.streaming": "StreamSessionBase.__init__ StreamingOutputBase.__init__",
    "crewai.types.usage_metrics": "UsageMetrics.from_provider_dict",
    "crewai.utilities.agent_utils": "is_inside_event_loop",
    "crewai.utilities.internal_instructor": "InternalInstructor.to_pydantic",
}
"""What the gate hangs on, by module. All of it is private to CrewAI, or as good as."""


class UnsupportedCrewAI(ImportError):
    """This CrewAI lacks what the adapter needs to stop calls before they happen."""


def check() -> None:
    """Raises UnsupportedCrewAI, which names the first thing that is missing or does not work."""
    problem = _missing() or _not_stopping()
    if problem:
        raise UnsupportedCrewAI(
            f"clearance_crewai cannot govern crewai {_version()}: {problem}. Crews would run ungated, so it refuses; "
            f"install '{SUPPORTED}'"
        )


def _version() -> str:
    try:
        return version("crewai")
    except PackageNotFoundError:
        return "(not installed)"


def _missing() -> str | None:
    for module, names in _SEAMS.items():
        try:
            holder = importlib.import_module(module)
        except ImportError as error:
            return f"it has no module {module} ({error})"
        for name in names.split():
            if not _has(holder, name):
                return f"{module} has no {name}"
    return None


def _has(holder: Any, name: str) -> bool:
    for part in name.split("."):
        holder = getattr(holder, part, None)
    return holder is not None


def _not_stopping() -> str | None:
    """Stop an event and three hooks for real; in a context of its own, so that nothing is left behind."""
    return copy_context().run(lambda: _events_go_on() or _hooks_go_on())


def _events_go_on() -> str | None:
    from crewai.events.base_events import BaseEvent
    from crewai.events.event_bus import crewai_event_bus
    from crewai.events.stream_context import add_stream_sink
    from crewai.hooks.dispatch import HookAborted

    def refuse(source: Any, event: Any) -> None:
        raise HookAborted("self-check")

    add_stream_sink(refuse)
    try:
        crewai_event_bus.emit(check, BaseEvent(type="clearance_self_check"))
    except HookAborted:
        return None
    return "an error in an event sink does not stop what emits the event"


def _hooks_go_on() -> str | None:
    from crewai.hooks.dispatch import HookAborted, InterceptionPoint, dispatch, scoped_hooks
    from crewai.hooks.tool_hooks import ToolCallHookContext, run_after_tool_call_hooks, run_before_tool_call_hooks

    def refuse(context: Any) -> None:
        raise HookAborted("self-check")

    points = InterceptionPoint.PRE_MODEL_CALL, InterceptionPoint.PRE_TOOL_CALL, InterceptionPoint.POST_TOOL_CALL
    tool: Any = None
    with scoped_hooks({point: [refuse] for point in points}):
        if not run_before_tool_call_hooks(ToolCallHookContext("self-check", {}, tool)):
            return "a hook cannot stop a tool"
        for act in (
            lambda: dispatch(InterceptionPoint.PRE_MODEL_CALL, SimpleNamespace()),
            lambda: run_after_tool_call_hooks(ToolCallHookContext("self-check", {}, tool)),
        ):
            try:
                act()
            except HookAborted:
                continue
            return "HookAborted does not leave a hook"
    return None

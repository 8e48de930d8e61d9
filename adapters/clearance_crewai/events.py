"""The sink: CrewAI's own events, seen before they go anywhere, on the thread that acts. An error here stops the act."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from types import FunctionType
from typing import Any

from crewai.events.types.llm_events import (
    LLMCallCompletedEvent,
    LLMCallFailedEvent,
    LLMCallStartedEvent,
    LLMStreamChunkEvent,
)
from crewai.events.types.task_events import TaskCompletedEvent, TaskStartedEvent
from crewai.events.types.tool_usage_events import ToolUsageErrorEvent, ToolUsageFinishedEvent, ToolUsageStartedEvent
from crewai.hooks.dispatch import get_scoped_hooks, register_scoped
from crewai.llms.base_llm import BaseLLM
from crewai.tools.base_tool import BaseTool
from crewai.tools.structured_tool import CrewStructuredTool

from clearance.errors import ClearanceError
from clearance_crewai.crewrun import CrewRun, current_crew_run
from clearance_crewai.errors import Refusal, refusing
from clearance_crewai.hooks import HOOKS
from clearance_crewai.llms import can_cap, can_swap, guarded_call
from clearance_crewai.modelcalls import EndUnknown
from clearance_crewai.usage import asked

log = logging.getLogger("clearance.crewai")


def sink(source: Any, event: Any) -> None:
    """One for all runs: which one is meant, the context says."""
    handler = _HANDLERS.get(type(event))
    run = current_crew_run()
    if handler is None or run is None:
        return
    refused = handler(run, source, event)
    if refused is not None:
        refusal, why = refusing(refused)
        raise refusal from why


def _model_started(run: CrewRun, llm: Any, event: LLMCallStartedEvent) -> ClearanceError | None:
    _keep_hooks()
    run.claims.add(llm)
    if guarded_call(llm, event.call_id):
        return None  # `guard_llm` has reserved it already
    wanted = asked(llm, event.messages, event.tools, settings=event, schema=run.schema_of(event.task_id))
    who = run.who(event.agent_role, event.task_id)
    functions = event.available_functions
    return run.models.begin(
        event.call_id, wanted, who, can_cap=can_cap(llm), can_swap=can_swap(llm), functions=functions
    )


def _is_plumbing(body: Any) -> bool:
    """A function of CrewAI's own, by which a planning agent is made to answer in form: nobody's tool."""
    return isinstance(body, FunctionType) and body.__module__.partition(".")[0] == "crewai"


def _model_streams(run: CrewRun, llm: Any, event: LLMStreamChunkEvent) -> ClearanceError | None:
    """A stopped stream ends at its next token."""
    opened = run.models.get(event.call_id)
    if opened is None or opened.permit.stopped is None:
        return None
    try:
        opened.permit.check()
    except ClearanceError as error:
        run.deny(error)
        return error
    return None


def _model_completed(run: CrewRun, llm: Any, event: LLMCallCompletedEvent) -> None:
    run.models.note(event.call_id, event.usage)
    run.models.end(event.call_id)


def _model_failed(run: CrewRun, llm: Any, event: LLMCallFailedEvent) -> None:
    opened = run.models.get(event.call_id)
    if opened is None:
        return
    if opened.body_failed or event.error.startswith("Tool execution error"):
        # The model has answered, a function that it called has failed: CrewAI goes on with the answer.
        opened.body_failed = False
        return
    run.models.end(event.call_id, sys.exc_info()[1] or EndUnknown())


def _tool_started(run: CrewRun, source: Any, event: ToolUsageStartedEvent) -> ClearanceError | None:
    """`LLM.call(available_functions=...)` runs functions without any hook; agents' tools have theirs."""
    _keep_hooks()
    if not _is_function(run, source, event):
        return None
    who = run.who(event.agent_role, event.task_id)
    tool = _tool_of(run.models.function(event.tool_name))
    admitted = run.tools.begin(event.tool_args, event.tool_name, event.tool_args, tool, who)
    if admitted.denied is None:
        admitted.silent = True
        return None
    run.tools.refused_function(admitted)
    return admitted.denied


def _tool_of(function: Any) -> Any:
    """The tool of `available_functions={"search": tool.run}`."""
    found = getattr(function, "__self__", None)
    return found if isinstance(found, BaseTool | CrewStructuredTool) else None


def _is_function(run: CrewRun, source: Any, event: ToolUsageStartedEvent | ToolUsageFinishedEvent) -> bool:
    return isinstance(source, BaseLLM) and not _is_plumbing(run.models.function(event.tool_name))


def _tool_finished(run: CrewRun, source: Any, event: ToolUsageFinishedEvent) -> None:
    if _is_function(run, source, event):
        run.tools.end_current()


def _tool_failed(run: CrewRun, source: Any, event: ToolUsageErrorEvent) -> None:
    error = event.error if isinstance(event.error, BaseException) else sys.exc_info()[1]
    if not isinstance(error, Refusal):
        run.tools.failed(error)
    if isinstance(source, BaseLLM):
        if not _is_plumbing(run.models.function(event.tool_name)):
            run.tools.end_current()
        run.models.body_failed()


def _task_started(run: CrewRun, task: Any, event: TaskStartedEvent) -> None:
    run.known_task(event.task or task)


def _task_completed(run: CrewRun, task: Any, event: TaskCompletedEvent) -> None:
    run.completed(event.output)


def _keep_hooks() -> None:
    """`scoped_hooks()` of somebody else inside a run replaces ours: put them back before CrewAI asks them."""
    for point, hooks in HOOKS.items():
        known = get_scoped_hooks(point)
        for hook in hooks:
            if hook not in known:
                register_scoped(point, hook)


_HANDLERS: dict[type, Callable[[CrewRun, Any, Any], ClearanceError | None]] = {
    LLMCallStartedEvent: _model_started,
    LLMStreamChunkEvent: _model_streams,
    LLMCallCompletedEvent: _model_completed,
    LLMCallFailedEvent: _model_failed,
    ToolUsageStartedEvent: _tool_started,
    ToolUsageFinishedEvent: _tool_finished,
    ToolUsageErrorEvent: _tool_failed,
    TaskStartedEvent: _task_started,
    TaskCompletedEvent: _task_completed,
}

"""CrewAI's hooks: where a tool is refused so that its agent is told why, and where models without events are met.

A hook may only fail with HookAborted: CrewAI swallows every other error, and makes the call.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from crewai.hooks.dispatch import InterceptionPoint
from crewai.tools.base_tool import BaseTool

from clearance.errors import AuthorityUnavailable, ClearanceError
from clearance_crewai.errors import refusing
from clearance_crewai.gate import Who
from clearance_crewai.llms import before_call, is_crewais
from clearance_crewai.toolcalls import Admission, watch_body

log = logging.getLogger("clearance.crewai")

_INPUT = "_clearance_input"


def before_model(context: Any) -> None:
    from clearance_crewai.crewrun import current_crew_run

    run = current_crew_run()
    if run is None:
        return
    refused = run.refusal() or _fault(lambda: before_call(run, context), "a model call")
    if refused is not None:
        refusal, why = refusing(refused)
        raise refusal from why


def before_tool(context: Any) -> None:
    from clearance_crewai.crewrun import current_crew_run

    run = current_crew_run()
    if run is None:
        return
    refused = _fault(lambda: _admit(run, context), "a tool call")
    if refused is not None:
        refusal, why = refusing(refused)
        raise refusal from why


def after_tool(context: Any) -> str | None:
    """The text that the agent gets in place of a refused tool's result; a refusal of the run is raised here."""
    from clearance_crewai.crewrun import current_crew_run

    run = current_crew_run()
    if run is None:
        return None
    admitted: Admission | None = run.tools.end(given_input(context))
    if admitted is None or admitted.denied is None:
        return None
    if admitted.ends:
        refusal, why = refusing(admitted.denied)
        raise refusal from why
    return admitted.words


def _admit(run: Any, context: Any) -> ClearanceError | None:
    original = getattr(context.tool, "_original_tool", None)
    role, task = getattr(context.agent, "role", None), getattr(context.task, "id", None)
    who: Who = run.who(role, None if task is None else str(task))
    tool = context.tool if original is None else original
    arguments = given_input(context)
    admitted: Admission = run.tools.begin(arguments, context.tool_name, arguments, tool, who)
    if admitted.denied is None:
        admitted.silent = isinstance(tool, BaseTool) and not is_crewais(type(tool), "run")
        watch_body(context.tool, admitted)
    return admitted.denied


def remembering_input(original: Callable[..., Any]) -> Callable[..., Any]:
    """`ToolCallHookContext.__init__`: a hook may assign another `tool_input`, which the tool does not get."""

    def __init__(self: Any, *args: Any, **kwargs: Any) -> None:
        original(self, *args, **kwargs)
        setattr(self, _INPUT, self.tool_input)

    return __init__


def given_input(context: Any) -> Any:
    """The arguments that the tool is called with: one object before and after the call, by which it is known."""
    return getattr(context, _INPUT, context.tool_input)


def with_ours(original: Callable[[InterceptionPoint], list[Any]]) -> Callable[[InterceptionPoint], list[Any]]:
    """CrewAI's look-ups of hooks: `scoped_hooks()` of somebody else inside a run replaces ours."""

    def hooks_of(point: InterceptionPoint) -> list[Any]:
        from clearance_crewai.crewrun import current_crew_run

        found = original(point)
        if current_crew_run() is None:
            return found
        missing = [hook for hook in HOOKS.get(point, ()) if hook not in found]
        return [*found, *missing] if missing else found

    return hooks_of


def _fault(ask: Any, what: str) -> ClearanceError | None:
    """The refusal that `ask` answers, or one that stands for a fault of ours."""
    try:
        refused: ClearanceError | None = ask()
        return refused
    except Exception as error:
        log.exception("%s could not be judged", what)
        return AuthorityUnavailable(f"{what} could not be judged ({type(error).__name__}); see the log")


HOOKS: dict[InterceptionPoint, list[Callable[[Any], Any]]] = {
    InterceptionPoint.PRE_MODEL_CALL: [before_model],
    InterceptionPoint.PRE_TOOL_CALL: [before_tool],
    InterceptionPoint.POST_TOOL_CALL: [after_tool],
}

"""Tools that a run's own code calls: a step of a flow, a guardrail, a callback, the body of another tool.

There is no agent to tell, so a refusal is raised. What an agent calls ends in the same methods, and is let in before.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from clearance_crewai.claims import refuse_strayed
from clearance_crewai.toolcalls import body_begins, is_admitted

Method = Callable[..., Any]
Given = Callable[[Any, tuple[Any, ...], dict[str, Any]], Any]


def running(original: Method) -> Method:
    """`run` and `arun` of a `BaseTool`."""
    return _gated(original, _of_body)


def invoking(original: Method) -> Method:
    """`invoke` and `ainvoke` of a `CrewStructuredTool`."""
    return _gated(original, _of_input)


def claiming(original: Method) -> Method:
    """`BaseTool._claim_usage`, the last thing that a tool does before its body.

    A `run` that was taken from its tool before the first run has begun comes here alone, without its arguments.
    """

    def claim(self: Any) -> Any:
        with _let_in(self, lambda: None):
            spent = original(self)
            if spent is None:
                body_begins(self)
        return spent

    return claim


def counting(original: Method) -> Method:
    """`CrewStructuredTool._increment_usage_count`, the last thing before its body."""

    def increment(self: Any) -> None:
        original(self)
        body_begins(self)

    return increment


def _gated(original: Method, given: Given) -> Method:
    if inspect.iscoroutinefunction(original):

        async def acall(self: Any, *args: Any, **kwargs: Any) -> Any:
            with _let_in(self, lambda: given(self, args, kwargs)):
                return await original(self, *args, **kwargs)

        return acall

    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        with _let_in(self, lambda: given(self, args, kwargs)):
            return original(self, *args, **kwargs)

    return call


@contextmanager
def _let_in(tool: Any, given: Callable[[], Any]) -> Iterator[None]:
    """Raises the typed denial, or OutsideRun in a thread that a run has started and that is not in it."""
    run = _run()
    if run is None:
        refuse_strayed(f"tool {tool.name}")
    if run is None or is_admitted(tool):
        yield
        return
    with run.tools.calling(tool, given()):
        yield


def _of_body(tool: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    """By name, as an agent would give them."""
    if not args:
        return kwargs
    try:
        return dict(inspect.signature(getattr(tool, "func", tool._run)).bind(*args, **kwargs).arguments)
    except (TypeError, ValueError):  # they do not fit, or it is written in C
        return {"args": args, **kwargs}


def _of_input(tool: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    named = {name: value for name, value in kwargs.items() if name not in ("input", "config")}
    given = args[0] if args else kwargs.get("input")
    return {**(given if isinstance(given, Mapping) else {"input": given}), **named}


def _run() -> Any:
    from clearance_crewai.crewrun import current_crew_run

    return current_crew_run()

"""Tools that guard themselves: reserve, run, settle around the tool's own `run` and `arun`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import wraps
from typing import Any

from langchain_core.tools import BaseTool

from clearance.guard import Permit
from clearance.guard.outcome import Release
from clearance_langchain.errors import fitting
from clearance_langchain.gate import Call
from clearance_langchain.models import gate_of

Hook = Callable[..., Any]


def guarding_hooks(base: type[BaseTool]) -> dict[str, Any]:
    """`run` and `arun` of a guarded subclass of `base`. A sync tool under `ainvoke` goes through `run`."""
    return {"run": wraps(base.run)(_run(base.run)), "arun": wraps(base.arun)(_arun(base.arun))}


def _run(hook: Hook) -> Hook:
    def run(self: BaseTool, tool_input: Any, *args: Any, **kwargs: Any) -> Any:
        with fitting():
            call = _call(self, tool_input, kwargs)
            with gate_of(self).open(call, tool_call_id=kwargs.get("tool_call_id")) as permit:
                try:
                    return hook(self, tool_input, *args, **kwargs)
                except BaseException as error:
                    if (free := _free(self, permit, call, error)) is not None:
                        permit.finish(free)
                    raise

    return run


def _arun(hook: Hook) -> Hook:
    async def arun(self: BaseTool, tool_input: Any, *args: Any, **kwargs: Any) -> Any:
        with fitting():
            call = _call(self, tool_input, kwargs)
            async with await gate_of(self).aopen(call, tool_call_id=kwargs.get("tool_call_id")) as permit:
                try:
                    return await hook(self, tool_input, *args, **kwargs)
                except BaseException as error:
                    if (free := _free(self, permit, call, error)) is not None:
                        await permit.afinish(free)
                    raise

    return arun


def _call(tool: BaseTool, tool_input: Any, kwargs: Mapping[str, Any]) -> Call:
    """What LangGraph injects (state, store, runtime) is not an argument that anybody chose."""
    arguments = tool._filter_injected_args(tool_input) if isinstance(tool_input, dict) else tool_input
    return gate_of(tool).tool_call(tool.name, arguments, metadata=kwargs.get("metadata"))


def _free(tool: BaseTool, permit: Permit, call: Call, error: BaseException) -> Release | None:
    """Released here where the permit, which goes by the action kind, would not see that a tool refused arguments."""
    outcome = gate_of(tool).outcome(permit, call, error)
    return outcome if isinstance(outcome, Release) else None

"""Tools that guard themselves: reserve, run, settle around the tool's own `run` and `arun`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from functools import wraps
from typing import Any
from uuid import UUID

from langchain_core.tools import BaseTool
from langchain_core.utils.uuid import uuid7

from clearance.errors import ApprovalRequired
from clearance.guard import Permit
from clearance.guard.outcome import Release
from clearance_langchain.approvals import approver_of
from clearance_langchain.errors import fitting
from clearance_langchain.gate import Call
from clearance_langchain.models import gate_of
from clearance_langchain.subjects import pinned

Hook = Callable[..., Any]

_running: ContextVar[BaseTool | None] = ContextVar("clearance_langchain_tool", default=None)
"""The guarded tool whose own function may be called now, as the call is let in already."""

FUNCTIONS = ("func", "coroutine")
_RAW = "__clearance_raw__"


def guarding_hooks(base: type[BaseTool]) -> dict[str, Any]:
    """`run` and `arun` of a guarded subclass of `base`. A sync tool under `ainvoke` goes through `run`."""
    return {"run": wraps(base.run)(_run(base.run)), "arun": wraps(base.arun)(_arun(base.arun))}


def _run(hook: Hook) -> Hook:
    def run(self: BaseTool, tool_input: Any, *args: Any, **kwargs: Any) -> Any:
        with fitting():
            call = _call(self, tool_input, kwargs)
            try:
                permit = gate_of(self).open(call, **_facts(self, kwargs))
            except ApprovalRequired as needed:
                raise _told(needed, call, kwargs) from None
            with permit, _let_in(self, call, kwargs):
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
            try:
                permit = await gate_of(self).aopen(call, **_facts(self, kwargs))
            except ApprovalRequired as needed:
                raise _told(needed, call, kwargs) from None
            async with permit:
                with _let_in(self, call, kwargs):
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
    parent = getattr(kwargs.get("callbacks"), "parent_run_id", None)
    return gate_of(tool).tool_call(tool.name, arguments, metadata=kwargs.get("metadata"), parent=parent)


def _facts(tool: BaseTool, kwargs: Mapping[str, Any]) -> dict[str, Any]:
    called = kwargs.get("tool_call_id")
    return {"tool_call_id": called, "approved_by": approver_of(tool.name, called)}


def _told(needed: ApprovalRequired, call: Call, kwargs: Mapping[str, Any]) -> ApprovalRequired:
    """With what a person has to know who is to approve; the id tells this call from those inside its body."""
    needed.details.update(call.facts, tool_call_id=kwargs.get("tool_call_id"))
    return needed


@contextmanager
def _let_in(tool: BaseTool, call: Call, kwargs: dict[str, Any]) -> Iterator[None]:
    """The handlers need not count it, and the tool's function may be called. LangChain makes a run id where none is
    given; made here, it is one that we know."""
    run_id: UUID = kwargs.get("run_id") or uuid7()
    kwargs["run_id"] = run_id
    vouchers, token = gate_of(tool).vouchers, _running.set(tool)
    vouchers.add_run(run_id)
    try:
        with pinned(gate_of(tool).subject, gate_of(tool).authority, call.subject):
            yield
    finally:
        vouchers.remove_run(run_id)
        _running.reset(token)


def _free(tool: BaseTool, permit: Permit, call: Call, error: BaseException) -> Release | None:
    """Released here where the permit, which goes by the action kind, would not see that a tool refused arguments."""
    outcome = gate_of(tool).outcome(permit, call, error)
    return outcome if isinstance(outcome, Release) else None


# --- the functions inside, which anybody can reach


def guard_functions(tool: BaseTool) -> None:
    """`tool.func(...)` and `tool.coroutine(...)`, called by themselves, pass the gate of this tool as well."""
    for name, guarding in zip(FUNCTIONS, (_function, _coroutine), strict=True):
        function = tool.__dict__.get(name)
        if function is not None:
            tool.__dict__[name] = guarding(tool, getattr(function, _RAW, function))


def _function(tool: BaseTool, raw: Hook) -> Hook:
    @wraps(raw)
    def function(*args: Any, **kwargs: Any) -> Any:
        if _running.get() is tool:
            with _own(None):
                return raw(*args, **kwargs)
        with fitting(), gate_of(tool).open(_direct_call(tool, args, kwargs)):
            return raw(*args, **kwargs)

    setattr(function, _RAW, raw)
    return function


def _coroutine(tool: BaseTool, raw: Hook) -> Hook:
    @wraps(raw)
    async def coroutine(*args: Any, **kwargs: Any) -> Any:
        if _running.get() is tool:
            with _own(None):
                return await raw(*args, **kwargs)
        with fitting():
            async with await gate_of(tool).aopen(_direct_call(tool, args, kwargs)):
                return await raw(*args, **kwargs)

    setattr(coroutine, _RAW, raw)
    return coroutine


def _direct_call(tool: BaseTool, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Call:
    return gate_of(tool).tool_call(tool.name, {**kwargs, "args": args} if args else kwargs)


@contextmanager
def _own(tool: BaseTool | None) -> Iterator[None]:
    token = _running.set(tool)
    try:
        yield
    finally:
        _running.reset(token)

"""Chat models that guard themselves: reserve, call the provider, settle, inside the provider's own hooks."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import (
    AbstractAsyncContextManager,
    AbstractContextManager,
    aclosing,
    closing,
    nullcontext,
)
from contextvars import ContextVar
from functools import wraps
from inspect import signature
from typing import Any

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import BaseMessage
from langchain_core.outputs import ChatGenerationChunk, ChatResult

from clearance.guard import Permit
from clearance_langchain.capping import cap_name, capped
from clearance_langchain.errors import fitting
from clearance_langchain.gate import Call, Gate
from clearance_langchain.usage import Streamed, answered
from clearance_langchain.vouching import VOUCHER

GATE = "_clearance_gate"
"""Where a guarded object keeps its gate: in its own dict, so that copies of it stay guarded."""

_inside: ContextVar[int | None] = ContextVar("clearance_langchain_inside", default=None)
"""The model whose hook is running: a provider's `_generate` may call its own `_stream`, and that is one call.

Never left set across a yield, where other code runs.
"""

Hook = Callable[..., Any]


def gate_of(guarded: object) -> Gate:
    gate: Gate = guarded.__dict__[GATE]
    return gate


def guarding_hooks(base: type[BaseChatModel]) -> dict[str, Any]:
    """The hooks of a guarded subclass of `base`.

    Only those that `base` has overridden itself: LangChain compares them by identity to see what a model can do, and
    its defaults lead to the others.
    """
    made: dict[str, Callable[[Hook], Hook]] = {
        "_generate": _generate,
        "_agenerate": _agenerate,
        "_stream": _stream,
        "_astream": _astream,
    }
    own = {name: getattr(base, name) for name in made if getattr(base, name) is not getattr(BaseChatModel, name)}
    hooks: dict[str, Any] = {name: _disguised(made[name](hook), hook) for name, hook in own.items()}
    hooks["_get_ls_params_with_defaults"] = _vouching(base._get_ls_params_with_defaults)
    hooks["lc_id"] = classmethod(_refusing_id(base))
    return hooks


NATIVE_EVENT_HOOKS = ("_stream_chat_model_events", "_astream_chat_model_events")
"""A provider's short cut past `_stream`; without it LangChain takes the way through `_stream`."""


def _disguised(guarding: Any, hook: Hook) -> Hook:
    """LangChain asks for the signature at each call: worked out once, here, it costs nothing there."""
    disguised: Any = wraps(hook)(guarding)
    disguised.__signature__ = signature(hook)
    made: Hook = disguised
    return made


def _vouching(hook: Hook) -> Hook:
    """The one thing that LangChain asks the model at the beginning of each call, for the handlers' metadata."""

    @wraps(hook)
    def _get_ls_params_with_defaults(self: BaseChatModel, *args: Any, **kwargs: Any) -> Any:
        params = hook(self, *args, **kwargs)
        params[VOUCHER] = gate_of(self).vouchers.issue()
        return params

    return _get_ls_params_with_defaults


def _refusing_id(base: type[BaseChatModel]) -> Callable[[Any], list[str]]:
    """`loads` refuses what it cannot find: else it would make a plain model out of a guarded one. The last part stays
    the name of the class, which is all that traces show."""

    def lc_id(cls: Any) -> list[str]:
        return ["clearance_langchain", "guarded", *base.lc_id()]

    return lc_id


def _generate(hook: Hook) -> Hook:
    def _generate(self: BaseChatModel, messages: list[BaseMessage], *args: Any, **kwargs: Any) -> ChatResult:
        if _is_inside(self):
            return _result(hook(self, messages, *args, **kwargs))
        with fitting():
            call = _call(self, messages, args, kwargs)
            with gate_of(self).open(call, can_cap=_can_cap(self)) as permit:
                kwargs = _capped(self, permit, call, kwargs)
                token = _inside.set(id(self))
                try:
                    result = _result(hook(self, messages, *args, **kwargs))
                finally:
                    _inside.reset(token)
                _note(self, permit, call, result)
                return result

    return _generate


def _agenerate(hook: Hook) -> Hook:
    async def _agenerate(self: BaseChatModel, messages: list[BaseMessage], *args: Any, **kwargs: Any) -> ChatResult:
        if _is_inside(self):
            return _result(await hook(self, messages, *args, **kwargs))
        with fitting():
            call = _call(self, messages, args, kwargs)
            async with await gate_of(self).aopen(call, can_cap=_can_cap(self)) as permit:
                kwargs = _capped(self, permit, call, kwargs)
                token = _inside.set(id(self))
                try:
                    result = _result(await hook(self, messages, *args, **kwargs))
                finally:
                    _inside.reset(token)
                _note(self, permit, call, result)
                return result

    return _agenerate


def _stream(hook: Hook) -> Hook:
    def _stream(
        self: BaseChatModel, messages: list[BaseMessage], *args: Any, **kwargs: Any
    ) -> Iterator[ChatGenerationChunk]:
        if _is_inside(self):
            yield from hook(self, messages, *args, **kwargs)
            return
        with fitting():
            call, seen = _call(self, messages, args, kwargs), Streamed()
            with gate_of(self).open(call, can_cap=_can_cap(self)) as permit:
                kwargs = _capped(self, permit, call, kwargs)
                with _closing(hook(self, messages, *args, **kwargs)) as chunks:
                    while True:
                        token = _inside.set(id(self))
                        try:
                            chunk = next(chunks, None)
                        finally:
                            _inside.reset(token)
                        if chunk is None:
                            break
                        _saw(self, permit, call, seen, chunk)
                        yield chunk
                gate_of(self).note(permit, call, seen.reported())

    return _stream


def _astream(hook: Hook) -> Hook:
    async def _astream(
        self: BaseChatModel, messages: list[BaseMessage], *args: Any, **kwargs: Any
    ) -> AsyncIterator[ChatGenerationChunk]:
        if _is_inside(self):
            async for chunk in hook(self, messages, *args, **kwargs):
                yield chunk
            return
        with fitting():
            call, seen = _call(self, messages, args, kwargs), Streamed()
            async with await gate_of(self).aopen(call, can_cap=_can_cap(self)) as permit:
                kwargs = _capped(self, permit, call, kwargs)
                async with _aclosing(hook(self, messages, *args, **kwargs)) as chunks:
                    while True:
                        token = _inside.set(id(self))
                        try:
                            chunk = await anext(chunks, None)
                        finally:
                            _inside.reset(token)
                        if chunk is None:
                            break
                        _saw(self, permit, call, seen, chunk)
                        yield chunk
                gate_of(self).note(permit, call, seen.reported())

    return _astream


# --- what the four have in common


def _call(model: BaseChatModel, messages: list[BaseMessage], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Call:
    """Hooks take (messages, stop, run_manager, **kwargs), and callers give stop and run_manager by either way."""
    stop = args[0] if args else kwargs.get("stop")
    manager = args[1] if len(args) > 1 else kwargs.get("run_manager")
    rest = {key: value for key, value in kwargs.items() if key not in ("stop", "run_manager")}
    params = model._get_invocation_params(stop=stop, **rest)
    ls_model = None if params.get("model") else model._get_ls_params(stop=stop, **rest).get("ls_model_name")
    name = type(model).__name__
    gate = gate_of(model)
    # A plain `stream()` gives its hook no run manager: who acts is then what the config around says.
    metadata, parent = getattr(manager, "metadata", None), getattr(manager, "parent_run_id", None)
    return gate.model_call(messages, params, metadata=metadata, parent=parent, ls_model=ls_model, name=name)


def _capped(model: BaseChatModel, permit: Permit, call: Call, kwargs: dict[str, Any]) -> dict[str, Any]:
    requested = None if call.asked is None else call.asked.max_output_tokens
    return capped(model, permit.caps, kwargs, requested)


def _can_cap(model: BaseChatModel) -> bool:
    return cap_name(model) is not None


def _note(model: BaseChatModel, permit: Permit, call: Call, result: ChatResult) -> None:
    answer = result.generations[0] if result.generations else None
    gate_of(model).note(permit, call, answered(answer, result.llm_output))


def _saw(model: BaseChatModel, permit: Permit, call: Call, seen: Streamed, chunk: ChatGenerationChunk) -> None:
    """A stop ends the stream here; complete usage is taken down at once, in case nobody reads on."""
    permit.check()
    if seen.add(chunk):
        gate_of(model).note(permit, call, seen.reported())


def _result(result: Any) -> ChatResult:
    found: ChatResult = result
    return found


def _closing(chunks: Any) -> AbstractContextManager[Any]:
    """Closed as soon as nobody reads on; an iterator that is no generator has nothing to close."""
    return closing(chunks) if hasattr(chunks, "close") else nullcontext(iter(chunks))


def _aclosing(chunks: Any) -> AbstractAsyncContextManager[Any]:
    return aclosing(chunks) if hasattr(chunks, "aclose") else nullcontext(aiter(chunks))


def _is_inside(model: BaseChatModel) -> bool:
    return _inside.get() == id(model)

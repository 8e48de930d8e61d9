"""How the answers to one hook become one verdict. Pure steps; `runner` makes the calls, sync or async."""

from __future__ import annotations

import inspect
import logging
from collections import Counter
from collections.abc import Generator
from dataclasses import replace
from threading import Lock
from typing import Any, NamedTuple, TypeVar

from clearance_hooks import results as re
from clearance_hooks.capabilities import Capabilities
from clearance_hooks.events import (
    AfterModelCall,
    AfterToolCall,
    BeforeAgentRun,
    BeforeModelCall,
    BeforeModelResolve,
    BeforePromptBuild,
    BeforeToolCall,
    HookContext,
    copied,
    isolated,
    params_problem,
)
from clearance_hooks.registry import Impl, Registry
from clearance_hooks.specs import HOOKS

T = TypeVar("T")
log = logging.getLogger("clearance.hooks")

HOOK_FAILED, HOOK_TIMEOUT, AUTHORITY_UNAVAILABLE = "HOOK_FAILED", "HOOK_TIMEOUT", "AUTHORITY_UNAVAILABLE"
CANNOT_APPLY, APPROVAL_REQUIRED, BAD_ARGUMENTS = "CANNOT_APPLY", "APPROVAL_REQUIRED", "BAD_ARGUMENTS"


class Invoke(NamedTuple):
    impl: Impl
    arguments: dict[str, Any]


class Failure(NamedTuple):
    """A handler gave no answer. `why` has type names and places, never messages or values."""

    code: str
    why: str


Dispatch = Generator[Invoke, Any, T]
"""Yields whom to ask, receives the answer or a Failure, returns what all have said together."""


class Dispatcher:
    """The steps of every hook for one host."""

    def __init__(self, registry: Registry, capabilities: Capabilities) -> None:
        self.registry = registry
        self.capabilities = capabilities
        self._counts: Counter[str] = Counter()
        self._lock = Lock()

    @property
    def counts(self) -> dict[str, int]:
        """How often handlers failed, by code, and under `allowed_on_error` what was allowed all the same."""
        with self._lock:
            return dict(self._counts)

    # --- gates

    def agent_run(self, event: BeforeAgentRun, ctx: HookContext) -> Dispatch[re.RunVerdict]:
        for impl in self.registry.impls("before_agent_run"):
            answer = self._gate_answer(impl, (yield Invoke(impl, {"event": event, "ctx": ctx})))
            if isinstance(answer, re.Block):
                return re.RunVerdict(answer)
        return re.RunVerdict()

    def model_call(self, event: BeforeModelCall, ctx: HookContext) -> Dispatch[re.ModelVerdict]:
        now = event
        for impl in self.registry.impls("before_model_call"):
            answer = self._gate_answer(impl, (yield Invoke(impl, {"event": now, "ctx": ctx})))
            if isinstance(answer, re.Block):
                return (yield from self._model_blocked(event, ctx, answer))
            if isinstance(answer, re.Caps):
                now = _capped(now, answer)
        if refusal := self.capabilities.refusal(event, now):
            return (yield from self._model_blocked(event, ctx, re.Block(CANNOT_APPLY, refusal)))
        return re.ModelVerdict(
            model=now.model if now.model != event.model else None,
            provider=now.provider if now.provider != event.provider else None,
            max_output_tokens=now.max_output_tokens if now.max_output_tokens != event.max_output_tokens else None,
        )

    def _model_blocked(self, event: BeforeModelCall, ctx: HookContext, block: re.Block) -> Dispatch[re.ModelVerdict]:
        yield from self.observing("after_model_call", event=model_ended(event, "blocked", block.code), ctx=ctx)
        return re.ModelVerdict(block=block)

    def tool_call(self, event: BeforeToolCall, ctx: HookContext) -> Dispatch[re.ToolVerdict]:
        if problem := params_problem(event.params):
            refused = re.Block(BAD_ARGUMENTS, f"The arguments of the tool {event.tool} {problem}.")
            return (yield from self._tool_blocked(replace(event, params={}), ctx, refused))
        now, approval = event, None
        for impl in self.registry.impls("before_tool_call"):
            answer = self._gate_answer(impl, (yield Invoke(impl, {"event": isolated(now), "ctx": ctx})))
            if isinstance(answer, re.Block):
                return (yield from self._tool_blocked(event, ctx, answer))
            if isinstance(answer, re.RequireApproval) and event.approved_by is None:
                approval = approval or answer
            elif isinstance(answer, re.Patch) and answer.params != now.params:
                if approval is None and event.approved_by is None:
                    now = replace(now, params=copied(answer.params))
                else:  # what a person is asked about, or has agreed to, stays as it is
                    log.warning("%s would change arguments that a person decides about; left out", impl)
        if now.params != event.params and not self.capabilities.patches_params:
            refusal = f"{self.capabilities.name} cannot change the arguments of a tool"
            return (yield from self._tool_blocked(event, ctx, re.Block(CANNOT_APPLY, refusal)))
        return re.ToolVerdict(params=now.params, approval=approval)

    def _tool_blocked(self, event: BeforeToolCall, ctx: HookContext, block: re.Block) -> Dispatch[re.ToolVerdict]:
        yield from self.observing("after_tool_call", event=tool_ended(event, "blocked", block.code), ctx=ctx)
        return re.ToolVerdict(block=block, params=event.params)

    def _gate_answer(self, impl: Impl, answer: Any) -> Any:
        """The answer, or a Block in the place of none."""
        if isinstance(answer, Failure):
            return self._failed_gate(impl, answer)
        if isinstance(answer, re.Patch) and (problem := params_problem(answer.params)):
            return self._failed_gate(impl, Failure(HOOK_FAILED, f"answered arguments that {problem}"))
        if answer is None or isinstance(answer, HOOKS[impl.hook].answers):
            return answer
        return self._failed_gate(impl, _garbage(impl, answer))

    def _failed_gate(self, impl: Impl, failure: Failure) -> re.Block | None:
        self.count(failure.code)
        if impl.on_error == "allow":
            self.count("allowed_on_error")
            log.warning("%s %s; allowed, since the entry says on_error: allow", impl, failure.why)
            return None
        log.error("%s %s; denied", impl, failure.why)
        return re.Block(failure.code, f"The plugin {impl.plugin} {failure.why}; nothing may happen without its answer.")

    # --- modifying hooks

    def model_resolve(self, event: BeforeModelResolve, ctx: HookContext) -> Dispatch[re.ModelOverride]:
        model = provider = None
        for impl in self.registry.impls("before_model_resolve"):
            answer = self._answer(impl, (yield Invoke(impl, {"event": event, "ctx": ctx})))
            if answer is not None:
                model, provider = model or answer.model, provider or answer.provider
        return re.ModelOverride(model, provider)

    def prompt_build(self, event: BeforePromptBuild, ctx: HookContext) -> Dispatch[re.PromptPatch]:
        found: list[re.PromptPatch] = []
        for impl in self.registry.impls("before_prompt_build"):
            answer = self._answer(impl, (yield Invoke(impl, {"event": event, "ctx": ctx})))
            if answer is not None:
                found.append(answer)
        return re.PromptPatch(
            prepend=_joined(patch.prepend for patch in found),
            append=_joined(patch.append for patch in found),
            system_append=_joined(patch.system_append for patch in found),
            tools_allow=_intersected(patch.tools_allow for patch in found),
        )

    def cost(self, action: Any) -> Dispatch[Any]:
        for impl in self.registry.impls("estimate_cost"):
            answer = self._answer(impl, (yield Invoke(impl, {"action": action})))
            if answer is not None:
                return answer
        return None

    def _answer(self, impl: Impl, answer: Any) -> Any:
        """The answer of a handler that may be left out: the gates that follow still decide."""
        if answer is None or isinstance(answer, HOOKS[impl.hook].answers):
            return answer
        failure = answer if isinstance(answer, Failure) else _garbage(impl, answer)
        self.count(failure.code)
        log.error("%s %s; left out", impl, failure.why)
        return None

    # --- observers

    def observing(self, hook: str, **arguments: Any) -> Dispatch[None]:
        # Who was asked last has got hold of something, so it is told first and waits for nobody else's handler.
        for impl in reversed(self.registry.impls(hook)):
            given = {name: isolated(value) for name, value in arguments.items()}
            answer = yield Invoke(impl, given)
            if isinstance(answer, Failure):
                self.count(answer.code)
                log.error("%s %s; the others are told all the same", impl, answer.why)
            elif inspect.iscoroutine(answer):
                answer.close()

    def count(self, name: str) -> None:
        with self._lock:
            self._counts[name] += 1


def model_ended(event: BeforeModelCall, outcome: Any, error: str | None = None) -> AfterModelCall:
    return AfterModelCall(
        call_id=event.call_id, outcome=outcome, model=event.model, provider=event.provider, error=error
    )


def tool_ended(event: BeforeToolCall, outcome: Any, error: str | None = None) -> AfterToolCall:
    return AfterToolCall(tool=event.tool, tool_call_id=event.tool_call_id, outcome=outcome, error=error)


def _capped(event: BeforeModelCall, caps: re.Caps) -> BeforeModelCall:
    limits = [limit for limit in (event.max_output_tokens, caps.max_output_tokens) if limit is not None]
    return replace(
        event,
        model=caps.model or event.model,
        provider=caps.provider or event.provider,
        max_output_tokens=min(limits, default=None),
    )


def _garbage(impl: Impl, answer: Any) -> Failure:
    if inspect.iscoroutine(answer):
        answer.close()
    allowed = ", ".join(kind.__name__ for kind in HOOKS[impl.hook].answers)
    return Failure(HOOK_FAILED, f"answered a {type(answer).__name__}, not one of {allowed} or None")


def _joined(texts: Any) -> str:
    return "\n".join(text for text in texts if text)


def _intersected(lists: Any) -> tuple[str, ...] | None:
    limiting = [tuple(names) for names in lists if names is not None]
    if not limiting:
        return None
    return tuple(name for name in limiting[0] if all(name in names for names in limiting))

"""Pydantic AI: one capability that gates every run, every model request and every tool of an agent.

    agent = Agent("openai:gpt-5", capabilities=[Clearance("host.yaml")])

or in an agent's own file, read with `Agent.from_file(path, custom_capability_types=[Clearance])`:

    capabilities:
      - Clearance: {config: host.yaml}

A refused request is answered with the reason as text, without asking the provider; with `deny_style: error` (better for
structured output) it raises `Blocked`. A refused tool answers the reason to the model.
"""

from __future__ import annotations

import json
from copy import copy
from dataclasses import dataclass, field, replace
from time import monotonic
from typing import Any

from pydantic_ai.capabilities import AbstractCapability, CapabilityOrdering
from pydantic_ai.exceptions import ApprovalRequired, SkipModelRequest
from pydantic_ai.messages import ModelMessagesTypeAdapter, ModelResponse, TextPart

from clearance.errors import InvalidRequest
from clearance.pricing.usage import Usage
from clearance_hooks.activation import load_runner
from clearance_hooks.approving import Approver
from clearance_hooks.capabilities import PYDANTIC_AI
from clearance_hooks.dispatch import APPROVAL_REQUIRED, CANNOT_APPLY
from clearance_hooks.errors import Blocked
from clearance_hooks.events import (
    AfterModelCall,
    AfterToolCall,
    AgentEnd,
    BeforeAgentRun,
    BeforeModelCall,
    BeforePromptBuild,
    BeforeToolCall,
    HookContext,
)
from clearance_hooks.hosts import deny_style
from clearance_hooks.results import Block, ModelVerdict
from clearance_hooks.runner import Runner

_SCHEMA_BYTES = 256


@dataclass(slots=True)
class _RunState:
    """One run of an agent: why it was blocked, and the request that is in flight."""

    ctx: HookContext
    block: Block | None = None
    calls: int = 0
    open: BeforeModelCall | None = None
    began: float = field(default_factory=monotonic)


@dataclass(init=False, eq=False)  # agents in files take dataclasses only
class Clearance(AbstractCapability[Any]):  # type: ignore[misc]
    """The hooks of a runner around a Pydantic AI agent. One object may serve many agents and runs at a time.

    Args:
        config: the host's configuration file, or a `Runner` that has its plugins already.
        approver: asks a person for the tools that need one.
        defer_approvals: raise Pydantic AI's `ApprovalRequired` instead, for agents with `DeferredToolRequests`; the
            call goes through when it comes back approved.
        models: model name -> Model, for calls that are moved to another model; by default a copy of the agent's model
            with the other name.
        options: of `clearance_hooks.load_runner`.
    """

    def __init__(
        self,
        config: str | Runner,
        *,
        approver: Approver | None = None,
        defer_approvals: bool = False,
        models: dict[str, Any] | None = None,
        **options: Any,
    ) -> None:
        self.runner = config if isinstance(config, Runner) else load_runner(config, PYDANTIC_AI, **options)
        self._approver = approver
        self._defer = defer_approvals
        self._models = models or {}
        self._runs: dict[str, _RunState] = {}

    def get_ordering(self) -> CapabilityOrdering:
        """Nearest to the model, so that nobody changes a request after it was held for."""
        return CapabilityOrdering(position="innermost")

    # --- runs

    async def wrap_run(self, ctx: Any, *, handler: Any) -> Any:
        state = self._runs[_run_id(ctx)] = _RunState(_context(ctx))
        model = getattr(ctx.model, "model_name", None)
        success, error = False, None
        try:
            verdict = await self.runner.abefore_agent_run(BeforeAgentRun(model=model), state.ctx)
            state.block = verdict.block
            if state.block is not None and deny_style(self.runner) == "error":
                raise Blocked(state.block)
            result = await handler()
            success = True
            return result
        except BaseException as raised:
            error = type(raised).__name__
            raise
        finally:
            self._runs.pop(_run_id(ctx), None)
            ended = AgentEnd(success=success, error=error, duration_ms=_ms_since(state.began))
            await self.runner.aagent_end(ended, state.ctx)

    # --- model requests

    async def wrap_model_request(self, ctx: Any, *, request_context: Any, handler: Any) -> ModelResponse:
        state = self._state(ctx)
        try:
            return await handler(request_context)
        finally:  # the run may be over: a cancelled one is, before its requests are
            await self._end(state, outcome="cancelled")

    async def prepare_model_request(self, ctx: Any, request_context: Any) -> Any:
        state = self._state(ctx)
        if state.block is not None:
            raise self._refusal(state.block)
        state.calls += 1
        event = BeforeModelCall(
            call_id=f"{state.ctx.run_id}:model:{state.calls}",
            model=request_context.model.model_name,
            est_input_tokens=_request_bytes(request_context),
            max_output_tokens=_max_tokens(request_context),
            attempt=getattr(request_context, "attempt", 1),
        )
        verdict = await self.runner.abefore_model_call(event, state.ctx)
        if verdict.block is not None:
            raise self._refusal(verdict.block)
        state.open = replace(event, model=verdict.model or event.model)
        if _run_id(ctx) not in self._runs:  # it has ended while it was asked
            await self._end(state, outcome="blocked")
        self._state(ctx)
        return self._capped(request_context, verdict)

    async def after_model_request(self, ctx: Any, *, request_context: Any, response: ModelResponse) -> ModelResponse:
        await self._end(self._runs.get(_run_id(ctx)), outcome="ok", usage=_usage(response), model=response.model_name)
        return response

    async def on_model_request_error(self, ctx: Any, *, request_context: Any, error: Exception) -> ModelResponse:
        status = getattr(error, "status_code", None)
        await self._end(self._runs.get(_run_id(ctx)), outcome="error", status_code=status, error=type(error).__name__)
        raise error

    async def _end(self, state: _RunState | None, **facts: Any) -> None:
        """Tell how the request in flight ended, if one is."""
        if state is None:
            return
        event, state.open = state.open, None
        if event is not None:
            model = facts.pop("model", None) or event.model
            await self.runner.aafter_model_call(AfterModelCall(call_id=event.call_id, model=model, **facts), state.ctx)

    def _capped(self, request_context: Any, verdict: ModelVerdict) -> Any:
        changed: dict[str, Any] = {}
        if verdict.model is not None:
            changed["model"] = self._other_model(request_context.model, verdict.model)
        if verdict.max_output_tokens is not None:
            changed["model_settings"] = {
                **(request_context.model_settings or {}),
                "max_tokens": verdict.max_output_tokens,
            }
        return replace(request_context, **changed) if changed else request_context

    def _other_model(self, model: Any, name: str) -> Any:
        if name in self._models:
            return self._models[name]
        if not hasattr(model, "_model_name"):
            message = f"{type(model).__name__} cannot be asked for {name}; give Clearance(models={{{name!r}: ...}})"
            raise self._refusal(Block(CANNOT_APPLY, message))
        other = copy(model)
        other._model_name = name
        return other

    def _refusal(self, block: Block) -> Exception:
        if deny_style(self.runner) == "error":
            return Blocked(block)
        said = ModelResponse(parts=[TextPart(content=block.message)], model_name="clearance")
        skip: Exception = SkipModelRequest(said)
        return skip

    # --- tools and the prompt

    async def prepare_tools(self, ctx: Any, tool_defs: list[Any]) -> list[Any]:
        names = tuple(tool.name for tool in tool_defs)
        event = BeforePromptBuild(tools=names, model=getattr(ctx.model, "model_name", None))
        patch = await self.runner.abefore_prompt_build(event, self._state(ctx).ctx)
        if patch.tools_allow is None:
            return tool_defs
        return [tool for tool in tool_defs if tool.name in patch.tools_allow]

    def get_instructions(self) -> Any:
        async def hint(ctx: Any) -> str | None:
            patch = await self.runner.abefore_prompt_build(BeforePromptBuild(), self._state(ctx).ctx)
            text = "\n".join(part for part in (patch.prepend, patch.append, patch.system_append) if part)
            return text or None

        return hint

    async def wrap_tool_execute(self, ctx: Any, *, call: Any, tool_def: Any, args: dict[str, Any], handler: Any) -> Any:
        state = self._state(ctx)
        event = BeforeToolCall(
            tool=call.tool_name,
            params=args,
            tool_call_id=call.tool_call_id,
            approved_by="pydantic-ai" if ctx.tool_call_approved else None,
        )
        verdict = await self.runner.abefore_tool_call(event, state.ctx, self._approver)
        if verdict.block is not None:
            if verdict.block.code == APPROVAL_REQUIRED and self._defer:
                raise ApprovalRequired
            return f"Not allowed: {verdict.block.message}"
        began = monotonic()
        ended = AfterToolCall(tool=event.tool, tool_call_id=event.tool_call_id, outcome="cancelled")
        try:
            result = await handler(dict(verdict.params))
            ended = replace(ended, outcome="ok")
            return result
        except Exception as error:
            ended = replace(ended, outcome="error", error=type(error).__name__)
            raise
        finally:
            await self.runner.aafter_tool_call(replace(ended, duration_ms=_ms_since(began)), state.ctx)

    def _state(self, ctx: Any) -> _RunState:
        state = self._runs.get(_run_id(ctx))
        if state is None:
            raise Blocked(Block("NO_RUN", "This run has not begun under Clearance; nothing may happen in it."))
        return state


def _run_id(ctx: Any) -> str:
    if not ctx.run_id:
        raise InvalidRequest("run_id", "is missing", "a run of an agent")
    return str(ctx.run_id)


def _context(ctx: Any) -> HookContext:
    metadata = ctx.metadata if isinstance(getattr(ctx, "metadata", None), dict) else {}
    attempt = metadata.get("clearance_attempt")
    return HookContext(
        run_id=_run_id(ctx),
        attempt=attempt if isinstance(attempt, int) else 1,
        host=PYDANTIC_AI.id,
        session_key=ctx.conversation_id,
        agent_id=getattr(ctx.agent, "name", None),
    )


def _request_bytes(request: Any) -> int:
    """A bound on the tokens of the prompt: one for each byte of its messages, instructions and tools."""
    parameters = request.model_request_parameters
    tools = [*parameters.function_tools, *parameters.output_tools]
    size = len(ModelMessagesTypeAdapter.dump_json(list(request.messages)))
    size += sum(len(part.content.encode()) for part in parameters.instruction_parts or ())
    return (
        size
        + sum(len(json.dumps(tool.parameters_json_schema)) + len(tool.description or "") for tool in tools)
        + (_SCHEMA_BYTES * (1 + len(tools)))
    )


def _max_tokens(request: Any) -> int | None:
    wanted = (request.model_settings or {}).get("max_tokens")
    return wanted if isinstance(wanted, int) else None


def _usage(response: ModelResponse) -> Usage | None:
    """None where the provider told none: then the estimate stands."""
    found = response.usage
    if not (found.input_tokens or found.output_tokens):
        return None
    return Usage(
        input_tokens=found.input_tokens,
        cached_input_tokens=found.cache_read_tokens,
        cache_write_tokens=found.cache_write_tokens,
        output_tokens=found.output_tokens,
        reasoning_tokens=int(found.details.get("reasoning_tokens", 0)),
        audio_input_tokens=found.input_audio_tokens,
        audio_output_tokens=found.output_audio_tokens,
    )


def _ms_since(began: float) -> int:
    return round((monotonic() - began) * 1000)

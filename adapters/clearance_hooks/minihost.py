"""`MiniHost`: the smallest host that calls every hook in its place. For examples, tests, and authors of hosts.

host = MiniHost("host.yaml", model=ask_my_model, tools={"search": search})
answer = host.run("find it")            # or: await host.arun("find it")
print(answer.text, answer.blocked)
"""

from __future__ import annotations

import inspect
import json
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from typing import Any

from clearance.pricing.usage import Usage
from clearance_hooks.activation import load_runner
from clearance_hooks.approving import Approver
from clearance_hooks.capabilities import MINIHOST
from clearance_hooks.errors import Blocked
from clearance_hooks.events import (
    AfterModelCall,
    AfterToolCall,
    AgentEnd,
    BeforeAgentRun,
    BeforeModelCall,
    BeforeModelResolve,
    BeforePromptBuild,
    BeforeToolCall,
    HookContext,
)
from clearance_hooks.plugin import PLUGIN_ID, ClearancePlugin
from clearance_hooks.results import Block, ModelVerdict, PromptPatch
from clearance_hooks.runner import Runner

_STOP_S = 2.0


@dataclass(frozen=True, slots=True)
class ToolRequest:
    """The model wants a tool."""

    name: str
    params: Mapping[str, Any]
    id: str


@dataclass(frozen=True, slots=True)
class ModelRequest:
    """What the model function gets. `messages` are dicts with `role` and `content`, as OpenAI has them."""

    model: str
    messages: Sequence[dict[str, Any]]
    tools: tuple[str, ...]
    max_output_tokens: int | None = None


@dataclass(frozen=True, slots=True)
class ModelReply:
    """What it answers. `raw` is kept in the conversation as the assistant's message, if given."""

    text: str = ""
    tool_calls: tuple[ToolRequest, ...] = ()
    usage: Usage | None = None
    model: str | None = None
    raw: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class RunResult:
    """`blocked` is what ended the run, if a gate did; a refused tool does not end it."""

    run_id: str
    text: str = ""
    blocked: Block | None = None
    steps: int = 0


@dataclass(frozen=True, slots=True)
class _Act:
    """One thing to do: a method of the runner by name, or a function of the user."""

    what: str | Callable[..., Any]
    args: tuple[Any, ...]


_Steps = Generator[_Act, Any, RunResult]


class MiniHost:
    """One agent: a model, its tools and a loop.

    Args:
        config: the host's configuration file, or a `Runner` that has its plugins already.
        model: `ModelRequest -> ModelReply`, sync, or async for `arun`. Errors with a `status_code` count as the
            provider's.
        tools: name -> function of the arguments.
        model_name: what the model function is asked for unless a hook says otherwise.
        fallbacks: models to try when the model function raises; a blocked call has no fallback.
        approver: asks a person; without one, tools that need an approval are refused.
        options: of `clearance_hooks.load_runner`.
    """

    def __init__(
        self,
        config: str | Path | Runner,
        *,
        model: Callable[[ModelRequest], Any],
        tools: Mapping[str, Callable[..., Any]] | None = None,
        model_name: str = "gpt-5-mini",
        fallbacks: Sequence[str] = (),
        max_steps: int = 20,
        max_output_tokens: int | None = None,
        approver: Approver | None = None,
        **options: Any,
    ) -> None:
        self.runner = config if isinstance(config, Runner) else load_runner(config, MINIHOST, **options)
        self._model = model
        self._tools = dict(tools or {})
        self._model_name = model_name
        self._fallbacks = tuple(fallbacks)
        self._max_steps = max_steps
        self._max_output_tokens = max_output_tokens
        self._approver = approver
        plugin = self.runner.registry.plugin(PLUGIN_ID)
        self._raises = isinstance(plugin, ClearancePlugin) and plugin.settings.deny_style == "error"
        self._numbers = count(1)
        self.runner.tell("host_started", host=MINIHOST.id, config=None)

    def run(self, prompt: str, *, run_id: str | None = None, attempt: int = 1, **who: Any) -> RunResult:
        """One run of the agent. `who` are further fields of `HookContext`, such as `agent_id` or `parent_run_id`.

        Raises Blocked for a refused run or model call where the settings say `deny_style: error`.
        """
        steps = self._running(prompt, self._context(run_id, attempt, who))
        try:
            act = next(steps)
            while True:
                try:
                    answer = self._function(act)(*act.args)
                except BaseException as error:
                    act = steps.throw(error)
                else:
                    act = steps.send(answer)
        except StopIteration as end:
            result: RunResult = end.value
            return result

    async def arun(self, prompt: str, *, run_id: str | None = None, attempt: int = 1, **who: Any) -> RunResult:
        steps = self._running(prompt, self._context(run_id, attempt, who))
        try:
            act = next(steps)
            while True:
                try:
                    answer = self._function(act, "a")(*act.args)
                    answer = await answer if inspect.isawaitable(answer) else answer
                except BaseException as error:
                    act = steps.throw(error)
                else:
                    act = steps.send(answer)
        except StopIteration as end:
            result: RunResult = end.value
            return result

    def close(self) -> None:
        self.runner.tell("host_stopping", deadline=time.monotonic() + _STOP_S)
        self.runner.close()

    def _context(self, run_id: str | None, attempt: int, who: dict[str, Any]) -> HookContext:
        name = run_id or f"{MINIHOST.id}-{id(self):x}-{next(self._numbers)}"
        return HookContext(run_id=name, attempt=attempt, host=MINIHOST.id, **who)

    def _function(self, act: _Act, prefix: str = "") -> Callable[..., Any]:
        return act.what if callable(act.what) else getattr(self.runner, prefix + act.what)

    # --- one run

    def _running(self, prompt: str, ctx: HookContext) -> _Steps:
        # One id may be used by several runs at a time; their calls are not the same.
        mark = f"{id(self):x}.{next(self._numbers)}"
        began, success = time.monotonic(), False
        try:
            result = yield from self._turn(prompt, ctx, mark)
            success = result.blocked is None
            if result.blocked is not None and self._raises:
                raise Blocked(result.blocked)
            return result
        finally:
            yield _Act("agent_end", (AgentEnd(success=success, duration_ms=_ms_since(began)), ctx))

    def _turn(self, prompt: str, ctx: HookContext, mark: str) -> _Steps:
        resolved = yield _Act(
            "before_model_resolve",
            (BeforeModelResolve(prompt_chars=len(prompt), requested_model=self._model_name), ctx),
        )
        model = resolved.model or self._model_name
        names = tuple(self._tools)
        patch = yield _Act(
            "before_prompt_build", (BeforePromptBuild(prompt_chars=len(prompt), tools=names, model=model), ctx)
        )
        verdict = yield _Act("before_agent_run", (BeforeAgentRun(prompt_chars=len(prompt), model=model), ctx))
        if verdict.block is not None:
            return RunResult(ctx.run_id, verdict.block.message, verdict.block)
        shown = names if patch.tools_allow is None else patch.tools_allow
        return (yield from self._looping(_messages(prompt, patch), model, shown, ctx, mark))

    def _looping(
        self, messages: list[dict[str, Any]], model: str, tools: tuple[str, ...], ctx: HookContext, mark: str
    ) -> _Steps:
        for step in range(1, self._max_steps + 1):
            request = ModelRequest(model, tuple(messages), tools, self._max_output_tokens)
            reply = yield from self._asking(request, ctx, f"{mark}:{step}")
            if isinstance(reply, Block):
                return RunResult(ctx.run_id, reply.message, reply, step)
            messages.append(reply.raw or {"role": "assistant", "content": reply.text})
            if not reply.tool_calls:
                return RunResult(ctx.run_id, reply.text, None, step)
            for wanted in reply.tool_calls:
                found = yield from self._using(wanted, ctx, mark)
                messages.append({"role": "tool", "tool_call_id": wanted.id, "content": found})
        return RunResult(ctx.run_id, f"stopped after {self._max_steps} steps", None, self._max_steps)

    def _asking(self, request: ModelRequest, ctx: HookContext, step: str) -> Generator[_Act, Any, ModelReply | Block]:
        """The model's answer; where it fails, that of the first fallback that does not."""
        for number, name in enumerate((request.model, *self._fallbacks), start=1):
            tried = replace(request, model=name)
            try:
                return (yield from self._calling(tried, ctx, f"{ctx.run_id}:{ctx.attempt}:{step}.{number}"))
            except Exception:
                if number > len(self._fallbacks):
                    raise
        raise AssertionError("the last try returns or raises")

    def _calling(
        self, request: ModelRequest, ctx: HookContext, call_id: str
    ) -> Generator[_Act, Any, ModelReply | Block]:
        size = len(json.dumps([request.messages, request.tools], default=str).encode())
        event = BeforeModelCall(
            call_id=call_id,
            model=request.model,
            est_input_tokens=size + 64 * len(request.tools) + 256,
            max_output_tokens=request.max_output_tokens,
        )
        verdict: ModelVerdict = yield _Act("before_model_call", (event, ctx))
        if verdict.block is not None:
            return verdict.block
        limit = verdict.max_output_tokens
        allowed = replace(
            request,
            model=verdict.model or request.model,
            max_output_tokens=request.max_output_tokens if limit is None else limit,
        )
        began = time.monotonic()
        ended = AfterModelCall(call_id=call_id, outcome="cancelled", model=allowed.model)
        try:
            reply: ModelReply = yield _Act(self._model, (allowed,))
            ended = replace(ended, outcome="ok", usage=reply.usage, model=reply.model or allowed.model)
            return reply
        except Exception as error:
            status = getattr(error, "status_code", None)
            ended = replace(ended, outcome="error", status_code=status, error=type(error).__name__)
            raise
        finally:
            yield _Act("after_model_call", (replace(ended, duration_ms=_ms_since(began)), ctx))

    def _using(self, wanted: ToolRequest, ctx: HookContext, mark: str) -> Generator[_Act, Any, str]:
        """What the tool says, or why it did not run: for the model to read."""
        call_id = f"{wanted.id}:{mark}"
        event = BeforeToolCall(tool=wanted.name, params=wanted.params, tool_call_id=call_id)
        verdict = yield _Act("before_tool_call", (event, ctx, self._approver))
        if verdict.block is not None:
            return f"Not allowed: {verdict.block.message}"
        began = time.monotonic()
        ended = AfterToolCall(tool=wanted.name, tool_call_id=call_id, outcome="cancelled")
        try:
            if wanted.name not in self._tools:
                raise LookupError(wanted.name)
            found = yield _Act(_named(self._tools[wanted.name], verdict.params), ())
            ended = replace(ended, outcome="ok", result_meta={"chars": len(str(found))})
            return str(found)
        except Exception as error:
            ended = replace(ended, outcome="error", error=type(error).__name__)
            return f"Failed: {type(error).__name__}"
        finally:
            yield _Act("after_tool_call", (replace(ended, duration_ms=_ms_since(began)), ctx))


def _messages(prompt: str, patch: PromptPatch) -> list[dict[str, Any]]:
    text = "\n".join(part for part in (patch.prepend, prompt, patch.append) if part)
    system = [{"role": "system", "content": patch.system_append}] if patch.system_append else []
    return [*system, {"role": "user", "content": text}]


def _named(function: Callable[..., Any], params: Mapping[str, Any]) -> Callable[[], Any]:
    return lambda: function(**params)


def _ms_since(began: float) -> int:
    return round((time.monotonic() - began) * 1000)

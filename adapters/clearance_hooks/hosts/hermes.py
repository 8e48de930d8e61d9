"""Hermes Agent: the entry point of its plugin `clearance`.

In `config.yaml` of Hermes:

    plugins:
      enabled: [clearance]
      entries:
        clearance:
          config: {authority: {url: "${CLEARANCE_URL}"}, tenant: acme}

Hermes goes on when a plugin raises, so nothing here ever raises into it: whatever goes wrong in a gate denies. A
refused model call is answered with the reason, without asking the provider; a refused tool answers the reason to the
model.
"""

from __future__ import annotations

import json
import logging
from collections import OrderedDict
from collections.abc import Callable, Mapping
from contextlib import suppress
from contextvars import ContextVar
from dataclasses import replace
from pathlib import Path
from threading import Lock
from time import monotonic, time
from types import SimpleNamespace
from typing import Any

from clearance.config.problems import Report, dotted
from clearance.errors import ClearanceError
from clearance.pricing.usage import Usage
from clearance_hooks.activation import activate
from clearance_hooks.capabilities import HERMES
from clearance_hooks.denying import DenyingPlugin
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
from clearance_hooks.hostconfig import HostConfig
from clearance_hooks.hostconfig import load as load_file
from clearance_hooks.misplaced import entries_elsewhere
from clearance_hooks.plugin import PLUGIN_ID
from clearance_hooks.results import Block
from clearance_hooks.runner import Runner

log = logging.getLogger("clearance.hooks")

HOST_KEYS = ("llm", "allow_tool_override")
"""Keys of a plugin's entry that Hermes reads itself."""
_PLACE = ("plugins", "entries", PLUGIN_ID)
MAX_TURNS = 1_000
_FREE_BYTES = 512
_inside: ContextVar[str | None] = ContextVar("clearance_hermes_inside", default=None)


def register(ctx: Any) -> None:
    """What Hermes calls. Never raises; a configuration that is wrong denies and says why."""
    try:
        from hermes_constants import get_hermes_home

        runner = runner_for(Path(get_hermes_home()) / "config.yaml")
    except Exception as error:
        runner = Runner(capabilities=HERMES)
        runner.register(DenyingPlugin(PLUGIN_ID, f"it could not start ({type(error).__name__})"))
    bridge = HermesBridge(runner)
    ctx.register_middleware("llm_execution", bridge.llm_execution)
    for hook in ("pre_llm_call", "pre_tool_call", "post_tool_call", "on_session_end"):
        ctx.register_hook(hook, getattr(bridge, hook))


def runner_for(path: Path, environ: Mapping[str, str] | None = None) -> Runner:
    return activate(load(path, environ), HERMES)


def load(path: Path, environ: Mapping[str, str] | None = None) -> HostConfig:
    """Our entry of Hermes' own file. Its other keys there, and the list `plugins.enabled`, are for Hermes."""
    return load_file(path, HERMES, environ=environ, shape=_own_entry)


def _own_entry(value: Any, report: Report) -> dict[str, Any]:
    """Problems elsewhere in the file are not ours; those of a place that ours is in are."""
    report.found = [it for it in report.found if it[0][: len(_PLACE)] == _PLACE[: len(it[0])]]
    plugins = value.get("plugins") if isinstance(value, Mapping) else None
    entries = plugins.get("entries") if isinstance(plugins, Mapping) else None
    entry = entries.get(PLUGIN_ID) if isinstance(entries, Mapping) else None
    if entry is None:
        for place in entries_elsewhere(value, (PLUGIN_ID,)):
            report.refuse(_PLACE, f"is missing; what stands at {dotted(place)} is not read", dotted(_PLACE))
    if isinstance(entry, Mapping):
        entry = {key: found for key, found in entry.items() if key not in HOST_KEYS}
    return {"plugins": {"entries": {PLUGIN_ID: entry}}}


class HermesBridge:
    """Hermes' hooks as those of the contract. A turn of Hermes is one attempt of a run."""

    def __init__(self, runner: Runner) -> None:
        self.runner = runner
        self._blocked: OrderedDict[str, Block | None] = OrderedDict()
        self._lock = Lock()

    # --- turns

    def pre_llm_call(self, **event: Any) -> dict[str, str] | None:
        """The turn begins. Hermes cannot be stopped here; the first model call is refused instead."""
        ctx = _context(event)
        with _contained():
            self._turn(ctx, event.get("model"))
            patch = self.runner.before_prompt_build(BeforePromptBuild(model=event.get("model")), ctx)
            text = "\n".join(part for part in (patch.prepend, patch.append, patch.system_append) if part)
            return {"context": text} if text else None
        return None

    def on_session_end(self, **event: Any) -> None:
        """Hermes tells it at the end of every turn."""
        with _contained():
            ctx = _context(event)
            with self._lock:
                self._blocked.pop(ctx.run_id, None)
            success = bool(event.get("completed")) and not event.get("interrupted")
            self.runner.agent_end(AgentEnd(success=success), ctx)

    def _turn(self, ctx: HookContext, model: Any) -> Block | None:
        """Why this turn may not happen. Asked once a turn."""
        with self._lock:
            if ctx.run_id in self._blocked:
                return self._blocked[ctx.run_id]
        block = self.runner.before_agent_run(BeforeAgentRun(model=_text(model)), ctx).block
        with self._lock:
            self._blocked[ctx.run_id] = block
            while len(self._blocked) > MAX_TURNS:
                self._blocked.popitem(last=False)
        return block

    # --- model calls

    def llm_execution(self, next_call: Callable[[Any], Any], request: Any, **event: Any) -> Any:
        """One request to the provider. Only an error of the provider itself leaves this."""
        call_id = str(event.get("api_request_id") or f"{_context(event).run_id}:{time()}")
        if _inside.get() == call_id:  # Hermes has loaded the plugin several times
            return next_call(request)
        try:
            refused, allowed, asked = self._model_gate(call_id, request, event)
        except Exception as error:
            return _answer(_failed(error), event)
        if refused is not None:
            return _answer(refused, event)
        return self._call(next_call, allowed, asked, _context(event))

    def _model_gate(
        self, call_id: str, request: dict[str, Any], event: Mapping[str, Any]
    ) -> tuple[Block | None, dict[str, Any], BeforeModelCall]:
        ctx = _context(event)
        limit = next((name for name in _LIMITS if isinstance(request.get(name), int)), None)
        asked = BeforeModelCall(
            call_id=call_id,
            model=_text(request.get("model") or event.get("model")),
            est_input_tokens=_bytes_of(request),
            max_output_tokens=None if limit is None else request[limit],
        )
        block = self._turn(ctx, asked.model)
        if block is not None:
            return block, request, asked
        request = self._shown(request, ctx)
        verdict = self.runner.before_model_call(asked, ctx)
        if verdict.block is not None:
            return verdict.block, request, asked
        if verdict.model is not None:
            request = {**request, "model": verdict.model}
        if verdict.max_output_tokens is not None:
            request = {**request, limit or _LIMITS[0]: verdict.max_output_tokens}
        return None, request, replace(asked, model=verdict.model or asked.model)

    def _shown(self, request: dict[str, Any], ctx: HookContext) -> dict[str, Any]:
        """The request without the tools that the model is not to see."""
        tools = request.get("tools")
        if not isinstance(tools, list) or not tools:
            return request
        names = tuple(name for tool in tools if (name := _tool_name(tool)))
        allowed = self.runner.before_prompt_build(BeforePromptBuild(tools=names), ctx).tools_allow
        if allowed is None:
            return request
        kept = [tool for tool in tools if (name := _tool_name(tool)) is None or name in allowed]
        if kept:
            return {**request, "tools": kept}
        return {key: value for key, value in request.items() if key not in _TOOL_KEYS}

    def _call(self, next_call: Callable[[Any], Any], request: Any, asked: BeforeModelCall, ctx: HookContext) -> Any:
        began, token = monotonic(), _inside.set(asked.call_id)
        ended = AfterModelCall(call_id=asked.call_id, model=asked.model, outcome="cancelled")
        try:
            response = next_call(request)
            ended = replace(ended, outcome="ok", usage=_usage(response), model=_served(response) or asked.model)
            return response
        except Exception as error:
            cause = getattr(error, "original", error)  # Hermes wraps what the provider's client raised
            status = getattr(cause, "status_code", None)
            ended = replace(
                ended,
                outcome="error",
                error=type(cause).__name__,
                status_code=status if isinstance(status, int) else None,
            )
            raise
        finally:
            _inside.reset(token)
            with _contained():
                self.runner.after_model_call(replace(ended, duration_ms=_ms_since(began)), ctx)

    # --- tools

    def pre_tool_call(self, tool_name: str = "", args: Any = None, **event: Any) -> dict[str, str] | None:
        try:
            return self._tool_gate(tool_name, args, event)
        except Exception as error:
            return _blocking(_failed(error))

    def _tool_gate(self, tool: str, args: Any, event: Mapping[str, Any]) -> dict[str, str] | None:
        ctx = _context(event)
        block = self._turn(ctx, None)
        if block is not None:
            return _blocking(block)
        asked = BeforeToolCall(tool=tool, params=args, tool_call_id=_call_id(tool, event))
        # Hermes' own way of asking its user is switched off by `-z` and `--yolo`: what needs an approval is refused.
        verdict = self.runner.before_tool_call(asked, ctx)
        return None if verdict.block is None else _blocking(verdict.block)

    def post_tool_call(self, tool_name: str = "", status: Any = None, **event: Any) -> None:
        with _contained():
            outcome = {"ok": "ok", "blocked": "blocked", "cancelled": "cancelled"}.get(str(status), "error")
            ended = AfterToolCall(
                tool=tool_name,
                tool_call_id=_call_id(tool_name, event),
                outcome=outcome,  # type: ignore[arg-type]
                duration_ms=event.get("duration_ms") if isinstance(event.get("duration_ms"), int) else None,
                error=_text(event.get("error_type")),
            )
            self.runner.after_tool_call(ended, _context(event))


_LIMITS = ("max_tokens", "max_completion_tokens", "max_output_tokens")
_TOOL_KEYS = ("tools", "tool_choice", "parallel_tool_calls")


def _contained() -> suppress:
    """Hermes would only log what an observer raises; it must not reach it all the same."""
    return _Logged(Exception)


class _Logged(suppress):
    def __exit__(self, kind: Any, error: Any, trace: Any) -> bool:
        if error is not None and isinstance(error, Exception):
            log.error("a hook of Hermes could not be handled (%s)", type(error).__name__)
        return bool(super().__exit__(kind, error, trace))


def _failed(error: Exception) -> Block:
    code = error.reason_code if isinstance(error, ClearanceError) else "HOOK_FAILED"
    log.error("the gate failed (%s); denied", type(error).__name__)
    return Block(code, f"The check failed ({type(error).__name__}), so nothing may happen.")


def _blocking(block: Block) -> dict[str, str]:
    return {"action": "block", "message": f"Not allowed: {block.message}"}


def _context(event: Mapping[str, Any]) -> HookContext:
    run_id = event.get("turn_id") or event.get("task_id") or event.get("session_id") or "hermes"
    return HookContext(
        run_id=str(run_id),
        host=HERMES.id,
        session_key=_text(event.get("session_id")),
        requester=_text(event.get("sender_id")),
    )


def _call_id(tool: str, event: Mapping[str, Any]) -> str:
    return str(event.get("tool_call_id") or f"{event.get('api_request_id') or ''}:{tool}")


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None


def _bytes_of(request: Mapping[str, Any]) -> int:
    return len(json.dumps(dict(request), default=str).encode("utf-8", "surrogatepass")) + _FREE_BYTES


def _tool_name(tool: Any) -> str | None:
    function = tool.get("function") if isinstance(tool, Mapping) else None
    named = function.get("name") if isinstance(function, Mapping) else None
    return _text(named or (tool.get("name") if isinstance(tool, Mapping) else None))


def _served(response: Any) -> str | None:
    return _text(getattr(response, "model", None))


def _usage(response: Any) -> Usage | None:
    """None where the answer tells none, or in a shape that is not known: then the estimate is charged."""
    found = getattr(response, "usage", None)
    if found is None:
        return None
    dump = getattr(found, "model_dump", None)
    facts = dump() if callable(dump) else dict(vars(found)) if hasattr(found, "__dict__") else found
    try:
        return Usage.from_openai(_plain(facts))
    except ClearanceError:
        return None


def _plain(facts: Any) -> Any:
    """Nested objects as mappings, as they come over the wire."""
    if isinstance(facts, Mapping):
        return {key: _plain(value) for key, value in facts.items()}
    return _plain(vars(facts)) if hasattr(facts, "__dict__") else facts


def _answer(block: Block, event: Mapping[str, Any]) -> Any:
    """A completion that nobody was paid for. To other wires than chat completions it is no valid answer: Hermes then
    tries again, is refused again, and gives up, without a request."""
    message = SimpleNamespace(
        role="assistant", content=block.message, tool_calls=None, refusal=None, reasoning_content=None, reasoning=None
    )
    usage = SimpleNamespace(
        prompt_tokens=0,
        completion_tokens=0,
        total_tokens=0,
        prompt_tokens_details=None,
        completion_tokens_details=None,
    )
    choice = SimpleNamespace(index=0, message=message, finish_reason="stop", logprobs=None)
    return SimpleNamespace(
        id="clearance",
        object="chat.completion",
        created=int(time()),
        model=_text(event.get("model")) or "clearance",
        choices=[choice],
        usage=usage,
    )


def _ms_since(began: float) -> int:
    return round((monotonic() - began) * 1000)

"""One OpenClaw configuration: its hook events in, answers in OpenClaw's own words out."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from clearance.errors import AuthorityUnavailable, ClearanceError, UnitMismatch
from clearance.guard import Release, outcome_of
from clearance.model.action import Action
from clearance.model.amount import Amount, Unit
from clearance.model.caps import Caps
from clearance.pricing import Usage
from clearance_hooks import hints
from clearance_hooks.denying import NOT_ARMED
from clearance_hooks.events import (
    AfterModelCall,
    AfterToolCall,
    AgentEnd,
    BeforeAgentRun,
    BeforeModelCall,
    BeforeToolCall,
    HookContext,
)
from clearance_hooks.holding import MODEL, UNNAMED, ProviderFailed, allows_model, code_of, subject_for
from clearance_hooks.openclaw import facts
from clearance_hooks.openclaw.attempts import Attempt, HostRun, HostRuns
from clearance_hooks.plugin import ClearancePlugin
from clearance_hooks.results import Block, RequireApproval
from clearance_hooks.turns import Turn

log = logging.getLogger("clearance.hooks")

Said = Mapping[str, Any]
GATES = ("before_agent_run", "before_tool_call")
NOT_ADMITTED, MODEL_NOT_ALLOWED = "RUN_NOT_ADMITTED", "MODEL_NOT_ALLOWED"
STOPS = ("KILLED", "PAUSED")
ASKED_THERE = "whoever OpenClaw asks"
_NOTHING = Amount(unit=Unit.USD_MICROCENTS, amount=0)


class Answer(NamedTuple):
    """`result` is what the handler returns to OpenClaw; `stop` asks it to end the turn that is under way."""

    decision: str = "ALLOW"
    result: dict[str, Any] | None = None
    code: str | None = None
    stop: bool = False

    def as_dict(self) -> dict[str, Any]:
        said: dict[str, Any] = {"decision": self.decision, "result": self.result, "code": self.code, "stop": self.stop}
        return {name: value for name, value in said.items() if value is not None and value is not False}


NOTED = Answer()


class Host:
    """Thread-safe. Observers may come in any order and twice; the gates of one run come after what was before them."""

    def __init__(self, plugin: ClearancePlugin) -> None:
        self.plugin = plugin
        self.runs = HostRuns()
        self._handlers: dict[str, Callable[[Said, Said, float | None], Answer]] = {
            "before_model_resolve": self._model_resolve,
            "before_prompt_build": self._prompt_build,
            "before_agent_run": self._agent_run,
            "before_tool_call": self._tool_call,
            "after_tool_call": self._tool_ended,
            "model_call_ended": self._model_ended,
            "llm_output": self._output,
            "agent_end": self._agent_end,
            "subagent_spawned": self._spawned,
        }

    def answer(self, hook: str, event: Said, ctx: Said, deadline: float | None = None) -> Answer:
        """Raises AuthorityUnavailable; every other refusal is an answer. `deadline`: of `time.monotonic()`."""
        handler = self._handlers.get(hook)
        if handler is None:
            return (
                blocked(hook, Block("UNKNOWN_HOOK", "This authority does not know the hook."))
                if hook in GATES
                else NOTED
            )
        try:
            return handler(event, ctx, deadline)
        except AuthorityUnavailable:
            raise
        except ClearanceError as error:
            log.warning("%s of OpenClaw is refused (%s)", hook, code_of(error))
            return _refused(hook, Block(code_of(error), error.message))

    def close(self) -> None:
        self.plugin.close()

    # --- before a turn: nothing is held yet, so what is left is shown as it is

    def _model_resolve(self, event: Said, ctx: Said, deadline: float | None) -> Answer:
        wanted, provider = facts.model(event, ctx)
        if wanted is None:
            return NOTED
        chosen = hints.other_model(self.plugin.ready(), wanted, self._outlook(event, ctx))
        if chosen is None:
            return NOTED
        return Answer(result=_override(chosen, provider, facts.names(ctx, "providers")))

    def _prompt_build(self, event: Said, ctx: Said, deadline: float | None) -> Answer:
        outlook = self._outlook(event, ctx)
        patch: dict[str, Any] = {}
        if outlook.caps is not None and outlook.caps.tool_allowlist:
            patch["toolsAllow"] = [*outlook.caps.tool_allowlist]
        text = hints.text(outlook.share_left) if self.plugin.settings.budget_hint else ""
        if text:
            patch["appendSystemContext"] = text
        return Answer(result=patch) if patch else NOTED

    def _outlook(self, event: Said, ctx: Said) -> hints.Outlook:
        about = facts.context(event, ctx, 0, None, None)
        return hints.outlook(self.plugin.ready(), Turn((about.host, about.run_id, 0)), about)

    # --- gates

    def _agent_run(self, event: Said, ctx: Said, deadline: float | None) -> Answer:
        run = self.runs.of(facts.run_id(event, ctx))
        with run.lock:
            attempt = run.begin()
            run.parent = self.runs.parent_of(facts.text(ctx, "sessionKey"))
            about = facts.context(event, ctx, attempt.number, run.parent, deadline)
            attempt.model, provider = facts.model(event, ctx)
            block = self._refusal(attempt.model, about)
            if block is None and not attempt.admitted:  # a host that has loaded the plugin twice asks twice, ends once
                block = self.plugin.before_agent_run(BeforeAgentRun(model=attempt.model, provider=provider), about)
            if block is not None:
                attempt.ended = not attempt.admitted
                return blocked("before_agent_run", block)
            attempt.admitted = True
        self.runs.admitted(about.session_key, about.run_id)
        return Answer(result={"outcome": "pass"})

    def _refusal(self, model: str | None, about: HookContext) -> Block | None:
        """Whether the model that is about to be asked has a price and may be used. Nothing is held for it."""
        holder = self.plugin.ready()
        name = model or UNNAMED
        holder.model_estimate(name, BeforeModelCall(call_id="", model=name, est_input_tokens=0, max_output_tokens=0))
        caps = self._caps(name, about)
        if isinstance(caps, Block) or caps is None or allows_model(caps, name):
            return caps if isinstance(caps, Block) else None
        return Block(MODEL_NOT_ALLOWED, f"The model {name} is not allowed here; allowed: {', '.join(caps.models)}.")

    def _caps(self, model: str, about: HookContext) -> Caps | Block | None:
        holder = self.plugin.ready()
        try:
            decision = holder.authority.dry_run(
                subject_for(holder.settings, about), Action(kind=MODEL, name=model), _NOTHING
            )
        except UnitMismatch:
            return None
        if decision.allowed:
            return decision.caps
        code = decision.reason_code or "DENIED"
        return Block(code, decision.message or code)

    def _tool_call(self, event: Said, ctx: Said, deadline: float | None) -> Answer:
        run = self.runs.known(facts.run_id(event, ctx))
        attempt = None if run is None else run.open()
        if run is None or attempt is None:
            return blocked("before_tool_call", _NOT_ADMITTED)
        asked = BeforeToolCall(
            tool=facts.text(event, "toolName") or UNNAMED,
            params=facts.mapping(event, "params"),
            tool_call_id=facts.text(event, "toolCallId") or "",
        )
        about = facts.context(event, ctx, attempt.number, run.parent, deadline)
        with run.lock:
            attempt.tools.add(asked.tool_call_id)
        answer = self.plugin.before_tool_call(asked, about)
        if isinstance(answer, RequireApproval):
            return self._approval(asked, about, answer)
        return blocked("before_tool_call", answer) if isinstance(answer, Block) else NOTED

    def _approval(self, asked: BeforeToolCall, about: HookContext, wanted: RequireApproval) -> Answer:
        """OpenClaw asks the person itself and does not come back before it runs the tool, so the hold is made now."""
        approved = BeforeToolCall(
            tool=asked.tool, params=asked.params, tool_call_id=asked.tool_call_id, approved_by=ASKED_THERE
        )
        answer = self.plugin.before_tool_call(approved, about)
        if isinstance(answer, Block):
            return blocked("before_tool_call", answer)
        approval = {
            "title": wanted.title,
            "description": wanted.description,
            "timeoutMs": wanted.timeout_ms,
            "allowedDecisions": ["allow-once", "deny"],
        }
        return Answer(result={"requireApproval": approval})

    # --- ends

    def _tool_ended(self, event: Said, ctx: Said, deadline: float | None) -> Answer:
        run = self.runs.known(facts.run_id(event, ctx))
        tool_call_id = facts.text(event, "toolCallId") or ""
        attempt = None if run is None else run.with_tool(tool_call_id)
        if run is not None and attempt is not None:
            ended = AfterToolCall(
                tool=facts.text(event, "toolName") or UNNAMED,
                tool_call_id=tool_call_id,
                outcome=facts.tool_outcome(event),
                duration_ms=facts.count(event, "durationMs"),
            )
            self.plugin.after_tool_call(ended, facts.context(event, ctx, attempt.number, run.parent, None))
        return NOTED

    def _model_ended(self, event: Said, ctx: Said, deadline: float | None) -> Answer:
        run = self.runs.known(facts.run_id(event, ctx))
        if run is None:
            return NOTED
        with run.lock:
            attempt = run.untold()
            if attempt is None:
                return NOTED
            if facts.text(event, "outcome") == "completed":
                attempt.completed += 1
            else:
                attempt.failed += 1
                attempt.bytes_sent += facts.count(event, "requestPayloadBytes") or 0
                attempt.bytes_received += facts.count(event, "responseStreamBytes") or 0
        if attempt.ended:
            self._settle_failed(run, attempt, event, ctx)
        return NOTED

    def _output(self, event: Said, ctx: Said, deadline: float | None) -> Answer:
        """The usage of all calls of one attempt."""
        run = self.runs.known(facts.run_id(event, ctx))
        usage = facts.usage(event)
        if run is None or usage is None:
            return NOTED
        with run.lock:
            attempt = run.untold()
            if attempt is None:
                return NOTED
            attempt.told = True
        self._tell(run, attempt, usage, facts.text(event, "model") or attempt.model, event, ctx)
        return NOTED

    def _agent_end(self, event: Said, ctx: Said, deadline: float | None) -> Answer:
        run = self.runs.known(facts.run_id(event, ctx))
        if run is None:
            return NOTED
        with run.lock:
            attempt = run.open()
            if attempt is None:
                return NOTED
            attempt.ended, attempt.status = True, facts.count(event, "httpStatus")
        self._settle_failed(run, attempt, event, ctx)
        ended = AgentEnd(success=event.get("success") is True, duration_ms=facts.count(event, "durationMs"))
        self.plugin.agent_end(ended, facts.context(event, ctx, attempt.number, run.parent, None))
        return NOTED

    def _settle_failed(self, run: HostRun, attempt: Attempt, event: Said, ctx: Said) -> None:
        """Every call of the attempt failed, and its usage will not come: what went over the wire bounds the tokens.

        Where the provider certainly charged nothing, the attempt is free.
        """
        with run.lock:
            if attempt.told or attempt.completed or not attempt.failed:
                return
            attempt.told = True
        status = attempt.status
        if isinstance(outcome_of(ProviderFailed(status), None, _NOTHING), Release):
            free = AfterModelCall(call_id=f"turn:{attempt.number}", outcome="error", status_code=status)
            self.plugin.after_model_call(free, facts.context(event, ctx, attempt.number, run.parent, None))
            return
        bound = Usage(input_tokens=attempt.bytes_sent, output_tokens=attempt.bytes_received)
        self._tell(run, attempt, bound, attempt.model, event, ctx)

    def _tell(self, run: HostRun, attempt: Attempt, usage: Usage, model: str | None, event: Said, ctx: Said) -> None:
        ended = AfterModelCall(call_id=f"turn:{attempt.number}", usage=usage, model=model)
        self.plugin.after_model_call(ended, facts.context(event, ctx, attempt.number, run.parent, None))

    def _spawned(self, event: Said, ctx: Said, deadline: float | None) -> Answer:
        child = facts.text(event, "childSessionKey")
        parent = facts.text(ctx, "requesterSessionKey") or facts.text(ctx, "sessionKey")
        if child is not None and parent is not None:
            self.runs.spawned(child, parent)
        return NOTED


class DenyingHost:
    """In the place of a host whose configuration cannot be used."""

    def __init__(self, reason: str) -> None:
        self._block = Block(NOT_ARMED, f"Clearance is enabled, but cannot work: {reason}")

    def answer(self, hook: str, event: Said, ctx: Said, deadline: float | None = None) -> Answer:
        return _refused(hook, self._block)

    def close(self) -> None: ...


_NOT_ADMITTED = Block(
    NOT_ADMITTED,
    "This tool belongs to a run that Clearance has not admitted: the host did not ask before it, or the authority was "
    "restarted meanwhile.",
)


def _refused(hook: str, block: Block) -> Answer:
    """Only a gate can refuse; what other hooks would have changed is left as it is."""
    return blocked(hook, block) if hook in GATES else NOTED


def blocked(hook: str, block: Block) -> Answer:
    stop = block.code in STOPS
    result: dict[str, Any]
    if hook == "before_agent_run":
        result = {"outcome": "block", "reason": block.code, "message": block.message, "category": "cost_limit"}
    else:
        result = {"block": True, "blockReason": f"{block.message} ({block.code})"}
    return Answer("DENY", result, block.code, stop)


def _override(chosen: str, provider: str | None, providers: tuple[str, ...]) -> dict[str, Any]:
    """`provider/model` only where that is a provider: names of models have slashes too."""
    prefix, slash, name = chosen.partition("/")
    if slash and prefix != provider and prefix in providers:
        return {"modelOverride": name, "providerOverride": prefix}
    return {"modelOverride": name if slash and prefix == provider else chosen}


def deadline_in(ms: int | None) -> float | None:
    return None if ms is None else time.monotonic() + ms / 1000

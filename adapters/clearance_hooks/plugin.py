"""The Clearance plugin: every run, model call and tool call of a host, reserved before and settled after."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable
from threading import Lock, Thread
from typing import Any
from weakref import ref

from clearance.authority.interface import Authority
from clearance.connecting import connect, default_prices
from clearance.errors import ApprovalRequired, AuthorityUnavailable, ClearanceError, Denied
from clearance.guard import Guarding, Permit, Run
from clearance.model.results import Stop
from clearance.pricing import PriceBook, Prices
from clearance_hooks import hints
from clearance_hooks.capabilities import Capabilities
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
from clearance_hooks.hints import Outlook
from clearance_hooks.holding import (
    GaveUp,
    Holder,
    ModelEnded,
    ToolEnded,
    code_of,
    params_facts,
    subject_for,
)
from clearance_hooks.results import Allow, Block, Caps, ModelOverride, PromptPatch, RequireApproval
from clearance_hooks.runner import Runner
from clearance_hooks.settings import Settings
from clearance_hooks.specs import hookimpl
from clearance_hooks.summary import RunSummary, summary_of
from clearance_hooks.turns import Call, Ended, Turn, Turns, entered

log = logging.getLogger("clearance.hooks")

PLUGIN_ID = "clearance"
PRIORITY = -1000
"""Asked last, so that nobody blocks after it has reserved."""
KEPT_SUMMARIES = 100
_DUPLICATE_WAIT_S = 30.0

Answer = Allow | Block | Caps | RequireApproval


class ClearancePlugin:
    """Register it with a `Runner`, or enable it in the host's configuration (`clearance_hooks.activate`).

    Making one does no I/O: the authority is opened at the first gate. Thread-safe.

    Args:
        authority: by default the one that the settings name, opened and closed by the plugin.
        prices: by default those of the settings, else of clearance.yaml, else the public list.
        clock: monotonic seconds.
    """

    id = PLUGIN_ID

    def __init__(
        self,
        settings: Settings,
        capabilities: Capabilities,
        *,
        authority: Any = None,
        prices: Prices | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.settings = settings
        self.capabilities = capabilities
        self.summaries: deque[RunSummary] = deque(maxlen=KEPT_SUMMARIES)
        self._given = authority
        self._prices = prices
        self._holder: Holder | None = None
        self._opening = Lock()
        self._runners: list[ref[Runner]] = []
        self._turns = Turns(
            self._open_run,
            self._closing,
            self._closed,
            whole_turns=not capabilities.model_call,
            settle_window_ms=settings.settle_window_ms,
            idle_run_ms=settings.idle_run_ms,
            clock=clock,
        )

    def bind(self, runner: Runner) -> None:
        """Whose plugins are told when the kill switch changes."""
        if not any(known() is runner for known in self._runners):
            self._runners.append(ref(runner))

    def close(self) -> None:
        """End all runs, settle what is open, close the authority that the plugin has opened."""
        self._turns.close()
        with self._opening:
            holder, self._holder = self._holder, None
        if holder is not None and self._given is None:
            holder.authority.close()  # type: ignore[attr-defined]

    # --- gates

    @hookimpl
    def before_agent_run(self, event: BeforeAgentRun, ctx: HookContext) -> Block | None:
        try:
            with self._turns.inside(ctx, begins=True):
                return None
        except AuthorityUnavailable:
            raise
        except ClearanceError as error:
            return _block(error)

    @hookimpl
    def before_model_call(self, event: BeforeModelCall, ctx: HookContext) -> Answer | None:
        key = f"model:{event.call_id}"
        return self._gated(ctx, key, str(event.model), lambda turn, call: self._model(event, ctx, turn, call))

    @hookimpl
    def before_tool_call(self, event: BeforeToolCall, ctx: HookContext) -> Answer | None:
        key = f"tool:{event.tool_call_id}"
        fingerprint = f"{event.tool}:{params_facts(event)['arguments_sha256']}"
        return self._gated(ctx, key, fingerprint, lambda turn, call: self._tool(event, ctx, turn, call))

    def _gated(
        self, ctx: HookContext, key: str, fingerprint: str, ask: Callable[[Turn, Call], Answer | None]
    ) -> Answer | None:
        try:
            with self._turns.inside(ctx) as turn:
                return self._gated_in(turn, ctx, key, fingerprint, ask)
        except AuthorityUnavailable:
            raise
        except ClearanceError as error:
            return _block(error)

    def _gated_in(
        self, turn: Turn, ctx: HookContext, key: str, fingerprint: str, ask: Callable[[Turn, Call], Answer | None]
    ) -> Answer | None:
        call, is_new = turn.begin(key, fingerprint)
        if not is_new:
            return _same(call, fingerprint)
        answer: Answer | None = Block("INTERRUPTED", "The check was interrupted.")
        try:
            answer = ask(turn, call)
        except AuthorityUnavailable:
            raise
        except ClearanceError as error:
            answer = _block(error)
        finally:
            if call.permit is None:
                turn.refused(call, answer)
        if isinstance(answer, Block):
            with turn.lock:
                turn.blocked[answer.code] += 1
        return answer

    def _model(self, event: BeforeModelCall, ctx: HookContext, turn: Turn, call: Call) -> Answer | None:
        holder = self.ready()
        held = holder.hold_model(event, ctx, turn)
        call.model = held.model
        is_other = event.model is not None and held.model != event.model
        answer = None
        if is_other or held.max_output_tokens is not None:
            answer = Caps(model=held.model if is_other else None, max_output_tokens=held.max_output_tokens)
        self._admitted(turn, call, held.permit, answer, ctx)
        with turn.lock:
            turn.facts["model_calls"] += 1
            turn.facts["downgrades"] += is_other
        return answer

    def _tool(self, event: BeforeToolCall, ctx: HookContext, turn: Turn, call: Call) -> Answer | None:
        terms = self.settings.tool(event.tool)
        if terms.approval and event.approved_by is None:
            return _approval(event)
        holder = self.ready()
        limit = self._count_tool(event.tool, turn)
        if limit is not None:
            return limit
        try:
            permit = holder.hold_tool(event, ctx, turn)
        except ApprovalRequired:
            self._uncount_tool(event.tool, turn)
            return _approval(event)
        except BaseException:
            self._uncount_tool(event.tool, turn)
            raise
        self._admitted(turn, call, permit, None, ctx)
        return None

    def _admitted(self, turn: Turn, call: Call, permit: Permit, answer: Answer | None, ctx: HookContext) -> None:
        ended = turn.admitted(call, permit, answer)
        if ended is not None:  # told while the authority was asked
            self._settle(turn, call, ended)
        elif ctx.is_abandoned:  # and perhaps told before this call was known here
            self._end_call(ctx, call.key, GaveUp())

    def _count_tool(self, tool: str, turn: Turn) -> Block | None:
        """Takes a place among the allowed calls, or says that there is none."""
        terms, most = self.settings.tool(tool), self.settings.max_tool_calls
        with turn.lock:
            if terms.max_calls is not None and turn.tools[tool] >= terms.max_calls:
                times = f"{terms.max_calls} time" + "s" * (terms.max_calls != 1)
                return Block("TOOL_LIMIT", f"The tool {tool} may be called {times} in a run.")
            if most is not None and turn.tools.total() >= most:
                return Block("TOOL_LIMIT", f"A run may make {most} tool calls.")
            turn.tools[tool] += 1
        return None

    def _uncount_tool(self, tool: str, turn: Turn) -> None:
        with turn.lock:
            turn.tools[tool] -= 1

    # --- ends

    @hookimpl
    def after_model_call(self, event: AfterModelCall, ctx: HookContext) -> None:
        if self._end_call(ctx, f"model:{event.call_id}", ModelEnded(event, self.ready())):
            return
        turn = self._turns.known(ctx)
        if turn is None:
            log.warning("usage of run %s came after its end; its estimates were charged", ctx.run_id)
        elif event.outcome != "blocked":
            turn.remember(f"model:{event.call_id}")
            self.ready().record(event, ctx, turn)
            self._turns.settled(turn)

    @hookimpl
    def after_tool_call(self, event: AfterToolCall, ctx: HookContext) -> None:
        known = self._end_call(ctx, f"tool:{event.tool_call_id}", ToolEnded(event))
        if not known and event.outcome in ("ok", "error"):
            log.warning("tool %s of run %s ran without having been asked for", event.tool, ctx.run_id)

    def _end_call(self, ctx: HookContext, key: str, ended: Ended) -> bool:
        """True when the call is known here."""
        turn = self._turns.known(ctx, key)
        if turn is None:
            return False
        call, known = turn.end(key, ended)
        if call is not None:
            self._settle(turn, call, ended)
        else:
            self._turns.settled(turn)
        return known

    def _settle(self, turn: Turn, call: Call, ended: Ended) -> None:
        permit = call.permit
        assert permit is not None, "only admitted calls are settled"
        if ended.is_void and call.key.startswith("tool:"):
            self._uncount_tool(permit.action.name, turn)
        permit.finish(ended.outcome(permit))
        self._turns.settled(turn)

    @hookimpl
    def agent_end(self, event: AgentEnd, ctx: HookContext) -> None:
        turn = self._turns.known(ctx)
        if turn is not None and not event.success:
            with turn.lock:
                turn.facts["failed"] = 1
        self._turns.end(ctx)

    @hookimpl
    def host_stopping(self, deadline: float) -> None:
        """Every run ends now; usage that has not come is charged as estimated."""
        self._turns.close()
        if self._holder is not None:
            self._holder.authority.flush(max(0.0, deadline - time.monotonic()))  # type: ignore[attr-defined]

    # --- the prompt and the model

    @hookimpl
    def before_model_resolve(self, event: BeforeModelResolve, ctx: HookContext) -> ModelOverride | None:
        """The model that the caps or the chain would have now."""
        wanted, outlook = event.requested_model, self._outlook(ctx)
        if wanted is None or not self.capabilities.overrides_model:
            return None
        other = hints.other_model(self.ready(), wanted, outlook)
        return None if other is None else ModelOverride(model=other)

    @hookimpl
    def before_prompt_build(self, event: BeforePromptBuild, ctx: HookContext) -> PromptPatch | None:
        """Hides the tools that the caps forbid; says how much of the budget is left where the settings ask for it."""
        outlook = self._outlook(ctx)
        allowed = hints.tools_allowed(outlook.caps, event.tools)
        text = hints.text(outlook.share_left) if self.settings.budget_hint else ""
        return PromptPatch(system_append=text, tools_allow=allowed) if text or allowed is not None else None

    def _outlook(self, ctx: HookContext) -> Outlook:
        """Where the authority refuses the run there is none: the gate that follows says why."""
        try:
            with self._turns.inside(ctx) as turn:
                return hints.outlook(self.ready(), turn, ctx)
        except AuthorityUnavailable:
            raise
        except ClearanceError:
            return Outlook()

    # --- inside

    def summary(self, run_id: str) -> RunSummary | None:
        """Of the last ended attempt of a run."""
        return next((found for found in reversed(self.summaries) if found.run_id == run_id), None)

    def ready(self) -> Holder:
        """Opens the authority at its first use. Raises AuthorityUnavailable, InvalidRequest."""
        holder = self._holder
        if holder is None:
            with self._opening:
                holder = self._holder = self._holder or self._open()
        return holder

    def _open(self) -> Holder:
        settings = self.settings
        authority: Any = self._given
        if authority is None:
            token = None if settings.token is None else settings.token.reveal()
            authority = connect(settings.url, api_key=token)
        return Holder(authority, settings, self._prices or _prices(settings), self.capabilities.overrides_model)

    def _open_run(self, ctx: HookContext, parent: Run | None) -> Run:
        authority: Authority | Guarding = self.ready().authority
        assert isinstance(authority, Guarding)
        run = authority.run(
            subject_for(self.settings, ctx),
            self.settings.run_budget if parent is None else None,  # a sub-agent spends from the run that started it
            name=f"{ctx.host or 'host'}:{ctx.run_id}"[:128],
            on_stop=self._stopped,
            metadata={"via": ctx.host or "hooks", "host_run": ctx.run_id[:128], "attempt": ctx.attempt},
        )
        return entered(run, parent)

    def _closing(self, turn: Turn) -> None:
        if turn.awaits_usage:
            self.ready().charge_unknown(turn)

    def _closed(self, turn: Turn) -> None:
        found = summary_of(turn)
        self.summaries.append(found)
        log.info("%s", found)

    def _stopped(self, stop: Stop) -> None:
        """On the heartbeat's thread, which must not wait for anybody's handlers."""
        Thread(target=self._tell_stopped, args=(stop,), name="clearance-hooks-stop", daemon=True).start()

    def _tell_stopped(self, stop: Stop) -> None:
        for known in self._runners:
            runner = known()
            if runner is not None:
                runner.tell("kill_switch_changed", state=stop.state, scope=stop.scope, reason=stop.reason)


def _prices(settings: Settings) -> Prices:
    if settings.prices is None:
        return default_prices()
    return PriceBook(dict(settings.prices), settings.unknown)  # type: ignore[arg-type]


def _same(call: Call, fingerprint: str) -> Answer | None:
    """The answer that this call has got already, for a host that has loaded the plugin twice."""
    if call.fingerprint != fingerprint:
        return Block("DUPLICATE_CALL_ID", "Another call with this id is in flight; the host must give each its own id.")
    if not call.ready.wait(_DUPLICATE_WAIT_S):
        return Block("HOOK_TIMEOUT", "The same call is being checked and gets no answer.")
    answer: Answer | None = call.answer
    return answer


def _block(error: ClearanceError) -> Block:
    message = error.message if isinstance(error, Denied) else f"{type(error).__name__}: {error.message}"
    return Block(code_of(error), message)


def _approval(event: BeforeToolCall) -> RequireApproval:
    """Names the arguments; their values may be secret, and a host can show them itself."""
    names = ", ".join(sorted(map(str, event.params))) or "none"
    return RequireApproval(f"Run {event.tool}?", f"The tool {event.tool} wants to run; its arguments: {names}.")

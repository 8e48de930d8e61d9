"""From a hook's event to a permit and from its end to a settlement: the only place that asks the authority."""

from __future__ import annotations

import hashlib
import json
import logging
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from clearance.authority.interface import Authority
from clearance.errors import (
    BudgetExceeded,
    CapsViolated,
    ClearanceError,
    Denied,
    InvalidRequest,
    PriceUnknown,
    UnitMismatch,
)
from clearance.guard import Outcome, Permit, Release, outcome_of
from clearance.guard.admission import open_permit
from clearance.model.action import Action
from clearance.model.amount import Amount, Unit
from clearance.model.caps import Caps
from clearance.model.subject import LEVELS, Subject
from clearance.pricing import DEFAULT_MAX_OUTPUT_TOKENS, Prices, Usage
from clearance.pricing.names import known_as
from clearance_hooks.events import AfterModelCall, AfterToolCall, BeforeModelCall, BeforeToolCall, HookContext
from clearance_hooks.settings import Settings
from clearance_hooks.turns import Turn

log = logging.getLogger("clearance.hooks")

MODEL = "llm.completion"
UNNAMED = "unnamed"
_MAX_NAME = 256
_MAX_SKIPPED = 100
_NOT_IN_NAMES = re.compile(r"[^a-zA-Z0-9_.-]+")
_NOTHING = Amount(unit=Unit.USD_MICROCENTS, amount=0)


def subject_for(settings: Settings, ctx: HookContext) -> Subject:
    """The configured subject, with what the host says below its deepest level. A host cannot change what is set."""
    said = {level: getattr(ctx, level) for level in LEVELS}
    said["agent"] = said["agent"] or ctx.agent_id
    deepest = max(index for index, level in enumerate(LEVELS) if getattr(settings.subject, level))
    below = {
        level: name
        for level, value in said.items()
        if LEVELS.index(level) > deepest and value and (name := _NOT_IN_NAMES.sub("-", value)[:128])
    }
    return settings.subject.narrowed(**below) if below else settings.subject


@dataclass(frozen=True, slots=True)
class Held:
    """A permit and the model that it is for, or that it may be made with."""

    permit: Permit
    model: str
    max_output_tokens: int | None = None


@dataclass(frozen=True, slots=True)
class Holder:
    """Holds for one configuration. Every method raises Denied, AuthorityUnavailable or InvalidRequest."""

    authority: Authority
    settings: Settings
    prices: Prices
    may_downgrade: bool
    skipped: set[str] = field(default_factory=set, compare=False)
    """Models of which was said already that they have no price."""

    # --- model calls

    def hold_model(self, event: BeforeModelCall, ctx: HookContext, turn: Turn) -> Held:
        """The first of the models that may be used that fits: the one asked for, then what the chain has below it."""
        asked = (event.model or UNNAMED)[:_MAX_NAME]
        refusal: Denied | None = None
        tried: list[str] = []
        candidates = list(self._ladder(asked, turn))
        while candidates:
            model = candidates.pop(0)
            tried.append(model)
            try:
                permit = self._model_permit(model, event, ctx, turn)
            except (BudgetExceeded, PriceUnknown) as error:
                refusal = refusal or error
                if isinstance(error, PriceUnknown) and candidates:
                    self._say_skipped(model)
                continue
            caps = permit.caps
            if caps is None or allows_model(caps, model):
                return Held(permit, model, None if caps is None else caps.max_tokens)
            permit.finish(Release("CapsViolated"))
            refusal = refusal or CapsViolated(
                f"model {model!r} is not allowed here; allowed: {', '.join(caps.models)}",
                details={"models": [*caps.models]},
            )
            if self.may_downgrade:
                candidates += [name for name in caps.models if name not in tried and name not in candidates]
        assert refusal is not None, "there is always a candidate"
        raise refusal

    def first_priced(self, models: Iterable[str]) -> str | None:
        """The first of these that a call could be held for. A host may have the name without its `provider/`."""
        for model in models:
            if self._has_price(model) or ("/" in model and self._has_price(model.partition("/")[2])):
                return model
            self._say_skipped(model)
        return None

    def _has_price(self, model: str) -> bool:
        try:
            self.prices.rates(model)
        except (PriceUnknown, InvalidRequest):
            return False
        return True

    def _say_skipped(self, model: str) -> None:
        if model not in self.skipped and len(self.skipped) < _MAX_SKIPPED:
            self.skipped.add(model)
            log.warning("the model %r has no price; it is passed over for the next that may be used", model)

    def _ladder(self, asked: str, turn: Turn) -> Iterator[str]:
        cheaper = cheaper_models(self.settings, asked) if self.may_downgrade else ()
        if not (cheaper and self._is_low(turn)):
            yield asked
        yield from cheaper

    def _is_low(self, turn: Turn) -> bool:
        """Less than the configured share of the run's budget is left, holds counted as spent."""
        below, run = self.settings.downgrade.below_percent, turn.run
        if below is None or run is None or run.budget is None:
            return False
        with turn.lock:
            held = sum(call.permit.estimate.amount for call in turn.calls.values() if call.permit is not None)
        left = run.budget.amount - held - spent(turn)
        return left * 100 < run.budget.amount * below

    def _model_permit(self, model: str, event: BeforeModelCall, ctx: HookContext, turn: Turn) -> Permit:
        estimate = self.model_estimate(model, event)
        facts = {"call_id": event.call_id, "requested": event.model if event.model != model else None}
        return self._permit(Action(kind=MODEL, name=model), estimate, ctx, turn, facts)

    def model_estimate(self, model: str, event: BeforeModelCall) -> Amount:
        """Raises PriceUnknown for a model without a price."""
        tokens_in = event.est_input_tokens
        if tokens_in is None:
            tokens_in = self.prices.rates(model).context_window or DEFAULT_MAX_OUTPUT_TOKENS
        return self.prices.estimate(model, tokens_in, event.max_output_tokens)

    # --- tool calls

    def hold_tool(self, event: BeforeToolCall, ctx: HookContext, turn: Turn) -> Permit:
        terms = self.settings.tool(event.tool)
        name = (event.tool or UNNAMED)[:_MAX_NAME]
        action = Action(kind=terms.kind, name=name)
        facts = {"tool_call_id": event.tool_call_id, **params_facts(event)}
        try:
            return self._tool_permit(action, terms.cost or _NOTHING, ctx, turn, facts, event)
        except UnitMismatch as error:
            units = error.details.get("expected_units")
            if terms.cost is not None or not units:
                raise
        # Without a cost it is 0, which is 0 in every unit: ask in one that the subject has.
        return self._tool_permit(action, Amount(unit=Unit(units[0]), amount=0), ctx, turn, facts, event)

    def _tool_permit(
        self, action: Action, cost: Amount, ctx: HookContext, turn: Turn, facts: dict[str, Any], event: BeforeToolCall
    ) -> Permit:
        return self._permit(action, cost, ctx, turn, facts, approved_by=event.approved_by, tool=action.name)

    def _permit(
        self, action: Action, estimate: Amount, ctx: HookContext, turn: Turn, facts: dict[str, Any], **more: Any
    ) -> Permit:
        said = {"via": ctx.host or "hooks", "host_run": ctx.run_id[:128], "attempt": ctx.attempt, **facts}
        said["unasked_run"] = True if turn.begun < 1 else None  # the host has not asked before this run
        kept = {name: value for name, value in said.items() if value is not None}
        subject = subject_for(self.settings, ctx)
        return open_permit(self.authority, action, estimate, subject=subject, run=turn.run, metadata=kept, **more)

    # --- ends

    def cost_of(self, usage: Usage, *names: str | None) -> Amount | None:
        """At the price of the first of these models that has one."""
        for name in names:
            if name:
                try:
                    return self.prices.price(name, usage)
                except (Denied, InvalidRequest):
                    continue
        return None

    def record(self, event: AfterModelCall, ctx: HookContext, turn: Turn) -> None:
        """Usage of calls that no gate has seen, such as those of a host that asks for whole turns only."""
        cost = None if event.usage is None else self.cost_of(event.usage, event.model)
        if cost is not None:
            self._charge(turn, (event.model or UNNAMED)[:_MAX_NAME], cost, settled_as="actual")
            turn.awaits_usage = False
        elif isinstance(outcome_of(ProviderFailed(event.status_code), None, _NOTHING), Release):
            turn.awaits_usage = False  # it certainly cost nothing
        else:
            log.warning("a model call of run %s that no gate saw told no usage with a price", ctx.run_id)

    def charge_unknown(self, turn: Turn) -> None:
        """A whole turn is over and its usage never came: it is charged what it was allowed to spend."""
        budget = None if turn.run is None else turn.run.budget
        if turn.awaits_usage and budget is not None:
            log.warning("run %s told no usage; its budget is charged", turn.key[1])
            self._charge(turn, UNNAMED, budget, settled_as="estimate")

    def _charge(self, turn: Turn, model: str, cost: Amount, *, settled_as: str) -> None:
        run = turn.run
        assert run is not None, "a turn that is known has its run"
        self.authority.event(
            run.subject,
            Action(kind=MODEL, name=model),
            cost,
            overage_policy="ALLOW_IF_AVAILABLE",
            run_id=run.id,
            metadata={"via": turn.key[0] or "hooks", "settled_as": settled_as},
        )
        with turn.lock:
            turn.recorded += cost.amount


class ProviderFailed(Exception):
    """Stands for the error of a host's call, of which only the status is known."""

    def __init__(self, status_code: int | None) -> None:
        super().__init__(status_code)
        self.status_code = status_code


@dataclass(frozen=True, slots=True)
class ModelEnded:
    event: AfterModelCall
    holder: Holder

    @property
    def is_void(self) -> bool:
        return self.event.outcome == "blocked"

    def outcome(self, permit: Permit) -> Outcome:
        if self.is_void:
            return Release(self.event.error or "blocked")
        usage = self.event.usage
        actual = None if usage is None else self.holder.cost_of(usage, self.event.model, permit.action.name)
        error = None if self.event.outcome == "ok" else ProviderFailed(self.event.status_code)
        return outcome_of(error, actual, permit.estimate, action=permit.action, body_ran=True)


@dataclass(frozen=True, slots=True)
class ToolEnded:
    event: AfterToolCall

    @property
    def is_void(self) -> bool:
        return self.event.outcome in ("blocked", "denied")

    def outcome(self, permit: Permit) -> Outcome:
        if self.is_void:
            return Release(self.event.error or self.event.outcome)
        error = None if self.event.outcome == "ok" else ProviderFailed(None)
        return outcome_of(error, permit.actual, permit.estimate, action=permit.action, body_ran=True)


@dataclass(frozen=True, slots=True)
class GaveUp:
    """The host waits no more for the answer that a gate has just got."""

    is_void = True

    def outcome(self, permit: Permit) -> Outcome:
        return Release("the host gave up waiting")


def spent(turn: Turn) -> int:
    """Microcents that the settled calls of this turn have cost."""
    run = turn.run
    return turn.recorded + (0 if run is None else run.report().spent().amount)


def cheaper_models(settings: Settings, asked: str) -> tuple[str, ...]:
    """What the chain has below a model. One that is not in it has nothing: nobody said what may stand in for it."""
    chain = settings.downgrade.models
    names = [model.lower() for model in chain]
    found = known_as(asked, names)
    return () if found is None else chain[names.index(found) + 1 :]


def allows_model(caps: Caps, model: str) -> bool:
    return not caps.models or known_as(model, [name.lower() for name in caps.models]) is not None


def params_facts(event: BeforeToolCall) -> dict[str, Any]:
    """Hash and size of the arguments; never the arguments."""
    raw = json.dumps(dict(event.params), default=str, sort_keys=True).encode("utf-8", "surrogatepass")
    return {"arguments_sha256": hashlib.sha256(raw).hexdigest(), "arguments_bytes": len(raw)}


def code_of(error: ClearanceError) -> str:
    return error.reason_code[:64]

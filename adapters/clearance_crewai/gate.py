"""The one place where a CrewAI call becomes a reservation and a result becomes a settlement."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType
from typing import Any, NamedTuple, TypedDict

from clearance.authority.interface import DEFAULT_TTL_MS, Authority
from clearance.authority.requests import check_metadata
from clearance.connecting import default_prices
from clearance.errors import ApprovalRequired, CapsViolated, InvalidRequest, UnitMismatch
from clearance.guard import Permit, Run
from clearance.guard.admission import Terms, admitting, wish
from clearance.guard.outcome import Release
from clearance.guard.steps import Steps, perform
from clearance.model.account import OveragePolicy
from clearance.model.action import Action, named
from clearance.model.amount import Amount, AmountLike, Unit, to_amount
from clearance.model.caps import Caps
from clearance.model.subject import Subject
from clearance.pricing import PriceBook, Prices, Usage
from clearance.pricing.names import known_as
from clearance_crewai.checking import (
    ask,
    check_authority,
    check_function,
    check_prices,
    checked_costs,
    checked_kinds,
)
from clearance_crewai.usage import Asked

log = logging.getLogger("clearance.crewai")

ToolCosts = Mapping[str, AmountLike] | Callable[[str], AmountLike | None]
ActionKinds = Mapping[str, str]
Approve = Callable[[str, Mapping[str, Any]], str | None]
Arguments = Callable[[str, Mapping[str, Any]], Mapping[str, Any]]

MODEL, TOOL, EMBEDDING = "llm.completion", "tool.call", "llm.embedding"
_as_json = json.JSONEncoder(default=str, sort_keys=True).encode
_MAX_NAME = 256
_MAX_FACT = 200
NOTHING: Mapping[str, Any] = MappingProxyType({})


class Options(TypedDict, total=False):
    """What every run may be told.

    Attributes:
        prices: what tokens cost; by default the public price list.
        tool_costs: what one call of a tool costs: a mapping by name, or `name -> amount or None`. Without a cost a call
            is checked all the same, with an amount of 0: stops, tool lists and step caps hold for it. Names are the
            tool's own or, as functions get them, CrewAI's for the model: "Send Email" is `send_email`.
        action_kinds: tool name -> action kind, e.g. {"send_email": "message.email.send"}; else `tool.call`.
        arguments: `(tool, its arguments) -> what may be kept of them`; by default only their hash and size are kept.
        ttl_ms: the lease of the run and of each call, extended while they last.
        overage_policy: for calls that cost more than was held.
        approve: `(tool, its arguments) -> who approves, or None`, asked where the authority wants a person's approval
            for a tool; it may wait for an answer. Without it, or with None, the tool is denied.
        sdk_retries: leave the OpenAI client's own retries on. Off by default inside a run, since they are paid and
            cannot be seen: CrewAI's agents retry as well, and there each attempt is reserved.

    A function given here that raises has its call denied with CallbackFailed: a tool's agent is told so, a model call
    ends the run.
    """

    prices: Prices | None
    tool_costs: ToolCosts | None
    action_kinds: ActionKinds | None
    arguments: Arguments | None
    ttl_ms: int
    overage_policy: OveragePolicy | None
    approve: Approve | None
    sdk_retries: bool


@dataclass(frozen=True, slots=True)
class Who:
    """Where in the crew a call is made; texts, empty where CrewAI does not say. `subject` is who acts then."""

    crew: str = ""
    agent: str = ""
    task: str = ""
    subject: Subject | None = None

    def facts(self) -> dict[str, Any]:
        found = {"crew": self.crew, "agent": self.agent, "task": self.task}
        return {name: text[:_MAX_FACT] for name, text in found.items() if text}


class Call(NamedTuple):
    """One call that is about to be made; `asked` is None for tools.

    `unpriced` says that the estimate of 0 stands for "no cost was given", `model` which model is to be asked in place
    of the one that the crew wants.
    """

    action: Action
    estimate: Amount
    who: Who
    asked: Asked | None = None
    unpriced: bool = False
    model: str | None = None
    approved_by: str | None = None
    facts: Mapping[str, Any] = NOTHING


@dataclass(frozen=True, slots=True)
class Gate:
    """What a run was told (see `Options`), and how it lets calls pass. Raises InvalidRequest for bad costs."""

    authority: Authority
    prices: Prices | None = None
    tool_costs: ToolCosts | None = None
    action_kinds: ActionKinds | None = None
    arguments: Arguments | None = None
    ttl_ms: int = DEFAULT_TTL_MS
    overage_policy: OveragePolicy | None = None
    approve: Approve | None = None
    sdk_retries: bool = False

    def __post_init__(self) -> None:
        check_authority(self.authority)
        check_prices(self.prices)
        object.__setattr__(self, "tool_costs", checked_costs(self.tool_costs))
        object.__setattr__(self, "action_kinds", checked_kinds(self.action_kinds))
        if self.arguments is not None:
            check_function("arguments", self.arguments, "a function (tool, arguments) -> mapping", "tool", {})
        if self.approve is not None:
            check_function("approve", self.approve, "a function (tool, arguments) -> who approves, or None", "tool", {})
        if not isinstance(self.sdk_retries, bool):
            raise InvalidRequest("sdk_retries", f"{self.sdk_retries!r} is neither", "True or False")

    def named_tools(self) -> dict[str, Any]:
        """The names of tools that the options speak of, by option."""
        given = {"tool_costs": self.tool_costs, "action_kinds": self.action_kinds}
        return {option: tuple(names) for option, names in given.items() if isinstance(names, Mapping)}

    # --- what a call wants

    def model_call(self, asked: Asked, who: Who) -> Call:
        """Raises PriceUnknown (a Denied) for a model without a price, CallbackFailed for prices that fail."""
        action = _action(EMBEDDING if asked.embedding else MODEL, asked.model)
        if not asked.priced:
            return Call(action, Amount(unit=Unit.USD_MICROCENTS, amount=0), who, asked, unpriced=True)
        return Call(action, self._estimate(asked), who, asked)

    def _estimate(self, asked: Asked) -> Amount:
        prices = self._prices
        if isinstance(prices, PriceBook):
            return asked.estimate(prices)
        found = ask("prices", f"the call of {asked.model}", asked.estimate, prices)
        if not isinstance(found, Amount):
            raise InvalidRequest("prices", f"estimate() answered {type(found).__name__} for {asked.model}", "an Amount")
        return found

    def tool_call(self, name: str, arguments: object, who: Who) -> Call:
        cost = self._cost(name)
        estimate = Amount(unit=Unit.USD_MICROCENTS, amount=0) if cost is None else cost
        action = _action((self.action_kinds or {}).get(name, TOOL), name)
        return Call(action, estimate, who, unpriced=cost is None, facts=self._argument_facts(name, arguments))

    @property
    def _prices(self) -> Prices:
        return self.prices or default_prices()

    def _cost(self, name: str) -> Amount | None:
        costs = self.tool_costs
        if costs is None:
            return None
        found = ask("tool_costs", f"the call of {name}", costs, name) if callable(costs) else costs.get(name)
        return None if found is None else to_amount(found, f"tool_costs[{name!r}]")

    def _argument_facts(self, name: str, arguments: object) -> dict[str, Any]:
        if arguments is None:
            return {}
        text = arguments if isinstance(arguments, str) else _as_json(arguments)
        raw = text.encode("utf-8", "surrogatepass")
        facts: dict[str, Any] = {"arguments_sha256": hashlib.sha256(raw).hexdigest(), "arguments_bytes": len(raw)}
        if self.arguments is not None:
            facts["arguments"] = self._kept(name, arguments)
        return facts

    def _kept(self, name: str, arguments: object) -> dict[str, Any]:
        assert self.arguments is not None, "asked only where it is given"
        found = ask("arguments", f"the call of {name}", self.arguments, name, _mapping(arguments))
        if not isinstance(found, Mapping):
            raise InvalidRequest("arguments", f"answered {type(found).__name__} for {name}", "a mapping")
        try:
            return check_metadata(found)
        except InvalidRequest as error:
            raise InvalidRequest("arguments", f"its answer for {name} {error.problem}", error.allowed) from None

    # --- the way in

    def open(self, call: Call, run: Run, *, can_cap: bool = False, can_swap: bool = False) -> tuple[Permit, Call]:
        """A permit, and the call as it may be made. Raises Denied, AuthorityUnavailable, InvalidRequest.

        `can_cap` says that the request's output and tools are kept to the caps on the wire, `can_swap` that its model
        is changed there; what cannot be kept to is denied.
        """
        return perform(self.authority, self._opening(call, run, can_cap, can_swap))

    def open_tool(self, call: Call, arguments: object, run: Run) -> Permit:
        """A permit for a tool; where it needs a person's approval, `approve` is asked for it."""
        try:
            return perform(self.authority, self._admitting(call, run))
        except ApprovalRequired:
            approver = self._approver(call.action.name, arguments)
            if approver is None:
                raise
        return perform(self.authority, self._admitting(call._replace(approved_by=approver), run))

    def _approver(self, name: str, arguments: object) -> str | None:
        if self.approve is None or arguments is None:
            return None  # nobody approves what is not shown
        found: object = ask("approve", f"the call of {name}", self.approve, name, _mapping(arguments))
        if found is None or found is False:
            return None
        if not isinstance(found, str) or not found.strip():
            raise InvalidRequest("approve", f"answered {found!r:.40} for {name}", "who approves, as text, or None")
        return found

    def _opening(self, call: Call, run: Run, can_cap: bool, can_swap: bool) -> Steps[tuple[Permit, Call]]:
        permit = yield from self._admitting(call, run)
        caps = permit.caps
        if caps is not None and can_swap and (cheaper := self._allowed_instead(call, caps)) is not None:
            yield from permit.finishing(Release("another model is asked"))
            call, permit = cheaper, (yield from self._admitting(cheaper, run))
            caps = permit.caps
        violation = None if caps is None else _violation(call, caps, can_cap)
        if violation is not None:
            yield from permit.finishing(Release("CapsViolated"))
            raise violation
        return permit, call

    def _admitting(self, call: Call, run: Run) -> Steps[Permit]:
        try:
            return (yield from self._asking(call, call.estimate, run))
        except UnitMismatch as error:
            units = error.details.get("expected_units")
            if not call.unpriced or not units:
                raise
        # 0 is 0 in every unit: ask in one that the subject has.
        return (yield from self._asking(call, Amount(unit=Unit(units[0]), amount=0), run))

    def _asking(self, call: Call, estimate: Amount, run: Run) -> Steps[Permit]:
        facts = {"via": "crewai", **call.who.facts(), **call.facts}
        terms = Terms(
            ttl_ms=self.ttl_ms,
            overage_policy=self.overage_policy,
            metadata=facts,
            approved_by=call.approved_by,
            tool=None if call.asked is not None else call.action.name,
        )
        who = call.who.subject
        return (yield from admitting(wish(self.authority, call.action, estimate, subject=who, run=run, terms=terms)))

    def _allowed_instead(self, call: Call, caps: Caps) -> Call | None:
        """The same call to the model that the caps prefer; None if the wanted one is allowed."""
        if call.asked is None or not caps.models or _is_allowed(call.action.name, caps):
            return None
        other = self.model_call(call.asked.of(caps.models[0]), call.who)
        return other._replace(model=caps.models[0])

    # --- the way out

    def cost(self, call: Call, usage: Usage) -> Amount | None:
        """None where nobody knows; then the estimate stands. Never raises: the answer belongs to the user."""
        if call.asked is None:
            return None
        try:
            return self._prices.price(call.asked.model, usage)
        except Exception as error:
            log.error("no price for what %s used (%s); its estimate is charged", call.action.name, type(error).__name__)
            return None


def narrowed(subject: Subject, agent: str) -> Subject:
    """The subject with the agent's role as its agent, so that one role can be stopped or given a budget.

    Not where the subject names an agent or what lies below: a level in between would make other scopes.
    """
    name = "".join(letter if letter.isascii() and (letter.isalnum() or letter in "_.-") else "-" for letter in agent)
    name = name.strip("-").lower()[:128]
    if not name or subject.agent or subject.toolset:
        return subject
    return subject.narrowed(agent=name)


def _is_allowed(model: str, caps: Caps) -> bool:
    return known_as(model, [allowed.lower() for allowed in caps.models]) is not None


def _violation(call: Call, caps: Caps, can_cap: bool) -> CapsViolated | None:
    """What of the caps this call does not keep to."""
    if call.asked is None:
        return None  # the guard itself holds tools to the lists
    name = call.action.name
    if caps.models and not _is_allowed(name, caps):
        allowed = ", ".join(caps.models)
        return CapsViolated(
            f"model {name!r} is not allowed here; allowed: {allowed}", details={"models": [*caps.models]}
        )
    wanted = call.asked.max_output_tokens
    if not can_cap and caps.max_tokens is not None and (wanted is None or wanted > caps.max_tokens):
        message = f"at most {caps.max_tokens} tokens of output are allowed here; set max_tokens on the LLM"
        return CapsViolated(message, details={"max_tokens": caps.max_tokens})
    return None


def _mapping(arguments: object) -> Mapping[str, Any]:
    return arguments if isinstance(arguments, Mapping) else {"input": arguments}


@lru_cache(maxsize=1024)
def _action(kind: str, name: str) -> Action:
    return named(kind, (name or "unnamed")[:_MAX_NAME])

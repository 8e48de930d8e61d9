"""The one place where a LangChain call becomes a reservation and a result becomes a settlement."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, TypedDict
from uuid import UUID

from langchain_core.messages import BaseMessage

from clearance.authority.interface import DEFAULT_TTL_MS, Authority
from clearance.connecting import default_prices
from clearance.errors import CapsViolated, ClearanceError, InvalidRequest, UnitMismatch
from clearance.guard import Permit, outcome_of
from clearance.guard.admission import Terms, Wish, admitting, wish
from clearance.guard.outcome import Outcome, Release, of_another_call
from clearance.guard.steps import Steps, aperform, perform
from clearance.model.account import OveragePolicy
from clearance.model.action import Action, named
from clearance.model.amount import Amount, AmountLike, Unit, to_amount
from clearance.model.caps import Caps
from clearance.model.subject import Subject
from clearance.pricing import Prices
from clearance.pricing.names import known_as
from clearance_langchain.errors import fit
from clearance_langchain.runtrees import listen
from clearance_langchain.subjects import resolve
from clearance_langchain.usage import Asked, Reported, asked
from clearance_langchain.vouching import Vouchers, vouchers_of

log = logging.getLogger("clearance.langchain")

ToolCosts = Mapping[str, AmountLike] | Callable[[str], AmountLike | None]
ActionKinds = Mapping[str, str]
Arguments = Callable[[str, Mapping[str, Any]], Mapping[str, Any]]

MODEL, TOOL, RETRIEVER, EMBEDDING = "llm.completion", "tool.call", "retriever.query", "llm.embedding"

_MAX_NAME = 256


class Options(TypedDict, total=False):
    """What every part of this package may be told.

    Attributes:
        prices: what tokens cost; by default the public price list.
        tool_costs: what one call of a tool or retriever costs: a mapping by name, or `name -> amount or None`. Without
            a cost a call is checked all the same, with an amount of 0: stops, tool lists and step caps hold for it.
        action_kinds: tool name -> action kind, e.g. {"send_email": "message.email.send"}; else `tool.call`.
        arguments: `(tool, its arguments) -> what may be kept of them`; by default only their hash and size are kept.
        ttl_ms: the lease of a reservation, extended while the call lasts.
        overage_policy: for calls that cost more than was held.
    """

    prices: Prices | None
    tool_costs: ToolCosts | None
    action_kinds: ActionKinds | None
    arguments: Arguments | None
    ttl_ms: int
    overage_policy: OveragePolicy | None


@dataclass(frozen=True, slots=True)
class Call:
    """One call that is about to be made; `asked` is None for tools and retrievers, `tool` for all others than tools.

    `unpriced` says that the estimate of 0 stands for "no cost was given".
    """

    action: Action
    estimate: Amount
    subject: Subject | None
    asked: Asked | None = None
    unpriced: bool = False
    chat: bool = True
    tool: str | None = None
    facts: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Gate:
    """What a handler, a guarded object or a wrapper was told (see `Options`), and how it lets calls pass.

    `subject` acts whatever the context says; None asks the context (`subjects.resolve`). Raises InvalidRequest for
    costs that are no amounts.
    """

    authority: Authority
    subject: Subject | None = None
    prices: Prices | None = None
    tool_costs: ToolCosts | None = None
    action_kinds: ActionKinds | None = None
    arguments: Arguments | None = None
    ttl_ms: int = DEFAULT_TTL_MS
    overage_policy: OveragePolicy | None = None

    def __post_init__(self) -> None:
        if self.subject is not None and not isinstance(self.subject, Subject):
            raise InvalidRequest("subject", f"{type(self.subject).__name__} is not a subject", "a Subject")
        object.__setattr__(self, "tool_costs", _checked(self.tool_costs))
        if self.subject is None:
            listen()

    # --- what a call wants

    def model_call(
        self,
        prompt: Iterable[BaseMessage | str],
        params: Mapping[str, Any],
        *,
        metadata: Mapping[str, Any] | None = None,
        parent: UUID | None = None,
        ls_model: str | None = None,
        name: str = "",
        chat: bool = True,
        kind: str = MODEL,
    ) -> Call:
        """Raises PriceUnknown (a Denied) for a model without a price."""
        try:
            wanted = asked(prompt, params, ls_model, name)
            estimate = wanted.estimate(self._prices)
        except ClearanceError as error:
            raise _refused(error) from None
        action = named(kind, wanted.model[:_MAX_NAME])
        return Call(action, estimate, self._subject(metadata, parent), wanted, chat=chat)

    def tool_call(
        self,
        name: str,
        arguments: object = None,
        *,
        metadata: Mapping[str, Any] | None = None,
        parent: UUID | None = None,
        kind: str = TOOL,
    ) -> Call:
        cost = self._cost(name)
        estimate = Amount(unit=Unit.USD_MICROCENTS, amount=0) if cost is None else cost
        action = named((self.action_kinds or {}).get(name, kind), (name or "unnamed")[:_MAX_NAME])
        facts = self._argument_facts(name, arguments)
        tool = None if kind == RETRIEVER else action.name
        return Call(action, estimate, self._subject(metadata, parent), unpriced=cost is None, tool=tool, facts=facts)

    @property
    def vouchers(self) -> Vouchers:
        return vouchers_of(self.authority)

    def with_gaps_filled(self, other: Gate, tool: str | None) -> Gate:
        """These settings, and those of `other` where these say nothing. The same object if that changes nothing.

        `tool` is the name of the tool that they are for, None for a model. Raises InvalidRequest where both say
        something and it differs.
        """
        changes: dict[str, Any] = {}
        for name, default in _DEFAULTS.items():
            mine, theirs = getattr(self, name), getattr(other, name)
            if theirs == default or theirs is mine or (tool is None and name in _FOR_TOOLS):
                continue
            if mine == default:
                changes[name] = theirs
            elif self._effect(name, tool) != other._effect(name, tool):
                what = f"tool {tool!r}" if tool else "the model"
                raise InvalidRequest(name, f"{what} was guarded with another one", "one of the two places")
        return replace(self, **changes) if changes else self

    def _effect(self, name: str, tool: str | None) -> object:
        if tool is not None and name == "tool_costs":
            return self._cost(tool)
        if tool is not None and name == "action_kinds":
            return (self.action_kinds or {}).get(tool)
        return getattr(self, name)

    @property
    def _prices(self) -> Prices:
        return self.prices or default_prices()

    def _subject(self, metadata: Mapping[str, Any] | None, parent: UUID | None) -> Subject | None:
        return resolve(self.subject, self.authority, metadata, parent)

    def _cost(self, name: str) -> Amount | None:
        costs = self.tool_costs
        if costs is None:
            return None
        found = costs(name) if callable(costs) else costs.get(name)
        return None if found is None else to_amount(found, f"tool_costs[{name!r}]")

    def _argument_facts(self, name: str, arguments: object) -> dict[str, Any]:
        if arguments is None:
            return {}
        text = arguments if isinstance(arguments, str) else json.dumps(arguments, default=str, sort_keys=True)
        raw = text.encode("utf-8", "surrogatepass")
        facts: dict[str, Any] = {"arguments_sha256": hashlib.sha256(raw).hexdigest(), "arguments_bytes": len(raw)}
        if self.arguments is not None:
            given = arguments if isinstance(arguments, Mapping) else {"input": arguments}
            facts["arguments"] = dict(self.arguments(name, given))
        return facts

    # --- the way in

    def open(self, call: Call, *, can_cap: bool = True, approved_by: str | None = None, **facts: Any) -> Permit:
        """A permit for the call. Raises Denied, AuthorityUnavailable, InvalidRequest; then nothing is held.

        `can_cap` says that the caller lowers the request's output to the caps; otherwise a request above is denied.
        """
        return perform(self.authority, self._opening(call, can_cap, self._terms(call, approved_by, facts)))

    async def aopen(self, call: Call, *, can_cap: bool = True, approved_by: str | None = None, **facts: Any) -> Permit:
        return await aperform(self.authority, self._opening(call, can_cap, self._terms(call, approved_by, facts)))

    def _opening(self, call: Call, can_cap: bool, terms: Terms) -> Steps[Permit]:
        try:
            permit = yield from self._admitting(call, terms)
        except ClearanceError as error:
            fit(error)
            raise
        violation = None if permit.caps is None else _violation(call, permit.caps, can_cap)
        if violation is not None:
            yield from permit.finishing(Release("CapsViolated"))
            raise _refused(violation)
        return permit

    def _admitting(self, call: Call, terms: Terms) -> Steps[Permit]:
        try:
            return (yield from admitting(self._wish(call, call.estimate, terms)))
        except UnitMismatch as error:
            units = error.details.get("expected_units")
            if not call.unpriced or not units:
                raise
        # 0 is 0 in every unit: ask in one that the subject has.
        return (yield from admitting(self._wish(call, Amount(unit=Unit(units[0]), amount=0), terms)))

    def _wish(self, call: Call, estimate: Amount, terms: Terms) -> Wish:
        return wish(self.authority, call.action, estimate, subject=call.subject, terms=terms)

    def _terms(self, call: Call, approved_by: str | None, facts: dict[str, Any]) -> Terms:
        kept = {name: value for name, value in {**call.facts, **facts}.items() if value is not None}
        return Terms(
            ttl_ms=self.ttl_ms,
            overage_policy=self.overage_policy,
            metadata={"via": "langchain", **kept},
            approved_by=approved_by,
            tool=call.tool,
        )

    # --- the way out

    def note(self, permit: Permit, call: Call, said: Reported) -> None:
        """Tell the permit what the answer says that it cost. Never raises: the answer belongs to the user."""
        if call.asked is None:
            return
        try:
            cost = said.cost(call.asked.model, self._prices)
            if cost is not None:
                permit.settle(cost)
        except Exception as error:
            log.error("the usage of %s is not known (%s); its estimate is charged", permit.id, type(error).__name__)
        cap = None if permit.caps is None else permit.caps.max_tokens
        if cap is not None and said.output_tokens > cap * call.asked.n:
            log.warning("%s was capped to %d tokens of output and made %d", permit.id, cap, said.output_tokens)

    def outcome(self, permit: Permit, call: Call, error: BaseException | None) -> Outcome:
        """The guard's settlement table. Refused arguments are free for tools, whatever their action kind."""
        if call.asked is None:
            return outcome_of(error, permit.actual, permit.estimate, body_ran=True)
        return permit.outcome_of(error)


_DEFAULTS = {it.name: it.default for it in fields(Gate) if it.name != "authority"}
_FOR_TOOLS = ("tool_costs", "action_kinds", "arguments")


def _violation(call: Call, caps: Caps, can_cap: bool) -> CapsViolated | None:
    """What of the caps this call does not keep to."""
    if call.asked is None:
        return None  # the guard itself holds tools to the lists
    name = call.action.name
    if caps.models and known_as(name, [model.lower() for model in caps.models]) is None:
        allowed = ", ".join(caps.models)
        return CapsViolated(
            f"model {name!r} is not allowed here; allowed: {allowed}", details={"models": [*caps.models]}
        )
    wanted = call.asked.max_output_tokens
    if not can_cap and caps.max_tokens is not None and (wanted is None or wanted > caps.max_tokens):
        message = f"at most {caps.max_tokens} tokens of output are allowed here; set max_tokens, or use guard(model)"
        return CapsViolated(message, details={"max_tokens": caps.max_tokens})
    return None


def _checked(costs: ToolCosts | None) -> ToolCosts | None:
    """Say it now, not at the first call, when a cost is not an amount."""
    if costs is None or callable(costs):
        return costs
    if not isinstance(costs, Mapping):
        raise InvalidRequest("tool_costs", f"{type(costs).__name__} is no list of costs", "a mapping or a callable")
    return {name: to_amount(cost, f"tool_costs[{name!r}]") for name, cost in costs.items()}


def _refused(error: ClearanceError) -> ClearanceError:
    """For the guards further out it is an error like any other."""
    of_another_call(error)
    return fit(error)

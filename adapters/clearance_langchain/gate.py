"""The one place where a LangChain call becomes a reservation and a result becomes a settlement."""

from __future__ import annotations

import hashlib
import json
import logging
import secrets
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from langchain_core.messages import BaseMessage
from langchain_core.outputs import LLMResult

from clearance.authority.interface import DEFAULT_TTL_MS, Authority
from clearance.errors import CapsViolated, ClearanceError, InvalidRequest, UnitMismatch
from clearance.guard import Permit, outcome_of
from clearance.guard.admission import Terms, admitting, wish
from clearance.guard.outcome import Outcome, Release, is_tool, of_another_call
from clearance.guard.steps import Steps, aperform, perform
from clearance.model.account import OveragePolicy
from clearance.model.action import Action
from clearance.model.amount import Amount, AmountLike, Unit, to_amount
from clearance.model.subject import Subject
from clearance.pricing import PriceBook, Prices

from clearance_langchain.errors import fit
from clearance_langchain.subjects import resolve
from clearance_langchain.usage import Asked, actual, asked

log = logging.getLogger("clearance.langchain")

ToolCosts = Mapping[str, AmountLike] | Callable[[str], AmountLike | None]
"""What one call of a tool or retriever costs, by its name; tools without an entry are unpriced."""

ActionKinds = Mapping[str, str]
"""Tool name -> action kind, e.g. {"send_email": "message.email.send"}."""

Arguments = Callable[[str, Mapping[str, Any]], Mapping[str, Any]]
"""(tool name, arguments) -> what of the arguments may be kept with the reservation."""

MODEL, TOOL, RETRIEVER, EMBEDDING = "llm.completion", "tool.call", "retriever.query", "llm.embedding"

GOVERNED = "clearance_governed"
_TOKEN = secrets.token_hex(8)
"""Known to this process only, so that a call cannot pass for a guarded one by metadata from outside."""

_MAX_NAME = 256


@dataclass(frozen=True, slots=True)
class Call:
    """One call that is about to be made. `unpriced` says that the estimate of 0 stands for "no cost was given"."""

    action: Action
    estimate: Amount
    subject: Subject | None
    asked: Asked | None = None
    unpriced: bool = False
    chat: bool = True
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def is_tool(self) -> bool:
        return self.asked is None


@dataclass(frozen=True, slots=True)
class Gate:
    """What a handler, a guarded object and an embeddings wrapper were told, and how they pass a call.

    Attributes:
        subject: who acts, whatever the context says; None asks the context (see `subjects.resolve`).
        arguments: what of a tool's arguments is kept with its reservation; by default only their hash and size.
        ttl_ms: the lease of each reservation, extended while the call lasts.
    """

    authority: Authority
    subject: Subject | None = None
    prices: Prices = field(default_factory=lambda: default_prices())
    tool_costs: ToolCosts | None = None
    action_kinds: ActionKinds = field(default_factory=dict)
    arguments: Arguments | None = None
    ttl_ms: int = DEFAULT_TTL_MS
    overage_policy: OveragePolicy | None = None

    # --- what a call wants

    def model_call(
        self,
        prompt: Iterable[BaseMessage | str],
        params: Mapping[str, Any],
        *,
        metadata: Mapping[str, Any] | None = None,
        name: str = "",
        chat: bool = True,
        kind: str = MODEL,
    ) -> Call:
        """Raises PriceUnknown (a Denied) for a model without a price."""
        ls_model = (metadata or {}).get("ls_model_name")
        wanted = asked(prompt, params, ls_model, name)
        try:
            estimate = wanted.estimate(self.prices)
        except ClearanceError as error:
            raise _refused(error) from None
        action = Action(kind=kind, name=wanted.model[:_MAX_NAME])
        return Call(action, estimate, self._subject(metadata), wanted, chat=chat)

    def tool_call(
        self, name: str, arguments: object = None, *, metadata: Mapping[str, Any] | None = None, kind: str = TOOL
    ) -> Call:
        """A call without a cost is still checked, with an amount of 0: stops, tool lists and step caps hold for it."""
        cost = self._cost(name)
        estimate = Amount(unit=Unit.USD_MICROCENTS, amount=0) if cost is None else cost
        action = Action(kind=self.action_kinds.get(name, kind), name=(name or "unnamed")[:_MAX_NAME])
        facts = self._argument_facts(name, arguments)
        return Call(action, estimate, self._subject(metadata), unpriced=cost is None, facts=facts)

    def _subject(self, metadata: Mapping[str, Any] | None) -> Subject | None:
        return resolve(self.subject, self.authority, metadata)

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

    def open(self, call: Call, **facts: Any) -> Permit:
        """A permit for the call. Raises Denied, AuthorityUnavailable, InvalidRequest; then nothing is held."""
        return perform(self.authority, self._opening(call, facts))

    async def aopen(self, call: Call, **facts: Any) -> Permit:
        return await aperform(self.authority, self._opening(call, facts))

    def _opening(self, call: Call, facts: dict[str, Any]) -> Steps[Permit]:
        try:
            permit = yield from self._admitting(call, facts)
        except ClearanceError as error:
            raise fit(error) from None
        caps = permit.caps
        # The guard holds kinds below `tool` to the tool lists; a tool with a kind of its own is a tool all the same.
        if call.is_tool and caps is not None and not is_tool(call.action) and not caps.allows_tool(call.action.name):
            yield from permit.finishing(Release("CapsViolated"))
            raise _refused(CapsViolated(f"tool {call.action.name!r} is not allowed here", scope=permit.decision.scope))
        return permit

    def _admitting(self, call: Call, facts: dict[str, Any]) -> Steps[Permit]:
        try:
            return (yield from admitting(self._wish(call, call.estimate, facts)))
        except UnitMismatch as error:
            units = error.details.get("expected_units")
            if not call.unpriced or not units:
                raise
        # 0 is 0 in every unit: ask in one that the subject has.
        return (yield from admitting(self._wish(call, Amount(unit=Unit(units[0]), amount=0), facts)))

    def _wish(self, call: Call, estimate: Amount, facts: dict[str, Any]) -> Any:
        kept = {name: value for name, value in {**call.facts, **facts}.items() if value is not None}
        terms = Terms(ttl_ms=self.ttl_ms, overage_policy=self.overage_policy, metadata={"via": "langchain", **kept})
        return wish(self.authority, call.action, estimate, subject=call.subject, terms=terms)

    # --- the way out

    def note(self, permit: Permit, call: Call, result: LLMResult) -> None:
        """Tell the permit what the answer says that it cost. Never raises: the answer belongs to the user."""
        if call.asked is None:
            return
        try:
            cost = actual(result, call.asked.model, self.prices, chat=call.chat)
            if cost is not None:
                permit.settle(cost)
        except Exception as error:
            log.error("the usage of %s is not known (%s); its estimate is charged", permit.id, type(error).__name__)

    def outcome(self, permit: Permit, call: Call, error: BaseException | None) -> Outcome:
        """The guard's settlement table. For tools of any kind refused arguments are free."""
        if call.is_tool:
            return outcome_of(error, permit.actual, permit.estimate, body_ran=True)
        return permit.outcome_of(error)


def mark_governed(metadata: Mapping[str, Any] | None) -> dict[str, Any]:
    """Metadata for an object that guards itself, so that a handler does not count its calls again."""
    return {**(metadata or {}), GOVERNED: _TOKEN}


def is_governed(metadata: Mapping[str, Any] | None) -> bool:
    return metadata is not None and metadata.get(GOVERNED) == _TOKEN


@cache
def default_prices() -> PriceBook:
    """One book for all who bring none: a model's price is looked up once."""
    return PriceBook()


def check_costs(costs: ToolCosts | None) -> ToolCosts | None:
    """Say it now, not at the first call, when a cost is not an amount."""
    if costs is None or callable(costs):
        return costs
    if not isinstance(costs, Mapping):
        raise InvalidRequest("tool_costs", f"{type(costs).__name__} is no list of costs", "a mapping or a callable")
    return {name: to_amount(cost, f"tool_costs[{name!r}]") for name, cost in costs.items()}


def _refused(error: ClearanceError) -> ClearanceError:
    of_another_call(error)
    return fit(error)

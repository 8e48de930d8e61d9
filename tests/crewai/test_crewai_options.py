"""What a user gets wrong is said at kickoff, and a user's function that fails is told as what it is."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest
from crew_base import research_class
from crew_world import ACME, World, calls_then
from crewai import Flow

import clearance_crewai
from clearance.errors import AuthorityUnavailable, Denied, InvalidRequest
from clearance.model.amount import usd
from clearance.model.caps import Caps
from clearance.simulator import ToolCall
from clearance_crewai import CallbackFailed, partial_of

MakeWorld = Callable[..., World]
LOOK = ToolCall("look_up", {"word": "sun"})
SECRET = "the customer's secret"


def said_to_the_model(world: World) -> str:
    return json.dumps([request.body for request in world.sim.requests])


def fails(*_: Any, **__: Any) -> Any:
    raise ZeroDivisionError(SECRET)


async def afunction(tool: str, arguments: Any) -> Any:
    return None


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"tool_cost": {"look_up": usd("1")}}, r"tool_cost: is no option; did you mean tool_costs\?; allowed: prices"),
        ({"budgett": usd("1")}, "budgett: is no option; did you mean budget?"),
        ({"tool_costs": usd("1")}, "tool_costs: Amount is no function; allowed: a mapping by tool, or a function"),
        ({"tool_costs": {"look_up": 0.5}}, r"tool_costs\['look_up'\]: 0.5 is a float"),
        ({"tool_costs": {7: usd("1")}}, "tool_costs: 7 is not the name of a tool"),
        ({"tool_costs": {"lok_up": usd("1")}}, "tool_costs: the crew has no tool 'lok_up'; did you mean 'look_up'?"),
        ({"tool_costs": lambda: usd("1")}, "tool_costs: takes other arguments"),
        ({"action_kinds": {"lookup": "message.email"}}, "action_kinds: .* did you mean 'look_up'?"),
        ({"action_kinds": {"look_up": 7}}, r"action_kinds\['look_up'\]: int is no action kind"),
        ({"action_kinds": {"look_up": "x" * 65}}, r"action_kinds\['look_up'\]: 'x+' .*64"),
        ({"action_kinds": {"look_up": "BAD kind"}}, r"action_kinds\['look_up'\]: 'BAD kind' holds a space"),
        ({"action_kinds": "message.email"}, "action_kinds: str is no mapping"),
        ({"arguments": {"look_up": 1}}, r"arguments: dict is no function; allowed: a function \(tool, arguments\)"),
        ({"arguments": lambda tool: {}}, "arguments: takes other arguments .too many positional"),
        ({"approve": "ann"}, "approve: str is no function"),
        ({"approve": lambda tool: None}, "approve: takes other arguments"),
        ({"approve": afunction}, "approve: is a coroutine function"),
        ({"prices": {"gpt-4o-mini": {}}}, "prices: dict is no price book"),
        ({"sdk_retries": 3}, "sdk_retries: 3 is neither"),
        ({"ttl_ms": 5}, "ttl_ms: 5 is refused; allowed: a whole number from"),
        ({"overage_policy": "yes"}, "overage_policy: 'yes' is unknown; allowed: REJECT"),
        ({"on_deny": "return"}, 'on_deny: .*"raise" or "finish"'),
        ({"name": 7}, "name: 7 names no run"),
        ({"budget": "a lot"}, "a lot"),
        ({"subject": "acme"}, "subject: str is not a subject"),
    ],
    ids=lambda it: next(iter(it)) if isinstance(it, dict) else None,
)
def test_a_wrong_option_is_said_at_kickoff(world: World, options: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidRequest, match=said):
        world.kickoff(world.crew([world.tool()]), **options)

    assert (world.requests, world.tool_runs) == (0, [])


@pytest.mark.parametrize("start", ["kickoff", "akickoff", "kickoff_for_each", "akickoff_for_each"])
def test_arguments_in_the_wrong_order_are_said(world: World, start: str) -> None:
    inputs = {"inputs": [{"n": 1}]} if "each" in start else {}

    def begin(*arguments: Any) -> None:
        result = getattr(clearance_crewai, start)(*arguments, **inputs)
        if asyncio.iscoroutine(result):
            asyncio.run(result)

    crew = world.crew()
    with pytest.raises(InvalidRequest, match=r"crew: LocalAuthority cannot be started .swapped\?"):
        begin(world.authority, crew, ACME)
    with pytest.raises(InvalidRequest, match=r"authority: Subject is no authority .*the order is: crew, authority"):
        begin(crew, ACME, world.authority)
    with pytest.raises(InvalidRequest, match="subject: Amount is not a subject"):
        begin(crew, world.authority, usd("1"), ACME)
    with pytest.raises(InvalidRequest, match="budget: Subject is not money"):
        begin(crew, world.authority, ACME, ACME)
    assert world.requests == 0


def test_blocks_and_decorators_say_it_as_well(world: World) -> None:
    with pytest.raises(InvalidRequest, match="authority: Subject is no authority"):
        clearance_crewai.run(ACME, world.authority)  # type: ignore[arg-type]
    with pytest.raises(InvalidRequest, match=r"did you mean approve\?"):
        clearance_crewai.governed(world.authority, ACME, aprove=print)(test_blocks_and_decorators_say_it_as_well)  # type: ignore[call-arg]
    with pytest.raises(InvalidRequest, match=r"Words is a class; allowed: an object of it: Words\(\)"):
        clearance_crewai.kickoff(type("Words", (), {"crew": None}), world.authority)
    with pytest.raises(InvalidRequest, match="inputs: dict is no list of inputs"):
        clearance_crewai.kickoff_for_each(world.crew(), world.authority, ACME, inputs={"n": 1})  # type: ignore[arg-type]


def test_what_cannot_be_started_for_each_is_said_before_anything_begins(world: World) -> None:
    with pytest.raises(InvalidRequest, match="crew: Agent cannot be started for each"):
        clearance_crewai.kickoff_for_each(world.agent(), world.authority, ACME, inputs=[{}])
    with pytest.raises(InvalidRequest, match="crew: Words cannot be started for each"):
        asyncio.run(clearance_crewai.akickoff_for_each(type("Words", (Flow,), {})(), world.authority, ACME, inputs=[]))
    assert world.reservations() == []


def test_a_decorator_without_arguments_is_said() -> None:
    with pytest.raises(InvalidRequest, match=r"governed: work is decorated without arguments; allowed: @governed\("):

        @clearance_crewai.governed  # type: ignore[arg-type]
        def work() -> None: ...


def test_inputs_of_the_wrong_kind_are_said(world: World) -> None:
    with pytest.raises(InvalidRequest, match="inputs: str is no mapping; allowed: a dict"):
        world.kickoff(world.crew(), inputs="lamps")
    with pytest.raises(InvalidRequest, match="inputs: dict is no question; allowed: text, or a list of messages"):
        world.kickoff(world.agent(), inputs={"topic": "lamps"})
    assert world.requests == 0
    assert world.kickoff(world.agent(), inputs="lamps").raw.startswith("This is a simulated answer")


def test_a_misspelt_tool_of_a_crew_base_object_is_said(world: World) -> None:
    with pytest.raises(InvalidRequest, match=r"did you mean 'look_up'\?"):
        world.kickoff(research_class(world)(), tool_costs={"look_upp": usd("1")})
    assert world.requests == 0


def test_names_of_other_crews_tools_may_stand_in_a_shared_list(world: World) -> None:
    shared = {"look_up": usd("0.01"), "look_ups": usd("9"), "send_email": usd("9")}

    result = world.kickoff(world.crew([world.tool()]), tool_costs=shared)

    assert result.clearance.by("tool")[0].actual == 1_000_000


def test_a_tool_may_be_named_as_it_names_itself(make_world: MakeWorld) -> None:
    world = make_world(calls_then("done", ToolCall("send_email", {"word": "x"})))

    result = world.kickoff(
        world.crew([world.tool("Send Email")]),
        tool_costs={"Send Email": usd("0.01")},
        action_kinds={"Send Email": "message.email.send"},
    )

    (line,) = result.clearance.by("kind", "tool")
    assert (line.kind, line.tool, line.actual) == ("message.email.send", "send_email", 1_000_000)


# --- functions that fail


@pytest.mark.parametrize("option", ["tool_costs", "arguments", "approve"])
def test_a_function_that_raises_denies_its_tool_and_is_told_as_what_it_is(
    make_world: MakeWorld, option: str, caplog: pytest.LogCaptureFixture
) -> None:
    world = make_world(calls_then("did without", LOOK))
    world.budget("1", caps=Caps(approval_tools=("look_*",)) if option == "approve" else None)

    result = world.kickoff(world.crew([world.tool()]), **{option: fails})

    assert (world.tool_runs, result.raw, result.clearance.refused) == ([], "did without", 1)
    assert f"Denied: {option} raised ZeroDivisionError, so the call of look_up is denied." in said_to_the_model(world)
    (line,) = [line for line in caplog.messages if option in line]
    assert "test_crewai_options.py:" in line
    assert SECRET not in caplog.text + said_to_the_model(world)


def test_prices_that_raise_end_the_run_with_their_name(world: World) -> None:
    class Broken:
        estimate = price = rates = fails

    said = "prices raised ZeroDivisionError, so the call of gpt-4o-mini is denied"
    with pytest.raises(CallbackFailed, match=said) as it:
        world.kickoff(world.crew(), prices=Broken())

    assert isinstance(it.value, Denied)
    assert not isinstance(it.value, AuthorityUnavailable)
    assert (it.value.details["callback"], it.value.details["error"]) == ("prices", "ZeroDivisionError")
    assert it.value.details["at"].startswith("test_crewai_options.py:")
    assert partial_of(it.value) is not None
    assert (world.requests, SECRET in str(it.value)) == (0, False)


def test_a_function_may_deny_in_words_of_its_own(make_world: MakeWorld) -> None:
    world = make_world(calls_then("did without", LOOK))
    world.budget("1", caps=Caps(approval_tools=("look_*",)))

    def never(tool: str, arguments: Any) -> None:
        raise Denied("not on a Sunday")

    world.kickoff(world.crew([world.tool()]), approve=never)

    assert "Denied: not on a Sunday. Do not call look_up again." in said_to_the_model(world)
    assert world.tool_runs == []


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"tool_costs": lambda tool: 0.5}, r"tool_costs\['look_up'\]: 0.5 is a float"),
        ({"arguments": lambda tool, given: [1]}, "arguments: answered list for look_up; allowed: a mapping"),
        ({"arguments": lambda tool, given: {"x": object()}}, "arguments: its answer for look_up is not JSON"),
        ({"approve": lambda tool, given: True}, "approve: answered True for look_up; allowed: who approves"),
    ],
    ids=["tool_costs", "arguments", "arguments no JSON", "approve"],
)
def test_a_function_that_answers_nonsense_ends_the_run(
    make_world: MakeWorld, options: dict[str, Any], said: str
) -> None:
    world = make_world(calls_then("done", LOOK))
    world.budget("1", caps=Caps(approval_tools=("look_*",)) if "approve" in options else None)

    with pytest.raises(InvalidRequest, match=said):
        world.kickoff(world.crew([world.tool()]), **options)

    assert (world.requests, world.tool_runs) == (1, [])

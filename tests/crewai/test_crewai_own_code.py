"""Where a run's own code is, and what a model calls as a function: their tools are reserved, and never twice."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from crew_paths import react, text_llm
from crew_world import World, calls_then
from crewai import Flow
from crewai.flow.flow import start

from clearance.errors import BudgetExceeded, Denied
from clearance.model.amount import usd
from clearance.model.subject import Subject
from clearance.simulator import ToolCall, always
from clearance_crewai import partial_of

MakeWorld = Callable[..., World]
LOOK = ToolCall("look_up", {"word": "sun"})
FUNCTION = {"name": "look_up", "description": "d", "parameters": {"type": "object", "properties": {}}}
CENT = usd("0.01").amount
# CrewAI says so of functions that are given as callbacks.
pytestmark = pytest.mark.filterwarnings("ignore:.*prevent checkpointing:UserWarning")


def statuses(world: World) -> list[str]:
    return sorted(call.status for call in world.tool_calls())


def _in_a_step(world: World, act: Callable[[], Any]) -> Any:
    class Steps(Flow):  # type: ignore[type-arg]
        @start()
        def first(self) -> Any:
            return act()

    return Steps()


def _in_a_guardrail(world: World, act: Callable[[], Any]) -> Any:
    return world.crew(task={"guardrail": lambda output: (True, act())})


def _in_a_callback(world: World, act: Callable[[], Any]) -> Any:
    return world.crew(task={"callback": lambda output: act()})


def _in_a_step_callback(world: World, act: Callable[[], Any]) -> Any:
    return world.crew([world.tool("other")], step_callback=lambda output: act())


def _before_kickoff(world: World, act: Callable[[], Any]) -> Any:
    crew = world.crew()
    crew.before_kickoff_callbacks.append(lambda inputs: act() and inputs)
    return crew


PLACES = [_in_a_step, _in_a_guardrail, _in_a_callback, _in_a_step_callback, _before_kickoff]


@pytest.mark.parametrize("place", PLACES)
def test_a_call_in_any_place_of_a_runs_code_is_gated(make_world: MakeWorld, place: Any) -> None:
    world = make_world(always("done"))

    world.kickoff(place(world, lambda: world.tool().run(word="sun")), tool_costs={"look_up": usd("0.01")})

    assert world.tool_runs == ["look_up"]
    assert statuses(world) == ["COMMITTED"]
    assert world.spent() == world.billed + CENT


@pytest.mark.parametrize("place", PLACES)
def test_a_denial_there_leaves_the_run_in_one_attempt(make_world: MakeWorld, place: Any) -> None:
    world = make_world(always("done"))
    attempts: list[int] = []

    def act() -> Any:
        attempts.append(1)
        return world.tool().run(word="sun")

    with pytest.raises(BudgetExceeded, match="USD left") as it:
        world.kickoff(place(world, act), budget=usd("0.1"), tool_costs={"look_up": usd("0.5")})

    assert (len(attempts), world.tool_runs) == (1, [])
    assert type(it.value) is BudgetExceeded
    assert partial_of(it.value) is not None
    assert world.spent() == world.billed


@pytest.mark.parametrize("place", PLACES)
def test_a_denial_there_can_land_softly(make_world: MakeWorld, place: Any) -> None:
    world = make_world(always("done"))

    with world.run(budget=usd("0.1"), tool_costs={"look_up": usd("0.5")}, on_deny="finish") as run:
        place(world, lambda: world.tool().run(word="sun")).kickoff()
        raise AssertionError("it must not come here")

    assert isinstance(run.denial, BudgetExceeded)
    assert isinstance(run.report().denied, BudgetExceeded)


@pytest.mark.parametrize("agent", ["native", "text"])
def test_a_tool_that_another_ones_body_calls_is_charged_with_it(make_world: MakeWorld, agent: str) -> None:
    world = make_world(calls_then("done", LOOK) if agent == "native" else react)
    inner = world.tool("inner")
    outer = world.tool(work=lambda word: str(inner.run(word)))

    result = world.kickoff(
        world.crew([outer], agent={"llm": text_llm(world)} if agent == "text" else {}),
        tool_costs={"look_up": usd("0.01"), "inner": usd("0.02")},
    )

    assert world.tool_runs == ["look_up", "inner"]
    assert world.spent() == world.billed + 3 * CENT
    (line,) = [line for line in result.clearance.lines if line.tool == "inner"]
    assert (line.agent, line.task) == ("Researcher", "task1")


@pytest.mark.parametrize("agent", ["native", "text"])
def test_a_denied_tool_in_anothers_body_is_that_ones_error(make_world: MakeWorld, agent: str) -> None:
    """Its own cost may have been spent when it came to call the other."""
    world = make_world(calls_then("done", LOOK) if agent == "native" else react)
    inner = world.tool("inner")
    caught: list[Denied] = []

    def work(word: str) -> str:
        try:
            return str(inner.run(word))
        except Denied as error:
            caught.append(error)
            raise

    world.kickoff(
        world.crew([world.tool(work=work)], agent={"llm": text_llm(world)} if agent == "text" else {}),
        budget=usd("0.1"),
        tool_costs={"look_up": usd("0.01"), "inner": usd("0.5")},
    )

    assert [type(error).__mro__[1] for error in caught] == [BudgetExceeded]
    assert world.tool_runs == ["look_up"]
    assert world.spent() == world.billed + CENT


def test_a_tool_in_a_run_that_a_tool_opens_is_of_that_run(make_world: MakeWorld) -> None:
    world = make_world(calls_then("done", LOOK))
    inner = world.tool("inner")

    def work(word: str) -> str:
        with world.run(Subject(tenant="acme", agent="clerk"), tool_costs={"inner": usd("0.02")}):
            return str(inner.run(word))

    world.kickoff(world.crew([world.tool(work=work)]), tool_costs={"look_up": usd("0.01")})

    assert world.tool_runs == ["look_up", "inner"]
    assert {call.action["name"]: call.subject["agent"] for call in world.tool_calls()} == {
        "look_up": "researcher",
        "inner": "clerk",
    }
    assert world.spent() == world.billed + 3 * CENT


# --- functions of a model


@pytest.mark.parametrize(
    "functions",
    [
        lambda tool: {"look_up": tool.run},
        lambda tool: {"look_up": lambda word: tool.run(word=word)},
        lambda tool: {"look_up": tool.to_structured_tool()._run},
    ],
    ids=["bound", "called by it", "structured"],
)
def test_a_tool_that_a_model_calls_as_a_function_is_charged_once(make_world: MakeWorld, functions: Any) -> None:
    world = make_world(calls_then("done", LOOK))

    with world.run(tool_costs={"look_up": usd("0.01")}):
        answer = world.llm().call(
            "look", tools=[{"type": "function", "function": FUNCTION}], available_functions=functions(world.tool())
        )

    assert (answer, world.tool_runs) == ("sun is known", ["look_up"])
    assert statuses(world) == ["COMMITTED"]
    assert world.spent() == world.billed + CENT


def test_a_tool_that_is_a_function_under_another_name_is_that_function(make_world: MakeWorld) -> None:
    world = make_world(calls_then("done", LOOK))
    tool = world.tool("search")

    with world.run(tool_costs={"look_up": usd("0.01"), "search": usd("0.5")}):
        world.llm().call(
            "look", tools=[{"type": "function", "function": FUNCTION}], available_functions={"look_up": tool.run}
        )

    assert world.tool_runs == ["search"]
    assert [call.action["name"] for call in world.tool_calls()] == ["look_up"]


def test_a_function_pays_for_every_further_tool_that_it_calls(make_world: MakeWorld) -> None:
    world = make_world(calls_then("done", LOOK))
    tool, other = world.tool(), world.tool("other")

    with world.run(tool_costs={"look_up": usd("0.01"), "other": usd("0.02")}):
        world.llm().call(
            "look",
            tools=[{"type": "function", "function": FUNCTION}],
            available_functions={"look_up": lambda word: tool.run(word) + tool.run(word) + other.run(word)},
        )

    assert world.tool_runs == ["look_up", "look_up", "other"]
    assert world.spent() == world.billed + 4 * CENT


def test_a_taken_method_that_a_model_calls_is_charged_once(make_world: MakeWorld) -> None:
    world = make_world(calls_then("done", LOOK))
    functions = {"look_up": world.tool().run}

    with world.run(tool_costs={"look_up": usd("0.01")}):
        world.llm().call("look", tools=[{"type": "function", "function": FUNCTION}], available_functions=functions)

    assert (world.tool_runs, statuses(world)) == (["look_up"], ["COMMITTED"])

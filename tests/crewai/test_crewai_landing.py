"""`on_deny="finish"`: a denied start gives what there is, of the type of its own result."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from crew_base import research
from crew_world import ACME, World
from crewai import Flow
from crewai.crews.crew_output import CrewOutput
from crewai.flow.flow import listen, start
from crewai.lite_agent_output import LiteAgentOutput
from crewai.tasks.task_output import TaskOutput

import clearance_crewai
from clearance.errors import BudgetExceeded

# CrewAI says so of each copy of a @CrewBase class's crew.
pytestmark = pytest.mark.filterwarnings("ignore:.*prevent checkpointing:UserWarning")
TOO_LITTLE = "0.0000001"


def flow_of(world: World, first_gives: Any) -> type[Flow[Any]]:
    """A flow whose second step asks a model that there is no budget for."""

    class Steps(Flow):  # type: ignore[type-arg]
        @start()
        def first(self) -> Any:
            return first_gives

        @listen(first)
        def second(self, _: Any) -> str:
            return str(world.llm().call("look"))

    return Steps


def done(outcome: Any) -> Any:
    return asyncio.run(outcome) if asyncio.iscoroutine(outcome) else outcome


def governed(kind: Any, world: World) -> Any:
    return clearance_crewai.governed(world.authority, ACME, TOO_LITTLE, on_deny="finish")(kind)()


FLOW_STARTS: list[Callable[[Any, World], Any]] = [
    lambda kind, world: world.kickoff(kind(), budget=TOO_LITTLE, on_deny="finish"),
    lambda kind, world: clearance_crewai.akickoff(kind(), world.authority, ACME, TOO_LITTLE, on_deny="finish"),
    lambda kind, world: governed(kind, world).kickoff(),
    lambda kind, world: governed(kind, world).kickoff_async(),
]


@pytest.mark.parametrize("begin", FLOW_STARTS)
@pytest.mark.parametrize("given", ["first done", {"words": 2}, None])
def test_a_denied_flow_gives_what_its_last_completed_method_gave(world: World, begin: Any, given: Any) -> None:
    assert done(begin(flow_of(world, given), world)) == given
    assert world.requests == 0


@pytest.mark.parametrize("begin", FLOW_STARTS)
def test_a_flow_that_has_completed_nothing_gives_none(world: World, begin: Any) -> None:
    class Asking(Flow):  # type: ignore[type-arg]
        @start()
        def first(self) -> str:
            return str(world.llm().call("look"))

    assert done(begin(Asking, world)) is None


def test_a_flows_last_result_carries_the_report_where_it_can(world: World) -> None:
    output = CrewOutput(raw="first done")

    result = world.kickoff(flow_of(world, output)(), budget=TOO_LITTLE, on_deny="finish")

    assert result is output
    assert isinstance(result.clearance.denied, BudgetExceeded)


def test_a_streaming_flow_that_is_denied_ends_with_its_last_result(world: World) -> None:
    flow = flow_of(world, "first done")(stream=True)

    stream = world.kickoff(flow, budget=TOO_LITTLE, on_deny="finish")
    for _ in stream:
        pass

    assert stream.result == "first done"


@pytest.mark.parametrize(
    ("begin", "kind"),
    [
        (lambda it: it.reader().kickoff("look"), LiteAgentOutput),
        (lambda it: it.reader().kickoff_async("look"), LiteAgentOutput),
        (lambda it: it.reader().akickoff("look"), LiteAgentOutput),
        (lambda it: it.crew().agents[0].copy().kickoff("look"), LiteAgentOutput),
        (lambda it: it.look().execute_sync(), TaskOutput),
        (lambda it: it.look().aexecute_sync(), TaskOutput),
        (lambda it: it.crew().kickoff(), CrewOutput),
        (lambda it: it.crew().kickoff_async(), CrewOutput),
    ],
)
def test_a_denied_start_of_a_governed_part_gives_its_own_type(world: World, begin: Any, kind: type) -> None:
    world.budget(TOO_LITTLE, scope="tenant:acme/agent:reader")

    result = done(begin(research(world, None, on_deny="finish")))

    assert (type(result), result.raw, world.requests) == (kind, "", 0)
    assert isinstance(result.clearance.denied, BudgetExceeded)
    assert getattr(result, "agent_role", "Reader") == getattr(result, "agent", "Reader") == "Reader"


def test_what_gives_text_or_nothing_does_so_when_denied(world: World, tmp_path: Any) -> None:
    world.budget(TOO_LITTLE, scope="tenant:acme/agent:reader")
    it = research(world, None, on_deny="finish")

    assert it.reader().execute_task(it.look()) == ""
    assert it.reader().message("look") == ""
    assert it.look().execute_async().result().raw == ""
    assert it.crew().test(1, world.llm()) is None
    assert world.requests == 0


def test_a_denied_function_gives_the_tasks_that_it_has_completed(world: World) -> None:
    world.budget(TOO_LITTLE, scope="tenant:acme/agent:writer")

    @clearance_crewai.governed(world.authority, ACME, on_deny="finish")
    def work() -> Any:
        first = world.crew().kickoff()
        return first, world.agent("Writer").kickoff("write")

    result: Any = work()

    assert isinstance(result, CrewOutput)
    assert len(result.tasks_output) == 1
    assert isinstance(result.clearance.denied, BudgetExceeded)  # type: ignore[attr-defined]

"""What `governed` reaches of a @CrewBase class: every start is a run, and nothing of it works outside of runs."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from crew_base import research, research_class
from crew_world import ACME, MODEL, World
from crewai import Crew, Flow, Process
from crewai.crews.crew_output import CrewOutput
from crewai.flow.flow import start
from crewai.project import CrewBase, crew

import clearance_crewai
from clearance.errors import BudgetFrozen, InvalidRequest
from clearance_crewai import OutsideRun

MakeWorld = Callable[..., World]
# CrewAI says so of each copy of a @CrewBase class's crew.
pytestmark = pytest.mark.filterwarnings("ignore:.*prevent checkpointing:UserWarning")


def runs(world: World) -> int:
    return sum(one.kind == "run" for one in world.reservations())


def test_training_is_a_run(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("builtins.input", lambda *_: "good")

    research(world).crew().train(1, str(tmp_path / "trained.pkl"))

    assert world.requests > 1
    assert runs(world) == 1
    assert world.spent() == world.billed > 0


@pytest.mark.parametrize(
    ("start", "requests"),
    [
        (lambda it: it.crew().kickoff(), 2),
        (lambda it: it.crew().copy().kickoff(), 2),
        (lambda it: it.crew().copy().copy().akickoff(), 2),
        (lambda it: it.crew().kickoff_for_each([{"n": 1}, {"n": 2}]), 4),
        (lambda it: it.crew().kickoff_for_each(inputs=[{"n": 1}, {"n": 2}]), 4),
        (lambda it: it.crew().kickoff_for_each_async([{"n": 1}, {"n": 2}]), 4),
        (lambda it: it.crew().akickoff_for_each([{"n": 1}, {"n": 2}]), 4),
        (lambda it: it.reader().kickoff("look"), 2),
        (lambda it: it.reader().kickoff_async("look"), 2),
        (lambda it: it.reader().copy().kickoff("look"), 2),
        (lambda it: it.crew().agents[0].kickoff("look"), 2),
        (lambda it: it.crew().agents[0].execute_task(it.crew().tasks[0]), 2),
        (lambda it: it.crew().agents[0].aexecute_task(it.crew().tasks[0]), 2),
        (lambda it: it.look().execute_sync(), 2),
        (lambda it: it.look().aexecute_sync(), 2),
        (lambda it: it.look().execute_async().result(), 2),
        (lambda it: it.crew().tasks[0].execute_sync(), 2),
        (lambda it: Crew(agents=it.crew().agents, tasks=it.crew().tasks).kickoff(), 2),
    ],
)
def test_a_start_of_any_part_is_one_run(world: World, start: Callable[[Any], Any], requests: int) -> None:
    result = start(research(world))
    if asyncio.iscoroutine(result):
        asyncio.run(result)

    assert (world.requests, runs(world)) == (requests, 1)
    assert world.spent() == world.billed > 0


@pytest.mark.parametrize(
    "start",
    [
        lambda it: it.crew().kickoff(),
        lambda it: it.crew().copy().kickoff(),
        lambda it: it.crew().test(1, it.crew().agents[0].llm),
        lambda it: it.crew().train(1, "trained.pkl"),
        lambda it: it.crew().kickoff_for_each([{"n": 1}]),
        lambda it: it.reader().kickoff("look"),
        lambda it: it.reader().copy().kickoff("look"),
        lambda it: it.look().execute_sync(),
        lambda it: it.crew().tasks[0].copy(it.crew().agents, {}).execute_sync(),
        lambda it: it.crew().agents[0].execute_task(it.crew().tasks[0]),
    ],
)
def test_a_denied_start_of_any_part_makes_no_call(
    world: World, start: Callable[[Any], Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    it = research(world)
    world.authority.freeze("tenant:acme", reason="audit")

    with pytest.raises(BudgetFrozen):
        start(it)

    assert (world.requests, world.tool_runs) == (0, [])


def test_replaying_a_task_is_a_run(world: World) -> None:
    made = research(world).crew()
    made.kickoff()
    (task_id,) = [str(one.id) for one in made.tasks]

    result = made.replay(task_id)

    assert isinstance(result, CrewOutput)
    assert runs(world) == 2
    assert result.clearance.spent().amount > 0  # type: ignore[attr-defined]
    assert world.spent() == world.billed


def test_a_test_of_a_crew_is_a_run(world: World) -> None:
    judge = world.llm()

    research(world).crew().test(1, judge)

    assert world.requests > 2
    assert runs(world) == 1
    assert world.spent() == world.billed


@pytest.mark.parametrize(
    "start",
    [
        lambda it: it.reader().llm.call("look"),
        lambda it: it.crew().agents[0].copy().llm.call("look"),
        lambda it: it.crew().copy().agents[0].llm.call("look"),
    ],
)
def test_what_cannot_be_governed_is_refused(world: World, start: Callable[[Any], Any]) -> None:
    with pytest.raises(OutsideRun, match=r"where no run is: call it inside `with clearance_crewai\.run"):
        start(research(world))

    assert world.requests == 0


def test_what_cannot_be_governed_by_itself_works_inside_a_block(world: World) -> None:
    it = research(world)

    with world.run():
        it.reader().llm.call("look")

    assert world.requests == 1
    assert world.spent() == world.billed


def test_an_llm_that_is_shared_with_others_is_theirs_as_before(world: World) -> None:
    shared = world.llm()
    kind = clearance_crewai.governed(world.authority, ACME)(research_class(world, llm=shared))

    kind().crew().kickoff()
    governed = world.billed
    shared.call("by itself")

    assert world.requests == 3
    assert world.spent() == governed < world.billed
    assert shared.model == MODEL


@pytest.mark.parametrize("part", [lambda crew: crew.agents[0], lambda crew: crew.manager_agent])
def test_agents_that_a_crew_is_built_with_are_governed_too(world: World, part: Callable[[Any], Any]) -> None:
    @clearance_crewai.governed(world.authority, ACME)
    @CrewBase
    class Inline:
        agents_config = None
        tasks_config = None

        @crew
        def crew(self) -> Crew:
            worker, manager = world.agent("Worker", [world.tool()]), world.agent("Manager")
            return Crew(agents=[worker], tasks=[world.task(None)], manager_agent=manager, process=Process.hierarchical)

    made = Inline().crew()
    part(made).kickoff("look")
    assert runs(world) == 1
    assert world.spent() == world.billed > 0
    with pytest.raises(OutsideRun):
        part(made).llm.call("look")


def test_a_governed_crew_lands_softly_for_each_input(world: World) -> None:
    made = research(world, None, on_deny="finish").crew()
    world.budget("0.00000001", scope="tenant:acme/agent:reader")

    plain = made.kickoff_for_each([{"n": 1}, {"n": 2}])
    threaded = asyncio.run(made.kickoff_for_each_async([{"n": 1}, {"n": 2}]))

    assert [type(one) for one in (*plain, *threaded)] == [CrewOutput] * 4
    assert world.requests == 0


def test_a_governed_flow_resumes_in_a_run(world: World) -> None:
    """Without anything to resume it fails, in a run."""

    @clearance_crewai.governed(world.authority, ACME)
    class Asking(Flow):  # type: ignore[type-arg]
        @start()
        def first(self) -> str:
            return str(world.llm().call("look"))

    with pytest.raises(ValueError, match="pending"):
        Asking().resume("yes")

    assert runs(world) == 1


def test_a_class_that_starts_nothing_is_refused(world: World) -> None:
    with pytest.raises(InvalidRequest, match="Words has nothing to start; allowed: a @CrewBase class or a Flow"):
        clearance_crewai.governed(world.authority, ACME)(type("Words", (), {}))

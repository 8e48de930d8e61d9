"""Threads and executors of a user's own: brought in with `run.carry`, or refused. Never ungated."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Event, Thread
from typing import Any

import pytest
from crew_paths import own_llm, react
from crew_world import World, calls_then

import clearance_crewai
from clearance.errors import Denied, InvalidRequest, SubjectMissing
from clearance.model.amount import usd
from clearance.model.subject import Subject
from clearance.simulator import Reply, ToolCall
from clearance_crewai import OutsideRun, current_crew_run, guard_llm

MakeWorld = Callable[..., World]
LOOK = ToolCall("look_up", {"word": "sun"})


def in_a_thread(function: Callable[[], Any]) -> Any:
    """What it gives, or the error that it raises, as text."""
    found: list[Any] = []

    def work() -> None:
        try:
            found.append(function())
        except Exception as error:
            found.append(error)

    thread = Thread(target=work)
    thread.start()
    thread.join()
    return found[0]


@pytest.mark.parametrize("kind", ["crewai's", "one's own", "guarded"])
def test_a_bare_thread_of_a_tool_is_refused_by_name(make_world: MakeWorld, kind: str) -> None:
    world = make_world(react if kind == "one's own" else calls_then("done", LOOK))
    kinds = {"crewai's": world.llm, "one's own": lambda: own_llm(world), "guarded": lambda: guard_llm(world.llm())}
    llm = kinds[kind]()
    found: list[Any] = []

    def work(word: str) -> str:
        found.append(in_a_thread(lambda: llm.call("in a thread")))
        return "is known"

    world.kickoff(world.crew([world.tool(work=work)], agent={"llm": llm}))

    (error,) = found
    assert isinstance(error, OutsideRun)
    assert isinstance(error, SubjectMissing)
    assert "run.carry(function)" in str(error)
    assert world.requests == 2
    assert world.spent() == world.billed


@pytest.mark.parametrize("kind", ["crewai's", "one's own"])
def test_a_bare_thread_is_refused_before_the_llm_was_ever_called(make_world: MakeWorld, kind: str) -> None:
    world = make_world(lambda request: Reply(text="Thought: I now know the final answer\nFinal Answer: done"))
    llm = world.llm() if kind == "crewai's" else own_llm(world)
    found: list[Any] = []
    crew = world.crew(agent={"llm": llm})
    crew.before_kickoff_callbacks.append(lambda inputs: found.append(in_a_thread(lambda: llm.call("x"))) or inputs)

    world.kickoff(crew)

    assert isinstance(found[0], OutsideRun)
    assert world.requests == 1


def test_a_crew_in_a_bare_thread_is_refused_in_one_attempt(world: World) -> None:
    llm = world.llm()

    with world.run():
        llm.call("look")
        error = in_a_thread(world.crew(agent={"llm": llm}).kickoff)

    assert isinstance(error, OutsideRun)
    assert world.requests == 1


def test_async_calls_from_a_bare_thread_are_refused(world: World) -> None:
    llm = world.llm()

    with world.run():
        llm.call("look")
        error = in_a_thread(lambda: asyncio.run(llm.acall("x")))

    assert isinstance(error, OutsideRun)
    assert world.requests == 1


def test_when_the_run_is_over_its_llm_is_free_again(world: World) -> None:
    llm = world.llm()
    with world.run():
        llm.call("look")
    governed = world.billed

    llm.call("by itself")

    assert world.requests == 2
    assert world.spent() == governed


def test_an_llm_of_no_run_is_left_alone_in_a_thread_of_no_run(world: World) -> None:
    inside, outside = world.llm(), world.llm()
    opened = Event()

    with ThreadPoolExecutor(1) as pool:
        beside = pool.submit(lambda: (opened.wait(10), outside.call("x"))[1])
        with world.run():
            inside.call("look")
            opened.set()
            assert str(beside.result()).startswith("This is a simulated answer")

    assert world.requests == 2
    assert world.spent() < world.billed


def test_a_thread_is_carried_into_the_run(make_world: MakeWorld) -> None:
    world = make_world(calls_then("done", LOOK))
    llm = world.llm()

    def work(word: str) -> str:
        run = current_crew_run()
        assert run is not None
        return str(in_a_thread(run.carry(lambda: llm.call("in a thread"))))

    result = world.kickoff(world.crew([world.tool(work=work)], agent={"llm": llm}))

    assert world.requests == 3
    assert result.clearance.by("model")[0].calls == 3
    assert world.spent() == world.billed


def test_a_carried_thread_is_refused_as_the_run_is(world: World) -> None:
    crew = world.crew()

    with ThreadPoolExecutor(1) as pool, world.run(budget=usd("0.00000001")) as run, pytest.raises(Denied):
        pool.submit(run.carry(crew.kickoff)).result()

    assert world.requests == 0


def test_a_coroutine_function_is_carried_into_another_threads_loop(world: World) -> None:
    llm = world.llm()

    async def ask() -> str:
        return str(await llm.acall("look"))

    with world.run() as run:
        said = in_a_thread(lambda: asyncio.run(run.carry(ask)()))

    assert said.startswith("This is a simulated answer")
    assert world.spent() == world.billed > 0


def test_a_run_is_carried_from_where_it_is_not_in_force(world: World) -> None:
    llm = world.llm()

    with world.run() as run:
        carried: list[Any] = []
        in_a_thread(lambda: carried.append(run.carry(lambda: llm.call("look"))))
        in_a_thread(carried[0])

    assert world.spent() == world.billed > 0


def test_a_generator_is_not_carried(world: World) -> None:
    def words() -> Any:
        yield "word"

    with world.run() as run, pytest.raises(InvalidRequest, match="generator"):
        run.carry(words)


def test_two_tenants_may_share_an_llm(make_world: MakeWorld) -> None:
    world = make_world(calls_then("done"))
    world.budget("1", scope="tenant:globex")
    llm = world.llm()

    def work(tenant: str) -> Any:
        return clearance_crewai.kickoff(world.crew(agent={"llm": llm}), world.authority, Subject(tenant=tenant)).raw

    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(work, ["acme", "globex"] * 3)) == ["done"] * 6

    assert world.spent() == world.spent("tenant:globex") > 0
    assert world.spent() + world.spent("tenant:globex") == world.billed

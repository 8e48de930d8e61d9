"""Threads, pools and contexts that a run starts and does not bring in: refused, also where nothing was claimed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextvars import Context
from threading import Event, Thread
from typing import Any

import pytest
from crew_paths import own_llm, react, text_llm
from crew_world import ACME, World, calls_then
from crewai import Flow
from crewai.flow.flow import start
from crewai.hooks import register_before_tool_call_hook, unregister_before_tool_call_hook
from crewai.hooks.dispatch import InterceptionPoint, scoped_hooks

import clearance_crewai
from clearance.errors import InvalidRequest
from clearance.model.amount import usd
from clearance.simulator import Reply, ToolCall
from clearance_crewai import OutsideRun, guard_embedder

MakeWorld = Callable[..., World]
LOOK = ToolCall("look_up", {"word": "sun"})
INTERRUPTS = (SystemExit, asyncio.CancelledError, KeyboardInterrupt)


def refused_in(begin: Callable[[Callable[[], None]], object], work: Callable[[], Any]) -> bool:
    """Whether `work` is refused where `begin` makes it run."""
    found: list[Any] = []
    done = Event()

    def attempt() -> None:
        try:
            found.append(work())
        except BaseException as error:
            found.append(error)
        done.set()

    begin(attempt)
    assert done.wait(20)
    return isinstance(found[0], OutsideRun)


def in_a_thread(work: Callable[[], None]) -> None:
    Thread(target=work).start()


def in_a_threads_thread(work: Callable[[], None]) -> None:
    Thread(target=lambda: in_a_thread(work)).start()


def in_a_pool(work: Callable[[], None]) -> None:
    with ThreadPoolExecutor(1) as pool:
        pool.submit(work)


def in_a_fresh_context(work: Callable[[], None]) -> None:
    Context().run(work)


@pytest.mark.parametrize("begin", [in_a_thread, in_a_threads_thread, in_a_pool, in_a_fresh_context])
@pytest.mark.parametrize("llm", ["crewai's", "one's own"])
@pytest.mark.parametrize("built", ["before", "there"])
def test_a_crew_is_refused_wherever_a_block_starts_it(make_world: MakeWorld, begin: Any, llm: str, built: str) -> None:
    world = make_world(lambda request: Reply(text="Thought: I now know the final answer\nFinal Answer: done"))

    def crew() -> Any:
        return world.crew(agent={"llm": world.llm() if llm == "crewai's" else own_llm(world)})

    made = crew()
    with world.run(budget=usd("0.0000001")):
        assert refused_in(begin, lambda: (made if built == "before" else crew()).kickoff())

    assert world.requests == 0


@pytest.mark.parametrize("begin", [in_a_thread, in_a_pool, in_a_fresh_context])
def test_an_embedder_is_refused_there_as_well(world: World, begin: Any) -> None:
    embedded: list[Any] = []
    embed = guard_embedder(lambda texts: embedded.append(texts) or [[0.0]])

    with world.run():
        assert refused_in(begin, lambda: embed(["word"]))

    assert embedded == []


def test_a_pool_in_a_step_of_a_flow_is_refused(world: World) -> None:
    agent = world.agent()

    class Steps(Flow):  # type: ignore[type-arg]
        @start()
        def first(self) -> Any:
            with ThreadPoolExecutor() as pool:
                return pool.submit(lambda: agent.kickoff("hi").raw).result()

    with pytest.raises(OutsideRun, match=r"run\.carry"):
        world.kickoff(Steps())

    assert world.requests == 0


def test_a_crew_that_a_tool_builds_in_a_pool_is_refused(make_world: MakeWorld) -> None:
    world = make_world(calls_then("done", LOOK))

    def work(word: str) -> str:
        with ThreadPoolExecutor(1) as pool:
            return str(pool.submit(lambda: world.crew().kickoff().raw).result())

    world.kickoff(world.crew([world.tool(work=work)]))

    assert world.requests == 2
    assert world.spent() == world.billed


def test_a_shared_pool_serves_those_outside_when_a_run_was_the_first_to_use_it(make_world: MakeWorld) -> None:
    world = make_world(calls_then("done"))
    asked, used = Event(), Event()
    found: list[Any] = []

    def beside() -> None:
        asked.wait(10)
        found.append(pool.submit(lambda: world.crew().kickoff().raw).result())
        used.set()

    with ThreadPoolExecutor(1) as pool:
        other = Thread(target=beside)
        other.start()
        with world.run():
            pool.submit(int).result()
            asked.set()
            assert used.wait(20)
        other.join()

    assert found == ["done"]
    assert world.spent() == 0 < world.billed


def test_a_thread_that_outlives_its_run_is_free(world: World) -> None:
    over = Event()
    found: list[Any] = []
    llm = world.llm()
    thread = Thread(target=lambda: (over.wait(10), found.append(llm.call("by itself"))))

    with world.run():
        thread.start()
    over.set()
    thread.join()

    assert world.requests == len(found) == 1


@pytest.mark.parametrize("interrupt", INTERRUPTS)
@pytest.mark.parametrize("kind", ["native", "parallel", "text"])
def test_a_tool_that_exits_is_settled_at_its_estimate_and_the_run_ends(
    make_world: MakeWorld, interrupt: type[BaseException], kind: str
) -> None:
    asked = [LOOK, ToolCall("other", {"word": "sun"})] if kind == "parallel" else [LOOK]
    world = make_world(react if kind == "text" else calls_then("done", *asked))

    def work(word: str) -> str:
        raise interrupt

    agent = {"llm": text_llm(world)} if kind == "text" else {}
    crew = world.crew([world.tool(work=work), world.tool("other")], agent=agent)
    with pytest.raises(interrupt):
        world.kickoff(crew, budget=usd("0.1"), tool_costs={"look_up": usd("0.01")})

    assert world.open() == 0
    assert world.spent() == world.billed + usd("0.01").amount


def test_a_function_of_a_single_call_that_exits_is_settled(make_world: MakeWorld) -> None:
    world = make_world(calls_then("done", LOOK))

    def look_up(word: str) -> str:
        raise SystemExit

    tools = [{"type": "function", "function": {"name": "look_up", "parameters": {"type": "object", "properties": {}}}}]
    with pytest.raises(SystemExit), world.run(budget=usd("0.1"), tool_costs={"look_up": usd("0.01")}):
        world.llm().call("look", tools=tools, available_functions={"look_up": look_up})

    assert world.open() == 0
    assert world.spent() >= usd("0.01").amount


@pytest.mark.parametrize("cost", ["0.01", "5"])
def test_a_hook_of_a_users_may_assign_another_input(make_world: MakeWorld, cost: str) -> None:
    world = make_world(calls_then("done", LOOK))

    def replace(context: Any) -> None:
        context.tool_input = dict(context.tool_input)

    register_before_tool_call_hook(replace)
    try:
        result = world.kickoff(world.crew([world.tool()]), budget=usd("0.1"), tool_costs={"look_up": usd(cost)})
    finally:
        unregister_before_tool_call_hook(replace)

    ran = cost == "0.01"
    assert world.tool_runs == ["look_up"] * ran
    assert result.clearance.refused == (not ran)
    assert world.spent() == world.billed + usd("0.01").amount * ran
    assert any("Denied: run:" in str(request.body) for request in world.sim.requests) is not ran


def test_hooks_of_somebody_elses_scope_leave_an_llm_of_ones_own_governed(make_world: MakeWorld) -> None:
    world = make_world(react)
    crew = world.crew([world.tool()], agent={"llm": own_llm(world)})

    with (
        world.run(budget=usd("0.5"), tool_costs={"look_up": usd("5")}) as run,
        scoped_hooks({InterceptionPoint.PRE_TOOL_CALL: [lambda context: None]}),
    ):
        crew.kickoff()

    assert (world.requests, world.tool_runs, run.report().refused) == (2, [], 1)
    assert world.spent() == world.billed


def test_a_refused_tool_is_no_final_answer(make_world: MakeWorld) -> None:
    world = make_world(calls_then("did without", LOOK))

    result = world.kickoff(world.crew([world.tool(result_as_answer=True)]), tool_costs={"look_up": usd("5")})

    assert (result.raw, world.tool_runs, world.requests) == ("did without", [], 2)


def test_an_allowed_tool_may_be_the_final_answer(make_world: MakeWorld) -> None:
    world = make_world(calls_then("did without", LOOK))

    result = world.kickoff(world.crew([world.tool(result_as_answer=True)]))

    assert (result.raw, world.requests) == ("sun is known", 1)


def test_a_denied_agent_finishes_with_a_result_of_its_kind(world: World) -> None:
    result = world.kickoff(world.agent(), budget=usd("0.0000001"), inputs="hi", on_deny="finish")

    assert (result.agent_role, result.raw, world.requests) == ("Researcher", "", 0)
    assert result.clearance.denied is not None


def test_an_agent_that_is_started_in_an_event_loop_is_awaited_in_its_run(world: World) -> None:
    """CrewAI's `Agent.kickoff` gives a coroutine there."""

    async def main() -> Any:
        return await world.kickoff(world.agent(), inputs="look", budget=usd("0.5"))

    result = asyncio.run(main())

    assert result.clearance.spent().amount == world.spent() == world.billed > 0


def test_a_function_that_gives_a_coroutine_is_refused(world: World) -> None:
    llm = world.llm()

    @clearance_crewai.governed(world.authority, ACME)
    def ask() -> Any:
        return llm.acall("look")

    with pytest.raises(InvalidRequest, match="gave a coroutine, which would run after its run; allowed: an async def"):
        ask()
    assert world.requests == 0

"""What wraps a crew: denials, ways to start, what is left behind."""

from __future__ import annotations

import asyncio
import pickle
from collections.abc import Callable
from typing import Any

import pytest
from crew_base import research
from crew_paths import Words
from crew_world import ACME, World, calls_then
from crewai import Crew, Flow, Task
from crewai.crews.crew_output import CrewOutput
from crewai.events.stream_context import _stream_sinks, add_stream_sink, reset_stream_sinks
from crewai.events.types.hook_events import HookDispatchedEvent
from crewai.events.types.llm_events import LLMCallStartedEvent
from crewai.flow.flow import start
from crewai.hooks.dispatch import InterceptionPoint, scoped_hooks
from crewai.llms.providers.openai.completion import OpenAICompletion
from crewai.tools.base_tool import BaseTool

import clearance_crewai
from clearance.errors import BudgetExceeded, BudgetFrozen, Denied, InvalidRequest, PriceUnknown
from clearance.model.amount import usd
from clearance.model.caps import Caps
from clearance.simulator import Reply, ScriptedRequest, ToolCall
from clearance_crewai import RunEnded, partial_of

MakeWorld = Callable[..., World]


def runaway(request: ScriptedRequest) -> Reply:
    """Never done, and never twice the same."""
    return Reply(tool_calls=(ToolCall("look_up", {"word": f"word{request.number}"}),))


# --- denials


def test_a_runaway_crew_stops_at_its_budget_in_one_attempt(make_world: MakeWorld) -> None:
    world = make_world(runaway)

    with pytest.raises(BudgetExceeded) as caught:
        world.kickoff(world.crew([world.tool()]), budget=usd("0.001"))

    assert world.spent() == world.billed <= 100_000
    assert world.requests == len(world.tool_runs) == 13
    assert type(caught.value) is BudgetExceeded
    assert "USD left" in str(caught.value)
    partial = partial_of(caught.value)
    assert partial is not None
    assert (partial.outputs, partial.report.refused) == ((), 1)


def test_completed_tasks_are_kept_on_the_error(make_world: MakeWorld) -> None:
    world = make_world(lambda request: Reply(text="first done") if request.number == 1 else runaway(request))

    with pytest.raises(BudgetExceeded) as caught:
        world.kickoff(world.crew([world.tool()], tasks=3), budget=usd("0.001"))

    partial = partial_of(caught.value)
    assert partial is not None
    assert [output.raw for output in partial.outputs] == ["first done"]
    copied = pickle.loads(pickle.dumps(caught.value))
    assert isinstance(copied, BudgetExceeded)
    assert partial_of(copied) is not None


def test_on_deny_finish_gives_what_there_is(make_world: MakeWorld) -> None:
    world = make_world(lambda request: Reply(text="first done") if request.number == 1 else runaway(request))

    result = world.kickoff(world.crew([world.tool()], tasks=3), budget=usd("0.001"), on_deny="finish")

    assert isinstance(result, CrewOutput)
    assert (result.raw, len(result.tasks_output)) == ("first done", 1)
    assert isinstance(result.clearance.denied, BudgetExceeded)
    assert world.spent() == world.billed


def test_a_denial_inside_a_block_can_be_caught_there_and_stays(make_world: MakeWorld) -> None:
    world = make_world(runaway)

    with world.run(budget=usd("0.0003")) as run:
        with pytest.raises(BudgetExceeded):
            world.crew([world.tool()]).kickoff()
        requests = world.requests
        with pytest.raises(BudgetExceeded):
            world.llm().call("once more")
        with pytest.raises(Denied):
            world.crew().kickoff()

    assert world.requests == requests
    assert isinstance(run.denial, BudgetExceeded)


def test_a_block_that_finishes_in_peace(make_world: MakeWorld) -> None:
    world = make_world(runaway)

    with world.run(budget=usd("0.0003"), on_deny="finish") as run:
        world.crew([world.tool()]).kickoff()
        raise AssertionError("it must not come here")

    assert isinstance(run.denial, BudgetExceeded)
    assert run.report().spent().amount == world.billed


def test_a_model_without_a_price_is_not_asked(world: World) -> None:
    with pytest.raises(PriceUnknown):
        world.kickoff(world.crew(agent={"llm": world.llm("gpt-4o-mini-of-mars")}))

    assert world.requests == 0


def test_a_denied_worker_ends_the_whole_hierarchy(make_world: MakeWorld) -> None:
    """CrewAI makes a tool result of a worker's error; the manager's next call is refused then."""

    def script(request: ScriptedRequest) -> Reply:
        if any(tool.name == "delegate_work_to_coworker" for tool in request.tools):
            call = ToolCall("delegate_work_to_coworker", {"task": "t", "context": "c", "coworker": "Worker"})
            return Reply(tool_calls=(call,))
        return Reply(text="never")

    world = make_world(script)
    world.budget("0.00000001", scope="tenant:acme/agent:worker")

    with pytest.raises(BudgetExceeded, match="agent:worker"):
        world.kickoff(world.hierarchy())

    assert world.requests == 1


def test_an_error_of_the_crew_is_left_as_it_is(make_world: MakeWorld) -> None:
    world = make_world(calls_then("done"))

    def broken(output: Any) -> Any:
        raise LookupError("mine")

    crew = world.crew()
    crew.after_kickoff_callbacks.append(broken)
    with pytest.raises(LookupError, match="mine"):
        world.kickoff(crew)

    assert world.spent() == world.billed > 0


@pytest.mark.parametrize("reason", ["rate limit", "Too many requests", "maximum context length", "too many tokens"])
def test_what_a_reason_says_does_not_make_crewai_try_again(make_world: MakeWorld, reason: str) -> None:
    """CrewAI tries errors again, or compacts its prompts, by what their texts say."""
    world = make_world()
    starts: list[Any] = []

    def counting(source: Any, event: Any) -> None:
        if isinstance(event, LLMCallStartedEvent):
            starts.append(event)

    def ask() -> None:
        with world.run():
            world.authority.kill("tenant:acme", reason=reason)
            token = _stream_sinks.set((counting, *_stream_sinks.get()))
            try:
                world.llm().call("look")
            finally:
                reset_stream_sinks(token)

    with pytest.raises(Denied, match=reason):
        ask()

    assert (len(starts), world.requests) == (1, 0)


# --- more ways to start


def test_for_each_has_one_budget_for_all(make_world: MakeWorld) -> None:
    world = make_world(calls_then("done"))
    crew = world.crew()

    results = clearance_crewai.kickoff_for_each(crew, world.authority, ACME, usd("0.1"), inputs=[{"n": 1}, {"n": 2}])

    assert [result.raw for result in results] == ["done", "done"]
    assert all(result.clearance.spent().amount == world.billed for result in results)


@pytest.mark.parametrize("way", ["kickoff_for_each", "akickoff_for_each"])
def test_on_deny_finish_gives_a_result_for_each_input(make_world: MakeWorld, way: str) -> None:
    """The first input is whole, of the second there is one task, the third has not begun."""

    async def script(request: ScriptedRequest) -> Reply:
        said = str(request.body["messages"])
        if "third" in said:
            await asyncio.sleep(0.4)
        if "part two" in said and "second" in said:
            await asyncio.sleep(0.2)
            world.authority.freeze("tenant:acme", reason="audit")
            return runaway(request)
        return Reply(text="done")

    world = make_world(script)
    agent = world.agent(tools=[world.tool()])
    tasks = [
        Task(description=f"{part} of {{word}}", expected_output="words", agent=agent)
        for part in ("part one", "part two")
    ]
    crew = Crew(agents=[agent], tasks=tasks)
    inputs = [{"word": "first"}, {"word": "second"}, {"word": "third"}]

    results = getattr(clearance_crewai, way)(crew, world.authority, ACME, inputs=inputs, on_deny="finish")
    results = asyncio.run(results) if asyncio.iscoroutine(results) else results

    assert [type(result) for result in results] == [CrewOutput] * 3
    assert [(result.raw, len(result.tasks_output)) for result in results] == [("done", 2), ("done", 1), ("", 0)]
    assert all(type(result.clearance.denied) is BudgetFrozen for result in results)
    assert len(world.tool_runs) == 0
    world.until(lambda: world.open() == 0)


def test_a_soft_landing_of_each_input_knows_its_own_tasks_only(make_world: MakeWorld) -> None:
    """Tasks that the crew has completed before, by itself, are no result of the run."""
    world = make_world(calls_then("done"))
    crew = world.crew()
    crew.kickoff()
    world.authority.freeze("tenant:acme", reason="audit")

    results = clearance_crewai.kickoff_for_each(
        crew, world.authority, ACME, inputs=[{"n": 1}, {"n": 2}], on_deny="finish"
    )

    assert [(result.raw, result.tasks_output) for result in results] == [("", []), ("", [])]
    assert world.requests == 1


def test_when_one_of_many_is_denied_the_others_spend_nothing_more(make_world: MakeWorld) -> None:
    async def slowly(request: ScriptedRequest) -> Reply:
        await asyncio.sleep(0.02)
        return runaway(request)

    world = make_world(slowly)
    inputs = [{"n": number} for number in range(4)]

    with pytest.raises(BudgetExceeded):
        asyncio.run(
            clearance_crewai.akickoff_for_each(
                world.crew([world.tool()]), world.authority, ACME, usd("0.0012"), inputs=inputs
            )
        )
    requests = world.requests
    world.until(lambda: world.open() == 0)
    world.sim.wait_idle()

    assert world.requests - requests <= 3  # one in flight for each of the others
    assert world.spent() == world.billed


def test_a_cancelled_kickoff_async_spends_nothing_more_in_its_thread(make_world: MakeWorld) -> None:
    async def slowly(request: ScriptedRequest) -> Reply:
        await asyncio.sleep(0.1)
        return runaway(request)

    world = make_world(slowly)

    async def main() -> None:
        crew = world.crew([world.tool()])

        async def work() -> None:
            async with world.run():
                await crew.kickoff_async()

        task = asyncio.create_task(work())
        await asyncio.to_thread(world.until, lambda: world.sim.stats()["in_flight"] == 1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    world.until(lambda: world.open() == 0)

    assert world.requests == 1
    assert world.spent() == world.billed  # the answer came after the cancellation, and is charged as it was


def test_a_crew_base_class_is_governed_by_a_decorator(world: World) -> None:
    it = research(world)

    plain = it.crew().kickoff()
    threaded = asyncio.run(it.crew().kickoff_async())

    assert plain.clearance.spent().amount + threaded.clearance.spent().amount == world.spent() == world.billed
    assert sum(one.kind == "run" for one in world.reservations()) == 2


def test_a_flow_class_is_governed_by_a_decorator(world: World) -> None:
    @clearance_crewai.governed(world.authority, ACME, usd("0.5"))
    class Asking(Flow):  # type: ignore[type-arg]
        @start()
        def first(self) -> str:
            return str(world.llm().call("look"))

    assert Asking().kickoff() == "This is a simulated answer to: look"
    assert asyncio.run(Asking().kickoff_async()) == "This is a simulated answer to: look"
    assert world.spent() == world.billed > 0
    assert sum(one.kind == "run" for one in world.reservations()) == 2


def test_functions_are_governed_by_a_decorator(world: World) -> None:
    @clearance_crewai.governed(world.authority, ACME)
    def ask() -> str:
        return str(world.llm().call("look"))

    @clearance_crewai.governed(world.authority, ACME)
    async def aask() -> str:
        return str(await world.llm().acall("look"))

    assert ask() == asyncio.run(aask())
    assert (world.requests, world.spent()) == (2, world.billed)


def test_a_run_inside_a_run_has_a_slice_of_its_budget(make_world: MakeWorld) -> None:
    world = make_world(runaway)

    with world.run(budget=usd("0.01")) as outer:
        with pytest.raises(BudgetExceeded):
            world.kickoff(world.crew([world.tool()]), budget=usd("0.0005"))
        world.sim.reset()
        assert outer.denial is None
        world.llm().call("look")

    assert world.requests == 1
    assert outer.report().by("agent", "model")[0].agent == ""  # its own call is of no agent
    assert {one.name for one in outer.report().by("agent", "name") if one.agent} == {"gpt-4o-mini", "look_up"}
    assert (outer.report().spent().amount, outer.report().refused) == (world.spent(), 1)


def test_structured_output_goes_through(world: World) -> None:
    result = world.kickoff(world.crew(task={"output_pydantic": Words}))

    assert isinstance(result.pydantic, Words)


# --- what is left behind


def test_a_run_that_is_over_lets_nothing_start(world: World) -> None:
    async def main() -> None:
        async def later() -> None:
            await done.wait()
            await world.llm().acall("too late")

        done = asyncio.Event()
        async with world.run():
            straggler = asyncio.create_task(later())
            await asyncio.sleep(0)
        done.set()
        with pytest.raises(RunEnded):
            await straggler

    asyncio.run(main())
    assert world.requests == 0


def test_crewai_is_as_it_was_when_the_last_run_has_ended(world: World) -> None:
    methods = [
        (OpenAICompletion, "_prepare_completion_params"),
        (OpenAICompletion, "_get_sync_client"),
        (BaseTool, "_claim_usage"),
    ]
    before = [vars(kind)[name] for kind, name in methods]

    with world.run():
        with world.run():
            world.llm().call("look")
        assert [vars(kind)[name] for kind, name in methods] != before
    governed = world.billed
    world.llm().call("outside")

    assert [vars(kind)[name] for kind, name in methods] == before
    assert world.requests == 2
    assert world.spent() == governed


def test_hooks_of_others_do_not_push_ours_away(make_world: MakeWorld) -> None:
    call = ToolCall("look_up", {"word": "sun"})  # though it is not offered
    world = make_world(lambda request: Reply(text="done") if request.tool_results else Reply(tool_calls=(call,)))
    seen: list[str] = []

    def theirs(context: Any) -> None:
        seen.append(context.tool_name)

    world.budget("1", caps=Caps(tool_denylist=("look_up",)))
    with scoped_hooks({InterceptionPoint.PRE_TOOL_CALL: [theirs]}):
        with world.run():
            world.crew([world.tool()]).kickoff()
            with scoped_hooks({InterceptionPoint.PRE_TOOL_CALL: [theirs]}):
                world.crew([world.tool()]).kickoff()

    assert world.requests == 4
    assert seen == ["look_up", "look_up"]
    assert world.tool_runs == []


def test_hook_events_are_those_of_the_users_hooks(make_world: MakeWorld) -> None:
    """Ours are none of the user's, and would make three events an iteration."""
    world = make_world()
    told: list[tuple[str, int]] = []

    def listen(source: Any, event: Any) -> None:
        if isinstance(event, HookDispatchedEvent):
            told.append((event.interception_point, event.hook_count))

    def kickoff(hooks: Any) -> None:
        token = add_stream_sink(listen)
        try:
            with scoped_hooks(hooks), world.run():
                world.crew([world.tool()]).kickoff()
        finally:
            reset_stream_sinks(token)

    kickoff({})
    assert told == []
    kickoff({InterceptionPoint.PRE_TOOL_CALL: [lambda context: None]})
    assert told == [("pre_tool_call", 2)]


def test_a_run_is_used_once_and_says_what_is_wrong(world: World) -> None:
    run = world.run()
    with run:
        pass
    with pytest.raises(InvalidRequest, match="used before"), run:
        pass
    with pytest.raises(InvalidRequest, match='"raise" or "finish"'):
        world.run(on_deny="return")
    with pytest.raises(InvalidRequest, match="cannot be started"):
        world.kickoff(object())
    with pytest.raises(InvalidRequest, match="tool_costs"):
        world.run(tool_costs={"look_up": 0.5})

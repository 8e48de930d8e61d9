"""Model calls: usage, retries, other models, and LLM classes that tell nothing."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest
from crew_paths import Words, after_one, own_llm
from crew_world import MODEL, World, calls_then
from crewai.llms.base_llm import BaseLLM

from clearance.errors import BudgetExceeded, CapsViolated, InvalidRequest, Killed, SubjectMissing
from clearance.model.amount import usd
from clearance.model.caps import Caps
from clearance.simulator import Reply, SimulatedUsage, ToolCall, always
from clearance_crewai import guard_llm
from clearance_crewai.usage import asked, used

MakeWorld = Callable[..., World]


def test_usage_that_is_not_told_is_charged_as_estimated(world: World) -> None:
    with world.run(prices=Flat()) as run:
        world.llm(f"{MODEL}+nousage").call("look")

    (call,) = world.calls()
    assert call.committed_metadata["settled_as"] == "estimate"
    assert world.spent() == call.estimate == run.report().lines[0].actual


@pytest.mark.parametrize("api", ["completions", "responses"])
@pytest.mark.parametrize("stream", [False, True])
def test_cached_and_reasoning_tokens_are_priced(make_world: MakeWorld, api: str, stream: bool) -> None:
    usage = SimulatedUsage(input_tokens=1000, cached_input_tokens=600, output_tokens=300, reasoning_tokens=200)
    world = make_world(lambda request: Reply(text="done", usage=usage))

    with world.run() as run:
        world.llm(api=api, stream=stream, max_tokens=500).call("look")

    assert world.spent() == world.billed > 0
    assert run.report().tokens == 1300


def test_an_answer_that_cannot_be_parsed_is_charged(make_world: MakeWorld) -> None:
    """It was billed; CrewAI's own counters know nothing of it."""
    world = make_world(always("no json at all"))

    with world.run(), pytest.raises(Exception, match=r"(?i)json"):
        world.llm().call("look", response_model=Words)

    assert world.requests == 1
    assert world.spent() >= world.billed > 0


def test_the_clients_own_retries_are_off_in_a_run_and_can_be_had(make_world: MakeWorld) -> None:
    world = make_world()
    world.sim.fail_next(status=500, times=1)
    llm = world.llm(max_retries=2)

    with world.run(), pytest.raises(Exception, match="500"):
        llm.call("look")
    assert world.requests == 1
    world.sim.fail_next(status=500, times=1, retry_after_ms=1)
    with world.run(sdk_retries=True):
        llm.call("look")
    assert world.requests == 3
    assert (llm.max_retries, llm._client.max_retries) == (2, 2)


def test_a_failing_agent_is_reserved_for_each_attempt(make_world: MakeWorld) -> None:
    """Nine requests without a run, for one step of one agent."""
    world = make_world()
    world.sim.fail_next(status=500, times=100)

    with pytest.raises(Exception, match="500"):
        world.kickoff(world.crew())

    assert world.requests == len(world.calls()) == 3
    assert world.spent() == sum(call.estimate for call in world.calls())


def test_a_stop_during_a_stream_ends_it_at_the_next_token(make_world: MakeWorld) -> None:
    world = make_world(lambda request: Reply(text="word " * 200, chunk_delay_ms=20))
    llm = world.llm(stream=True, max_tokens=400)

    def stop() -> None:
        world.until(lambda: world.sim.stats()["in_flight"] == 1)
        world.authority.kill("tenant:acme", reason="enough")

    async def main() -> None:
        stopping = asyncio.create_task(asyncio.to_thread(stop))
        async with world.run():
            with pytest.raises(Exception, match="refused"):
                await llm.acall("look")
        await stopping

    asyncio.run(main())
    world.sim.wait_idle()

    (request,) = world.sim.requests
    assert request.outcome == "abandoned"


# --- other models


def test_a_cheaper_model_is_asked_where_caps_name_one(world: World) -> None:
    world.budget("1", caps=Caps(models=("gpt-4.1-nano",)))

    result = world.kickoff(world.crew([world.tool()], agent={"llm": world.llm("gpt-4o")}))

    assert {request.model for request in world.sim.requests} == {"gpt-4.1-nano"}
    assert world.spent() == world.billed > 0
    assert {line.name for line in result.clearance.lines} == {"gpt-4.1-nano", "look_up"}


def test_the_converter_is_kept_to_caps_too(world: World) -> None:
    world.budget("1", caps=Caps(models=("gpt-4.1-nano",), max_tokens=30))

    world.kickoff(world.crew([world.tool()], task={"output_json": Words}))

    assert {request.model for request in world.sim.requests} == {"gpt-4.1-nano"}
    assert [request.body.get("max_completion_tokens", request.body.get("max_tokens")) for request in world.sim.requests]
    assert world.requests == 3
    assert world.spent() == world.billed


def test_a_model_that_cannot_be_changed_is_denied(world: World) -> None:
    world.budget("1", caps=Caps(models=("gpt-4.1-nano",)))

    with pytest.raises(CapsViolated, match=r"allowed: gpt-4\.1-nano"):
        world.kickoff(world.crew(agent={"llm": own_llm(world)}))

    assert world.requests == 0


# --- LLM classes of one's own


def test_a_guarded_llm_of_ones_own_is_gated_when_called_directly(world: World) -> None:
    llm = guard_llm(own_llm(world))

    with world.run() as run:
        assert llm.call("look").startswith("This is a simulated answer")

    assert world.spent() == world.billed > 0
    assert run.report().calls == 1
    with pytest.raises(SubjectMissing, match="inside `with"):
        llm.call("outside")
    with world.run(budget=usd("0.00000001")), pytest.raises(BudgetExceeded):
        llm.call("look")
    assert world.requests == 1


def test_guarding_keeps_the_object_and_its_class_name(world: World) -> None:
    llm = own_llm(world)

    assert guard_llm(guard_llm(llm)) is llm
    assert type(llm).__name__ == "OwnLLM"
    with pytest.raises(InvalidRequest, match="not an LLM"):
        guard_llm("gpt-4o-mini")  # type: ignore[type-var]


def test_a_guarded_llm_that_tells_events_is_counted_once(world: World) -> None:
    llm = guard_llm(world.llm())

    with world.run():
        llm.call("look")
        world.crew([world.tool()], agent={"llm": llm}).kickoff()

    assert world.requests == len([call for call in world.calls() if call.action["kind"] == "llm.completion"]) == 3
    assert world.spent() == world.billed


def test_an_async_llm_of_ones_own(world: World) -> None:
    class AsyncLLM(BaseLLM):
        def call(self, *args: Any, **kwargs: Any) -> str:
            raise AssertionError("not called")

        async def acall(self, messages: Any, *args: Any, **kwargs: Any) -> str:
            await asyncio.sleep(0)
            return "done"

    llm = guard_llm(AsyncLLM(model=MODEL, max_tokens=10))

    async def main() -> None:
        async with world.run():
            assert await llm.acall("look") == "done"

    asyncio.run(main())
    (call,) = world.calls()
    assert (call.actual, call.committed_metadata["settled_as"]) == (call.estimate, "estimate")


# --- functions that a model calls


@pytest.mark.parametrize("api", ["completions", "responses"])
@pytest.mark.parametrize("stream", [False, True])
def test_a_function_that_is_denied_does_not_run_and_says_so(make_world: MakeWorld, api: str, stream: bool) -> None:
    ran: list[str] = []
    world = make_world(calls_then("done", ToolCall("look_up", {"word": "sun"})))
    function = {"name": "look_up", "description": "d", "parameters": {"type": "object", "properties": {}}}

    with world.run(budget=usd("0.1"), tool_costs={"look_up": usd("1")}) as run:
        answer = world.llm(api=api, stream=stream).call(
            "look",
            tools=[{"type": "function", "function": function}],
            available_functions={"look_up": lambda word: ran.append(word)},
        )

    assert ran == []
    assert answer.startswith("Denied: run:")
    assert answer.endswith("Do not call look_up again.")
    assert run.report().refused == 1
    assert world.spent() == world.billed > 0
    (call,) = [call for call in world.calls() if call.action["kind"] == "llm.completion"]
    assert call.committed_metadata["settled_as"] == "actual"


def test_a_stop_ends_a_run_at_a_function(make_world: MakeWorld) -> None:
    ran: list[str] = []
    world = make_world(None)
    world.stage.script = after_one(
        calls_then("done", ToolCall("look_up", {"word": "sun"})),
        lambda: world.authority.kill("tenant:acme", reason="x"),
    )
    function = {"name": "look_up", "description": "d", "parameters": {"type": "object", "properties": {}}}

    with pytest.raises(Killed), world.run():
        world.llm().call(
            "look",
            tools=[{"type": "function", "function": function}],
            available_functions={"look_up": lambda word: ran.append(word)},
        )

    assert (ran, world.requests) == ([], 1)


def test_a_denied_function_does_not_speak_for_the_next(make_world: MakeWorld) -> None:
    world = make_world(calls_then("done", ToolCall("look_up", {"word": "sun"})))
    function = {"name": "look_up", "description": "d", "parameters": {"type": "object", "properties": {}}}
    given: Any = {"tools": [{"type": "function", "function": function}]}

    def breaks(word: str) -> str:
        raise OSError("the line is dead")

    with world.run(budget=usd("0.1"), tool_costs={"look_up": usd("0.06")}) as run:
        first = world.llm().call("look", available_functions={"look_up": lambda word: "known"}, **given)
        second = world.llm().call("look", available_functions={"look_up": lambda word: "known"}, **given)
        assert run.report().refused == 1
    with world.run():
        third = world.llm().call("look", available_functions={"look_up": breaks}, **given)

    assert first == "known"
    assert second.startswith("Denied: ")
    assert "Denied" not in str(third)


# --- reading


def test_an_estimate_bounds_the_request(world: World) -> None:
    llm = world.llm(max_tokens=None, max_completion_tokens=7, n=2)
    small = asked(llm, "hello")
    image = {"type": "image_url", "image_url": {"url": "http://x"}}

    assert (small.model, small.max_output_tokens, small.n) == (MODEL, 7, 2)
    assert asked(llm, [{"role": "user", "content": "héllo"}]).prompt_bytes >= len("héllo".encode()) + 32
    assert asked(llm, [{"role": "user", "content": [image]}]).prompt_bytes > 50_000
    assert asked(llm, "hello", [{"x": "y" * 100}]).prompt_bytes >= small.prompt_bytes + 100
    assert asked(llm, "hello", schema=Words).prompt_bytes >= small.prompt_bytes + len(
        json.dumps(Words.model_json_schema())
    )
    assert asked(world.llm(api="responses", auto_chain=True), "hello").prompt_bytes > 4000
    assert asked(world.llm(additional_params={"service_tier": "priority"}), "x").service_tier == "priority"


def test_a_message_is_measured_with_all_that_is_in_it(world: World) -> None:
    llm = world.llm()
    call = {"role": "assistant", "content": None, "tool_calls": [{"function": {"name": "f", "arguments": "x" * 500}}]}
    blocks = {"role": "user", "content": [{"type": "text", "text": "é" * 300}]}

    assert asked(llm, [call]).prompt_bytes >= 500 + 32
    assert asked(llm, [blocks]).prompt_bytes >= 600 + 32
    assert asked(llm, [{"role": "user", "content": "é" * 300, "name": "n" * 40}]).prompt_bytes >= 640 + 32


@pytest.mark.parametrize(
    ("reported", "counts"),
    [
        ({"prompt_tokens": 10, "completion_tokens": 5, "cached_prompt_tokens": 4}, (10, 5, 4)),
        ({"input_tokens": 10, "output_tokens": 5, "cache_read_input_tokens": 4}, (14, 5, 4)),
        ({"prompt_tokens": 10, "total_tokens": 25}, (10, 15, 0)),
    ],
)
def test_usage_of_every_shape_is_read(reported: dict[str, int], counts: tuple[int, int, int]) -> None:
    usage = used(reported)

    assert usage is not None
    assert (usage.input_tokens, usage.output_tokens, usage.cached_input_tokens) == counts


@pytest.mark.parametrize("reported", [None, {}, {"total_tokens": 0}, {"prompt_tokens": 0, "completion_tokens": 0}])
def test_no_usage_is_not_free(reported: Any) -> None:
    assert used(reported) is None


class Flat:
    """A price for names with the simulator's fault suffixes."""

    def estimate(self, model: str, prompt_bytes: int, *args: Any, **kwargs: Any) -> Any:
        return usd("0.001")

    def price(self, model: str, usage: Any, provider: str | None = None) -> Any:
        return usd("0.0001")

    def rates(self, model: str, provider: str | None = None) -> Any:
        raise NotImplementedError

"""LLM classes of one's own that ask another LLM: each request to the provider is paid once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from crew_paths import OwnLLM, own_llm, react
from crew_world import MODEL, World
from crewai.llms.base_llm import BaseLLM
from crewai.llms.providers.openai.completion import OpenAICompletion

from clearance.errors import BudgetExceeded
from clearance.model.amount import Amount, Unit, usd
from clearance.model.caps import Caps
from clearance.simulator import Reply, ToolCall
from clearance_crewai import guard_llm

MakeWorld = Callable[..., World]
CENT = usd("0.01").amount


class Delegating(BaseLLM):
    """Passes every call on."""

    inner: Any = None

    def call(self, messages: Any, *args: Any, **kwargs: Any) -> Any:
        return self.inner.call(messages)

    async def acall(self, messages: Any, *args: Any, **kwargs: Any) -> Any:
        return await self.inner.acall(messages)

    def supports_function_calling(self) -> bool:
        return False


def delegating(inner: Any, kind: type[Delegating] = Delegating) -> Any:
    return guard_llm(kind(model=MODEL, max_tokens=50, inner=inner))


def statuses(world: World) -> list[str]:
    return sorted(call.status for call in world.calls())


INNER: dict[str, Callable[[World], Any]] = {
    "CrewAI's": lambda world: world.llm(),
    "CrewAI's, streaming": lambda world: world.llm(stream=True),
    "CrewAI's, guarded": lambda world: guard_llm(world.llm()),
    "one's own": lambda world: guard_llm(own_llm(world)),
}


@pytest.mark.parametrize("inner", INNER)
@pytest.mark.parametrize("depth", [1, 2])
def test_a_call_that_is_passed_on_is_paid_once(world: World, inner: str, depth: int) -> None:
    llm = INNER[inner](world)
    for _ in range(depth):
        llm = delegating(llm)

    with world.run() as run:
        assert llm.call("look").startswith("This is a simulated answer")

    assert world.requests == 1
    assert world.spent() == world.billed > 0
    assert statuses(world) == ["COMMITTED", *["RELEASED"] * depth]
    usage = world.sim.requests[0].usage
    assert (run.report().calls, run.report().tokens) == (1, usage.input_tokens + usage.output_tokens)


def test_an_async_call_that_is_passed_on_is_paid_once(world: World) -> None:
    llm = delegating(world.llm())

    async def main() -> None:
        async with world.run():
            await asyncio.gather(*(llm.acall("look") for _ in range(5)))

    asyncio.run(main())

    assert world.requests == 5
    assert world.spent() == world.billed > 0


def test_an_llm_whose_async_form_is_its_plain_one_is_paid_once(world: World) -> None:
    class Plain(OwnLLM):
        async def acall(self, *args: Any, **kwargs: Any) -> Any:
            return await asyncio.to_thread(self.call, *args, **kwargs)

    llm = guard_llm(Plain(model=MODEL, max_tokens=50, inner=world.llm()))

    async def main() -> None:
        async with world.run():
            await llm.acall("look")

    asyncio.run(main())

    assert world.requests == 1
    assert world.spent() == world.billed > 0


def test_a_crew_of_a_delegating_llm_is_paid_once(make_world: MakeWorld) -> None:
    world = make_world(react)

    result = world.kickoff(world.crew([world.tool()], agent={"llm": delegating(world.llm())}))

    assert (world.requests, world.tool_runs) == (2, ["look_up"])
    assert result.clearance.spent().amount == world.spent() == world.billed > 0


def test_an_llm_that_asks_many_times_pays_for_each_request(world: World) -> None:
    class Judging(Delegating):
        def call(self, messages: Any, *args: Any, **kwargs: Any) -> Any:
            return max(self.inner.call(messages) for _ in range(3))

    with world.run():
        delegating(world.llm(), Judging).call("look")

    assert world.requests == 3
    assert world.spent() == world.billed > 0


@pytest.mark.parametrize("order", ["before", "after"])
def test_requests_of_its_own_are_paid_besides(world: World, order: str) -> None:
    class Routing(OwnLLM):
        other: Any = None

        def call(self, messages: Any, *args: Any, **kwargs: Any) -> Any:
            if order == "after":
                self.other.call(messages)
            answer = super().call("which one?")
            return answer if order == "after" else self.other.call(messages)

    llm = guard_llm(Routing(model=MODEL, max_tokens=50, inner=world.llm(), other=world.llm()))
    with world.run():
        llm.call("look")

    assert world.requests == 2
    assert world.spent() == world.billed > 0


def test_a_request_of_its_own_that_fails_after_anothers_is_charged_besides(world: World) -> None:
    class Helped(OpenAICompletion):
        helper: Any = None

        def call(self, messages: Any, *args: Any, **kwargs: Any) -> Any:
            found = self.helper.call(messages)
            world.sim.fail_next(status=500, times=1)
            return super().call(found, *args, **kwargs)

    llm = Helped(model=MODEL, base_url=world.sim.base_url, api_key="sim", max_tokens=50, helper=world.llm())
    with world.run(), pytest.raises(Exception, match="500"):
        guard_llm(llm).call("look")

    (own,) = [call for call in world.calls() if (call.committed_metadata or {}).get("settled_as") == "estimate"]
    assert world.requests == 2
    assert world.spent() == world.billed + own.estimate


def test_a_model_that_its_function_asks_is_no_answer_of_its_own(world: World) -> None:
    """What the LLM has asked itself is unknown, so it is charged its estimate."""
    tool = world.tool(work=lambda word: str(world.llm().call(word)))

    class Acting(BaseLLM):
        def call(self, *args: Any, **kwargs: Any) -> Any:
            return tool.run(word="sun")

    with world.run(tool_costs={"look_up": usd("0.01")}):
        guard_llm(Acting(model=MODEL, max_tokens=50)).call("look")

    (own,) = [
        call
        for call in world.calls()
        if (call.committed_metadata or {}).get("settled_as") == "estimate" and call.action["kind"] == "llm.completion"
    ]
    assert world.spent() == world.billed + own.estimate + CENT


def test_a_request_that_fails_is_paid_once(world: World) -> None:
    world.sim.fail_next(status=500, times=1)

    with world.run(), pytest.raises(Exception, match="500"):
        delegating(world.llm()).call("look")

    (charged,) = [call for call in world.calls() if call.status == "COMMITTED"]
    assert world.requests == 1
    assert world.spent() == charged.estimate


def test_one_that_asks_itself_after_another_has_refused_is_charged(world: World) -> None:
    """Nobody has worked for it, and what it did itself it does not tell."""

    class Falling(Delegating):
        def call(self, messages: Any, *args: Any, **kwargs: Any) -> Any:
            with pytest.raises(Exception, match="400"):
                self.inner.call(messages)
            return "from the cellar"

    world.sim.fail_next(status=400, times=1)
    with world.run():
        delegating(world.llm(), Falling).call("look")

    assert statuses(world) == ["COMMITTED", "RELEASED"]
    (own,) = [call for call in world.calls() if call.status == "COMMITTED"]
    assert own.committed_metadata["settled_as"] == "estimate"


def test_a_denied_request_costs_nothing(world: World) -> None:
    """Both are held while it is asked, so that a request of its own would be covered."""
    with world.run() as run:
        llm = world.llm()
        llm.call("look")
    estimate = world.calls()[0].estimate
    assert run.report().calls == 1

    with (
        pytest.raises(BudgetExceeded),
        world.run(budget=Amount(unit=Unit.USD_MICROCENTS, amount=estimate + estimate // 2)),
    ):
        delegating(llm).call("look")

    assert world.requests == 1
    assert world.spent() == world.billed


def test_the_request_is_kept_to_its_own_caps(world: World) -> None:
    world.budget("1", caps=Caps(models=("gpt-4.1-nano", MODEL), max_tokens=50))
    inner = world.llm("gpt-4o", max_tokens=90)

    with world.run():
        delegating(inner).call("look")

    (request,) = world.sim.requests
    assert request.model == "gpt-4.1-nano"
    assert request.body.get("max_tokens", request.body.get("max_completion_tokens")) == 50
    assert world.spent() == world.billed > 0


def test_a_function_that_asks_a_guarded_llm_is_paid_for_both(make_world: MakeWorld) -> None:
    def script(request: Any) -> Reply:
        if request.tools:
            return Reply(tool_calls=(ToolCall("look_up", {"word": "sun"}),))
        return Reply(text="done")

    world = make_world(script)
    own = guard_llm(own_llm(world))
    function = {"name": "look_up", "description": "d", "parameters": {"type": "object", "properties": {}}}

    with world.run():
        world.llm().call(
            "look",
            tools=[{"type": "function", "function": function}],
            available_functions={"look_up": lambda word: own.call(word)},
        )

    assert world.requests == 2
    assert world.spent() == world.billed > 0

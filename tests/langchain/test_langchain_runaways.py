"""Ten ways in which an agent runs away, each ended by the budget of its run; and many agents at once."""

from __future__ import annotations

import asyncio
import random
from collections import defaultdict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from langchain.agents.middleware import ModelRetryMiddleware
from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.tools import ToolException
from langchain_world import ACME, World

from clearance.errors import Denied
from clearance.model.amount import usd
from clearance.model.subject import Subject
from clearance.simulator import Reply, ScriptedRequest, always, calls_tool_forever

BUDGET = usd("0.0006")
Config = dict[str, Any]
for_ever = calls_tool_forever("look_up", {"word": "x"})


def self_retry(world: World, model: Any, config: Config) -> None:
    while True:
        answer = model.invoke("say yes", config)
        if answer.content == "never":
            return


def ping_pong(world: World, model: Any, config: Config) -> None:
    one, two = world.agent(model), world.agent(model)
    word = "your turn"
    while True:
        for agent in (one, two):
            word = agent.invoke({"messages": word}, config)["messages"][-1].content


def fan_out(world: World, model: Any, config: Config) -> None:
    prompts = ["split this"]
    while True:
        answers = model.batch(prompts, config)
        prompts = [str(answer.content) for answer in answers for _ in range(2)]


def tool_error_loop(world: World, model: Any, config: Config) -> None:
    def fails(word: str) -> str:
        raise ToolException("try again")

    tool = world.tool(work=fails)
    tool.handle_tool_error = True
    world.agent(model, [tool]).invoke({"messages": "hi"}, {**config, "recursion_limit": 10_000})


def summariser(world: World, model: Any, config: Config) -> None:
    text = "a long story " * 20
    while len(text) > 10:
        text = f"make this shorter: {model.invoke(text, config).content}" * 3


def growing_context(world: World, model: Any, config: Config) -> None:
    history: list[Any] = []
    while True:
        history.append(HumanMessage("and then?"))
        history.append(AIMessage(str(model.invoke(history, config).content) * 5))


def retry_middleware(world: World, model: Any, config: Config) -> None:
    world.sim.fail_next(500, times=10_000)
    retry = ModelRetryMiddleware(max_retries=9_999, initial_delay=0, jitter=False, on_failure="error")
    world.agent(model, middleware=[retry]).invoke({"messages": "hi"}, config)


def fallback_chain(world: World, model: Any, config: Config) -> None:
    world.sim.fail_next(500, times=10_000)
    while True:
        try:
            model.with_fallbacks([model] * 5).invoke("hi", config)
        except Denied:
            raise
        except Exception:  # of several errors it raises the first
            continue


def sub_agents(world: World, model: Any, config: Config) -> None:
    def deeper(word: str) -> str:
        return str(world.agent(model, [tool]).invoke({"messages": word})["messages"][-1].content)

    tool = world.tool(work=deeper)
    world.agent(model, [tool]).invoke({"messages": "hi"}, config)


def streaming_restart(world: World, model: Any, config: Config) -> None:
    while True:
        stream = model.stream("tell me", config)
        next(stream)
        stream.close()


SHAPES: list[tuple[Callable[..., None], Any]] = [
    (self_retry, always("no " * 40)),
    (ping_pong, always("no, yours " * 15)),
    (fan_out, always("two halves " * 15)),
    (tool_error_loop, for_ever),
    (summariser, always("long " * 40)),
    (growing_context, always("and then some more " * 5)),
    (retry_middleware, None),
    (fallback_chain, None),
    (sub_agents, for_ever),
    (streaming_restart, always("once upon a time there was a stream that nobody read")),
]


@pytest.mark.parametrize("how", ["handler", "guard"])
@pytest.mark.parametrize(("shape", "script"), SHAPES, ids=[shape.__name__ for shape, _ in SHAPES])
def test_a_runaway_stops_within_its_runs_budget(
    make_world: Callable[..., World], shape: Callable[..., None], script: Any, how: str
) -> None:
    world = make_world(script)
    model, config = (world.model(), {"callbacks": [world.handler(None)]}) if how == "handler" else (None, {})
    with world.authority.run(ACME, budget=BUDGET) as run, pytest.raises(Denied) as denied:
        shape(world, model or world.guard(world.model(), None), config)
    assert denied.value.reason_code == "BUDGET_EXCEEDED"
    answered = world.requests
    assert answered > 3
    assert world.cost <= world.spent() <= BUDGET.amount
    assert run.report().spent().amount == world.spent()
    if shape not in (retry_middleware, fallback_chain, streaming_restart):
        assert world.spent() == world.cost


def test_threads_never_overspend(make_world: Callable[..., World]) -> None:
    world = make_world(always("yes"), budget="0.01")
    model = world.guard(world.model())

    def work(number: int) -> int:
        answers = model.batch([f"{number}"] * 32, {"max_concurrency": 8}, return_exceptions=True)
        return sum(isinstance(answer, AIMessage) for answer in answers)

    with ThreadPoolExecutor(16) as pool:
        answered = sum(pool.map(work, range(16)))
    assert world.requests == answered
    assert world.spent() == world.cost <= usd("0.01").amount


@pytest.mark.parametrize(("how", "agents"), [("guard", 500), ("handler", 500)])
def test_many_agents_a_third_of_them_cancelled(make_world: Callable[..., World], how: str, agents: int) -> None:
    def thinks(request: ScriptedRequest) -> Reply:
        return Reply(text="done " * 5, delay_ms=random.Random(request.number).randrange(1, 120))

    world = make_world(thinks, budget="100")
    chance = random.Random(7)
    cancelled = set(chance.sample(range(agents), agents // 3))
    handler = world.handler(None)
    model = world.model() if how == "handler" else world.guard(world.model(), None)
    config: Config = {"callbacks": [handler]} if how == "handler" else {}

    async def agent(number: int) -> None:
        with world.authority.acting_as(Subject(tenant="acme", agent=f"a{number}")):
            for _ in range(2):
                await model.ainvoke(f"agent {number}", config)

    async def all_agents() -> None:
        tasks = [asyncio.create_task(agent(number)) for number in range(agents)]
        for number in cancelled:
            await asyncio.sleep(0.002)
            tasks[number].cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    world.run(all_agents())
    world.rest()
    assert world.open() == 0

    answered: defaultdict[str, int] = defaultdict(int)
    for request in world.sim.requests:
        answered["a" + request.body["messages"][0]["content"].removeprefix("agent ")] += request.cost or 0
    charged = {f"a{number}": 0 for number in range(agents)}
    rows = []
    cursor: str | None = None
    while True:
        page = world.authority.reservations(limit=200, cursor=cursor)
        rows.extend(page.items)
        cursor = page.next_cursor
        if cursor is None:
            break
    for it in rows:
        charged[it.subject["agent"]] += it.charged or 0
    for number in range(agents):
        name = f"a{number}"
        if number in cancelled:
            assert charged[name] >= answered[name]
        else:
            assert charged[name] == answered[name] > 0
    assert world.spent() == sum(charged.values())

"""Many crews of many customers in one process."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import pytest
from crew_world import World

import clearance_crewai
from clearance.errors import Denied, InvalidRequest
from clearance.model.amount import usd
from clearance.model.subject import Subject
from clearance.simulator import Reply, ScriptedRequest, ToolCall

TENANTS = ("acme", "globex", "initech")
CREWS = 20


async def few_steps(request: ScriptedRequest) -> Reply:
    """Two tools, then an answer; never quite at the same time."""
    await asyncio.sleep(0.001 * (request.number % 5))
    said = [message for message in request.messages if message.role == "tool"]
    if len(said) < 2:
        return Reply(tool_calls=(ToolCall("look_up", {"word": f"w{request.number}"}),))
    return Reply(text="done")


def billed(world: World, tenant: str) -> int:
    """By the provider, from the prompts: each crew's agent says whose it is."""
    return sum(request.cost or 0 for request in world.sim.requests if f"for {tenant}." in str(request.body["messages"]))


def crew_of(world: World, tenant: str) -> Any:
    return world.crew([world.tool()], agent={"backstory": f"works for {tenant}.", "role": f"Reader of {tenant}"})


@pytest.mark.parametrize("seed", [1, 2])
def test_twenty_crews_of_three_tenants_in_threads_with_denials(make_world: Callable[..., World], seed: int) -> None:
    world = make_world(few_steps, budget=None)
    for tenant in TENANTS:
        world.budget("1", scope=f"tenant:{tenant}")
    dice = random.Random(seed)
    plans = [(TENANTS[number % 3], usd(dice.choice(["0.1", "0.0001", "0.0003"]))) for number in range(CREWS)]

    def work(plan: tuple[str, Any]) -> str:
        tenant, budget = plan
        try:
            result = world.kickoff(crew_of(world, tenant), Subject(tenant=tenant), budget)
        except Denied:
            return "denied"
        assert {line.agent for line in result.clearance.lines} == {f"Reader of {tenant}"}
        return str(result.raw)

    with ThreadPoolExecutor(8) as pool:
        ends = list(pool.map(work, plans))

    assert set(ends) == {"done", "denied"}
    assert all(end == "done" for end, (_, budget) in zip(ends, plans, strict=True) if budget == usd("0.1"))
    for tenant in TENANTS:
        assert world.spent(f"tenant:{tenant}") == billed(world, tenant) > 0
        assert world.reserved(f"tenant:{tenant}") == 0
    assert sum(billed(world, tenant) for tenant in TENANTS) == world.billed


@pytest.mark.parametrize("seed", [1])
def test_twenty_crews_of_three_tenants_in_tasks_with_cancellations(make_world: Callable[..., World], seed: int) -> None:
    world = make_world(few_steps, budget=None)
    for tenant in TENANTS:
        world.budget("1", scope=f"tenant:{tenant}")
    dice = random.Random(seed)

    async def one(number: int) -> None:
        tenant = TENANTS[number % 3]
        budget = usd(dice.choice(["0.1", "0.0003"]))
        with suppress(Denied):
            await clearance_crewai.akickoff(crew_of(world, tenant), world.authority, Subject(tenant=tenant), budget)

    async def main() -> list[Any]:
        tasks = [asyncio.create_task(one(number)) for number in range(CREWS)]
        for task in tasks[::4]:
            await asyncio.sleep(dice.random() / 20)
            task.cancel()
        return await asyncio.gather(*tasks, return_exceptions=True)

    ends = asyncio.run(main())
    world.until(lambda: world.open() == 0)

    assert {type(end) for end in ends} <= {type(None), asyncio.CancelledError}
    for tenant in TENANTS:
        assert world.spent(f"tenant:{tenant}") == billed(world, tenant) > 0
        assert world.reserved(f"tenant:{tenant}") == 0


def test_a_crew_outside_a_run_is_not_touched_by_one_beside_it(make_world: Callable[..., World]) -> None:
    world = make_world(few_steps)

    with ThreadPoolExecutor(2) as pool:
        inside = pool.submit(world.kickoff, crew_of(world, "acme"))
        outside = pool.submit(crew_of(world, "nobody").kickoff)
        assert inside.result().raw == outside.result().raw == "done"
        assert not hasattr(outside.result(), "clearance")

    assert world.spent() == billed(world, "acme")
    assert world.requests == 6


def test_one_stopped_run_leaves_the_others_alone(make_world: Callable[..., World]) -> None:
    world = make_world(few_steps)

    with world.run() as stopped:
        world.authority.kill(f"run:{stopped.id}", reason="this one")
        with pytest.raises(Denied, match="refused"):
            crew_of(world, "acme").kickoff()

    assert world.kickoff(crew_of(world, "acme")).raw == "done"


def test_a_generator_is_refused_for_its_body_would_run_outside(make_world: Callable[..., World]) -> None:
    world = make_world(few_steps)
    with pytest.raises(InvalidRequest, match="generator"):

        @clearance_crewai.governed(world.authority, Subject(tenant="acme"))
        def words() -> Any:
            yield world.llm().call("hi")

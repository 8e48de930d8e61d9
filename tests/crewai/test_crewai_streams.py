"""Streams: read to the end, closed, dropped, read too late."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable
from typing import Any

import pytest
from crew_world import ACME, World
from crewai import Flow
from crewai.flow.flow import start
from crewai.types.streaming import CrewStreamingOutput

import clearance_crewai
from clearance.errors import BudgetExceeded, Denied
from clearance.model.amount import usd
from clearance.simulator import Reply, ScriptedRequest, ToolCall

MakeWorld = Callable[..., World]


async def slow_runaway(request: ScriptedRequest) -> Reply:
    await asyncio.sleep(0.05)
    return Reply(tool_calls=(ToolCall("look_up", {"word": f"word{request.number}"}),))


def streaming(world: World) -> Any:
    return world.crew([world.tool()], stream=True)


def settled(world: World) -> None:
    """Everything in flight has come to its end, and nothing has started since."""
    world.until(lambda: world.open() == 0)
    world.sim.wait_idle()
    requests = world.requests
    assert world.spent() == world.billed
    gc.collect()
    assert world.requests == requests


def test_a_stream_is_crewais_own_and_ends_with_its_result(world: World) -> None:
    stream = world.kickoff(streaming(world), budget=usd("0.5"))

    assert isinstance(stream, CrewStreamingOutput)
    assert (world.requests, world.reserved()) == (0, 50_000_000)  # the work begins at the first read
    text = "".join(chunk.content for chunk in stream)

    assert "The tool said" in text
    assert stream.result.raw == "The tool said: sample is known"
    assert stream.result.clearance.spent().amount == world.billed == world.spent()
    assert world.reserved() == 0


def test_an_async_stream_ends_with_its_result(world: World) -> None:
    async def main() -> Any:
        stream = await clearance_crewai.akickoff(streaming(world), world.authority, ACME, usd("0.5"))
        async for _ in stream:
            pass
        return stream.result

    result = asyncio.run(main())

    assert result.raw == "The tool said: sample is known"
    assert result.clearance.spent().amount == world.billed == world.spent()


def test_a_denied_stream_raises_the_typed_error_where_it_is_read(make_world: MakeWorld) -> None:
    world = make_world(slow_runaway)
    stream = world.kickoff(streaming(world), budget=usd("0.0004"))

    with pytest.raises(BudgetExceeded) as caught:
        for _ in stream:
            pass

    assert type(caught.value) is BudgetExceeded
    settled(world)


def test_a_denied_stream_can_finish_in_peace(make_world: MakeWorld) -> None:
    world = make_world(slow_runaway)
    stream = world.kickoff(streaming(world), budget=usd("0.0004"), on_deny="finish")

    for _ in stream:
        pass

    assert isinstance(stream.result.clearance.denied, BudgetExceeded)
    settled(world)


@pytest.mark.parametrize("way", ["closed", "dropped"])
def test_a_stream_that_is_given_up_spends_nothing_more(make_world: MakeWorld, way: str) -> None:
    world = make_world(slow_runaway)
    stream = world.kickoff(streaming(world), budget=usd("0.5"))
    next(iter(stream))

    if way == "closed":
        stream.close()
    del stream

    world.until(lambda: world.reserved() == 0)
    assert world.requests <= 2
    settled(world)


@pytest.mark.parametrize("way", ["closed", "dropped"])
def test_an_async_stream_that_is_given_up_spends_nothing_more(make_world: MakeWorld, way: str) -> None:
    world = make_world(slow_runaway)

    async def main() -> None:
        stream = await clearance_crewai.akickoff(streaming(world), world.authority, ACME, usd("0.5"))
        async for _ in stream:
            break
        if way == "closed":
            await stream.aclose()
        del stream
        await asyncio.to_thread(world.until, lambda: world.reserved() == 0)

    asyncio.run(main())
    world.sim.wait_idle()
    assert world.requests <= 2
    world.until(lambda: world.open() == 0)


def test_a_stream_that_nobody_reads_costs_nothing_and_ends_its_run(world: World) -> None:
    stream = world.kickoff(streaming(world), budget=usd("0.5"))
    del stream

    world.until(lambda: world.reserved() == 0)
    assert world.requests == 0


def test_a_stream_read_after_its_block_makes_no_call(world: World) -> None:
    with world.run():
        stream = streaming(world).kickoff()

    with pytest.raises(Denied, match="refused"):
        for _ in stream:
            pass
    assert world.requests == 0


def test_streams_of_many_inputs_share_one_run(world: World) -> None:
    streams = clearance_crewai.kickoff_for_each(
        streaming(world), world.authority, ACME, usd("0.5"), inputs=[{"n": 1}, {"n": 2}]
    )

    for stream in streams:
        assert world.reserved() > 0
        assert "".join(chunk.content for chunk in stream)

    assert world.reserved() == 0
    assert world.spent() == world.billed
    assert streams[1].result.clearance.spent().amount == world.billed


def test_a_streaming_flow_is_inside_its_run(world: World) -> None:
    class Asking(Flow):  # type: ignore[type-arg]
        stream = True

        @start()
        def first(self) -> str:
            return str(world.llm().call("look"))

    stream = world.kickoff(Asking(), budget=usd("0.5"))
    assert world.requests == 0
    for _ in stream:
        pass

    assert stream.result.startswith("This is a simulated answer")
    assert world.spent() == world.billed > 0

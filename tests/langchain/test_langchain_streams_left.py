"""Streams that nobody reads to their end: nothing stays open, and the estimate is charged."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable

import pytest
from langchain_world import ACME, LONG, World, drain, governed, settled_as_estimated

pytestmark = [
    pytest.mark.filterwarnings("ignore::langchain_core._api.beta_decorator.LangChainBetaWarning"),
    pytest.mark.filterwarnings("ignore:Unexpected type for token usage"),  # LangChain's, for two prompts at once
]

by_how = pytest.mark.parametrize("how", ["handler", "guard", "both"])


@by_how
def test_a_cut_stream_looks_like_success_and_is_charged_as_estimated(
    make_world: Callable[..., World], how: str
) -> None:
    world = make_world(LONG)
    model, config = governed(world, how, "+cut-3")
    try:
        list(model.stream("hi", config))
    except Exception as error:  # newer clients raise
        assert "closed" in str(error) or "onnection" in str(error)  # noqa: PT017
    settled_as_estimated(world)


@by_how
@pytest.mark.parametrize("how_left", ["closed", "freed"])
def test_an_abandoned_stream(make_world: Callable[..., World], how: str, how_left: str) -> None:
    world = make_world(LONG)
    model, config = governed(world, how, "+drip-5")
    stream = model.stream("hi", config)
    next(stream)
    next(stream)
    if how_left == "closed":
        stream.close()
    del stream
    gc.collect()
    settled_as_estimated(world)


@by_how
def test_an_abandoned_stream_that_is_kept_stays_open_until_it_is_closed(
    make_world: Callable[..., World], how: str
) -> None:
    world = make_world(LONG)
    model, config = governed(world, how, "+drip-5")
    stream = model.stream("hi", config)
    next(stream)
    assert world.open() == 1
    stream.close()
    settled_as_estimated(world)


@by_how
@pytest.mark.parametrize("how_left", ["closed", "freed", "cancelled"])
def test_an_abandoned_async_stream(make_world: Callable[..., World], how: str, how_left: str) -> None:
    world = make_world(LONG)
    model, config = governed(world, how, "+drip-50")

    async def work() -> None:
        stream = model.astream("hi", config)
        await anext(stream)
        if how_left == "closed":
            await stream.aclose()
        elif how_left == "cancelled":
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(drain(stream), 0.02)
        del stream
        gc.collect()
        await asyncio.sleep(0.05)

    world.run(work())
    settled_as_estimated(world)


@by_how
def test_an_abandoned_agent_stream(make_world: Callable[..., World], how: str) -> None:
    world = make_world(LONG)
    model, config = governed(world, how, "+drip-5")

    async def work() -> None:
        async for _ in world.agent(model).astream({"messages": "hi"}, config, stream_mode="messages"):
            break
        gc.collect()
        await asyncio.sleep(0.1)

    world.run(work())
    world.rest()
    # The agent is stopped, or runs on to the end of the answer: then what it cost is known.
    (settled,) = world.all("COMMITTED")
    assert world.open() == 0
    assert world.spent() in (world.cost, settled.estimate)
    assert world.spent() >= world.cost


def test_abandoned_protocol_events(make_world: Callable[..., World]) -> None:
    world = make_world(LONG)
    model, _ = governed(world, "guard", "+drip-5")
    events = model.stream_events("hi", version="v3")
    next(iter(events))
    del events
    gc.collect()
    settled_as_estimated(world)


def test_protocol_events_abandoned_under_a_handler_end_with_the_run(make_world: Callable[..., World]) -> None:
    world = make_world(LONG)
    model, config = governed(world, "handler", "+drip-5")
    with world.authority.run(ACME):
        events = model.stream_events("hi", config, version="v3")
        next(iter(events))
        del events
        gc.collect()
    assert world.open() == 0

"""Every way out of a call that was let in: nothing stays open, and what may have cost money is charged."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.messages import HumanMessage
from langchain_world import ACME, World
from langgraph.graph import END, START, MessagesState, StateGraph

from clearance.errors import BudgetExceeded, Killed
from clearance.simulator import Reply, ScriptedRequest, always

pytestmark = [
    pytest.mark.filterwarnings("ignore::langchain_core._api.beta_decorator.LangChainBetaWarning"),
    pytest.mark.filterwarnings("ignore:Unexpected type for token usage"),  # LangChain's, for two prompts at once
]

LONG = always("one two three four five six seven eight nine ten " * 3)
by_how = pytest.mark.parametrize("how", ["handler", "guard", "both"])


def governed(world: World, how: str, faults: str = "", **options: Any) -> tuple[Any, dict[str, Any]]:
    model = world.model(faults, **options)
    callbacks = [world.handler()] if how in ("handler", "both") else []
    return (model if how == "handler" else world.guard(model)), {"callbacks": callbacks}


def settled_as_estimated(world: World, calls: int = 1) -> None:
    assert world.open() == 0
    committed = world.all("COMMITTED")
    assert len(committed) == len(world.all()) == calls
    assert world.spent() == sum(it.estimate for it in committed) >= world.cost


async def started(world: World, calls: int = 1) -> None:
    """Until that many requests have arrived at the provider."""
    await world.soon(lambda: world.sim.stats()["in_flight"] >= calls)


async def _drain(stream: Any) -> None:
    async for _ in stream:
        pass


# --- cancelled and timed out


async def _cancel(work: Coroutine[Any, Any, Any], world: World, calls: int = 1) -> None:
    task = asyncio.ensure_future(work)
    await started(world, calls)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


@by_how
def test_a_cancelled_ainvoke(world: World, how: str) -> None:
    model, config = governed(world, how, "+slow-800")
    world.run(_cancel(model.ainvoke("hi", config), world))
    settled_as_estimated(world)


@by_how
def test_a_cancelled_abatch(world: World, how: str) -> None:
    model, config = governed(world, how, "+slow-800")
    world.run(_cancel(model.abatch(["hi", "ho", "hu"], config), world, 3))
    world.rest()
    settled_as_estimated(world, 3)


@by_how
def test_a_cancelled_agent(world: World, how: str) -> None:
    model, config = governed(world, how, "+slow-800")
    world.run(_cancel(world.agent(model).ainvoke({"messages": "hi"}, config), world))
    world.rest()
    settled_as_estimated(world)


@by_how
def test_wait_for(world: World, how: str) -> None:
    model, config = governed(world, how, "+slow-800")

    async def work() -> None:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(model.ainvoke("hi", config), 0.1)

    world.run(work())
    settled_as_estimated(world)


@by_how
def test_a_timeout_inside_a_task_that_lives_on(world: World, how: str) -> None:
    model, config = governed(world, how, "+slow-800")

    async def work() -> int:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await model.ainvoke("hi", config)
        return world.open()

    # A handler hears nothing and has to wait for the end of the task; a guard is there when it happens.
    assert world.run(work()) == (1 if how == "handler" else 0)
    settled_as_estimated(world)


@by_how
def test_a_timeout_inside_a_run_ends_with_the_run(world: World, how: str) -> None:
    model, config = governed(world, how, "+slow-800")

    async def work() -> int:
        async with world.authority.run(ACME):
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.1):
                    await model.ainvoke("hi", config)
        return world.open()

    assert world.run(work()) == 0


@by_how
def test_a_graph_step_that_times_out(world: World, how: str) -> None:
    model, config = governed(world, how, "+slow-3000")
    agent = world.agent(model)
    agent.step_timeout = 0.4

    async def work() -> None:
        with pytest.raises(TimeoutError):
            await agent.ainvoke({"messages": "hi"}, config)

    world.run(work())
    world.rest()
    settled_as_estimated(world)


@by_how
def test_a_sibling_node_that_fails(world: World, how: str) -> None:
    model, config = governed(world, how, "+slow-800")

    async def slow(state: MessagesState) -> dict[str, Any]:
        return {"messages": [await model.ainvoke("hi")]}

    async def failing(state: MessagesState) -> dict[str, Any]:
        await started(world)
        raise RuntimeError("sibling")

    graph = StateGraph(MessagesState)
    for name, node in (("slow", slow), ("failing", failing)):
        graph.add_node(name, node)
        graph.add_edge(START, name)
        graph.add_edge(name, END)
    with pytest.raises(RuntimeError, match="sibling"):
        world.run(graph.compile().ainvoke({"messages": []}, config))
    world.rest()
    settled_as_estimated(world)


@by_how
def test_the_clients_own_time_out(world: World, how: str) -> None:
    model, config = governed(world, how, "+slow-800", timeout=0.1)
    with pytest.raises(Exception, match=r"timed out|Timeout|timeout"):
        model.invoke("hi", config)
    settled_as_estimated(world)


@by_how
def test_a_connection_that_is_lost(world: World, how: str) -> None:
    model, config = governed(world, how, "+cut-0")
    with pytest.raises(Exception, match=r"Connection|connection|disconnected"):
        model.invoke("hi", config)
    settled_as_estimated(world)


# --- streams that nobody reads to their end


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
                await asyncio.wait_for(_drain(stream), 0.02)
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
    settled_as_estimated(world)


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


# --- several prompts at once


@by_how
def test_a_prompt_that_fails_among_three(make_world: Callable[..., World], how: str) -> None:
    def second_fails(request: ScriptedRequest) -> Reply:
        return Reply(status=400) if request.user_text == "ho" else Reply(text="well")

    world = make_world(second_fails)
    model, config = governed(world, how)
    prompts = [[HumanMessage(word)] for word in ("hi", "ho", "hu")]
    with pytest.raises(Exception, match="400"):
        model.generate(prompts, callbacks=config["callbacks"])
    assert (world.requests, world.open()) == (2, 0)
    assert world.spent() >= world.cost > 0
    statuses = sorted(it.status for it in world.all())
    assert statuses == (["COMMITTED", "RELEASED", "RELEASED"] if how == "handler" else ["COMMITTED", "RELEASED"])


@pytest.mark.parametrize("is_async", [False, True])
def test_a_second_prompt_that_is_denied_frees_the_first(make_world: Callable[..., World], is_async: bool) -> None:
    world = make_world(budget="0.00005")
    prompts = [[HumanMessage("hi")], [HumanMessage("ho")]]
    model, config = governed(world, "handler")
    callbacks = config["callbacks"]
    given: dict[str, Any] = {"messages": prompts, "callbacks": callbacks}
    with pytest.raises(BudgetExceeded):
        _ = world.run(model.agenerate(**given)) if is_async else model.generate(**given)
    assert (world.requests, world.open(), world.spent()) == (0, 0, 0)
    assert [it.status for it in world.all()] == ["RELEASED"]


# --- other people's handlers


class Breaks(BaseCallbackHandler):
    raise_error = True
    run_inline = True

    def __init__(self, event: str) -> None:
        self._event = event

    def on_chat_model_start(self, *args: Any, **kwargs: Any) -> None:
        if self._event == "start":
            raise RuntimeError("their bug")

    def on_llm_end(self, *args: Any, **kwargs: Any) -> None:
        if self._event == "end":
            raise RuntimeError("their bug")


@by_how
@pytest.mark.parametrize("event", ["start", "end"])
@pytest.mark.parametrize("first", [False, True])
def test_a_handler_of_somebody_else_that_raises(world: World, how: str, event: str, first: bool) -> None:
    model, config = governed(world, how)
    ours = config["callbacks"]
    callbacks = [Breaks(event), *ours] if first else [*ours, Breaks(event)]
    with world.authority.run(ACME), pytest.raises(RuntimeError, match="their bug"):
        world.agent(model).invoke({"messages": "hi"}, {"callbacks": callbacks})
    assert world.open() == 0
    assert world.spent() >= world.cost


# --- stopped while it runs


@pytest.mark.parametrize("how", ["guard", "both"])
@pytest.mark.parametrize("path", ["ainvoke", "agent", "stream"])
def test_a_kill_ends_a_call_in_flight(make_world: Callable[..., World], how: str, path: str) -> None:
    world = make_world(LONG)
    model, config = governed(world, how, "+slow-5000" if path != "stream" else "+drip-50")

    async def work() -> None:
        if path == "ainvoke":
            await model.ainvoke("hi", config)
        elif path == "agent":
            await world.agent(model).ainvoke({"messages": "hi"}, config)
        else:
            async for _ in model.astream("hi", config):
                pass

    begun = time.monotonic()
    threading.Timer(0.2, lambda: world.authority.kill("tenant:acme", reason="enough")).start()
    with pytest.raises(Killed):
        world.run(work())
    assert time.monotonic() - begun < 3.0
    world.rest()
    settled_as_estimated(world)


@by_how
@pytest.mark.parametrize("path", ["stream", "astream", "executor"])
def test_a_kill_ends_a_stream_in_flight(make_world: Callable[..., World], how: str, path: str) -> None:
    world = make_world(LONG)
    model, config = governed(world, how, "+drip-50")

    ways: dict[str, Callable[[], Any]] = {
        "stream": lambda: list(model.stream("hi", config)),
        "astream": lambda: world.run(_drain(model.astream("hi", config))),
        "executor": lambda: world.executor(model, [world.tool()]).invoke({"input": "hi"}, config),
    }
    threading.Timer(0.2, lambda: world.authority.kill("tenant:acme", reason="enough")).start()
    begun = time.monotonic()
    with pytest.raises(Killed):
        ways[path]()
    assert time.monotonic() - begun < 3.0
    settled_as_estimated(world)


def test_under_a_handler_a_call_that_does_not_stream_ends_by_itself_and_is_the_last(world: World) -> None:
    model, config = governed(world, "handler", "+slow-500")
    threading.Timer(0.1, lambda: world.authority.kill("tenant:acme", reason="enough")).start()
    with pytest.raises(Killed):
        world.run(world.executor(model, [world.tool()], stream_runnable=False).ainvoke({"input": "hi"}, config))
    assert (world.requests, world.tool_runs) == (1, [])
    assert world.spent() == world.cost

"""Every way out of a call that was let in: nothing stays open, and what may have cost money is charged."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest
from langchain_world import ACME, World, governed, settled_as_estimated, started
from langgraph.graph import END, START, MessagesState, StateGraph

pytestmark = [
    pytest.mark.filterwarnings("ignore::langchain_core._api.beta_decorator.LangChainBetaWarning"),
    pytest.mark.filterwarnings("ignore:Unexpected type for token usage"),  # LangChain's, for two prompts at once
]

by_how = pytest.mark.parametrize("how", ["handler", "guard", "both"])


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

    async def work() -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await model.ainvoke("hi", config)
        await world.soon(lambda: world.open() == 0)  # a handler hears nothing: it sees that the call is gone

    world.run(work())
    settled_as_estimated(world)


@pytest.mark.parametrize("kind", ["tool", "retriever", "agent"])
def test_under_a_handler_whatever_times_out_in_a_task_that_lives_on_is_settled(world: World, kind: str) -> None:
    from langchain_core.documents import Document
    from langchain_core.retrievers import BaseRetriever

    async def long(word: str) -> str:
        await asyncio.sleep(60)
        return word

    class Slow(BaseRetriever):
        def _get_relevant_documents(self, query: str, **kwargs: Any) -> list[Document]:
            raise NotImplementedError

        async def _aget_relevant_documents(self, query: str, **kwargs: Any) -> list[Document]:
            await asyncio.sleep(60)
            return []

    calls: dict[str, Any] = {
        "tool": lambda config: world.atool(work=long).ainvoke({"word": "x"}, config),
        "retriever": lambda config: Slow().ainvoke("x", config),
        "agent": lambda config: world.agent(world.model("+slow-800")).ainvoke({"messages": "hi"}, config),
    }

    async def work() -> None:
        for _ in range(3):
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.15):
                    await calls[kind]({"callbacks": [world.handler()]})
            await world.soon(lambda: world.open() == 0)

    world.run(work())
    assert len(world.all("COMMITTED")) == 3


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

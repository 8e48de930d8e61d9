"""Tools: priced by name, checked without a price, and settled however they end."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable
from typing import Annotated, Any

import pytest
from langchain.tools import ToolRuntime
from langchain_core.documents import Document
from langchain_core.retrievers import BaseRetriever
from langchain_core.runnables import RunnableConfig
from langchain_core.tools import tool
from langchain_world import World
from langgraph.prebuilt import InjectedState, ToolNode

from clearance.errors import BudgetExceeded, InvalidRequest, Killed
from clearance.model.amount import Unit, credits
from clearance.simulator import calls_tool_forever

by_how = pytest.mark.parametrize("how", ["handler", "guard", "both"])


def governed(world: World, how: str, tool: Any, **options: Any) -> tuple[Any, dict[str, Any]]:
    callbacks = [world.handler(**options)] if how in ("handler", "both") else []
    return (tool if how == "handler" else world.guard(tool, **options)), {"callbacks": callbacks}


@by_how
@pytest.mark.parametrize("costs", [{"send": credits(1)}, lambda name: credits(1) if name == "send" else None])
def test_a_tool_runs_as_often_as_its_credits_allow(world: World, how: str, costs: Any) -> None:
    world.budget(credits(3))
    send, config = governed(world, how, world.tool("send"), tool_costs=costs)
    for _ in range(3):
        send.invoke({"word": "x"}, config)
    with pytest.raises(BudgetExceeded):
        send.invoke({"word": "x"}, config)
    assert len(world.tool_runs) == 3
    assert world.spent(unit=Unit.CREDITS) == 3


@by_how
def test_an_agent_that_calls_a_priced_tool_for_ever(make_world: Callable[..., World], how: str) -> None:
    world = make_world(calls_tool_forever("send", {"word": "x"}))
    world.budget(credits(3))
    send, config = governed(world, how, world.tool("send"), tool_costs={"send": credits(1)})
    model = world.model() if how == "handler" else world.guard(world.model())
    with pytest.raises(BudgetExceeded):
        world.agent(model, [send]).invoke({"messages": "hi"}, {**config, "recursion_limit": 100})
    assert (world.requests, len(world.tool_runs)) == (4, 3)
    assert world.spent() == world.cost


@by_how
def test_a_tool_without_a_price_costs_nothing_and_can_be_killed(world: World, how: str) -> None:
    look_up, config = governed(world, how, world.tool())
    look_up.invoke({"word": "x"}, config)
    assert (world.spent(), world.only().status) == (0, "COMMITTED")
    world.authority.kill("tenant:acme", reason="test")
    with pytest.raises(Killed):
        look_up.invoke({"word": "x"}, config)
    assert len(world.tool_runs) == 1


def test_a_tool_without_a_price_where_only_credits_are_budgeted(make_world: Callable[..., World]) -> None:
    world = make_world(budget=None)
    world.budget(credits(1))
    world.guard(world.tool()).invoke({"word": "x"})
    assert (world.only().unit, world.only().estimate) == ("CREDITS", 0)


@by_how
@pytest.mark.parametrize("is_async", [False, True])
def test_an_async_tool(world: World, how: str, is_async: bool) -> None:
    made, config = governed(world, how, world.atool() if is_async else world.tool(), tool_costs={"look_up": "0.01"})
    assert world.run(made.ainvoke({"word": "x"}, config)) == "x is known"
    assert (len(world.tool_runs), world.spent()) == (1, 1_000_000)


@by_how
@pytest.mark.parametrize("is_async", [False, True])
@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, TimeoutError])
def test_a_tool_that_fails_may_have_done_its_work(world: World, how: str, is_async: bool, error: Any) -> None:
    def fails(word: str) -> str:
        raise error("their bug")

    made, config = governed(world, how, world.tool(work=fails), tool_costs={"look_up": "0.01"})
    given = {"word": "x"}
    in_loop = is_async and error is not KeyboardInterrupt
    with pytest.raises(error):
        _ = world.run(made.ainvoke(given, config)) if in_loop else made.invoke(given, config)
    assert world.spent() == 1_000_000


@by_how
@pytest.mark.parametrize("kind", ["tool.call", "message.email.send"])
def test_bad_arguments_are_free(world: World, how: str, kind: str) -> None:
    made, config = governed(world, how, world.tool(), tool_costs={"look_up": "0.01"}, action_kinds={"look_up": kind})
    with pytest.raises(ValueError, match="word"):
        made.invoke({"nothing": "x"}, config)
    with pytest.raises(ValueError, match="word"):
        world.run(made.ainvoke({"nothing": "x"}, config))
    assert world.tool_runs == []
    assert {it.status for it in world.all()} == {"RELEASED"}


@by_how
def test_a_cancelled_async_tool(world: World, how: str) -> None:
    async def slow(word: str) -> str:
        await asyncio.sleep(5)
        return word

    made, config = governed(world, how, world.atool(work=slow), tool_costs={"look_up": "0.01"})

    async def work() -> None:
        task = asyncio.ensure_future(made.ainvoke({"word": "x"}, config))
        await world.soon(lambda: world.tool_runs)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    world.run(work())
    assert (world.open(), world.spent()) == (0, 1_000_000)


@by_how
def test_a_sync_tool_whose_caller_is_cancelled_goes_on_and_settles_when_done(world: World, how: str) -> None:
    import threading

    go_on = threading.Event()
    made, config = governed(
        world, how, world.tool(work=lambda word: str(go_on.wait(5))), tool_costs={"look_up": "0.01"}
    )

    async def work() -> None:
        task = asyncio.ensure_future(made.ainvoke({"word": "x"}, config))
        await world.soon(lambda: world.tool_runs)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    world.run(work())
    assert world.open() == 1
    go_on.set()
    world.until(lambda: world.open() == 0)
    assert world.spent() == 1_000_000


def test_an_interrupt_inside_a_tool_holds_nothing_while_it_waits(make_world: Callable[..., World]) -> None:
    from langgraph.checkpoint.memory import InMemorySaver
    from langgraph.types import Command, interrupt

    world = make_world()
    ask = world.tool(work=lambda word: str(interrupt("may I?")))
    tools = world.guard([ask], tool_costs={"look_up": "0.01"})
    agent = world.agent(world.guard(world.model()), tools, checkpointer=InMemorySaver())
    config: Any = {"configurable": {"thread_id": "1"}}
    agent.invoke({"messages": "hi"}, config)
    assert world.open() == 0
    assert world.spent() == world.cost
    agent.invoke(Command(resume="yes"), config)
    assert world.spent() == world.cost + 1_000_000


# --- what is kept of the arguments


@by_how
def test_only_hash_and_size_of_the_arguments_are_kept(world: World, how: str) -> None:
    made, config = governed(world, how, world.tool())
    made.invoke({"word": "secret"}, config)
    kept = world.only().metadata
    text = b'{"word": "secret"}'
    assert (kept["arguments_sha256"], kept["arguments_bytes"]) == (hashlib.sha256(text).hexdigest(), len(text))
    assert "secret" not in str(world.only())


@by_how
def test_arguments_are_kept_where_the_user_says_which(world: World, how: str) -> None:
    made, config = governed(
        world,
        how,
        world.tool("send"),
        action_kinds={"send": "message.email.send"},
        arguments=lambda name, given: {"length": len(given["word"])},
    )
    made.invoke({"word": "secret"}, config)
    assert world.only().metadata["arguments"] == {"length": 6}
    assert world.only().action == {"kind": "message.email.send", "name": "send"}


def test_what_langgraph_injects_arrives_and_is_not_kept(world: World) -> None:
    seen: list[Any] = []

    @tool
    def injected(word: str, state: Annotated[Any, InjectedState], runtime: ToolRuntime, config: RunnableConfig) -> str:
        """Look a word up."""
        seen.append((state["messages"][0].content, runtime.tool_call_id, config["metadata"]["langgraph_node"]))
        return word

    agent = world.agent(world.guard(world.model()), world.guard([injected]))
    agent.invoke({"messages": "the secret prompt"})
    assert len(seen) == 1
    assert seen[0][0] == "the secret prompt"
    assert seen[0][1]
    assert "secret" not in str(world.all())


# --- nodes, retrievers, bad settings


@pytest.mark.parametrize("how", ["handler", "guard"])
def test_a_tool_node_can_turn_denials_into_messages(world: World, how: str) -> None:
    world.authority.kill("tenant:acme", reason="enough")
    made, config = governed(world, how, world.tool())
    from langchain_core.messages import AIMessage
    from langgraph.graph import END, START, MessagesState, StateGraph

    graph = StateGraph(MessagesState)
    graph.add_node("tools", ToolNode([made], handle_tool_errors=True))
    graph.add_edge(START, "tools")
    graph.add_edge("tools", END)
    call = {"name": "look_up", "args": {"word": "x"}, "id": "1", "type": "tool_call"}
    answer = graph.compile().invoke({"messages": [AIMessage("", tool_calls=[call])]}, config)
    assert "killed" in answer["messages"][-1].content
    assert world.tool_runs == []


class Shelf(BaseRetriever):
    fails: bool = False

    def _get_relevant_documents(self, query: str, *, run_manager: Any) -> list[Document]:
        if self.fails:
            raise RuntimeError("no shelf")
        return [Document(query)]


def test_a_retriever_is_priced_and_killed_by_the_handler(world: World) -> None:
    config: Any = {"callbacks": [world.handler(tool_costs={"Shelf": "0.02"})]}
    Shelf().invoke("books", config)
    world.run(Shelf().ainvoke("books", config))
    with pytest.raises(RuntimeError):
        Shelf(fails=True).invoke("books", config)
    assert world.spent() == 6_000_000
    assert {it.action["kind"] for it in world.all()} == {"retriever.query"}
    world.authority.kill("tenant:acme", reason="enough")
    with pytest.raises(Killed):
        Shelf().invoke("books", config)


@pytest.mark.parametrize("costs", [{"f": 0.5}, {"f": "dear"}, {"f": -1}, "free"])
def test_costs_that_are_no_amounts_are_refused_at_once(world: World, costs: Any) -> None:
    with pytest.raises(InvalidRequest):
        world.handler(tool_costs=costs)

"""Every call path, governed by handler, guard, or both: allowed, denied, killed, failed at the provider."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
from langchain_core.messages import HumanMessage
from langchain_core.prompts import ChatPromptTemplate
from langchain_world import ACME, World
from langgraph.graph import END, START, MessagesState, StateGraph

from clearance.errors import BudgetExceeded, Killed, Paused, SubjectMissing
from clearance.model.amount import usd
from clearance.simulator import calls_tool_forever

pytestmark = [
    pytest.mark.filterwarnings("ignore::langchain_core._api.beta_decorator.LangChainBetaWarning"),
    pytest.mark.filterwarnings("ignore:Unexpected type for token usage"),  # LangChain's, for two prompts at once
]

HI = [HumanMessage("hi")]


class Setting(NamedTuple):
    world: World
    model: Any
    tools: list[Any]
    config: dict[str, Any]


class Path(NamedTuple):
    """`requests` and `tools` are what one allowed call makes."""

    go: Callable[[Setting], Any]
    requests: int = 1
    tools: int = 0


def governed(world: World, how: str, tool: Any = None, **options: Any) -> Setting:
    model, tools = world.model(), [tool or world.tool()]
    if how in ("guard", "both"):
        model, tools = world.guard(model, **options), world.guard(tools, **options)
    callbacks = [world.handler(**options)] if how in ("handler", "both") else []
    return Setting(world, model, tools, {"callbacks": callbacks, "recursion_limit": 50})


def _graph(it: Setting, is_async: bool) -> Any:
    def node(state: MessagesState) -> dict[str, Any]:
        return {"messages": [it.model.invoke(state["messages"])]}

    async def anode(state: MessagesState) -> dict[str, Any]:
        return {"messages": [await it.model.ainvoke(state["messages"])]}

    graph = StateGraph(MessagesState)
    graph.add_node("talk", anode if is_async else node)
    graph.add_edge(START, "talk")
    graph.add_edge("talk", END)
    return graph.compile()


def _chain(it: Setting) -> Any:
    return ChatPromptTemplate.from_messages([("human", "{input}")]) | it.model


async def _drain(stream: Any) -> list[Any]:
    return [part async for part in stream]


async def _events_v3(it: Setting) -> Any:
    return await _drain(await it.model.astream_events("hi", it.config, version="v3"))


def _agent(it: Setting) -> Any:
    return it.world.agent(it.model, it.tools)


def _executor(it: Setting) -> Any:
    return it.world.executor(it.model, it.tools)


PATHS: dict[str, Path] = {
    "invoke": Path(lambda it: it.model.invoke("hi", it.config)),
    "ainvoke": Path(lambda it: it.world.run(it.model.ainvoke("hi", it.config))),
    "stream": Path(lambda it: list(it.model.stream("hi", it.config))),
    "astream": Path(lambda it: it.world.run(_drain(it.model.astream("hi", it.config)))),
    "batch": Path(lambda it: it.model.batch(["hi", "ho", "hu"], it.config), 3),
    "abatch": Path(lambda it: it.world.run(it.model.abatch(["hi", "ho", "hu"], it.config)), 3),
    "generate": Path(lambda it: it.model.generate([HI, HI], callbacks=it.config["callbacks"]), 2),
    "agenerate": Path(lambda it: it.world.run(it.model.agenerate([HI, HI], callbacks=it.config["callbacks"])), 2),
    "stream_events v3": Path(lambda it: list(it.model.stream_events("hi", it.config, version="v3"))),
    "astream_events v2": Path(lambda it: it.world.run(_drain(it.model.astream_events("hi", it.config, version="v2")))),
    "astream_events v3": Path(lambda it: it.world.run(_events_v3(it))),
    "chain": Path(lambda it: _chain(it).invoke({"input": "hi"}, it.config)),
    "chain, async stream": Path(lambda it: it.world.run(_drain(_chain(it).astream({"input": "hi"}, it.config)))),
    "bound tools": Path(lambda it: it.model.bind_tools(it.tools).invoke("hi", it.config)),
    "bound tools, async": Path(lambda it: it.world.run(it.model.bind_tools(it.tools).ainvoke("hi", it.config))),
    "graph node": Path(lambda it: _graph(it, False).invoke({"messages": HI}, it.config)),
    "graph node, async": Path(lambda it: it.world.run(_graph(it, True).ainvoke({"messages": HI}, it.config))),
    "sync graph node, async": Path(lambda it: it.world.run(_graph(it, False).ainvoke({"messages": HI}, it.config))),
    "executor": Path(lambda it: _executor(it).invoke({"input": "hi"}, it.config), 2, 1),
    "executor, async": Path(lambda it: it.world.run(_executor(it).ainvoke({"input": "hi"}, it.config)), 2, 1),
    "executor, stream": Path(lambda it: list(_executor(it).stream({"input": "hi"}, it.config)), 2, 1),
    "create_agent": Path(lambda it: _agent(it).invoke({"messages": HI}, it.config), 2, 1),
    "create_agent, async": Path(lambda it: it.world.run(_agent(it).ainvoke({"messages": HI}, it.config)), 2, 1),
    "create_agent, stream": Path(
        lambda it: list(_agent(it).stream({"messages": HI}, it.config, stream_mode="messages")), 2, 1
    ),
    "create_agent, async stream": Path(
        lambda it: it.world.run(_drain(_agent(it).astream({"messages": HI}, it.config, stream_mode="messages"))), 2, 1
    ),
}
HOW = ("handler", "guard", "both")

by_path = pytest.mark.parametrize("path", PATHS.values(), ids=PATHS)
by_how = pytest.mark.parametrize("how", HOW)


@by_how
@by_path
def test_an_allowed_call_is_counted_once_and_costs_what_the_provider_charges(
    world: World, path: Path, how: str
) -> None:
    path.go(governed(world, how))
    assert world.requests == path.requests
    assert len(world.tool_runs) == path.tools
    assert len(world.all("COMMITTED")) == len(world.all()) == path.requests + path.tools
    assert world.spent() == world.cost > 0


@by_how
@by_path
def test_a_denied_call_makes_no_request(make_world: Callable[..., World], path: Path, how: str) -> None:
    world = make_world(budget="0.00000001")
    with pytest.raises(BudgetExceeded):
        path.go(governed(world, how))
    assert (world.requests, world.tool_runs, world.all(), world.spent()) == (0, [], [], 0)


@by_how
@by_path
def test_a_killed_scope_makes_no_request(world: World, path: Path, how: str) -> None:
    world.authority.kill("tenant:acme", reason="test")
    with pytest.raises(Killed):
        path.go(governed(world, how))
    assert (world.requests, world.tool_runs, world.spent()) == (0, [], 0)


@by_how
@by_path
def test_without_a_subject_nothing_happens(world: World, path: Path, how: str) -> None:
    with pytest.raises(SubjectMissing):
        path.go(governed(world, how, subject=None))
    assert (world.requests, world.tool_runs, world.all()) == (0, [], [])


@by_how
@by_path
def test_a_refusal_by_the_provider_is_free(world: World, path: Path, how: str) -> None:
    world.sim.fail_next(429, times=10)
    with pytest.raises(Exception, match=r"429|simulated|rate"):
        path.go(governed(world, how))
    world.rest()
    assert world.requests >= 1
    assert {it.status for it in world.all()} == {"RELEASED"}
    assert world.spent() == 0


@by_how
@by_path
def test_a_failure_of_the_provider_is_charged_as_estimated(world: World, path: Path, how: str) -> None:
    world.sim.fail_next(500, times=10)
    with pytest.raises(Exception, match=r"500|simulated|server"):
        path.go(governed(world, how))
    world.rest()
    assert world.requests >= 1
    assert world.spent() == sum(it.estimate for it in world.all("COMMITTED")) > 0
    assert len(world.all("COMMITTED")) == world.requests


@by_how
@pytest.mark.parametrize("name", ["executor", "create_agent", "create_agent, async", "executor, async"])
def test_a_killed_run_stops_before_its_next_call(world: World, name: str, how: str) -> None:
    def kill(word: str) -> str:
        world.authority.pause("tenant:acme/agent:bot", reason="look at it")
        return word

    with pytest.raises(Paused):
        PATHS[name].go(governed(world, how, world.tool(work=kill)))
    assert (world.requests, len(world.tool_runs)) == (1, 1)
    assert world.spent() == world.cost


@by_how
@pytest.mark.parametrize("name", ["executor", "create_agent", "create_agent, async", "executor, async"])
def test_a_run_budget_ends_the_run(make_world: Callable[..., World], name: str, how: str) -> None:
    world = make_world(calls_tool_forever("look_up", {"word": "x"}))
    with world.authority.run(ACME, budget=usd("0.0003")) as run:
        with pytest.raises(BudgetExceeded):
            PATHS[name].go(governed(world, how, subject=None))
    assert world.requests == len(world.tool_runs) > 1
    assert run.report().spent().amount == world.cost == world.spent() <= usd("0.0003").amount

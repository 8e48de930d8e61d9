"""Whom the outermost chain has named is the tenant of every call below it, whatever the chains between name."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest
from langchain_core.callbacks import CallbackManagerForRetrieverRun
from langchain_core.documents import Document
from langchain_core.embeddings import Embeddings
from langchain_core.messages import AIMessage
from langchain_core.retrievers import BaseRetriever
from langchain_core.runnables import Runnable, RunnableConfig, RunnableLambda, RunnablePassthrough
from langchain_world import INNER, KEPT, OUTER, World, drain, graph_of, scopes
from langgraph.func import entrypoint, task
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode
from uuid_utils import uuid7

from clearance.model.subject import Subject
from clearance.pricing import PriceBook
from clearance.simulator import Reply, ScriptedRequest, ToolCall
from clearance_langchain import guard_embeddings

EMBEDDING_PRICES = PriceBook({"text-embedding-3-small": {"input": "0.02", "output": "0"}})


# --- the ways down to a guarded model, each through something that names another tenant


def lambdas(world: World, inner: Runnable[Any, Any], config: Any) -> None:
    RunnableLambda(lambda x: inner.invoke(x)).invoke("hi", config)


def async_lambdas(world: World, inner: Runnable[Any, Any], config: Any) -> None:
    async def step(x: Any) -> Any:
        return await inner.ainvoke(x)

    world.run(RunnableLambda(step).ainvoke("hi", config))


def batches(world: World, inner: Runnable[Any, Any], config: Any) -> None:
    RunnableLambda(lambda x: inner.batch([x, x])).batch(["hi", "ho"], config)


def async_batches(world: World, inner: Runnable[Any, Any], config: Any) -> None:
    async def step(x: Any) -> Any:
        return await inner.abatch([x, x])

    world.run(RunnableLambda(step).abatch(["hi", "ho"], config))


def streams(world: World, inner: Runnable[Any, Any], config: Any) -> None:
    assert list((RunnablePassthrough() | inner).stream("hi", config))


def async_streams(world: World, inner: Runnable[Any, Any], config: Any) -> None:
    world.run(drain((RunnablePassthrough() | inner).astream("hi", config)))


def events(world: World, inner: Runnable[Any, Any], config: Any) -> None:
    world.run(drain((RunnablePassthrough() | inner).astream_events("hi", config, version="v2")))


def sequences(world: World, inner: Runnable[Any, Any], config: Any) -> None:
    (RunnablePassthrough() | inner | RunnablePassthrough()).invoke("hi", config)


def parallels(world: World, inner: Runnable[Any, Any], config: Any) -> None:
    chain: Any = RunnablePassthrough() | {"a": inner, "b": inner}
    chain.invoke("hi", config)


def fallbacks(world: World, inner: Runnable[Any, Any], config: Any) -> None:
    def fails(_: Any) -> None:
        raise ValueError

    RunnableLambda(fails).with_fallbacks([inner]).invoke("hi", config)


def retries(world: World, inner: Runnable[Any, Any], config: Any) -> None:
    RunnableLambda(lambda x: inner.with_retry().invoke(x)).invoke("hi", config)


def nodes(world: World, inner: Runnable[Any, Any], config: Any) -> None:
    graph_of(lambda state: {"messages": [inner.invoke("hi")]}).invoke({"messages": []}, config)


def async_nodes(world: World, inner: Runnable[Any, Any], config: Any) -> None:
    async def node(state: Any) -> Any:
        return {"messages": [await inner.ainvoke("hi")]}

    world.run(graph_of(node).ainvoke({"messages": []}, config))


def subgraphs(world: World, inner: Runnable[Any, Any], config: Any) -> None:
    below = graph_of(lambda state: {"messages": [inner.invoke("hi")]})
    graph_of(below).invoke({"messages": []}, config)


def tasks_of_graphs(world: World, inner: Runnable[Any, Any], config: Any) -> None:
    @task
    def ask(text: str) -> Any:
        return str(inner.invoke(text))

    @entrypoint()
    def work(text: str) -> Any:
        return ask(text).result()

    work.invoke("hi", config)


def plain_tools(world: World, inner: Runnable[Any, Any], config: Any) -> None:
    """Nobody guards the tool: it is only a run in between."""
    world.tool(work=lambda word: str(inner.invoke(word))).invoke({"word": "hi"}, config)


def retrievers(world: World, inner: Runnable[Any, Any], config: Any) -> None:
    retrieving(inner.invoke).invoke("hi", config)


def retrieving(ask: Callable[[str, RunnableConfig], Any]) -> BaseRetriever:
    class Asking(BaseRetriever):
        def _get_relevant_documents(self, query: str, *, run_manager: CallbackManagerForRetrieverRun) -> list[Document]:
            ask(query, {"callbacks": run_manager.get_child()})
            return []

    return Asking()


def threads_with_config(world: World, inner: Runnable[Any, Any], config: Any) -> None:
    """A raw thread has no context: what is handed over is the config."""

    def step(x: Any, config: RunnableConfig) -> None:
        thread = threading.Thread(target=inner.invoke, args=(x, config))
        thread.start()
        thread.join()

    RunnableLambda(step).invoke("hi", config)


WAYS = {
    way.__name__: way
    for way in (
        lambdas,
        async_lambdas,
        batches,
        async_batches,
        streams,
        async_streams,
        events,
        sequences,
        parallels,
        fallbacks,
        retries,
        nodes,
        async_nodes,
        subgraphs,
        tasks_of_graphs,
        plain_tools,
        retrievers,
        threads_with_config,
    )
}
by_way = pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
by_how = pytest.mark.parametrize("how", ["guard", "handler"])


def asking(world: World, how: str) -> Runnable[Any, Any]:
    """A chain that calls a model which is guarded, or governed by a handler that only this chain has."""
    if how == "handler":
        return (RunnablePassthrough() | world.model()).with_config(callbacks=[world.handler(None)])
    return RunnablePassthrough() | world.guard(world.model(), None)


@by_how
@by_way
def test_a_chain_in_between_cannot_change_the_tenant(two: World, how: str, way: Any) -> None:
    way(two, asking(two, how).with_config(metadata=INNER), OUTER)
    assert two.requests == len(two.all()) > 0
    assert scopes(two) == {KEPT}


@by_way
def test_nor_can_config_that_inner_code_gives(two: World, way: Any) -> None:
    chain = asking(two, "guard")

    async def astep(x: Any) -> Any:
        return await chain.ainvoke(x, {"metadata": INNER})

    way(two, RunnableLambda(lambda x: chain.invoke(x, {"metadata": INNER}), astep), OUTER)
    assert two.requests == len(two.all()) > 0
    assert scopes(two) == {KEPT}


@by_how
@pytest.mark.parametrize("named", ["metadata", "configurable"])
@pytest.mark.parametrize(
    "inner",
    [
        {"metadata": INNER, "callbacks": []},
        {"metadata": INNER, "configurable": {"thread_id": "1"}},
        {"configurable": INNER},
        {"metadata": INNER, "run_id": "no uuid"},
        {"metadata": INNER, "run_id": uuid7()},
        {"metadata": {"subject": Subject(tenant="globex", agent="x")}},
    ],
    ids=["no callbacks", "other configurable", "configurable", "text run id", "other run id", "subject"],
)
def test_nor_can_inner_config_of_any_kind(two: World, how: str, named: str, inner: Any) -> None:
    chain = asking(two, how)
    if how == "handler" and "callbacks" in inner:
        inner = {**inner, "callbacks": [two.handler(None)]}
    (RunnableLambda(lambda x: chain.invoke(x, inner))).invoke("hi", {named: {"tenant": "acme"}})  # type: ignore[misc]
    assert two.requests == 1
    assert scopes(two) == {KEPT}


@by_how
def test_nor_can_a_tool_or_a_retriever_that_nobody_guards(two: World, how: str) -> None:
    model = two.model() if how == "handler" else two.guard(two.model(), None)
    config: Any = {**OUTER, "callbacks": [two.handler(None)] if how == "handler" else []}
    between: list[Runnable[Any, Any]] = [
        RunnableLambda(lambda x: {"word": x}) | two.tool(work=lambda word: str(model.invoke(word))),
        retrieving(lambda query, config: model.invoke(query, config)),
    ]
    for inner in between:
        RunnableLambda(lambda x, inner=inner: inner.invoke(x, {"metadata": INNER})).invoke("hi", config)  # type: ignore[misc]
    assert (two.requests, two.tool_runs) == (2, ["look_up"])
    assert scopes(two) == {KEPT}


@by_how
def test_an_outermost_retriever_names_the_tenant_as_a_chain_does(two: World, how: str) -> None:
    model = two.model() if how == "handler" else two.guard(two.model(), None)
    inner = RunnableLambda(lambda x: model.invoke(x)).with_config(metadata=INNER)
    config: Any = {**OUTER, "callbacks": [two.handler(None)] if how == "handler" else []}
    retrieving(inner.invoke).invoke("hi", config)
    assert two.requests == 1
    assert {it.scope_path for it in two.all() if it.action["kind"] == "llm.completion"} == {KEPT}


def test_nor_can_a_chain_without_callbacks_below_another_one(two: World) -> None:
    model = two.guard(two.model(), None)
    lowest = RunnableLambda(lambda _: model.invoke("hi"))
    inner = RunnableLambda(lambda x: lowest.invoke(x, {"metadata": INNER, "callbacks": []}))
    RunnableLambda(lambda x: inner.invoke(x, {"metadata": INNER})).invoke("hi", OUTER)
    assert scopes(two) == {KEPT}


def test_nor_can_the_context_of_an_inner_graph(two: World) -> None:
    model = two.guard(two.model(), None)
    inner = two.agent(model, context_schema=dict)
    graph_of(lambda state: inner.invoke({"messages": "hi"}, context=dict(INNER))).invoke({"messages": []}, OUTER)
    assert scopes(two) == {KEPT}


# --- other things that are governed


def tool_calling_graph(tools: list[Any]) -> Any:
    asked = AIMessage("", tool_calls=[{"name": "look_up", "args": {"word": "hi"}, "id": "1"}])
    graph = StateGraph(MessagesState)
    graph.add_node("ask", lambda state: {"messages": [asked]})
    graph.add_node("tools", ToolNode(tools))
    graph.add_edge(START, "ask")
    graph.add_edge("ask", "tools")
    graph.add_edge("tools", END)
    return graph.compile().with_config(metadata=INNER)


@by_way
def test_it_holds_for_guarded_tools(two: World, way: Any) -> None:
    tool = two.guard(two.tool("guarded"), None)
    way(two, (RunnableLambda(lambda _: {"word": "hi"}) | tool).with_config(metadata=INNER), OUTER)
    assert two.tool_runs.count("guarded") == len([it for it in two.all() if it.action["name"] == "guarded"]) > 0
    assert scopes(two) == {KEPT}


@pytest.mark.parametrize("how", ["invoke", "ainvoke"])
def test_it_holds_for_guarded_tools_in_a_tool_node(two: World, how: str) -> None:
    inner = tool_calling_graph(two.guard([two.tool()], None))
    if how == "invoke":
        RunnableLambda(lambda _: inner.invoke({"messages": []})).invoke("hi", OUTER)
    else:

        async def step(_: Any) -> Any:
            return await inner.ainvoke({"messages": []})

        two.run(RunnableLambda(step).ainvoke("hi", OUTER))
    assert two.tool_runs == ["look_up"]
    assert [it.scope_path for it in two.all()] == [KEPT]


def test_it_holds_for_the_function_of_a_guarded_tool(two: World) -> None:
    tool = two.guard(two.tool(), None)
    inner = RunnableLambda(lambda _: tool.func("hi")).with_config(metadata=INNER)
    RunnableLambda(lambda _: inner.invoke("hi")).invoke("hi", OUTER)
    assert [it.scope_path for it in two.all()] == [KEPT]


@pytest.mark.parametrize("way", ["invoke", "ainvoke", "stream"])
@pytest.mark.parametrize("how", ["middleware", "guard", "handler"])
def test_it_holds_for_agents(make_world: Callable[..., World], how: str, way: str) -> None:
    world = make_world(one_tool_call)
    world.budget(scope="tenant:globex")
    model, tools = world.model(), [world.tool()]
    if how == "guard":
        model, tools = world.guard(model, None), world.guard(tools, None)
    agent = world.agent(model, tools, middleware=[world.middleware(None)] if how == "middleware" else [])
    inner = agent.with_config(metadata=INNER, callbacks=[world.handler(None)] if how == "handler" else [])
    messages = {"messages": "hi"}
    if way == "invoke":
        RunnableLambda(lambda _: inner.invoke(messages)).invoke("hi", OUTER)
    elif way == "stream":
        RunnableLambda(lambda _: list(inner.stream(messages, stream_mode="messages"))).invoke("hi", OUTER)
    else:

        async def step(_: Any) -> Any:
            return await inner.ainvoke(messages)

        world.run(RunnableLambda(step).ainvoke("hi", OUTER))
    assert (world.requests, world.tool_runs) == (2, ["look_up"])
    assert [it.scope_path for it in world.all()] == [KEPT] * 3


def one_tool_call(request: ScriptedRequest) -> Reply:
    if request.tools and not request.tool_results:
        return Reply(tool_calls=[ToolCall("look_up", {"word": "a"})])
    return Reply(text="done")


@by_how
def test_it_holds_for_an_agent_executor(make_world: Callable[..., World], how: str) -> None:
    world = make_world(one_tool_call)
    world.budget(scope="tenant:globex")
    model, tools = world.model(), [world.tool()]
    if how == "guard":
        model, tools = world.guard(model, None), world.guard(tools, None)
    executor = world.executor(model, tools, metadata={"tenant": "globex"})
    inner = executor.with_config(metadata=INNER, callbacks=[world.handler(None)] if how == "handler" else [])
    RunnableLambda(lambda _: inner.invoke({"input": "hi"})).invoke("hi", OUTER)
    assert (world.requests, world.tool_runs) == (2, ["look_up"])
    assert [it.scope_path for it in world.all()] == [KEPT] * 3


@pytest.mark.parametrize("config", [{"metadata": INNER}, {"configurable": INNER}], ids=["metadata", "configurable"])
def test_it_holds_inside_a_tool_of_an_agent_executor(make_world: Callable[..., World], config: Any) -> None:
    world = make_world(one_tool_call)
    world.budget(scope="tenant:globex")
    model = world.guard(world.model(), None)
    inner = RunnableLambda(lambda x: model.invoke(x))
    ask = world.tool(work=lambda word: str(inner.invoke(word, config)))
    world.executor(model, [ask]).invoke({"input": "hi"}, OUTER)
    assert world.tool_runs == ["look_up"]
    assert sorted(it.scope_path for it in world.all()) == ["tenant:acme", "tenant:acme", KEPT]


def guarded_embeddings(world: World) -> Embeddings:
    return guard_embeddings(world.embeddings(), world.authority, prices=EMBEDDING_PRICES)


EMBEDDING_WAYS: dict[str, Callable[[World, Embeddings], Any]] = {
    "documents": lambda world, made: made.embed_documents(["hello", "there"]),
    "query": lambda world, made: made.embed_query("hello"),
}


@pytest.mark.parametrize("embed", EMBEDDING_WAYS.values(), ids=EMBEDDING_WAYS)
@pytest.mark.parametrize("way", [lambdas, nodes, plain_tools, batches, subgraphs])
def test_it_holds_for_guarded_embeddings(two: World, way: Any, embed: Any) -> None:
    embeddings = guarded_embeddings(two)

    def step(_: Any) -> str:
        embed(two, embeddings)
        return "done"

    way(two, RunnableLambda(step).with_config(metadata=INNER), OUTER)
    assert two.requests == len(two.all()) > 0
    assert scopes(two) == {KEPT}


def test_it_holds_in_async_embeddings(two: World) -> None:
    embeddings = guarded_embeddings(two)

    async def step(_: Any) -> Any:
        return await embeddings.aembed_query("hi")

    inner = RunnableLambda(step).with_config(metadata=INNER)

    async def outer(x: Any) -> Any:
        return await inner.ainvoke(x)

    two.run(RunnableLambda(outer).ainvoke("hi", OUTER))
    assert [it.scope_path for it in two.all()] == [KEPT]

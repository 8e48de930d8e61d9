"""Who acts: the order of the sources, what code inside an agent can change, and denial when nobody is named."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
from langchain_core.runnables import RunnableLambda
from langchain_world import World

from clearance.errors import InvalidRequest, SubjectMissing
from clearance.guard import acting_as
from clearance.model.amount import usd
from clearance.model.subject import Subject

by_how = pytest.mark.parametrize("how", ["handler", "guard"])
GLOBEX = Subject(tenant="globex")


def governed(world: World, how: str, subject: Subject | None = None) -> tuple[Any, list[Any]]:
    if how == "handler":
        return world.model(), [world.handler(subject)]
    return world.guard(world.model(), subject), []


def scope(world: World) -> str:
    (path,) = {it.scope_path for it in world.all() if it.kind == "call"}
    return path


@by_how
def test_the_explicit_subject_comes_first(two: World, how: str) -> None:
    model, callbacks = governed(two, how, Subject(tenant="acme"))
    with acting_as(GLOBEX):
        model.invoke("hi", {"callbacks": callbacks, "metadata": {"tenant": "globex"}})
    assert scope(two) == "tenant:acme"


@by_how
def test_then_the_one_who_acts_or_the_run(two: World, how: str) -> None:
    model, callbacks = governed(two, how)
    with acting_as(GLOBEX):
        model.invoke("hi", {"callbacks": callbacks, "metadata": {"tenant": "acme"}})
    assert scope(two) == "tenant:globex"
    with two.authority.run(GLOBEX, budget=usd("0.5")):
        model.invoke("hi", {"callbacks": callbacks})
    assert scope(two) == "tenant:globex"


@dataclass
class Context:
    tenant: str
    agent: str


@dataclass
class Holding:
    subject: Subject


@by_how
@pytest.mark.parametrize(
    "context",
    [Context("globex", "a"), Holding(Subject(tenant="globex", agent="a")), {"tenant": "globex", "agent": "a"}],
)
def test_then_the_context_of_the_graph(two: World, how: str, context: Any) -> None:
    model, callbacks = governed(two, how)
    agent = two.agent(model, context_schema=type(context))
    config: Any = {"callbacks": callbacks, "configurable": {"tenant": "acme"}}
    agent.invoke({"messages": "hi"}, config, context=context)
    assert scope(two) == "tenant:globex/agent:a"


@by_how
def test_then_what_is_configured(two: World, how: str) -> None:
    model, callbacks = governed(two, how)
    config: Any = {"callbacks": callbacks, "configurable": {"tenant": "globex"}, "metadata": {"tenant": "acme"}}
    two.agent(model).invoke({"messages": "hi"}, config)
    assert scope(two) == "tenant:globex"


@by_how
@pytest.mark.parametrize("metadata", [{"tenant": "globex"}, {"subject": GLOBEX}, {"subject": {"tenant": "globex"}}])
def test_and_at_last_metadata(two: World, how: str, metadata: dict[str, Any]) -> None:
    model, callbacks = governed(two, how)
    model.invoke("hi", {"callbacks": callbacks, "metadata": metadata})
    assert scope(two) == "tenant:globex"


@by_how
@pytest.mark.parametrize(
    "metadata", [{}, {"agent": "bot"}, {"tenant": "not a name!"}, {"tenant": 5}, {"subject": "acme"}]
)
def test_nobody_is_denied(two: World, how: str, metadata: dict[str, Any]) -> None:
    model, callbacks = governed(two, how)
    with pytest.raises(SubjectMissing):
        model.invoke("hi", {"callbacks": callbacks, "metadata": metadata})
    assert two.requests == 0


# --- metadata narrows and never widens


@by_how
@pytest.mark.parametrize(
    ("acting", "metadata", "expected"),
    [
        ({"tenant": "acme"}, {"tenant": "globex"}, "tenant:acme"),
        ({"tenant": "acme"}, {"subject": GLOBEX}, "tenant:acme"),
        ({"tenant": "acme"}, {"agent": "a"}, "tenant:acme/agent:a"),
        ({"tenant": "acme", "agent": "bot"}, {"agent": "evil"}, "tenant:acme/agent:bot"),
        # A level in between would lead past the budget of tenant:acme/agent:bot.
        ({"tenant": "acme", "agent": "bot"}, {"workspace": "w"}, "tenant:acme/agent:bot"),
        ({"tenant": "acme", "agent": "bot"}, {"toolset": "t"}, "tenant:acme/agent:bot/toolset:t"),
        ({"tenant": "acme"}, {"agent": "not a name!"}, "tenant:acme"),
    ],
)
def test_metadata_only_narrows(
    two: World, how: str, acting: dict[str, Any], metadata: dict[str, Any], expected: str
) -> None:
    model, callbacks = governed(two, how)
    with acting_as(Subject(**acting)):
        model.invoke("hi", {"callbacks": callbacks, "metadata": metadata})
    assert scope(two) == expected


@by_how
def test_metadata_of_the_models_constructor_cannot_change_the_tenant(two: World, how: str) -> None:
    model = two.model(metadata={"tenant": "globex"})
    callbacks = [two.handler(None)] if how == "handler" else []
    model = model if how == "handler" else two.guard(model, None)
    with acting_as(Subject(tenant="acme")):
        model.invoke("hi", {"callbacks": callbacks})
    assert scope(two) == "tenant:acme"


@by_how
@pytest.mark.parametrize("place", ["metadata", "configurable"])
def test_an_inner_call_cannot_change_the_tenant_that_the_outer_config_has_named(
    two: World, how: str, place: str
) -> None:
    model, callbacks = governed(two, how)

    def step(_: Any) -> Any:
        return model.invoke(
            "hi", {"metadata": {"tenant": "globex", "agent": "x"}, "configurable": {"tenant": "globex"}}
        )

    RunnableLambda(step).invoke("hi", {"callbacks": callbacks, place: {"tenant": "acme"}})  # type: ignore[misc]
    assert scope(two) == "tenant:acme/agent:x"


@pytest.mark.parametrize("how", ["handler", "both"])
def test_nor_can_a_chain_in_between(two: World, how: str) -> None:
    model, callbacks = governed(two, "handler")
    model = two.guard(model, None) if how == "both" else model
    inner = RunnableLambda(lambda _: model.invoke("hi")).with_config(metadata={"tenant": "globex", "agent": "x"})
    outer = RunnableLambda(lambda _: inner.invoke("hi"))
    outer.invoke("hi", {"callbacks": callbacks or [two.handler(None)], "metadata": {"tenant": "acme"}})
    assert scope(two) == "tenant:acme/agent:x"


def test_nor_can_an_agent_inside_a_guarded_tool(two: World) -> None:
    model = two.guard(two.model(), None)
    inner = two.agent(model)
    ask = two.guard(
        two.tool("ask", lambda word: str(inner.invoke({"messages": word}, {"metadata": {"tenant": "globex"}}))), None
    )
    ask.invoke({"word": "hi"}, {"metadata": {"tenant": "acme"}})
    assert {it.scope_path for it in two.all()} == {"tenant:acme"}
    assert (two.requests, len(two.all())) == (1, 2)


@by_how
def test_another_tenant_than_the_runs_is_refused(two: World, how: str) -> None:
    model, callbacks = governed(two, how, GLOBEX)
    with two.authority.run(Subject(tenant="acme"), budget=usd("0.5")), pytest.raises(InvalidRequest, match="tenant"):
        model.invoke("hi", {"callbacks": callbacks})
    assert two.requests == 0


# --- where the context goes


@by_how
def test_a_run_is_found_in_parallel_tools_tasks_and_nested_agents(make_world: Callable[..., World], how: str) -> None:
    from clearance.simulator import Reply, ScriptedRequest, ToolCall

    def twice(request: ScriptedRequest) -> Reply:
        if request.tools and not request.tool_results:
            return Reply(tool_calls=[ToolCall("ask", {"word": "a"}), ToolCall("ask", {"word": "b"})])
        return Reply(text="done")

    world = make_world(twice)
    model, callbacks = governed(world, how)
    inner = world.agent(model)
    ask = world.tool("ask", lambda word: str(inner.invoke({"messages": word})["messages"][-1].content))
    outer = world.agent(model, [ask])
    with world.authority.run(Subject(tenant="acme"), budget=usd("0.5")) as run:
        outer.invoke({"messages": "hi"}, {"callbacks": callbacks})
    assert (world.requests, len(world.tool_runs)) == (4, 2)
    models = [it for it in world.all() if it.action["kind"] == "llm.completion"]
    assert {it.runs for it in models} == {(run.id,)}
    assert world.spent() == world.cost == run.report().spent().amount


def test_in_a_raw_thread_a_guarded_model_is_denied_and_a_carried_one_is_not(world: World) -> None:
    model = world.guard(world.model(), None)
    caught: list[BaseException] = []

    def work() -> None:
        try:
            model.invoke("hi")
        except BaseException as error:
            caught.append(error)

    with world.authority.run(Subject(tenant="acme"), budget=usd("0.5")) as run:
        for target in (work, run.carry(work)):
            thread = threading.Thread(target=target)
            thread.start()
            thread.join()
    assert [type(error).__name__ for error in caught] == ["SubjectMissing"]
    assert world.requests == 1


def test_a_stream_outside_of_any_chain_has_no_metadata_and_is_denied(world: World) -> None:
    with pytest.raises(SubjectMissing):
        list(world.guard(world.model(), None).stream("hi", {"metadata": {"tenant": "acme"}}))

"""Caps arrive on the wire, whatever the request, the class or the API says."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from langchain_core.language_models.fake_chat_models import GenericFakeChatModel
from langchain_core.messages import AIMessage
from langchain_world import ACME, MODEL, World

from clearance.errors import CapsViolated, Denied
from clearance.model.caps import Caps
from clearance.pricing import PriceBook
from clearance.simulator import Reply, ScriptedRequest, ToolCall

CAP = 7


@pytest.fixture
def capped(make_world: Callable[..., World]) -> World:
    world = make_world(budget=None)
    world.budget(caps=Caps(max_tokens=CAP))
    return world


def sent_cap(world: World) -> dict[str, Any]:
    (request,) = world.sim.requests
    names = ("max_tokens", "max_completion_tokens", "max_output_tokens")
    return {name: request.body[name] for name in names if name in request.body}


ASKED: dict[str, Callable[[Any], Any]] = {
    "nothing": lambda model: model,
    "max_tokens above": lambda model: model.bind(max_tokens=40),
    "max_completion_tokens above": lambda model: model.bind(max_completion_tokens=40),
    "extra_body": lambda model: model.bind(extra_body={"max_completion_tokens": 4000, "max_output_tokens": 4000}),
    "tools": lambda model: model.bind_tools([{"type": "function", "function": {"name": "f", "parameters": {}}}]),
    "structured": lambda model: model.with_structured_output({"title": "t", "type": "object", "properties": {}}),
}
API = {"chat": {}, "responses": {"use_responses_api": True}}


@pytest.mark.parametrize("ask", ASKED.values(), ids=ASKED)
@pytest.mark.parametrize("constructor", [None, 50])
@pytest.mark.parametrize("api", API)
def test_the_cap_is_sent(capped: World, ask: Callable[[Any], Any], constructor: int | None, api: str) -> None:
    ask(capped.guard(capped.model(max_tokens=constructor, **API[api]))).invoke("hi")
    name = "max_completion_tokens" if api == "chat" else "max_output_tokens"
    assert sent_cap(capped) == {name: CAP}
    assert capped.spent() == capped.cost


@pytest.mark.parametrize("path", ["stream", "ainvoke", "create_agent", "model_settings"])
def test_the_cap_is_sent_on_other_paths(capped: World, path: str) -> None:
    model = capped.guard(capped.model())
    if path == "stream":
        list(model.stream("hi"))
    elif path == "ainvoke":
        capped.run(model.ainvoke("hi"))
    elif path == "create_agent":
        capped.agent(capped.model(), middleware=[capped.middleware()]).invoke({"messages": "hi"})
    else:
        model.bind(max_tokens=3, max_completion_tokens=90).invoke("hi")
    assert sent_cap(capped) == {"max_completion_tokens": CAP}


def test_a_request_below_the_cap_keeps_its_own(capped: World) -> None:
    capped.guard(capped.model(max_tokens=3)).invoke("hi")
    assert sent_cap(capped) == {"max_completion_tokens": 3}


def test_extra_body_of_the_constructor_cannot_undo_the_cap(capped: World) -> None:
    capped.guard(capped.model(extra_body={"max_completion_tokens": 4000, "user": "me"})).invoke("hi")
    assert sent_cap(capped) == {"max_completion_tokens": CAP}
    assert capped.sim.requests[0].body["user"] == "me"


def test_a_class_without_an_output_limit_is_denied_under_a_cap(capped: World) -> None:
    class Fake(GenericFakeChatModel):
        pass

    prices = PriceBook({"Fake": {"input": "1", "output": "1"}})
    model = capped.guard(Fake(messages=iter([AIMessage("hello")])), prices=prices)
    with pytest.raises(CapsViolated, match="at most 7 tokens"):
        model.invoke("hi")
    assert capped.spent() == 0


def test_a_handler_denies_what_it_cannot_cap(capped: World) -> None:
    config = {"callbacks": [capped.handler()]}
    with pytest.raises(CapsViolated, match="at most 7 tokens"):
        capped.model().invoke("hi", config)
    assert capped.requests == 0
    capped.model(max_tokens=CAP).invoke("hi", config)
    assert capped.requests == 1


# --- tool lists


def names_sent(world: World, index: int = 0) -> list[str]:
    return [tool["function"]["name"] for tool in world.sim.requests[index].body.get("tools", [])]


def test_a_tool_that_is_not_allowed_is_neither_shown_nor_run(make_world: Callable[..., World]) -> None:
    def insists(request: ScriptedRequest) -> Reply:
        return Reply(text="done") if request.tool_results else Reply(tool_calls=[ToolCall("delete", {"word": "x"})])

    world = make_world(insists, budget=None)
    world.budget(caps=Caps(tool_denylist=("delete",)))
    tools = [world.tool("delete"), world.tool("look_up")]
    agent = world.agent(world.model(), tools, middleware=[world.middleware()])
    answer = agent.invoke({"messages": "hi"})
    assert names_sent(world) == ["look_up"]
    assert world.tool_runs == []
    (denied,) = [message for message in answer["messages"] if message.type == "tool"]
    assert denied.status == "error"
    assert "Do not call delete again" in denied.content
    assert answer["messages"][-1].content == "done"


@pytest.mark.parametrize("how", ["handler", "guard"])
@pytest.mark.parametrize("kind", ["tool.call", "message.email.send"])
def test_a_denied_tool_does_not_run_whatever_its_action_kind(
    make_world: Callable[..., World], how: str, kind: str
) -> None:
    world = make_world(budget=None)
    world.budget(caps=Caps(tool_allowlist=("look_up",)))
    tool, kinds = world.tool("delete"), {"delete": kind}
    config = {"callbacks": [world.handler(action_kinds=kinds)]} if how == "handler" else {}
    tool = world.guard(tool, action_kinds=kinds) if how == "guard" else tool
    with pytest.raises(CapsViolated):
        tool.invoke({"word": "x"}, config)
    assert world.tool_runs == []


def test_when_no_tool_is_left_the_request_has_none(make_world: Callable[..., World]) -> None:
    world = make_world(budget=None)
    world.budget(caps=Caps(tool_denylist=("look_up",)))
    model = world.guard(world.model()).bind_tools([world.tool()], tool_choice="look_up", parallel_tool_calls=False)
    model.invoke("hi")
    assert not {"tools", "tool_choice", "parallel_tool_calls"} & set(world.sim.requests[0].body)


def test_steps_are_counted_over_models_and_tools(make_world: Callable[..., World]) -> None:
    world = make_world(budget=None)
    world.budget(caps=Caps(max_steps_remaining=2))
    agent = world.agent(world.guard(world.model()), world.guard([world.tool()]))
    with world.authority.run(ACME):
        agent.invoke({"messages": "hi"})
        with pytest.raises(CapsViolated, match="no steps"):
            agent.invoke({"messages": "hi"})
    assert world.requests + len(world.tool_runs) == 3


# --- models


def test_a_model_that_is_not_allowed_is_denied(make_world: Callable[..., World]) -> None:
    world = make_world(budget=None)
    world.budget(caps=Caps(models=("gpt-4.1-nano",)))
    with pytest.raises(CapsViolated, match=r"allowed: gpt-4\.1-nano") as denied:
        world.guard(world.model()).invoke("hi")
    assert denied.value.details["models"] == ["gpt-4.1-nano"]
    assert isinstance(denied.value, Denied)
    world.guard(world.model(model="gpt-4.1-nano")).invoke("hi")
    assert [request.model for request in world.sim.requests] == ["gpt-4.1-nano"]


@pytest.mark.parametrize("is_async", [False, True])
def test_the_middleware_takes_the_allowed_model(make_world: Callable[..., World], is_async: bool) -> None:
    world = make_world(budget=None)
    world.budget(caps=Caps(models=("gpt-4.1-nano", MODEL)))
    stand_ins = [world.model(), world.model(model="gpt-4.1-nano")]
    agent = world.agent(world.model(model="gpt-5.2"), middleware=[world.middleware(models=stand_ins)])
    if is_async:
        world.run(agent.ainvoke({"messages": "hi"}))
    else:
        agent.invoke({"messages": "hi"})
    assert [request.model for request in world.sim.requests] == ["gpt-4.1-nano"]
    assert world.spent() == world.cost

"""Inside `create_agent`: denials become messages, and the middleware keeps no accounts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from langchain_world import ACME, World

from clearance.errors import BudgetExceeded
from clearance.model.amount import credits, usd
from clearance.model.subject import Subject
from clearance.simulator import Reply, ScriptedRequest, ToolCall, calls_tool_forever

by_sync = pytest.mark.parametrize("is_async", [False, True])


def talk(world: World, agent: Any, is_async: bool, **config: Any) -> Any:
    given = {"recursion_limit": 200, **config}
    return world.run(agent.ainvoke({"messages": "hi"}, given)) if is_async else agent.invoke({"messages": "hi"}, given)


@by_sync
def test_a_denied_model_ends_the_work_with_a_message(make_world: Callable[..., World], is_async: bool) -> None:
    world = make_world(calls_tool_forever("look_up", {"word": "x"}), budget="0.0003")
    agent = world.agent(world.model(), [world.tool()], middleware=[world.middleware()])
    last = talk(world, agent, is_async)["messages"][-1]
    assert last.type == "ai"
    assert last.content.startswith("Stopped: tenant:acme has")
    assert last.response_metadata["finish_reason"] == "clearance_denied"
    assert last.response_metadata["clearance"]["reason_code"] == "BUDGET_EXCEEDED"
    assert world.requests == len(world.tool_runs) > 1
    assert world.spent() == world.cost


@by_sync
def test_a_denied_tool_becomes_a_message_that_says_not_to_retry(
    make_world: Callable[..., World], is_async: bool
) -> None:
    def one_call(request: ScriptedRequest) -> Reply:
        return Reply(text="well then") if request.tool_results else Reply(tool_calls=[ToolCall("send", {"word": "x"})])

    world = make_world(one_call)
    world.budget(credits(0))
    middleware = world.middleware(tool_costs={"send": credits(1)})
    answer = talk(world, world.agent(world.model(), [world.tool("send")], middleware=[middleware]), is_async)
    message = answer["messages"][-2]
    assert (message.type, message.status, message.name) == ("tool", "error", "send")
    assert "Do not call send again" in message.content
    assert answer["messages"][-1].content == "well then"
    assert world.tool_runs == []


@by_sync
def test_of_parallel_tools_each_gets_its_own_answer(make_world: Callable[..., World], is_async: bool) -> None:
    def two_calls(request: ScriptedRequest) -> Reply:
        calls = [ToolCall(name, {"word": "x"}) for name in ("send", "look_up", "send")]
        return Reply(text="done") if request.tool_results else Reply(tool_calls=calls)

    world = make_world(two_calls)
    world.budget(credits(1))
    middleware = world.middleware(tool_costs={"send": credits(1)})
    agent = world.agent(world.model(), [world.tool("send"), world.tool()], middleware=[middleware])
    answers = [m for m in talk(world, agent, is_async)["messages"] if m.type == "tool"]
    assert sorted((m.name, m.status) for m in answers) == [
        ("look_up", "success"),
        ("send", "error"),
        ("send", "success"),
    ]
    assert sorted(world.tool_runs) == ["look_up", "send"]


@by_sync
def test_on_deny_raise(make_world: Callable[..., World], is_async: bool) -> None:
    world = make_world(budget="0.00000001")
    agent = world.agent(world.model(), [world.tool()], middleware=[world.middleware(on_deny="raise")])
    with pytest.raises(BudgetExceeded):
        talk(world, agent, is_async)
    assert world.requests == 0


@by_sync
def test_a_run_around_the_agent_is_its_budget(make_world: Callable[..., World], is_async: bool) -> None:
    world = make_world(calls_tool_forever("look_up", {"word": "x"}))
    agent = world.agent(world.model(), [world.tool()], middleware=[world.middleware(None)])
    with world.authority.run(ACME, budget=usd("0.0003")) as run:
        last = talk(world, agent, is_async)["messages"][-1]
    assert last.content.startswith("Stopped: run:")
    assert world.spent() == world.cost == run.report().spent().amount


def test_a_tool_that_nobody_has_is_answered_by_the_framework(make_world: Callable[..., World]) -> None:
    def unknown(request: ScriptedRequest) -> Reply:
        return Reply(text="done") if request.tool_results else Reply(tool_calls=[ToolCall("no_such_tool")])

    world = make_world(unknown)
    answer = talk(world, world.agent(world.model(), [world.tool()], middleware=[world.middleware()]), False)
    assert "not a valid tool" in answer["messages"][-2].content
    assert world.tool_runs == []


def test_the_copy_of_a_model_is_made_once(world: World) -> None:
    model, middleware = world.model(), world.middleware()
    assert middleware._governed(model) is middleware._governed(model)
    guarded = world.guard(model)
    assert middleware._governed(guarded) is guarded


def test_structured_output_of_a_denied_agent_is_missing_and_not_wrong(make_world: Callable[..., World]) -> None:
    from pydantic import BaseModel

    class Answer(BaseModel):
        text: str

    world = make_world(budget="0.00000001")
    agent = world.agent(world.model(), response_format=Answer, middleware=[world.middleware()])
    answer = talk(world, agent, False)
    assert answer.get("structured_response") is None
    assert world.requests == 0


def test_a_stream_of_messages_ends_with_the_denial(make_world: Callable[..., World]) -> None:
    world = make_world(budget="0.00000001")
    agent = world.agent(world.model(), middleware=[world.middleware()])
    parts = [message.content for message, _ in agent.stream({"messages": "hi"}, stream_mode="messages")]
    assert parts[-1].startswith("Stopped:")


def test_a_denial_inside_a_sub_agent_stays_in_its_tool(make_world: Callable[..., World]) -> None:
    world = make_world()
    inner = world.agent(world.guard(world.model(), Subject(tenant="acme", agent="inner")))
    world.budget("0.00000001", scope="tenant:acme/agent:inner")
    ask = world.tool("ask", lambda word: str(inner.invoke({"messages": word})))
    agent = world.agent(world.model(), [ask], middleware=[world.middleware(Subject(tenant="acme", agent="outer"))])
    answer = talk(world, agent, False)
    assert answer["messages"][-2].status == "error"
    assert world.requests == 2
    assert world.spent() == world.cost

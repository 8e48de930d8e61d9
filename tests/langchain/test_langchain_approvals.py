"""A tool that needs a person's yes: the agent waits, holds nothing meanwhile, and does what the person says."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from typing import Any

import pytest
from langchain_core.tools import tool
from langchain_world import ACME, World
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.types import Command

from clearance.errors import ApprovalRequired, InvalidRequest
from clearance.model.amount import credits, usd
from clearance.model.caps import Caps
from clearance.simulator import Reply, ScriptedRequest, ToolCall

by_sync = pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
APPROVALS = Caps(approval_tools=("send", "pay_*"))
ARGUMENTS = {"word": "hello"}
SHA = hashlib.sha256(json.dumps(ARGUMENTS).encode()).hexdigest()
Make = Callable[..., World]


def calling(*names: str, times: int = 1) -> Callable[[ScriptedRequest], Reply]:
    """A model that calls these tools together, `times` times, and then is done."""

    def script(request: ScriptedRequest) -> Reply:
        if len(request.tool_results) >= len(names) * times:
            return Reply(text="done")
        return Reply(tool_calls=[ToolCall(name, ARGUMENTS) for name in names])

    return script


@pytest.fixture
def asking(make_world: Make) -> Callable[..., World]:
    def make(*names: str, times: int = 1) -> World:
        world = make_world(calling(*names, times=times), budget=None)
        world.budget(caps=APPROVALS)
        return world

    return make


class Talk:
    """One thread of one agent, with a checkpointer unless told otherwise."""

    def __init__(self, world: World, names: list[str], is_async: bool = False, **options: Any) -> None:
        checkpointer = options.pop("checkpointer", InMemorySaver())
        make = world.atool if is_async else world.tool
        tools = [world.guard(make(name)) if options.pop("guarded", False) else make(name) for name in names]
        middleware = options.pop("middleware", None) or world.middleware(**options)
        self.world, self.is_async = world, is_async
        self.agent = world.agent(world.model(), tools, middleware=[middleware], checkpointer=checkpointer)
        self.config: Any = {"configurable": {"thread_id": "1"}} if checkpointer else {}

    def say(self, what: Any) -> Any:
        if self.is_async:
            return self.world.run(self.agent.ainvoke(what, self.config))
        return self.agent.invoke(what, self.config)

    def begin(self) -> dict[str, Any]:
        return {it.id: it.value for it in self.say({"messages": "hi"})["__interrupt__"]}


def nothing_held(world: World) -> None:
    balance = world.authority.balance("tenant:acme")
    assert (world.open(), balance.reserved) == (0, 0)


def tool_messages(answer: Any) -> list[tuple[str, str, str]]:
    return sorted((it.name, it.status, it.content) for it in answer["messages"] if it.type == "tool")


@by_sync
def test_the_agent_waits_and_tells_what_it_waits_for(asking: Callable[..., World], is_async: bool) -> None:
    world = asking("send")
    talk = Talk(world, ["send"], is_async)
    (question,) = talk.begin().values()
    call_id = question.pop("tool_call_id")
    assert call_id
    assert question == {
        "type": "clearance_approval",
        "tool": "send",
        "arguments_sha256": SHA,
        "arguments_bytes": len(json.dumps(ARGUMENTS)),
        "reason": "tool 'send' needs a person's approval",
        "scope": "tenant:acme/agent:bot",
    }
    nothing_held(world)
    assert world.tool_runs == []


@by_sync
@pytest.mark.parametrize(
    ("said", "by"),
    [
        (True, "unnamed"),
        ("yes", "unnamed"),
        (" Approve ", "unnamed"),
        ({"approved": True, "by": "ann"}, "ann"),
        ({"approved": "yes", "approved_by": "ann"}, "ann"),
        ({"approved": True, "by": "ann", "arguments_sha256": SHA}, "ann"),
    ],
)
def test_a_yes_runs_the_tool_once_and_is_recorded(
    asking: Callable[..., World], is_async: bool, said: Any, by: str
) -> None:
    world = asking("send")
    talk = Talk(world, ["send"], is_async, tool_costs={"send": usd("0.01")})
    talk.begin()
    nothing_held(world)
    answer = talk.say(Command(resume=said))
    assert world.tool_runs == ["send"]
    assert answer["messages"][-1].content == "done"
    (sent,) = [it for it in world.all("COMMITTED") if it.action["name"] == "send"]
    assert (sent.metadata["approved_by"], sent.charged) == (by, usd("0.01").amount)
    nothing_held(world)
    assert world.spent() == world.cost + usd("0.01").amount


@by_sync
@pytest.mark.parametrize(
    ("said", "told"),
    [
        (False, "Not approved. Do not call send again."),
        ("no", "Not approved. Do not call send again."),
        ("perhaps", "Not approved. Do not call send again."),
        (1, "Not approved. Do not call send again."),
        ({"approved": False, "by": "ann", "reason": "too dear"}, "Not approved: too dear. Do not call send again."),
        (
            {"approved": True, "by": "ann", "arguments_sha256": "other"},
            "Not approved: the arguments are not those that were approved. Do not call send again.",
        ),
    ],
)
def test_anything_else_is_a_no(asking: Callable[..., World], is_async: bool, said: Any, told: str) -> None:
    world = asking("send")
    talk = Talk(world, ["send"], is_async)
    talk.begin()
    answer = talk.say(Command(resume=said))
    assert tool_messages(answer) == [("send", "error", told)]
    assert answer["messages"][-1].content == "done"
    assert world.tool_runs == []
    nothing_held(world)


@by_sync
def test_two_approvals_at_a_time_are_told_apart_by_their_ids(asking: Callable[..., World], is_async: bool) -> None:
    world = asking("send", "pay_all", "look_up")
    talk = Talk(world, ["send", "pay_all", "look_up"], is_async)
    waiting = talk.begin()
    assert sorted(it["tool"] for it in waiting.values()) == ["pay_all", "send"]
    assert world.tool_runs == ["look_up"]
    nothing_held(world)
    answers = {id_: {"approved": it["tool"] == "send", "by": "ann"} for id_, it in waiting.items()}
    answer = talk.say(Command(resume=answers))
    assert [(name, status) for name, status, _ in tool_messages(answer)] == [
        ("look_up", "success"),
        ("pay_all", "error"),
        ("send", "success"),
    ]
    assert sorted(world.tool_runs) == ["look_up", "send"]
    nothing_held(world)


@by_sync
def test_of_two_approvals_one_may_be_given_first(asking: Callable[..., World], is_async: bool) -> None:
    world = asking("send", "pay_all")
    talk = Talk(world, ["send", "pay_all"], is_async)
    waiting = {it["tool"]: id_ for id_, it in talk.begin().items()}
    left = talk.say(Command(resume={waiting["pay_all"]: "yes"}))["__interrupt__"]
    assert [it.value["tool"] for it in left] == ["send"]
    assert world.tool_runs == ["pay_all"]
    talk.say(Command(resume={waiting["send"]: "yes"}))
    assert world.tool_runs == ["pay_all", "send"]


@by_sync
def test_a_yes_is_for_one_call_and_the_next_asks_again(asking: Callable[..., World], is_async: bool) -> None:
    world = asking("send", times=2)
    talk = Talk(world, ["send"], is_async)
    talk.begin()
    (second,) = talk.say(Command(resume="yes"))["__interrupt__"]
    assert second.value["tool"] == "send"
    assert world.tool_runs == ["send"]
    talk.say(Command(resume="no"))
    assert world.tool_runs == ["send"]
    nothing_held(world)


@by_sync
def test_without_a_checkpointer_the_run_ends_there(asking: Callable[..., World], is_async: bool) -> None:
    world = asking("send")
    answer = Talk(world, ["send"], is_async, checkpointer=None).say({"messages": "hi"})
    assert [it.value["tool"] for it in answer["__interrupt__"]] == ["send"]
    assert world.tool_runs == []
    assert world.requests == 1
    nothing_held(world)


@by_sync
def test_a_run_around_holds_nothing_for_the_tool_that_waits(asking: Callable[..., World], is_async: bool) -> None:
    world = asking("send")
    talk = Talk(world, ["send"], is_async, subject=None)
    with world.authority.run(ACME, budget=usd("0.5")):
        (question,) = talk.begin().values()
    assert question["scope"] == "tenant:acme/agent:bot"
    nothing_held(world)
    with world.authority.run(ACME, budget=usd("0.5")):
        talk.say(Command(resume="yes"))
    assert world.tool_runs == ["send"]
    nothing_held(world)


def test_arguments_are_shown_where_the_user_lets_them(asking: Callable[..., World]) -> None:
    world = asking("send")
    talk = Talk(world, ["send"], arguments=lambda name, given: {"first": given["word"][0]})
    (question,) = talk.begin().values()
    assert question["arguments"] == {"first": "h"}
    assert "hello" not in str(question)


@by_sync
def test_on_approval_deny_tells_the_model(asking: Callable[..., World], is_async: bool) -> None:
    world = asking("send")
    answer = Talk(world, ["send"], is_async, on_approval="deny").say({"messages": "hi"})
    assert tool_messages(answer) == [
        ("send", "error", "Denied: tool 'send' needs a person's approval. Do not call send again.")
    ]
    assert world.tool_runs == []


@by_sync
def test_with_on_deny_raise_a_no_ends_the_run(asking: Callable[..., World], is_async: bool) -> None:
    world = asking("send")
    talk = Talk(world, ["send"], is_async, on_deny="raise")
    talk.begin()
    with pytest.raises(ApprovalRequired):
        talk.say(Command(resume="no"))
    assert world.tool_runs == []


def test_an_approved_tool_still_needs_its_budget(asking: Callable[..., World]) -> None:
    world = asking("send")
    world.budget(credits(1), caps=APPROVALS)
    talk = Talk(world, ["send"], tool_costs={"send": credits(1)})
    talk.begin()
    world.budget(credits(0), caps=APPROVALS)
    answer = talk.say(Command(resume="yes"))
    ((_, status, text),) = tool_messages(answer)
    assert status == "error"
    assert text.startswith("Denied: tenant:acme")
    assert world.tool_runs == []


def test_a_tool_with_an_action_kind_of_its_own_waits_too(asking: Callable[..., World]) -> None:
    world = asking("send")
    talk = Talk(world, ["send"], action_kinds={"send": "message.email.send"})
    talk.begin()
    assert world.tool_runs == []
    talk.say(Command(resume="yes"))
    assert world.tool_runs == ["send"]


def test_a_yes_to_a_tool_is_none_to_the_tools_inside_it(asking: Callable[..., World]) -> None:
    world = asking("pay_all")
    inner = world.guard(world.tool("send"))

    @tool
    def pay_all(word: str) -> str:
        """Pay, and tell by mail."""
        world.tool_runs.append("pay_all")
        return str(inner.invoke({"word": word}))

    agent = world.agent(world.model(), [pay_all], middleware=[world.middleware()], checkpointer=InMemorySaver())
    config: Any = {"configurable": {"thread_id": "1"}}
    agent.invoke({"messages": "hi"}, config)
    answer = agent.invoke(Command(resume="yes"), config)
    assert world.tool_runs == ["pay_all"]
    ((name, status, text),) = tool_messages(answer)
    assert (name, status) == ("pay_all", "error")
    assert "'send' needs a person's approval" in text
    nothing_held(world)


@pytest.mark.parametrize("how", ["handler", "guard"])
@by_sync
def test_without_the_middleware_it_is_an_error(asking: Callable[..., World], how: str, is_async: bool) -> None:
    world = asking("send")
    made = world.atool("send") if is_async else world.tool("send")
    send, config = (made, {"callbacks": [world.handler()]}) if how == "handler" else (world.guard(made), {})
    with pytest.raises(ApprovalRequired):
        world.run(send.ainvoke(ARGUMENTS, config)) if is_async else send.invoke(ARGUMENTS, config)
    assert world.tool_runs == []
    nothing_held(world)


def test_a_wrong_setting_is_refused(asking: Callable[..., World]) -> None:
    with pytest.raises(InvalidRequest, match="on_approval"):
        asking("send").middleware(on_approval="shrug")

"""Tools: one reservation, at most one run of the body, and an agent that is told why not."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from crew_paths import react, text_llm
from crew_world import World, calls_then
from crewai.tools import BaseTool

from clearance.errors import InvalidRequest, Killed
from clearance.guard import current_permit
from clearance.model.amount import credits, usd
from clearance.model.caps import Caps
from clearance.simulator import Reply, ScriptedRequest, ToolCall
from clearance_crewai import gate, hooks, seams

MakeWorld = Callable[..., World]
LOOK = ToolCall("look_up", {"word": "sun"})


def said_to_the_model(world: World) -> str:
    return json.dumps([request.body for request in world.sim.requests])


def test_a_denied_tool_tells_its_agent_and_the_crew_goes_on(make_world: MakeWorld) -> None:
    world = make_world(calls_then("did without", LOOK))

    result = world.kickoff(world.crew([world.tool()]), budget=usd("0.1"), tool_costs={"look_up": usd("0.5")})

    assert world.tool_runs == []
    assert result.raw == "did without"
    assert "Denied: run:" in said_to_the_model(world)
    assert "Do not call look_up again." in said_to_the_model(world)
    assert (result.clearance.refused, result.clearance.denied) == (1, None)
    assert world.spent() == world.billed


def test_a_denied_tool_of_a_text_agent_tells_it_too(make_world: MakeWorld) -> None:
    world = make_world(react)

    result = world.kickoff(
        world.crew([world.tool()], agent={"llm": text_llm(world)}), budget=usd("0.1"), tool_costs={"look_up": usd("9")}
    )

    assert (world.tool_runs, result.raw) == ([], "done")
    assert "Do not call look_up again." in said_to_the_model(world)


@pytest.mark.parametrize("kind", ["function", "class"])
def test_a_failing_tool_of_a_text_agent_runs_once_for_its_reservation(make_world: MakeWorld, kind: str) -> None:
    """CrewAI alone calls it six times."""

    def fails(word: str) -> str:
        raise OSError("the line is dead")

    def script(request: ScriptedRequest) -> Reply:
        if "line is dead" in "".join(message.text for message in request.messages):
            return Reply(text="Thought: no\nFinal Answer: dead")
        return react(request)

    world = make_world(script)
    tool = world.tool(work=fails) if kind == "function" else own_tool(world, fails)

    result = world.kickoff(world.crew([tool], agent={"llm": text_llm(world)}), tool_costs={"look_up": usd("0.01")})

    assert (world.tool_runs, result.raw) == (["look_up"], "dead")
    (call,) = world.tool_calls()
    assert (call.status, call.actual) == ("COMMITTED", 1_000_000)  # it may have done something before it failed


@pytest.mark.parametrize("kind", ["function", "class"])
def test_a_failing_native_tool_runs_once_and_is_charged(make_world: MakeWorld, kind: str) -> None:
    def fails(word: str) -> str:
        raise OSError("the line is dead")

    world = make_world(calls_then("dead", LOOK))
    tool = world.tool(work=fails) if kind == "function" else own_tool(world, fails)

    world.kickoff(world.crew([tool]), tool_costs={"look_up": usd("0.01")})

    (call,) = world.tool_calls()
    assert world.tool_runs == ["look_up"]
    assert (call.actual, call.committed_metadata["error"]) == (1_000_000, "OSError")


@pytest.mark.parametrize(
    ("call", "why"),
    [
        (ToolCall("look_up", {"wrong": "x"}), "refused arguments"),
        (ToolCall("look_down", {"word": "x"}), "an unknown tool"),
    ],
)
def test_what_did_not_run_costs_nothing(make_world: MakeWorld, call: ToolCall, why: str) -> None:
    world = make_world(calls_then("done", call))

    world.kickoff(world.crew([world.tool()]), tool_costs=lambda name: usd("0.01"))

    assert world.tool_runs == []
    assert [it.status for it in world.tool_calls()] in (["RELEASED"], [])
    assert world.spent() == world.billed


def test_a_class_with_a_run_of_its_own_is_charged_for_what_an_agent_calls(make_world: MakeWorld) -> None:
    """It says nothing of its body."""
    world = make_world(calls_then("done", LOOK))

    class LookUp(BaseTool):
        name: str = "look_up"
        description: str = "Look a word up."

        def run(self, word: str) -> str:
            world.tool_runs.append("look_up")
            return word

        def _run(self, word: str) -> str:
            raise AssertionError("not called")

    world.kickoff(world.crew([LookUp()]), tool_costs={"look_up": usd("0.01")})

    assert (world.tool_runs, [call.actual for call in world.tool_calls()]) == (["look_up"], [1_000_000])


def test_an_answer_from_crewais_cache_costs_nothing(make_world: MakeWorld) -> None:
    def script(request: ScriptedRequest) -> Reply:
        return Reply(tool_calls=(LOOK,)) if request.number < 3 else Reply(text="done")

    world = make_world(script)

    world.kickoff(world.crew([world.tool()], cache=True), tool_costs={"look_up": usd("0.01")})

    assert world.tool_runs == ["look_up"]
    assert sorted(call.status for call in world.tool_calls()) == ["COMMITTED", "RELEASED"]


def test_a_used_up_tool_costs_nothing(make_world: MakeWorld) -> None:
    def script(request: ScriptedRequest) -> Reply:
        if request.number < 3:
            return Reply(tool_calls=(ToolCall("look_up", {"word": f"w{request.number}"}),))
        return Reply(text="done")

    world = make_world(script)

    world.kickoff(world.crew([world.tool(max_usage_count=1)]), tool_costs={"look_up": usd("0.01")})

    assert world.tool_runs == ["look_up"]
    assert sorted(call.status for call in world.tool_calls()) == ["COMMITTED", "RELEASED"]


def test_a_body_can_tell_what_it_has_cost(make_world: MakeWorld) -> None:
    world = make_world(calls_then("done", LOOK))

    def tells(word: str) -> str:
        permit = current_permit()
        assert permit is not None
        permit.settle(usd("0.003"))
        return word

    world.kickoff(world.crew([world.tool(work=tells)]), tool_costs={"look_up": usd("0.01")})

    assert world.tool_calls()[0].actual == 300_000
    assert current_permit() is None


def test_costs_kinds_and_arguments_are_kept(make_world: MakeWorld) -> None:
    world = make_world(calls_then("done", ToolCall("send_mail", {"word": "secret"})))
    world.budget(credits(5))

    world.kickoff(
        world.crew([world.tool("send_mail")]),
        tool_costs={"send_mail": credits(2)},
        action_kinds={"send_mail": "message.email.send"},
        arguments=lambda tool, given: {"size": len(given["word"])},
    )

    (call,) = world.tool_calls()
    assert (call.action["kind"], call.action["name"]) == ("message.email.send", "send_mail")
    assert (call.unit, call.actual) == ("CREDITS", 2)
    assert call.metadata["arguments"] == {"size": 6}
    assert len(call.metadata["arguments_sha256"]) == 64
    assert "secret" not in str(call)


@pytest.mark.parametrize("kinds", [None, {"look_up": "message.email.send"}])
def test_a_tool_that_caps_forbid_is_not_shown_and_not_run(make_world: MakeWorld, kinds: Any) -> None:
    world = make_world(lambda request: Reply(text="did without") if request.tool_results else Reply(tool_calls=(LOOK,)))
    world.budget("1", caps=Caps(tool_allowlist=("other",)))

    result = world.kickoff(world.crew([world.tool(), world.tool("other")]), action_kinds=kinds)

    assert (world.tool_runs, result.raw) == ([], "did without")
    offered = [[tool["function"]["name"] for tool in request.body.get("tools", ())] for request in world.sim.requests]
    assert offered == [["other"], ["other"]]


def test_steps_are_counted(make_world: MakeWorld) -> None:
    world = make_world(calls_then("done", LOOK))
    world.budget("1", caps=Caps(max_steps_remaining=1))

    result = world.kickoff(world.crew([world.tool()]), on_deny="finish")

    assert (world.requests, world.tool_runs) == (1, ["look_up"])
    assert "no steps left" in str(result.clearance.denied)


def test_a_stop_between_model_and_tool_ends_the_run_at_the_tool(make_world: MakeWorld) -> None:
    world = make_world(calls_then("never", LOOK))

    def stops(word: str) -> str:
        world.authority.kill("tenant:acme", reason="enough")
        return word

    two = ToolCall("second", {"word": "moon"})
    world.stage.script = lambda request: Reply(tool_calls=(LOOK, two))
    with pytest.raises(Killed):
        world.kickoff(world.crew([world.tool(work=stops, result_as_answer=False), world.tool("second")]))

    assert world.requests == 1
    assert "look_up" in world.tool_runs


def test_a_tool_that_needs_approval_is_denied_until_somebody_gives_it(make_world: MakeWorld) -> None:
    world = make_world(calls_then("done", LOOK))
    world.budget("1", caps=Caps(approval_tools=("look_*",)))
    asked: list[Any] = []

    def approve(tool: str, arguments: Any) -> str | None:
        asked.append((tool, dict(arguments)))
        return None if len(asked) == 1 else "ann"

    world.kickoff(world.crew([world.tool()]))
    assert world.tool_runs == []
    assert "needs a person's approval" in said_to_the_model(world)
    world.kickoff(world.crew([world.tool()]), approve=approve)
    assert world.tool_runs == []
    world.kickoff(world.crew([world.tool()]), approve=approve)

    assert world.tool_runs == ["look_up"]
    assert asked == [("look_up", {"word": "sun"})] * 2
    (granted,) = [call for call in world.tool_calls() if call.status == "COMMITTED"]
    assert granted.metadata["approved_by"] == "ann"


def test_a_fault_of_ours_lets_no_tool_run(make_world: MakeWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    """CrewAI swallows what a hook raises, and runs the tool."""
    world = make_world(calls_then("done", LOOK))
    monkeypatch.setattr(gate, "_mapping", lambda *_: 1 / 0)

    with pytest.raises(Exception, match="could not be reserved"):
        world.kickoff(world.crew([world.tool()]), arguments=lambda tool, given: {})

    assert world.tool_runs == []


def test_a_fault_in_a_hook_lets_no_tool_run(make_world: MakeWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    world = make_world(calls_then("did without", LOOK))
    monkeypatch.setattr(hooks, "watch_body", lambda *_: 1 / 0)

    assert world.kickoff(world.crew([world.tool()])).raw == "did without"

    assert world.tool_runs == []


def test_a_wrong_cost_is_said_and_no_tool_runs(make_world: MakeWorld) -> None:
    world = make_world(calls_then("done", LOOK))

    with pytest.raises(InvalidRequest, match="tool_costs"):
        world.kickoff(world.crew([world.tool()]), tool_costs=lambda name: 0.5)

    assert world.tool_runs == []


def test_the_seams_of_tools_are_gone_after_a_run(world: World) -> None:
    tool = own_tool(world, lambda word: word)
    world.kickoff(world.crew([tool]))
    runs = len(world.tool_runs)

    assert tool.run(word="moon") == "moon"
    assert len(world.tool_runs) == runs + 1
    assert not seams.is_installed()


def own_tool(world: World, work: Callable[[str], str]) -> BaseTool:
    class LookUp(BaseTool):
        name: str = "look_up"
        description: str = "Look a word up."

        def _run(self, word: str) -> str:
            world.tool_runs.append("look_up")
            return work(word)

    return LookUp()

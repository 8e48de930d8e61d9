"""What a wrapped crew gives: its own result, with a report."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from crew_world import ACME, World, calls_then
from crewai import Crew
from crewai.crews.crew_output import CrewOutput

import clearance_crewai
from clearance.errors import BudgetExceeded, BudgetNotFound, InvalidRequest
from clearance.model.amount import usd
from clearance.model.subject import Subject
from clearance.simulator import Reply, ScriptedRequest, ToolCall

MakeWorld = Callable[..., World]


def runaway(request: ScriptedRequest) -> Reply:
    """Never done, and never twice the same."""
    return Reply(tool_calls=(ToolCall("look_up", {"word": f"word{request.number}"}),))


def test_a_crew_in_two_lines_gives_its_own_result_with_a_report(world: World) -> None:
    result = clearance_crewai.kickoff(world.crew([world.tool()]), world.authority, subject=ACME, budget=usd("0.5"))

    assert isinstance(result, CrewOutput)
    assert result.raw == "The tool said: sample is known"
    assert result.clearance.spent().amount == world.billed == world.spent()
    assert result.clearance.denied is None


def test_the_report_is_by_agent_task_model_and_tool(world: World) -> None:
    result = world.kickoff(world.crew([world.tool()], tasks=2), tool_costs={"look_up": usd("0.01")})

    report = result.clearance
    stats = world.sim.stats()["tokens"]
    assert [(line.task, line.name, line.calls) for line in report.lines] == [
        ("task1", "gpt-4o-mini", 2),
        ("task1", "look_up", 1),
        ("task2", "gpt-4o-mini", 2),
        ("task2", "look_up", 1),
    ]
    assert len(world.tool_runs) == 2
    assert {line.agent for line in report.lines} == {"Researcher"}
    assert (report.tokens, report.calls) == (stats["input"] + stats["output"], 6)
    (tools,) = [line for line in report.by("kind") if line.kind == "tool.call"]
    assert (tools.actual, tools.estimate, tools.agent) == (2_000_000, 2_000_000, "")
    assert report.spent().amount == world.spent()
    assert all(line.estimate > line.actual > 0 for line in report.lines if line.kind == "llm.completion")


def test_the_report_is_by_model_and_by_tool(world: World) -> None:
    tools = [world.tool(), world.tool("other")]
    world.stage.script = calls_then("done", ToolCall("look_up", {"word": "a"}), ToolCall("other", {"word": "b"}))
    one = world.agent("One", tools)
    two = world.agent("Two", llm=world.llm("gpt-4o"))
    crew = Crew(agents=[one, two], tasks=[world.task(one, "a"), world.task(two, "b")])

    report = world.kickoff(crew, tool_costs={"look_up": usd("0.01")}).clearance

    sent = [request.model for request in world.sim.requests]
    billed = {model: sum(it.cost or 0 for it in world.sim.requests if it.model == model) for model in sent}
    models = report.by("model")
    assert [(it.model, it.calls, it.actual) for it in models] == [
        (model, sent.count(model), billed[model]) for model in sorted(set(sent))
    ]
    assert all(it.estimate > it.actual and it.tokens > 0 and it.tool == it.agent == it.task == "" for it in models)
    assert [(it.tool, it.calls, it.tokens, it.estimate, it.actual) for it in report.by("tool")] == [
        ("look_up", 1, 0, 1_000_000, 1_000_000),
        ("other", 1, 0, 0, 0),
    ]
    assert [(it.agent, it.model) for it in report.by("agent", "model")] == [("One", "gpt-4o-mini"), ("Two", "gpt-4o")]
    assert sum(it.actual for it in report.by("model", "tool")) == report.spent().amount == world.spent()
    assert [it.name for it in report.by("name")] == [it.name for it in report.by("model", "tool")]


def test_a_report_refuses_fields_that_there_are_not(world: World) -> None:
    report = world.kickoff(world.crew()).clearance

    with pytest.raises(InvalidRequest, match="'modell' is no field of a line; allowed: agent, task, kind, model, tool"):
        report.by("modell")


def test_the_report_is_right_where_crewais_counters_are_not(world: World) -> None:
    crew = world.crew()
    world.kickoff(crew)
    first = world.billed

    again = world.kickoff(crew)

    assert again.clearance.spent().amount == world.billed - first


def test_events_say_which_crew_agent_and_task(world: World) -> None:
    world.kickoff(world.crew([world.tool()]))

    for call in world.calls():
        facts = call.metadata or {}
        assert (facts["via"], facts["crew"], facts["agent"], facts["task"]) == (
            "crewai",
            "words",
            "Researcher",
            "task1",
        )
        assert call.subject == {"tenant": "acme", "agent": "researcher"}
    assert "sample" not in str([call.metadata for call in world.calls()])
    assert "find words" not in str(world.authority.events())


def test_one_role_can_be_given_a_budget(world: World) -> None:
    world.budget("0.00000001", scope="tenant:acme/agent:researcher")

    with pytest.raises(BudgetExceeded, match="agent:researcher"):
        world.kickoff(world.crew())

    assert world.requests == 0


def test_nothing_begins_where_the_runs_budget_does_not_fit(world: World) -> None:
    with pytest.raises(BudgetExceeded):
        world.kickoff(world.crew(), budget=usd("2"))
    with pytest.raises(BudgetNotFound):
        world.kickoff(world.crew(), Subject(tenant="nobody"))

    assert world.requests == 0

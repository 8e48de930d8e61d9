"""The examples, as users run them: CrewAI's own OpenAI provider, a ledger in a file, the simulated provider."""

from __future__ import annotations

import json
import runpy
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from crew_paths import delegating
from crew_world import World

from clearance.simulator import Reply, ScriptedRequest, ToolCall, default_script
from clearance.store.interface import ReservationQuery

EXAMPLES = Path(__file__).parents[2] / "examples"
NAMES = sorted(path.stem for path in EXAMPLES.glob("crewai_*.py"))
Start = Callable[..., tuple[World, "Example"]]


class Example:
    """An example under way: what it prints, and its ledger."""

    def __init__(self, world: World, capsys: pytest.CaptureFixture[str]) -> None:
        self._world = world
        self._capsys = capsys
        self.names: dict[str, Any] = {}

    def run(self, name: str) -> str:
        self.names = runpy.run_path(str(EXAMPLES / f"{name}.py"))
        return self._capsys.readouterr().out

    def ends_with_true_books(self) -> None:
        authority = self.names["authority"]
        assert authority.balance("tenant:acme").spent == self._world.billed
        assert authority.reservations(ReservationQuery(status="ACTIVE")).items == []
        assert authority.check() == []


@pytest.fixture
def begin(
    make_world: Callable[..., World],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Iterator[Start]:
    started: list[Example] = []

    def make(script: Any = None) -> tuple[World, Example]:
        world = make_world(script)
        monkeypatch.setenv("OPENAI_BASE_URL", world.sim.base_url)
        monkeypatch.setenv("CLEARANCE_URL", str(tmp_path / "ledger.db"))
        monkeypatch.chdir(tmp_path)
        started.append(Example(world, capsys))
        return world, started[-1]

    yield make
    for example in started:
        example.names["authority"].close()


def test_a_research_crew_stops_at_its_budget(begin: Start) -> None:
    world, example = begin(lambda request: Reply(tool_calls=(ToolCall("search", {"query": f"lamp {request.number}"}),)))

    said = example.run("crewai_budget")

    assert "Stopped: run:" in said
    assert "agent='Researcher'" in said
    assert world.requests > 5
    example.ends_with_true_books()


def test_a_research_crew_that_is_done_in_time(begin: Start) -> None:
    world, example = begin(default_script)

    assert "The tool said: Nothing about" in example.run("crewai_budget")
    assert world.requests == 2
    example.ends_with_true_books()


def test_a_tool_of_a_hierarchy_waits_for_approval(begin: Start) -> None:
    def script(request: ScriptedRequest) -> Reply:
        reply = delegating(request)
        if reply.tool_calls and reply.tool_calls[0].name == "delegate_work_to_coworker":
            arguments = {"task": "offer", "context": "lamps", "coworker": "Seller"}
            return Reply(tool_calls=(ToolCall("delegate_work_to_coworker", arguments),))
        if reply.tool_calls:
            return Reply(tool_calls=(ToolCall("send_offer", {"customer": "Ann"}),))
        return reply

    world, example = begin(script)

    said = example.run("crewai_hierarchy")

    assert "without approval: 1 refused" in said
    assert "with approval: ['delegate_work_to_coworker', 'send_offer']" in said
    assert "sent to Ann" in json.dumps([request.body for request in world.sim.requests])
    example.ends_with_true_books()


def test_two_tenants_side_by_side(begin: Start) -> None:
    world, example = begin()

    said = example.run("crewai_tenants")

    assert "acme: This is a simulated answer" in said
    assert "globex: stopped, tenant:globex has" in said
    assert world.requests == 1
    example.ends_with_true_books()


def test_an_agent_that_plans_for_ever_lands_softly(begin: Start) -> None:
    world, example = begin(never_ready)

    said = example.run("crewai_reasoning")

    assert "Stopped: run:" in said
    assert f"in {world.requests} calls" in said
    assert world.requests > 5
    example.ends_with_true_books()


def never_ready(request: ScriptedRequest) -> Reply:
    if request.tools and request.tools[0].name == "create_reasoning_plan":
        plan = {"plan": f"plan {request.number}", "steps": [], "ready": False}
        return Reply(tool_calls=(ToolCall("create_reasoning_plan", plan),))
    return Reply(text=f"plan {request.number}. NOT READY: I need to refine it.")


@pytest.mark.parametrize("name", NAMES)
def test_an_example_is_short(name: str) -> None:
    assert len((EXAMPLES / f"{name}.py").read_text().splitlines()) <= 30
    assert f"crewai_{name.partition('_')[2]}" in NAMES


def test_every_example_is_run_here() -> None:
    assert NAMES == ["crewai_budget", "crewai_hierarchy", "crewai_reasoning", "crewai_tenants"]

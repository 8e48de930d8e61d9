"""The examples, as users run them: the real client, a ledger in a file, the simulated provider."""

from __future__ import annotations

import os
import runpy
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from langchain_world import World

from clearance.simulator import Reply, ScriptedRequest, ToolCall, calls_tool_forever
from clearance.store.interface import ReservationQuery

EXAMPLES = Path(__file__).parents[2] / "examples"
NAMES = ("langchain_executor", "langchain_create_agent", "langgraph_parallel", "langchain_multi_tenant_web")


class Example:
    """An example under way: what it prints, and its ledger."""

    def __init__(self, world: World, ledger: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self._world = world
        self._ledger = ledger
        self._capsys = capsys
        self.names: dict[str, Any] = {}

    def run(self, name: str) -> str:
        self.names = runpy.run_path(str(EXAMPLES / f"{name}.py"))
        return self._capsys.readouterr().out

    def ends_with_true_books(self) -> None:
        authority = self.names["authority"]
        assert authority.balance("tenant:acme").spent == self._world.cost
        assert authority.reservations(ReservationQuery(status="ACTIVE")).items == []
        assert self._ledger.exists()


@pytest.fixture
def start(
    make_world: Callable[..., World],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Iterator[Callable[..., tuple[World, Example]]]:
    started: list[Example] = []

    def make(script: Any = None) -> tuple[World, Example]:
        world = make_world(script)
        monkeypatch.setenv("OPENAI_BASE_URL", world.sim.base_url)
        monkeypatch.setenv("OPENAI_API_KEY", "sim")
        monkeypatch.setenv("CLEARANCE_URL", str(tmp_path / "ledger.db"))
        started.append(Example(world, tmp_path / "ledger.db", capsys))
        return world, started[-1]

    yield make
    for example in started:
        example.names["authority"].close()


@pytest.mark.parametrize(
    ("name", "script", "expected"),
    [
        ("langchain_executor", calls_tool_forever("check_quality", {"draft": "a lamp"}), "Stopped: tenant:acme has"),
        ("langchain_executor", None, "The tool said"),
        ("langgraph_parallel", None, "5 messages for"),
    ],
)
def test_an_example_runs(start: Callable[..., tuple[World, Example]], name: str, script: Any, expected: str) -> None:
    world, example = start(script)
    assert expected in example.run(name)
    assert world.requests > 1
    example.ends_with_true_books()


def test_the_agent_sends_two_mails_and_no_more(start: Callable[..., tuple[World, Example]]) -> None:
    def mails_until_told_to_stop(request: ScriptedRequest) -> Reply:
        if any("Do not call send_email again" in result for result in request.tool_results):
            return Reply(text="I stop here")
        return Reply(tool_calls=[ToolCall("send_email", {"to": "a@example.com", "text": "hello"})])

    _, example = start(mails_until_told_to_stop)
    printed = example.run("langchain_create_agent")
    assert printed.count("mail sent") == 2
    assert "I stop here" in printed
    example.ends_with_true_books()


def test_each_customer_spends_its_own_budget(start: Callable[..., tuple[World, Example]]) -> None:
    world, example = start()
    example.run("langchain_multi_tenant_web")

    async def ask(tenant: str) -> tuple[int, Any]:
        transport = httpx.ASGITransport(example.names["app"])
        async with httpx.AsyncClient(transport=transport, base_url="http://example") as client:
            answer = await client.post("/ask", content="hello", headers={"x-tenant": tenant})
            return answer.status_code, answer.json()

    assert world.run(ask("acme"))[0] == 200
    for tenant, reason in (("globex", "BUDGET_EXCEEDED"), ("nobody", "BUDGET_NOT_FOUND")):
        status, answer = world.run(ask(tenant))
        assert (status, answer["error"]) == (402, reason)
    assert world.requests == 1
    example.ends_with_true_books()


def test_an_example_runs_as_a_program(make_world: Callable[..., World], tmp_path: Path) -> None:
    world = make_world()
    env = {
        **os.environ,
        "OPENAI_BASE_URL": world.sim.base_url,
        "OPENAI_API_KEY": "sim",
        "CLEARANCE_URL": str(tmp_path / "ledger.db"),
        "PYTHONPATH": os.pathsep.join(sys.path),
    }
    command = [sys.executable, str(EXAMPLES / "langgraph_parallel.py")]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "5 messages for" in done.stdout
    assert world.requests == 4


@pytest.mark.parametrize("name", NAMES)
def test_an_example_is_short(name: str) -> None:
    assert len((EXAMPLES / f"{name}.py").read_text().splitlines()) < 30

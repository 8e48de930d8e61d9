"""What is Pydantic AI's own: agents from files, structured output, approvals, fallbacks, errors, cancellation."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from openai import AsyncOpenAI
from pydantic import BaseModel
from pydantic_ai import Agent, DeferredToolRequests, DeferredToolResults
from pydantic_ai.exceptions import ModelHTTPError
from pydantic_ai.models.fallback import FallbackModel
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.providers.openai import OpenAIProvider

from clearance.simulator import ToolCall, sequence
from clearance_hooks import Approved
from clearance_hooks.capabilities import PYDANTIC_AI
from clearance_hooks.errors import Blocked
from clearance_hooks.hosts.pydantic_ai import Clearance
from clearance_hooks.testing import Stage
from clearance_hooks.testing.scenarios import ONE_TOOL
from clearance_hooks.testing.stage import MODEL, SCOPE, TOOL


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    with Stage(tmp_path, PYDANTIC_AI, {}) as made:
        yield made


@asynccontextmanager
async def provider(stage: Stage) -> AsyncIterator[OpenAIProvider]:
    client = AsyncOpenAI(base_url=stage.base_url, api_key="sim", max_retries=0, timeout=20)
    try:
        yield OpenAIProvider(openai_client=client)
    finally:
        await client.close()


def guard(stage: Stage, **options: Any) -> Clearance:
    return Clearance(str(stage.config), environ={}, **options)


class City(BaseModel):
    name: str


def test_an_agent_from_a_file_is_gated(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    stage.authority.kill(SCOPE, reason="test", actor="me")
    monkeypatch.setenv("OPENAI_BASE_URL", stage.base_url)
    monkeypatch.setenv("OPENAI_API_KEY", "sim")
    file = stage.folder / "agent.yaml"
    file.write_text(f"model: openai-chat:{MODEL}\ncapabilities:\n  - Clearance: {{config: {stage.config}}}\n")
    agent = Agent.from_file(file, custom_capability_types=[Clearance])
    answer = asyncio.run(agent.run("hello"))
    assert "KILLED" in answer.output.upper()
    stage.expect(requests=0, tool_runs=0, charged="nothing")


def test_a_misspelt_section_of_the_file_makes_no_request(stage: Stage) -> None:
    stage.config.write_text(stage.config.read_text().replace('"entries"', '"entires"'))

    async def ask() -> str:
        async with provider(stage) as made:
            agent = Agent(OpenAIChatModel(MODEL, provider=made), capabilities=[guard(stage)])
            return (await agent.run("hello")).output

    assert "plugins.entires: is not known here; did you mean entries?" in asyncio.run(ask())
    stage.expect(requests=0, tool_runs=0, charged="nothing")


@pytest.mark.parametrize("answer", ["no", True, None])
def test_what_is_no_approved_runs_no_tool(answer: Any, stage: Stage) -> None:
    stage.configure(tools={TOOL: {"approval": True}})
    stage.script = sequence(ONE_TOOL)

    async def ask() -> str:
        async with provider(stage) as made:
            asking = guard(stage, approver=lambda wanted, event: answer)
            agent = Agent(OpenAIChatModel(MODEL, provider=made), capabilities=[asking])
            agent.tool_plain(stage.echo)
            return (await agent.run("hello")).output

    assert asyncio.run(ask()) == "done"
    stage.expect(requests=2, tool_runs=0)


@pytest.mark.parametrize("deny_style", ["error", "completion"])
def test_a_refusal_with_structured_output_makes_no_request(deny_style: str, stage: Stage) -> None:
    stage.configure(deny_style=deny_style)
    stage.budget("0")

    async def ask() -> None:
        async with provider(stage) as made:
            agent = Agent(OpenAIChatModel(MODEL, provider=made), output_type=City, capabilities=[guard(stage)])
            await agent.run("hello")

    with pytest.raises(Blocked if deny_style == "error" else Exception):
        asyncio.run(ask())
    stage.expect(requests=0, tool_runs=0, charged="nothing")


def test_an_approver_is_asked_and_the_tool_runs(stage: Stage) -> None:
    stage.configure(tools={TOOL: {"approval": True}})
    stage.script = sequence(ONE_TOOL)
    asked: list[str] = []

    async def approver(wanted: Any, event: Any) -> Approved:
        asked.append(wanted.title)
        return Approved("alice")

    async def ask() -> str:
        async with provider(stage) as made:
            agent = Agent(OpenAIChatModel(MODEL, provider=made), capabilities=[guard(stage, approver=approver)])
            agent.tool_plain(stage.echo)
            return (await agent.run("hello")).output

    assert asyncio.run(ask()) == "done"
    assert asked == ["Run echo?"]
    stage.expect(requests=2, tool_runs=1)


def test_a_deferred_approval_goes_through_when_it_comes_back(stage: Stage) -> None:
    stage.configure(tools={TOOL: {"approval": True}})
    stage.script = sequence(ONE_TOOL)

    async def ask() -> tuple[Any, Any]:
        async with provider(stage) as made:
            agent = Agent(
                OpenAIChatModel(MODEL, provider=made),
                output_type=[str, DeferredToolRequests],
                capabilities=[guard(stage, defer_approvals=True)],
            )
            agent.tool_plain(stage.echo)
            first = await agent.run("hello")
            before = stage.tool_runs
            approvals = {call.tool_call_id: True for call in first.output.approvals}
            results = DeferredToolResults(approvals=approvals)
            second = await agent.run(message_history=first.all_messages(), deferred_tool_results=results)
            return before, second.output

    assert asyncio.run(ask()) == (0, "done")
    stage.expect(requests=2, tool_runs=1)


def test_a_fallback_model_has_no_price_and_makes_no_request(stage: Stage) -> None:
    async def ask() -> str:
        async with provider(stage) as made:
            models = [OpenAIChatModel(name, provider=made) for name in (MODEL, "gpt-4o-mini")]
            agent = Agent(FallbackModel(*models), capabilities=[guard(stage)])
            return (await agent.run("hello")).output

    assert "no price" in asyncio.run(ask())
    stage.expect(requests=0, tool_runs=0, charged="nothing")


@pytest.mark.parametrize(("status", "charged"), [(429, "nothing"), (500, "any")])
def test_an_error_of_the_provider_is_raised_and_settled_by_its_status(status: int, charged: str, stage: Stage) -> None:
    stage.sim.fail_next(status=status)

    async def ask() -> None:
        async with provider(stage) as made:
            agent = Agent(OpenAIChatModel(MODEL, provider=made), capabilities=[guard(stage)])
            await agent.run("hello")

    with pytest.raises(ModelHTTPError):
        asyncio.run(ask())
    stage.expect(requests=1, tool_runs=0, charged=charged)
    assert (stage.spent > 0) is (status == 500)


def test_a_cancelled_run_leaves_nothing_held(stage: Stage) -> None:
    def call_is_held() -> None:
        while not [row for row in stage.held() if row.startswith("call")]:
            time.sleep(0.01)

    async def ask() -> None:
        async with provider(stage) as made:
            agent = Agent(OpenAIChatModel(f"{MODEL}+slow-5000", provider=made), capabilities=[guard(stage)])
            task = asyncio.create_task(agent.run("hello"))
            await asyncio.to_thread(call_is_held)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    stage.configure(prices={f"{MODEL}+slow-5000": {"input": "2.5", "output": "10", "max_output_tokens": 100}})
    asyncio.run(ask())
    stage.at_rest()
    assert stage.spent > 0  # it may have happened: the estimate is charged


def test_two_runs_of_one_agent_at_a_time_are_kept_apart(stage: Stage) -> None:
    stage.configure(run_budget="0.50", tools={TOOL: {"max_calls": 1}})
    stage.script = lambda request: sequence([ToolCall(TOOL, {"text": "x"}), "done"][len(request.tool_results) :])(
        request
    )

    async def ask() -> list[str]:
        async with provider(stage) as made:
            agent = Agent(OpenAIChatModel(MODEL, provider=made), capabilities=[guard(stage)])
            agent.tool_plain(stage.echo)
            return [done.output for done in await asyncio.gather(*(agent.run("hello") for _ in range(4)))]

    assert asyncio.run(ask()) == ["done"] * 4
    stage.expect(requests=8, tool_runs=4)

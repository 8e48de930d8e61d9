"""Runs of the real Pydantic AI that time out at any moment leave nothing held."""

from __future__ import annotations

import asyncio
import random
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic_ai import Agent
from pydantic_ai.messages import ModelResponse, ToolCallPart
from pydantic_ai.models.function import FunctionModel

from clearance_hooks.capabilities import PYDANTIC_AI
from clearance_hooks.hosts.pydantic_ai import Clearance
from clearance_hooks.testing import Stage
from clearance_hooks.testing.stage import TOOL


@pytest.fixture
def stage() -> Iterator[Stage]:
    with tempfile.TemporaryDirectory() as folder, Stage(Path(folder), PYDANTIC_AI, {}) as made:
        yield made


def test_runs_that_time_out_leave_nothing_held(stage: Stage) -> None:
    stage.budget("1000.00")
    stage.configure(run_budget="0.50")
    model = FunctionModel(lambda *_: ModelResponse(parts=[ToolCallPart(TOOL, {"text": "a"})]), model_name="gpt-4o-mini")
    agent = Agent(model, capabilities=[Clearance(str(stage.config))])
    agent.tool_plain(name=TOOL)(stage.echo)
    chance = random.Random(7)

    async def play() -> int:
        late = 0
        for _ in range(150):
            try:
                await asyncio.wait_for(agent.run("x"), chance.random() * 0.08)
            except TimeoutError:
                late += 1
        return late

    assert asyncio.run(play()) > 100
    deadline = time.monotonic() + 10
    while held := stage.held():
        assert time.monotonic() < deadline, f"still held: {held}"
        time.sleep(0.05)

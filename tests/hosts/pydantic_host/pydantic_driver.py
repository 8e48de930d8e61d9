"""The real Pydantic AI with the real OpenAI client, as a driver for the contract's scenarios."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from openai import AsyncOpenAI
from pydantic_ai import Agent
from pydantic_ai.capabilities import ModelFallback
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.providers.openai import OpenAIProvider

from clearance_hooks.capabilities import PYDANTIC_AI
from clearance_hooks.errors import Blocked
from clearance_hooks.hosts.pydantic_ai import Clearance
from clearance_hooks.testing import Reply, Stage
from clearance_hooks.testing.stage import MODEL


class PydanticDriver:
    capabilities = PYDANTIC_AI
    names_runs = True
    needs_settings: Mapping[str, Any] = {}
    turn_s = 10.0

    def __init__(self, stream: bool = False) -> None:
        self._stream = stream

    def turn(self, stage: Stage, prompt: str, *, run_id: str | None = None, attempt: int = 1, loads: int = 1) -> Reply:
        return asyncio.run(self._turn(stage, prompt, run_id, attempt, loads))

    async def _turn(self, stage: Stage, prompt: str, run_id: str | None, attempt: int, loads: int) -> Reply:
        client = AsyncOpenAI(base_url=stage.base_url, api_key="sim", max_retries=0, timeout=20)
        provider = OpenAIProvider(openai_client=client)
        loaded = [Clearance(str(stage.config), environ=stage.environ) for _ in range(loads)]
        fallback = ModelFallback(OpenAIChatModel("gpt-4.1", provider=provider))
        agent = Agent(OpenAIChatModel(MODEL, provider=provider), name="bot", capabilities=[*loaded, fallback])
        agent.tool_plain(stage.echo)
        options: dict[str, Any] = {"metadata": {"clearance_attempt": attempt}}
        if run_id is not None:
            options["run_id"] = run_id
        try:
            return Reply(await self._ask(agent, prompt, options))
        except Blocked as blocked:
            return Reply("", f"{blocked.reason_code}: {blocked}")
        finally:
            await client.close()

    async def _ask(self, agent: Agent[None, str], prompt: str, options: dict[str, Any]) -> str:
        if not self._stream:
            return (await agent.run(prompt, **options)).output
        async with agent.run_stream(prompt, **options) as result:
            return await result.get_output()

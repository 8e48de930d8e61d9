"""MiniHost with the real OpenAI client, as drivers for the contract's scenarios."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from typing import Any

import openai

from clearance.pricing import Usage
from clearance_hooks import MiniHost, ModelReply, ModelRequest, RunResult, ToolRequest
from clearance_hooks.activation import activate
from clearance_hooks.capabilities import MINIHOST
from clearance_hooks.hostconfig import load
from clearance_hooks.testing import Reply, Stage
from clearance_hooks.testing.stage import MODEL, TOOL

SCHEMA = {"type": "object", "properties": {"text": {"type": "string"}}}


def body(request: ModelRequest) -> dict[str, Any]:
    tools = [{"type": "function", "function": {"name": name, "parameters": SCHEMA}} for name in request.tools]
    found: dict[str, Any] = {"model": request.model, "messages": list(request.messages)}
    if tools:
        found["tools"] = tools
    if request.max_output_tokens is not None:
        found["max_completion_tokens"] = request.max_output_tokens
    return found


def reply(answer: Any) -> ModelReply:
    message = answer.choices[0].message
    calls = tuple(
        ToolRequest(call.function.name, json.loads(call.function.arguments), call.id)
        for call in message.tool_calls or ()
    )
    usage = Usage.from_openai(answer.usage.model_dump()) if answer.usage else None
    raw = message.model_dump(exclude_none=True)
    return ModelReply(message.content or "", calls, usage, answer.model, raw)


class Asking:
    """The model function of a host: one HTTP request a call."""

    def __init__(self, base_url: str) -> None:
        self._client = openai.OpenAI(base_url=base_url, api_key="sim", max_retries=0, timeout=20)

    def __call__(self, request: ModelRequest) -> ModelReply:
        return reply(self._client.chat.completions.create(**body(request)))

    def close(self) -> None:
        self._client.close()


class AsyncAsking:
    def __init__(self, base_url: str) -> None:
        self._client = openai.AsyncOpenAI(base_url=base_url, api_key="sim", max_retries=0, timeout=20)

    async def __call__(self, request: ModelRequest) -> ModelReply:
        return reply(await self._client.chat.completions.create(**body(request)))

    async def close(self) -> None:
        await self._client.close()


def seen(result: RunResult) -> Reply:
    return Reply(result.text, None if result.blocked is None else result.blocked.code)


class SyncDriver:
    capabilities = MINIHOST
    names_runs = True
    needs_settings: Mapping[str, Any] = {}
    turn_s = 10.0

    def turn(self, stage: Stage, prompt: str, *, run_id: str | None = None, attempt: int = 1, loads: int = 1) -> Reply:
        model = Asking(stage.base_url)
        host = MiniHost(stage.config, model=model, tools={TOOL: stage.echo}, model_name=MODEL, fallbacks=["gpt-4.1"])
        for _ in range(loads - 1):
            activate(load(stage.config, MINIHOST, environ=stage.environ), MINIHOST, runner=host.runner)
        try:
            return seen(host.run(prompt, run_id=run_id, attempt=attempt))
        finally:
            host.close()
            model.close()


class AsyncDriver:
    capabilities = MINIHOST
    names_runs = True
    needs_settings: Mapping[str, Any] = {}
    turn_s = 10.0

    def turn(self, stage: Stage, prompt: str, *, run_id: str | None = None, attempt: int = 1, loads: int = 1) -> Reply:
        return asyncio.run(self._turn(stage, prompt, run_id, attempt, loads))

    async def _turn(self, stage: Stage, prompt: str, run_id: str | None, attempt: int, loads: int) -> Reply:
        model = AsyncAsking(stage.base_url)
        host = MiniHost(stage.config, model=model, tools={TOOL: stage.echo}, model_name=MODEL, fallbacks=["gpt-4.1"])
        for _ in range(loads - 1):
            activate(load(stage.config, MINIHOST, environ=stage.environ), MINIHOST, runner=host.runner)
        try:
            return seen(await host.arun(prompt, run_id=run_id, attempt=attempt))
        finally:
            host.close()
            await model.close()

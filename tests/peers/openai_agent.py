"""Run by the peers' own Python: an agent under runcycles-openai-agents. `openai_agent.py SERVER KEY PROVIDER MODE`."""

from __future__ import annotations

import asyncio
import json
import sys

from agents import Agent, OpenAIChatCompletionsModel, function_tool, set_tracing_disabled
from openai import AsyncOpenAI
from runcycles import CyclesConfig
from runcycles_openai_agents import CyclesRunHooks

TOOL_RAN: list[str] = []


@function_tool
def search(query: str) -> str:
    """Look something up."""
    TOOL_RAN.append(query)
    return "found"


async def run(server: str, key: str, provider: str, mode: str) -> str:
    client = AsyncOpenAI(base_url=provider, api_key="none", max_retries=0)
    model = OpenAIChatCompletionsModel(model="gpt-5-mini", openai_client=client)
    agent = Agent(name="searcher", instructions="Search.", model=model, tools=[search])
    hooks = CyclesRunHooks(
        config=CyclesConfig(base_url=server, api_key=key, tenant="acme"),
        tenant="acme",
        agent="openai-agents",
        llm_estimate=2_000_000,
        tool_estimates={"search": 1_000_000},
    )
    try:
        if mode == "stream":
            streamed = hooks.run_streamed(agent, input="look it up")
            async for _ in streamed.stream_events():
                pass
            return str(streamed.final_output)
        return str((await hooks.run(agent, input="look it up")).final_output)
    except Exception as error:
        return f"{type(error).__name__}: {error}"


def main(server: str, key: str, provider: str, mode: str) -> None:
    set_tracing_disabled(True)
    said = asyncio.run(run(server, key, provider, mode))
    sys.stdout.write(json.dumps({"said": said, "tool_ran": len(TOOL_RAN)}) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])

"""Run by the peers' own Python: an agent under langchain-runcycles. `langchain_agent.py SERVER KEY PROVIDER MODE`."""

from __future__ import annotations

import asyncio
import json
import sys

from langchain.agents import create_agent
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from langchain_runcycles import CyclesModelGate, CyclesToolGate
from langchain_runcycles.extractors import openai_cost
from runcycles import Action, Amount, AsyncCyclesClient, CyclesClient, CyclesConfig, Subject

TOOL_RAN: list[str] = []


@tool
def search(query: str) -> str:
    """Look something up."""
    TOOL_RAN.append(query)
    return "found"


def main(server: str, key: str, provider: str, mode: str) -> None:
    config = CyclesConfig(base_url=server, api_key=key, tenant="acme")
    is_async = mode == "async"
    client = AsyncCyclesClient(config) if is_async else CyclesClient(config)
    subject = Subject(tenant="acme", agent="langchain")
    cost = openai_cost(prompt_per_million_usd=0.15, completion_per_million_usd=0.60)
    estimate = Amount(unit="USD_MICROCENTS", amount=2_000_000)
    held = {"subject": subject, "estimate": estimate, "mode": "decide+reserve"}
    gates = [
        CyclesModelGate(client, action=Action(kind="llm.completion", name="gpt-5-mini"), cost_fn=cost, **held),
        CyclesToolGate(client, action=Action(kind="tool.call", name="search"), **held),
    ]
    model = ChatOpenAI(model="gpt-5-mini", base_url=provider, api_key="none", max_retries=0)
    agent = create_agent(model, [search], middleware=gates)
    asked = {"messages": [{"role": "user", "content": "look it up"}]}
    try:
        answer = asyncio.run(agent.ainvoke(asked)) if is_async else agent.invoke(asked)
        said = answer["messages"][-1].content
    except Exception as error:
        said = f"{type(error).__name__}: {error}"
    sys.stdout.write(json.dumps({"said": said, "tool_ran": len(TOOL_RAN)}) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])

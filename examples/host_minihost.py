"""An agent host whose operator enables Clearance in a file: a runaway agent stops at its budget.

Runs by itself, against a simulated provider and a ledger in memory:

    python examples/host_minihost.py
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import openai

from clearance.authority.budgets import BudgetSpec
from clearance.connecting import connect
from clearance.pricing import Usage
from clearance.simulator import Simulator, calls_tool_forever
from clearance_hooks import MiniHost, ModelReply, ModelRequest, ToolRequest

CONFIG = """
plugins:
  entries:
    clearance:
      config:
        authority: {url: "${LEDGER}"}
        tenant: acme
        run_budget: "0.25"
        tools:
          search: {cost: "0.01"}
"""
SEARCH = {"name": "search", "parameters": {"type": "object", "properties": {"text": {"type": "string"}}}}


def model_of(client: openai.OpenAI) -> object:
    """The host's own code: one provider call. Clearance is not in it."""

    def ask(request: ModelRequest) -> ModelReply:
        answer = client.chat.completions.create(
            model=request.model,
            messages=list(request.messages),  # type: ignore[arg-type]
            tools=[{"type": "function", "function": SEARCH}] if request.tools else openai.omit,  # type: ignore[list-item]
            max_completion_tokens=500,
        )
        message = answer.choices[0].message
        calls = tuple(
            ToolRequest(call.function.name, json.loads(call.function.arguments), call.id)
            for call in message.tool_calls or ()
            if call.type == "function"
        )
        assert answer.usage is not None
        usage = Usage.from_openai(answer.usage.model_dump())
        return ModelReply(message.content or "", calls, usage, answer.model, message.model_dump(exclude_none=True))

    return ask


def main() -> None:
    with (
        tempfile.TemporaryDirectory() as folder,
        Simulator(script=calls_tool_forever("search", {"text": "x"})) as provider,
    ):
        ledger = f"sqlite:///{folder}/ledger.db"
        authority = connect(ledger)
        authority.set_budget(BudgetSpec(scope="tenant:acme", allocated="5.00"))
        (Path(folder) / "host.yaml").write_text(CONFIG)
        with openai.OpenAI(base_url=provider.base_url, api_key="sim", max_retries=0) as client:
            host = MiniHost(
                Path(folder) / "host.yaml",
                model=model_of(client),  # type: ignore[arg-type]
                tools={"search": lambda text: f"nothing about {text}"},
                model_name="gpt-5-mini",
                max_steps=1_000,
                max_output_tokens=500,
                environ={"LEDGER": ledger},
            )
            answer = host.run("find everything")
            host.close()
        print(f"stopped: {answer.text}")
        print(f"provider requests: {provider.stats()['requests']}")
        print(f"charged: {authority.balance('tenant:acme').spent} microcents")
        authority.close()


if __name__ == "__main__":
    main()

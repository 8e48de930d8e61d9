"""langchain-runcycles: the middleware of the Cycles protocol, which leaves deciding to a server: here, ours."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Any

from benchmarks import http_servers
from benchmarks.workload import ACTUAL, ESTIMATE, SUBJECT

DURABILITY = "process"
"""Of the server's ledger: the fastest that keeps anything."""


class Peer:
    """Its gates for models and tools, both in the mode that reserves and commits, for sync and for async agents."""

    def __init__(self, place: Path, stack: ExitStack) -> None:
        import langchain_runcycles
        import runcycles

        served = stack.enter_context(http_servers.ours(place / "peer.db", http_servers.SHARED, 1, DURABILITY))
        config = runcycles.CyclesConfig(
            base_url=f"http://127.0.0.1:{served.port}",
            api_key=served.api_key,
            tenant=http_servers.TENANT,
            journal_dir=str(place / "journal"),
        )
        self._gates: Any = langchain_runcycles
        self._sync = stack.enter_context(runcycles.CyclesClient(config))
        self._async = runcycles.AsyncCyclesClient(config)
        self._subject = runcycles.Subject(**SUBJECT.wire)
        self._model = runcycles.Action(kind="llm.completion", name="gpt-4o-mini")
        self._tool = runcycles.Action(kind="tool.call", name="look_up")
        self._estimate = runcycles.Amount(unit=runcycles.Unit.USD_MICROCENTS, amount=ESTIMATE.amount)

    def middleware(self, asynchronous: bool) -> list[Any]:
        from langchain_runcycles.extractors import openai_cost

        client = self._async if asynchronous else self._sync
        held: dict[str, Any] = {"subject": self._subject, "estimate": self._estimate, "mode": "reserve"}
        cost = openai_cost(prompt_per_million_usd=0.15, completion_per_million_usd=0.60)
        return [
            self._gates.CyclesModelGate(client, action=self._model, cost_fn=cost, **held),
            self._gates.CyclesToolGate(client, action=self._tool, **held),
        ]

    async def try_out(self) -> None:
        """Raises where a reserve or commit is refused, which its gates would make into a message or a retry."""
        wanted: dict[str, Any] = {"subject": self._subject, "action": self._model, "estimate": self._estimate}
        with self._sync.stream_reservation(raise_on_commit_failure=True, **wanted) as held:
            held.usage.actual_cost = ACTUAL.amount
        async with self._async.stream_reservation(raise_on_commit_failure=True, **wanted) as held:
            held.usage.actual_cost = ACTUAL.amount

    async def aclose(self) -> None:
        await self._async.aclose()

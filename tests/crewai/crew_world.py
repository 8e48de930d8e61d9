"""A world for one test: a simulated provider, an authority in memory, and real CrewAI with its OpenAI provider."""

from __future__ import annotations

import time
from collections.abc import Callable
from threading import Lock
from typing import Any

from crewai import LLM, Agent, Crew, Process, Task
from crewai.tools import BaseTool, tool

import clearance_crewai
from clearance.authority.budgets import BudgetSpec
from clearance.connecting import LocalAuthority
from clearance.model.amount import Amount, Unit, usd
from clearance.model.caps import Caps, CapsRule
from clearance.model.reservation import Reservation
from clearance.model.subject import Subject
from clearance.simulator import Reply, ScriptedRequest, Simulator, ToolCall, default_script
from clearance.store.interface import ReservationQuery

MODEL = "gpt-4o-mini"
ACME = Subject(tenant="acme")


class Stage:
    """What all tests share, as it takes time to make: the provider."""

    def __init__(self) -> None:
        self.script: Any = default_script
        self.sim = Simulator(script=lambda request: self.script(request))


class World:
    """What a test sees of the provider, of the money and of the tools."""

    def __init__(self, stage: Stage, authority: LocalAuthority) -> None:
        self.stage = stage
        self.sim = stage.sim
        self.authority = authority
        self.tool_runs: list[str] = []
        self._lock = Lock()

    # --- makers

    def budget(self, amount: str | Amount = "1", scope: str = "tenant:acme", caps: Caps | None = None) -> None:
        allocated = usd(amount) if isinstance(amount, str) else amount
        rules = () if caps is None else (CapsRule(caps=caps),)
        self.authority.set_budget(BudgetSpec(scope=scope, allocated=allocated, caps=rules))

    def llm(self, model: str = MODEL, **options: Any) -> LLM:
        settings: dict[str, Any] = {"base_url": self.sim.base_url, "api_key": "sim", "max_tokens": 50}
        return LLM(model=f"openai/{model}", **{**settings, **options})

    def tool(self, name: str = "look_up", work: Callable[[str], str] | None = None, **options: Any) -> BaseTool:
        @tool(name, **options)
        def body(word: str) -> str:
            """Look a word up."""
            with self._lock:
                self.tool_runs.append(name)
            return work(word) if work else f"{word} is known"

        return body

    def agent(self, role: str = "Researcher", tools: list[Any] | None = None, **options: Any) -> Agent:
        settings: dict[str, Any] = {
            "goal": "find out",
            "backstory": "reads",
            "llm": options.pop("llm", None) or self.llm(),
        }
        return Agent(role=role, tools=tools or [], **{**settings, **options})

    def task(self, agent: Agent | None, name: str | None = "look", **options: Any) -> Task:
        return Task(description="find words", expected_output="words", agent=agent, name=name, **options)

    def crew(self, tools: list[Any] | None = None, *, tasks: int = 1, **options: Any) -> Crew:
        """One agent, some tasks."""
        agent = self.agent(tools=tools, **options.pop("agent", {}))
        made = [self.task(agent, f"task{n}", **options.get("task", {})) for n in range(1, tasks + 1)]
        options.pop("task", None)
        return Crew(agents=[agent], tasks=made, name="words", **options)

    def hierarchy(self, **options: Any) -> Crew:
        worker = self.agent("Worker", **options)
        manager = self.agent("Manager", allow_delegation=True)
        crew_task = self.task(None, "managed")
        return Crew(
            agents=[worker], tasks=[crew_task], manager_agent=manager, process=Process.hierarchical, name="managed"
        )

    def kickoff(self, crew: Any, subject: Subject = ACME, budget: Any = None, **options: Any) -> Any:
        return clearance_crewai.kickoff(crew, self.authority, subject, budget, **options)

    def run(self, subject: Subject = ACME, budget: Any = None, **options: Any) -> clearance_crewai.CrewRun:
        return clearance_crewai.run(self.authority, subject, budget, **options)

    # --- what the provider and the ledger say

    @property
    def requests(self) -> int:
        return self.sim.stats()["requests"]

    @property
    def billed(self) -> int:
        """Microcents, by the provider."""
        return self.sim.stats()["cost"]

    def spent(self, scope: str = "tenant:acme", unit: Unit = Unit.USD_MICROCENTS) -> int:
        return self.authority.balance(scope, unit).spent

    def reserved(self, scope: str = "tenant:acme", unit: Unit = Unit.USD_MICROCENTS) -> int:
        return self.authority.balance(scope, unit).reserved

    def reservations(self, **query: Any) -> list[Reservation]:
        return list(self.authority.reservations(ReservationQuery(**query), limit=200).items)

    def calls(self) -> list[Reservation]:
        """Without runs, oldest first."""
        found = [one for one in self.reservations() if one.kind == "call"]
        return sorted(found, key=lambda one: one.created_at_ms)

    def tool_calls(self) -> list[Reservation]:
        return [call for call in self.calls() if call.action["kind"] != "llm.completion"]

    def open(self) -> int:
        self.authority.flush()
        return sum(one.status == "ACTIVE" for one in self.reservations())

    def until(self, holds: Callable[[], bool], seconds: float = 5.0) -> None:
        deadline = time.monotonic() + seconds
        while not holds():
            assert time.monotonic() < deadline, "it did not come to hold"
            time.sleep(0.01)


def calls_then(answers: str, *calls: ToolCall) -> Callable[[ScriptedRequest], Reply]:
    """Asks for all the tools at once, then answers."""

    def script(request: ScriptedRequest) -> Reply:
        if request.tools and not any(message.role == "tool" for message in request.messages):
            return Reply(tool_calls=calls)
        return Reply(text=answers)

    return script

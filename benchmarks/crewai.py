"""What governing a crew adds to it. CrewAI has an environment of its own, so a process of that measures."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median
from time import monotonic, perf_counter
from typing import Any

from benchmarks.results import Goal, Row, Say, Section, at_most
from benchmarks.sizes import Sizes

HOW = (
    "A crew of one agent with CrewAI's own OpenAI provider, whose HTTP answers are made in this process: in each "
    "iteration the model calls a tool, in the last it answers. *Added* is what a governed run takes longer than the "
    "plain one of the same round, divided by its iterations (one model call and one tool call, both reserved and "
    "settled); *share* is that of a plain iteration. `memory` and `file` are embedded authorities, the file with the "
    "default durability; its commits wait until the disk has them."
)
ROOT = Path(__file__).parents[1]
PYTHON = ROOT / ".venvs" / "crewai" / "bin" / "python"
ITERATIONS = 20
SHARE_PERCENT = 3.0
GOAL = f"a crew's iteration takes at most {SHARE_PERCENT:g} % longer, `memory`"
PLAIN, MEMORY, FILE = "plain", "memory", "file, `settlements`"


def run(sizes: Sizes, say: Say) -> Section:
    section = Section("crewai", "CrewAI", HOW)
    if not PYTHON.exists():
        section.goals.append(Goal(GOAL, "not measured: no .venvs/crewai (make crewai)", None))
        return section
    say(f"crews of {ITERATIONS} iterations")
    seconds = sizes.seconds * sizes.rounds * 3
    quiet = {"CREWAI_DISABLE_TELEMETRY": "true", "OTEL_SDK_DISABLED": "true", "CREWAI_TRACING_ENABLED": "false"}
    with tempfile.TemporaryDirectory(prefix="clearance-bench-") as home:
        environment = {**os.environ, **quiet, "HOME": home, "CREWAI_STORAGE_DIR": home}
        command = [str(PYTHON), "-m", "benchmarks.crewai", str(seconds)]
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    walls: dict[str, list[float]] = json.loads(done.stdout.splitlines()[-1])
    section.rows.extend(_row(name, walls) for name in walls)
    share = section.row(MEMORY)
    assert share is not None, "every contestant has a row"
    figure = share["share of an iteration %"]
    assert isinstance(figure, float), "a share is a number"
    section.goals.append(at_most(GOAL, figure, SHARE_PERCENT, "%"))
    return section


def _row(name: str, walls: dict[str, list[float]]) -> Row:
    plain = median(walls[PLAIN])
    added = median(ours - its for ours, its in zip(walls[name], walls[PLAIN], strict=True))
    return {
        "crew": name,
        "rounds": len(walls[name]),
        "run ms": round(median(walls[name]) * 1e3, 1),
        "iteration ms": round(median(walls[name]) / ITERATIONS * 1e3, 3),
        "added us": round(added / ITERATIONS * 1e6, 1),
        "share of an iteration %": round(added / plain * 100, 2),
    }


# --- in CrewAI's environment


def measure(seconds: float) -> dict[str, list[float]]:
    """Seconds of each run, contestants taking turns; the first round is not kept."""
    sys.path[:0] = [str(ROOT / "core"), str(ROOT / "adapters")]
    walls: dict[str, list[float]] = {PLAIN: [], MEMORY: [], FILE: []}
    with ExitStack() as stack:
        place = stack.enter_context(tempfile.TemporaryDirectory(prefix="clearance-bench-"))
        contestants = {
            PLAIN: lambda crew: crew.kickoff(),
            MEMORY: stack.enter_context(_governed("memory://")),
            FILE: stack.enter_context(_governed(f"{place}/ledger.db")),
        }
        end, rounds = monotonic() + seconds, 0
        while monotonic() < end or rounds < 3:
            for name, kickoff in contestants.items():
                took = _timed(kickoff)
                if rounds:
                    walls[name].append(took)
            rounds += 1
    return walls


@contextmanager
def _governed(url: str) -> Iterator[Callable[[Any], Any]]:
    import clearance
    import clearance_crewai

    authority = clearance.connect(url)
    authority.set_budget(clearance.BudgetSpec(scope="tenant:acme", allocated=clearance.usd("1000")))
    acme = clearance.Subject(tenant="acme")
    costs = {"look_up": clearance.usd("0.001")}
    yield lambda crew: clearance_crewai.kickoff(crew, authority, acme, clearance.usd("1"), tool_costs=costs)
    authority.close()


def _timed(kickoff: Callable[[Any], Any]) -> float:
    crew = _crew()
    begun = perf_counter()
    kickoff(crew)
    return perf_counter() - begun


def _crew() -> Any:
    import httpx
    from crewai import LLM, Agent, Crew, Task
    from crewai.tools import tool
    from openai import OpenAI

    @tool
    def look_up(word: str) -> str:
        """Look a word up."""
        return f"{word} is known"

    http = httpx.Client(transport=httpx.MockTransport(_answers()))
    llm: Any = LLM(model="openai/gpt-4o-mini", api_key="none", max_tokens=50)
    llm._client = OpenAI(api_key="none", http_client=http)
    agent = Agent(role="Reader", goal="read", backstory="reads", llm=llm, tools=[look_up], max_iter=ITERATIONS * 2)
    return Crew(agents=[agent], tasks=[Task(description="read", expected_output="words", agent=agent)])


def _answers() -> Callable[[Any], Any]:
    import httpx

    asked = iter(range(1, ITERATIONS * 2))

    def answer(request: httpx.Request) -> httpx.Response:
        number = next(asked)
        call = {"name": "look_up", "arguments": json.dumps({"word": f"w{number}"})}
        message: dict[str, Any] = {"role": "assistant", "content": "done"}
        if number < ITERATIONS:
            message = {"role": "assistant", "content": None}
            message["tool_calls"] = [{"id": f"c{number}", "type": "function", "function": call}]
        choice = {"index": 0, "message": message, "finish_reason": "stop" if number == ITERATIONS else "tool_calls"}
        usage = {"prompt_tokens": 100, "completion_tokens": 10, "total_tokens": 110}
        facts = {"id": f"a{number}", "object": "chat.completion", "created": 0, "model": "gpt-4o-mini"}
        return httpx.Response(200, json={**facts, "choices": [choice], "usage": usage})

    return answer


if __name__ == "__main__":
    print(json.dumps(measure(float(sys.argv[1]))))

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
from statistics import median, quantiles
from time import monotonic, perf_counter
from typing import Any, NamedTuple

from benchmarks.results import Goal, Row, Say, Section, at_most
from benchmarks.sizes import Sizes

HOW = (
    "A crew of one agent with CrewAI's own OpenAI provider, whose HTTP answers are made in this process: in each "
    "iteration the model calls a tool, in the last it answers. *Added* is what a governed run takes longer than the "
    "plain one of the same round, divided by its iterations (one model call and one tool call, both reserved and "
    "settled); *share* is that of a plain iteration. *Its model call* is `LLM.call` with the same messages and tools, "
    "alone in an open run, *its tool call* what is left of the iteration. *Spread* is the distance between the "
    "quartiles of the rounds: the noise of one run. `memory` and `file` are embedded authorities, the file with the "
    "default durability; its commits wait until the disk has them."
)
ROOT = Path(__file__).parents[1]
PYTHON = ROOT / ".venvs" / "crewai" / "bin" / "python"
ITERATIONS = 20
SHARE_PERCENT = 3.0
GOAL = f"each %s takes at most {SHARE_PERCENT:g} %% of an iteration of a crew, `memory`"
PLAIN, MEMORY, FILE = "plain", "memory", "file, `settlements`"
CALLS = "%s: its model call"
TOOLS = "%s: its tool call"
KINDS = {"model call": CALLS, "tool call": TOOLS}


def run(sizes: Sizes, say: Say) -> Section:
    section = Section("crewai", "CrewAI", HOW)
    if not PYTHON.exists():
        section.goals += [Goal(GOAL % what, "not measured: no .venvs/crewai (make crewai)", None) for what in KINDS]
        return section
    say(f"crews of {ITERATIONS} iterations")
    seconds = sizes.seconds * sizes.rounds * 3
    quiet = {"CREWAI_DISABLE_TELEMETRY": "true", "OTEL_SDK_DISABLED": "true", "CREWAI_TRACING_ENABLED": "false"}
    with tempfile.TemporaryDirectory(prefix="clearance-bench-") as home:
        environment = {**os.environ, **quiet, "HOME": home, "CREWAI_STORAGE_DIR": home}
        command = [str(PYTHON), "-m", "benchmarks.crewai", str(seconds)]
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    walls: dict[str, list[float]] = json.loads(done.stdout.splitlines()[-1])
    section.rows += _rows(walls)
    section.goals += [_goal(section, what, name) for what, name in KINDS.items()]
    return section


def _goal(section: Section, what: str, name: str) -> Goal:
    row = section.row(name % MEMORY)
    figure = row["share of an iteration %"] if row is not None else None
    return at_most(GOAL % what, figure if isinstance(figure, float) else None, SHARE_PERCENT, "%")


def _rows(walls: dict[str, list[float]]) -> list[Row]:
    """`walls` in seconds of one iteration, or of one model call."""
    iteration = median(walls[PLAIN])
    rows = [_row(PLAIN, walls[PLAIN], 0.0, iteration)]
    for name in (MEMORY, FILE):
        added = _added(walls[name], walls[PLAIN])
        of_call = _added(walls[CALLS % name], walls[CALLS % PLAIN])
        rows.append(_row(name, walls[name], added, iteration))
        rows.append(_row(CALLS % name, walls[CALLS % name], of_call, iteration))
        rows.append(_row(TOOLS % name, None, added - of_call, iteration))
    return rows


def _added(ours: list[float], plain: list[float]) -> float:
    return median(one - other for one, other in zip(ours, plain, strict=True))


def _row(name: str, walls: list[float] | None, added: float, iteration: float) -> Row:
    quartiles = quantiles(walls, n=4) if walls else None
    return {
        "what": name,
        "rounds": len(walls) if walls else None,
        "ms": round(median(walls) * 1e3, 3) if walls else None,
        "a run's ms": round(median(walls) * ITERATIONS * 1e3, 1) if walls and "call" not in name else None,
        "added us": round(added * 1e6, 1),
        "share of an iteration %": round(added / iteration * 100, 2),
        "spread %": round((quartiles[2] - quartiles[0]) / iteration * 100, 2) if quartiles else None,
    }


# --- in CrewAI's environment


def measure(seconds: float) -> dict[str, list[float]]:
    """Seconds of an iteration and of a model call in each round, contestants taking turns; the first is not kept."""
    sys.path[:0] = [str(ROOT / "core"), str(ROOT / "adapters")]
    with ExitStack() as stack:
        place = stack.enter_context(tempfile.TemporaryDirectory(prefix="clearance-bench-"))
        memory = stack.enter_context(_ledger("memory://"))
        file = stack.enter_context(_ledger(f"{place}/ledger.db"))
        contestants: dict[str, Callable[[], float]] = {
            PLAIN: _iteration_of(lambda crew: crew.kickoff()),
            MEMORY: _iteration_of(memory.kickoff),
            FILE: _iteration_of(file.kickoff),
            CALLS % PLAIN: _model_call,
            CALLS % MEMORY: memory.model_call,
            CALLS % FILE: file.model_call,
        }
        walls: dict[str, list[float]] = {name: [] for name in contestants}
        end, rounds = monotonic() + seconds, 0
        while monotonic() < end or rounds < 3:
            for name, step in contestants.items():
                took = step()
                if rounds:
                    walls[name].append(took)
            rounds += 1
    return walls


class _Governed(NamedTuple):
    kickoff: Callable[[Any], Any]
    model_call: Callable[[], float]


@contextmanager
def _ledger(url: str) -> Iterator[_Governed]:
    import clearance
    import clearance_crewai

    authority = clearance.connect(url)
    authority.set_budget(clearance.BudgetSpec(scope="tenant:acme", allocated=clearance.usd("1000")))
    acme, dollar = clearance.Subject(tenant="acme"), clearance.usd("1")
    costs = {"look_up": clearance.usd("0.001")}

    def model_call() -> float:
        with clearance_crewai.run(authority, acme, dollar):
            return _model_call()

    yield _Governed(
        lambda crew: clearance_crewai.kickoff(crew, authority, acme, dollar, tool_costs=costs),
        model_call,
    )
    authority.close()


def _iteration_of(kickoff: Callable[[Any], Any]) -> Callable[[], float]:
    def timed() -> float:
        crew = _crew()
        begun = perf_counter()
        kickoff(crew)
        return (perf_counter() - begun) / ITERATIONS

    return timed


def _model_call() -> float:
    """As an agent's in the middle of its run: half of the history."""
    llm, call = _llm(), {"id": "c1", "type": "function", "function": {"name": "look_up", "arguments": "{}"}}
    turn = [
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c1", "content": "w1 is known"},
    ]
    function = {"name": "look_up", "description": "Look a word up.", "parameters": {"type": "object"}}
    tools = [{"type": "function", "function": function}]
    messages: Any = [{"role": "user", "content": "read " * 100}, *turn * (ITERATIONS // 2)]
    begun = perf_counter()
    for _ in range(ITERATIONS - 1):
        llm.call(messages, tools=tools)
    return (perf_counter() - begun) / (ITERATIONS - 1)


def _crew() -> Any:
    from crewai import Agent, Crew, Task
    from crewai.tools import tool

    @tool
    def look_up(word: str) -> str:
        """Look a word up."""
        return f"{word} is known"

    agent = Agent(role="Reader", goal="read", backstory="reads", llm=_llm(), tools=[look_up], max_iter=ITERATIONS * 2)
    return Crew(agents=[agent], tasks=[Task(description="read", expected_output="words", agent=agent)])


def _llm() -> Any:
    import httpx
    from crewai import LLM
    from openai import OpenAI

    llm: Any = LLM(model="openai/gpt-4o-mini", api_key="none", max_tokens=50)
    llm._client = OpenAI(api_key="none", http_client=httpx.Client(transport=httpx.MockTransport(_answers())))
    return llm


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

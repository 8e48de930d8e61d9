"""Clearance for CrewAI: a crew run with a budget, and every model and tool call inside it reserved before.

    import clearance_crewai

    result = clearance_crewai.kickoff(crew, authority, subject=Subject(tenant="acme"), budget=usd("2"))
    print(result.clearance.spent(), result.clearance.by("agent"))

`kickoff`, `akickoff`, `kickoff_for_each` and `akickoff_for_each` wrap CrewAI's own; `run` is a block for flows, agents
and several crews; `governed` decorates classes and functions. A denied tool tells its agent so and the crew goes on. A
denied model call ends the run: the typed error reaches the caller in one attempt, with what was completed
(`partial_of`).

Importing checks that this CrewAI can be governed at all; one that cannot is refused (`UnsupportedCrewAI`).
"""

from clearance_crewai.selfcheck import UnsupportedCrewAI, check

check()

from clearance_crewai.crewrun import CrewRun, current_crew_run  # noqa: E402
from clearance_crewai.decorating import governed  # noqa: E402
from clearance_crewai.embedders import guard_embedder  # noqa: E402
from clearance_crewai.errors import CallbackFailed, OutsideRun, Partial, RunEnded, partial_of  # noqa: E402
from clearance_crewai.gate import Options  # noqa: E402
from clearance_crewai.llms import guard_llm  # noqa: E402
from clearance_crewai.report import CrewLine, CrewReport  # noqa: E402
from clearance_crewai.starting import (  # noqa: E402
    akickoff,
    akickoff_for_each,
    kickoff,
    kickoff_for_each,
    run,
)

__all__ = [
    "CallbackFailed",
    "CrewLine",
    "CrewReport",
    "CrewRun",
    "Options",
    "OutsideRun",
    "Partial",
    "RunEnded",
    "UnsupportedCrewAI",
    "akickoff",
    "akickoff_for_each",
    "current_crew_run",
    "governed",
    "guard_embedder",
    "guard_llm",
    "kickoff",
    "kickoff_for_each",
    "partial_of",
    "run",
]

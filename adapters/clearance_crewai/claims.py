"""Which LLM objects belong to open runs. Called where no run is, they are refused: nobody would reserve the call.

A thread of a user's own inherits no run, and CrewAI calls no hook or sink of ours there.
"""

from __future__ import annotations

from collections.abc import Callable
from copy import copy
from threading import Lock
from typing import TYPE_CHECKING, Any

from crewai.llms.base_llm import BaseLLM

from clearance_crewai.errors import OutsideRun
from clearance_crewai.threads import started_in

if TYPE_CHECKING:
    from clearance_crewai.crewrun import CrewRun

MAX_LLMS = 10_000
"""LLM objects known of one run."""

STRICT = "_clearance_strict"
"""Set on LLMs that are governed for good."""

_NAMES = ("llm", "function_calling_llm", "manager_llm", "planning_llm", "chat_llm")
"""Where crews and agents have their LLMs."""


class Claims:
    """The LLM objects of one run, by identity: they are held, so that their ids stay their own."""

    def __init__(self) -> None:
        self._held: dict[int, Any] = {}

    def add(self, llm: Any) -> None:
        if len(self._held) < MAX_LLMS:
            self._held.setdefault(id(llm), llm)

    def __contains__(self, llm: object) -> bool:
        return id(llm) in self._held


_lock = Lock()
_open: dict[str, CrewRun] = {}


def opened(run: CrewRun) -> None:
    with _lock:
        _open[run.id] = run


def closed(run: CrewRun) -> None:
    with _lock:
        _open.pop(run.id, None)


def refuse_outside(llm: Any) -> None:
    """Told of a call that is made in no run. Raises OutsideRun where the LLM is a run's or is governed for good."""
    name = getattr(llm, "model", None) or type(llm).__name__
    if STRICT in getattr(llm, "__dict__", {}):
        raise OutsideRun(
            f"{name} is governed and was called where no run is: call it inside `with clearance_crewai.run(...):`, and "
            "bring a thread of your own into a run with run.carry(function)"
        )
    with _lock:
        runs = list(_open.values())
    owner = next((run for run in runs if llm in run.claims), None)
    if owner is not None:
        raise OutsideRun(
            f"{name} belongs to crew run {owner.id} and was called where no run is, perhaps in a thread of your own: "
            "bring it in with run.carry(function), where run is clearance_crewai.current_crew_run(); for work beside "
            "the run use another LLM object"
        )
    refuse_strayed(name)


def refuse_strayed(name: str) -> None:
    """Told of work that is begun. Raises OutsideRun in a thread that an open run's code has started by itself."""
    from clearance_crewai.crewrun import current_crew_run

    if current_crew_run() is not None:
        return
    run_id = started_in()
    with _lock:
        is_open = run_id in _open
    if is_open:
        raise OutsideRun(
            f"{name} was called in a thread or a context that crew run {run_id} has started and that is not in it: "
            "bring it in with run.carry(function), where run is clearance_crewai.current_crew_run()"
        )


def llms_of(crew: Any) -> list[BaseLLM]:
    """The LLM objects that a crew or an agent starts out with."""
    found = [vars(holder).get(name) for holder in _agents(crew) for name in _NAMES]
    return [llm for llm in found if isinstance(llm, BaseLLM)]


def give_own_llms(crew: Any, governing: Callable[[BaseLLM], BaseLLM]) -> None:
    """A crew or an agent gets copies of its LLMs, governed; other holders of the same objects are not touched."""
    for holder in _agents(crew):
        for name in _NAMES:
            llm = vars(holder).get(name)  # without a warning for what CrewAI deprecates
            if isinstance(llm, BaseLLM) and STRICT not in llm.__dict__:
                holder.__dict__[name] = governing(copy(llm))


def _agents(crew: Any) -> list[Any]:
    """The crew or agent itself, and the agents in it."""
    found = [crew, getattr(crew, "manager_agent", None), *(getattr(crew, "agents", None) or ())]
    return [one for one in found if hasattr(one, "__dict__")]

"""`governed`: classes whose objects start in runs, and functions that are runs."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from functools import partial, wraps
from typing import Any, TypeVar, Unpack, cast

from crewai import Agent, Crew, Task
from crewai.flow.flow import Flow

from clearance.authority.interface import Authority
from clearance.errors import InvalidRequest
from clearance.model.amount import AmountLike
from clearance.model.subject import Subject
from clearance_crewai.claims import give_own_llms
from clearance_crewai.crewrun import CrewRun, OnDenyRun, current_crew_run
from clearance_crewai.foreach import ForEach
from clearance_crewai.gate import Options
from clearance_crewai.landing import Start
from clearance_crewai.llms import guard_llm
from clearance_crewai.starting import astart_in, name_of, start_in

F = TypeVar("F", bound=Callable[..., Any])
Make = Callable[[str], CrewRun]

_KICKOFFS = ("kickoff", "kickoff_async", "akickoff")
_FOR_EACH = ("kickoff_for_each", "kickoff_for_each_async", "akickoff_for_each")
_OF_CREWS = (*_KICKOFFS, "train", "test", "replay")
_OF_FLOWS = (*_KICKOFFS, "resume", "resume_async")
_OF_AGENTS = (*_KICKOFFS, "message", "execute_task", "aexecute_task")
_OF_TASKS = ("execute_sync", "aexecute_sync")
_PARTS = ("is_agent", "is_task")
"""CrewAI's marks on the methods of a @CrewBase class that give agents and tasks."""

_DONE = "_clearance_governed"


def governed(
    authority: Authority,
    subject: Subject | None = None,
    budget: AmountLike | None = None,
    *,
    name: str | None = None,
    on_deny: OnDenyRun = "raise",
    **options: Unpack[Options],
) -> Callable[[F], F]:
    """A decorator: every start is a run of its own.

        @governed(authority, Subject(tenant="acme"), usd("2"))
        @CrewBase
        class Research: ...            # Research().crew().kickoff(), its async and for-each forms

        @governed(authority, Subject(tenant="acme"), usd("2"))
        class Triage(Flow): ...        # Triage().kickoff(), kickoff_async, akickoff, resume

    Of a crew also `train`, `test`, `replay` and copies, of its agents and tasks what starts them by themselves
    (`agent.kickoff`, `task.execute_sync`). They have LLM objects of their own, which are refused (OutsideRun) wherever
    else they are called: `agent.llm.call`, bare threads. Functions and coroutine functions run as a whole inside a run.

    With `on_deny="finish"` a start gives what there is, of the type of its own result: a crew its completed tasks, a
    flow what its last completed method gave, or None, an agent and a task an empty result. A function gives a
    CrewOutput.

    Raises InvalidRequest for generators and for classes that have nothing to start.
    """

    if inspect.isclass(authority) or inspect.isroutine(authority):
        problem = f"{getattr(authority, '__name__', 'it')} is decorated without arguments"
        raise InvalidRequest("governed", problem, "@governed(authority, subject, budget)")

    def make(default: str) -> CrewRun:
        return CrewRun(authority, subject, budget, name=name or default, on_deny=on_deny, **options)

    def decorate(thing: Any) -> Any:
        make("governed")  # says now what is wrong with the options
        if inspect.isclass(thing):
            return _governed_class(thing, make)
        if not callable(thing):
            raise InvalidRequest("governed", f"{type(thing).__name__} cannot be governed", "a class or a function")
        if inspect.isgeneratorfunction(thing) or inspect.isasyncgenfunction(thing):
            # Its body runs after the call has returned, so a run around the call would govern nothing.
            raise InvalidRequest("governed", f"{thing.__name__} is a generator", "a function that opens its own run")
        return _wrapped(thing, lambda *_: make(thing.__name__), [])

    return cast(Callable[[F], F], decorate)


def _governed_class(kind: Any, make: Make) -> Any:
    """In place: CrewAI finds classes by identity."""
    if hasattr(kind, "crew") and not hasattr(kind, "kickoff"):
        return _governed_crew_class(kind, make)
    if not issubclass(kind, Flow):
        raise InvalidRequest("governed", f"{kind.__name__} has nothing to start", "a @CrewBase class or a Flow")
    inside: list[CrewRun] = []
    for name in _OF_FLOWS:
        setattr(kind, name, _wrapped(getattr(kind, name), partial(_run_of, make, name), inside))
    return kind


def _governed_crew_class(kind: Any, make: Make) -> Any:
    """Its crews, and the agents and tasks that its methods give, whether or not they come to be in a crew."""
    parts = _Parts(make)
    for name, method in list(vars(kind).items()):
        if any(getattr(method, mark, False) for mark in _PARTS):
            # CrewAI's own kind of method around ours: it finds them by their marks when an object is made.
            setattr(kind, name, type(method)(_giving(method.unwrap(), parts.govern)))
    kind.crew = _giving(kind.crew, parts.govern)
    return kind


def _giving(method: Callable[..., Any], govern: Callable[[Any], Any]) -> Callable[..., Any]:
    """The method, with what it gives governed."""
    if inspect.iscoroutinefunction(method):

        @wraps(method)
        async def agive(*args: Any, **kwargs: Any) -> Any:
            return govern(await method(*args, **kwargs))

        return agive

    @wraps(method)
    def give(*args: Any, **kwargs: Any) -> Any:
        return govern(method(*args, **kwargs))

    return give


class _Parts:
    """Governs crews, agents and tasks of one class, once each: what starts inside a run of theirs is of that run."""

    def __init__(self, make: Make) -> None:
        self._make = make
        self._inside: list[CrewRun] = []

    def govern(self, thing: Any) -> Any:
        if _DONE in getattr(thing, "__dict__", {_DONE: True}):
            return thing
        if isinstance(thing, Crew):
            self._govern_crew(thing)
        elif isinstance(thing, Task):
            self._start_in_runs(thing, _OF_TASKS)
            self.govern(thing.agent)
        elif isinstance(thing, Agent):
            self._start_in_runs(thing, _OF_AGENTS)
        return thing

    def _govern_crew(self, crew: Crew) -> None:
        self._start_in_runs(crew, _OF_CREWS)
        for name in _FOR_EACH:
            _put(crew, name, self._for_each(crew, name))
        for part in (*crew.agents, crew.manager_agent, *crew.tasks):
            self.govern(part)

    def _start_in_runs(self, thing: Any, starts: Sequence[str]) -> None:
        _put(thing, _DONE, True)
        give_own_llms(thing, guard_llm)
        for name in (one for one in starts if hasattr(thing, one)):
            _put(thing, name, _wrapped(getattr(thing, name), partial(_run_of, self._make, name, thing), self._inside))
        _put(thing, "copy", _giving(thing.copy, self.govern))

    def _for_each(self, crew: Crew, name: str) -> Callable[..., Any]:
        start = getattr(crew, name)
        bound = inspect.signature(start)

        def run_of(*args: Any, **kwargs: Any) -> tuple[CrewRun, ForEach]:
            inputs = bound.bind(*args, **kwargs).arguments["inputs"]
            return self._make(name_of(crew)), ForEach(crew, inputs)

        if inspect.iscoroutinefunction(start):

            @wraps(start)
            async def astart(*args: Any, **kwargs: Any) -> Any:
                if _is_ours(self._inside):
                    return await start(*args, **kwargs)
                run, many = run_of(*args, **kwargs)
                with _Listed(self._inside, run):
                    return await astart_in(run, lambda: many.start(name, *args, **kwargs), [many])

            return astart

        @wraps(start)
        def plain_start(*args: Any, **kwargs: Any) -> Any:
            if _is_ours(self._inside):
                return start(*args, **kwargs)
            run, many = run_of(*args, **kwargs)
            with _Listed(self._inside, run):
                return start_in(run, lambda: many.start(name, *args, **kwargs), [many])

        return plain_start


def _run_of(make: Make, method: str, thing: Any, *_: Any) -> CrewRun:
    run = make(name_of(thing))
    run.start = Start(thing, method)
    return run


def _put(thing: Any, name: str, value: Any) -> None:
    """CrewAI's objects refuse attributes that are no fields."""
    object.__setattr__(thing, name, value)


def _wrapped(start: Callable[..., Any], run_of: Callable[..., CrewRun], inside: list[CrewRun]) -> Callable[..., Any]:
    """`start` in a run; what starts inside that run, such as `kickoff` called by `kickoff_async`, is of the same."""
    if inspect.iscoroutinefunction(start):

        @wraps(start)
        async def astart(*args: Any, **kwargs: Any) -> Any:
            if _is_ours(inside):
                return await start(*args, **kwargs)
            run = run_of(*args[:1])
            with _Listed(inside, run):
                return await astart_in(run, lambda: start(*args, **kwargs))

        return astart

    @wraps(start)
    def plain_start(*args: Any, **kwargs: Any) -> Any:
        if _is_ours(inside):
            return start(*args, **kwargs)
        run = run_of(*args[:1])
        with _Listed(inside, run):
            return start_in(run, lambda: start(*args, **kwargs))

    return plain_start


class _Listed:
    """A run, on the list of those that are under way."""

    def __init__(self, runs: list[CrewRun], run: CrewRun) -> None:
        self._runs, self._run = runs, run

    def __enter__(self) -> None:
        self._runs.append(self._run)

    def __exit__(self, *_: object) -> None:
        self._runs.remove(self._run)


def _is_ours(inside: Sequence[CrewRun]) -> bool:
    return current_crew_run() in inside

"""Wrapping a crew run: `kickoff` and its kin, the `run` block, and `governed` for classes and functions."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Sequence
from functools import wraps
from typing import Any, TypeVar, Unpack, cast

from crewai import Crew
from crewai.crews.crew_output import CrewOutput
from crewai.types.streaming import StreamingOutputBase, StreamSessionBase

from clearance.authority.interface import Authority
from clearance.errors import InvalidRequest
from clearance.model.amount import AmountLike
from clearance.model.subject import Subject
from clearance_crewai.crewrun import CrewRun, OnDenyRun, current_crew_run
from clearance_crewai.gate import Options
from clearance_crewai.report import CrewReport
from clearance_crewai.streams import Owner, owned

F = TypeVar("F", bound=Callable[..., Any])
_STARTS = ("kickoff", "kickoff_async", "akickoff", "kickoff_for_each", "kickoff_for_each_async", "akickoff_for_each")


def run(
    authority: Authority,
    subject: Subject | None = None,
    budget: AmountLike | None = None,
    *,
    name: str = "crew",
    on_deny: OnDenyRun = "raise",
    **options: Unpack[Options],
) -> CrewRun:
    """A block in which CrewAI's work is governed: crews, flows, agents and single LLM calls, in any number.

        with clearance_crewai.run(authority, Subject(tenant="acme"), usd("2")) as governed:
            crew.kickoff()
        print(governed.report().by("agent"))

    `async with` as well. A stream must be read inside the block: after it, it is refused with RunEnded.

    Args:
        subject: who acts; by default the one of `acting_as` or of the run around. Calls are made as its agent of the
            CrewAI agent's role, unless the subject names an agent or a toolset.
        budget: held at once, a slice of the enclosing run's if there is one. None carries identity only.
        on_deny: "raise" lets the typed denial leave the block, with `partial_of(error)`; "finish" ends the block in
            peace, and `denial` tells.
        options: see `Options`.

    Entering raises Denied, AuthorityUnavailable or InvalidRequest; then nothing has begun.
    """
    return CrewRun(authority, subject, budget, name=name, on_deny=on_deny, **options)


def kickoff(
    crew: Any,
    authority: Authority,
    subject: Subject | None = None,
    budget: AmountLike | None = None,
    *,
    inputs: dict[str, Any] | None = None,
    name: str | None = None,
    on_deny: OnDenyRun = "raise",
    input_files: Any = None,
    from_checkpoint: Any = None,
    **options: Unpack[Options],
) -> Any:
    """`crew.kickoff(inputs)` in a run of its own: CrewAI's result, with the CrewReport as `result.clearance`.

        result = clearance_crewai.kickoff(crew, authority, subject=Subject(tenant="acme"), budget=usd("2"))

    A crew with `stream=True` gives CrewAI's stream: the run lasts until it is read, closed or dropped. With
    `on_deny="finish"` a denied crew gives what it has completed (`result.clearance.denied` says why it is not all).

    Args:
        crew: a Crew, an object of a `@CrewBase` class, a Flow, or an Agent with the messages as `inputs`.
        subject, budget, on_deny, options: see `run`.
        inputs, input_files, from_checkpoint: for CrewAI.

    Raises what the crew raises; a typed `Denied` (see `partial_of`) when it was refused, after one attempt.
    """
    extra = _given(input_files=input_files, from_checkpoint=from_checkpoint)
    governed = CrewRun(authority, subject, budget, name=name or _name(crew), on_deny=on_deny, **options)
    return _start(governed, lambda: _startable(crew).kickoff(inputs, **extra))


async def akickoff(
    crew: Any,
    authority: Authority,
    subject: Subject | None = None,
    budget: AmountLike | None = None,
    *,
    inputs: dict[str, Any] | None = None,
    name: str | None = None,
    on_deny: OnDenyRun = "raise",
    input_files: Any = None,
    from_checkpoint: Any = None,
    **options: Unpack[Options],
) -> Any:
    """`kickoff` for async code. Cancelled, it spends nothing more: not even in the threads that CrewAI started."""
    extra = _given(input_files=input_files, from_checkpoint=from_checkpoint)
    governed = CrewRun(authority, subject, budget, name=name or _name(crew), on_deny=on_deny, **options)
    return await _astart(governed, lambda: _startable(crew).akickoff(inputs, **extra))


def kickoff_for_each(
    crew: Any,
    authority: Authority,
    subject: Subject | None = None,
    budget: AmountLike | None = None,
    *,
    inputs: list[dict[str, Any]],
    name: str | None = None,
    on_deny: OnDenyRun = "raise",
    **options: Unpack[Options],
) -> list[Any]:
    """`crew.kickoff_for_each(inputs)` in one run: one budget for all inputs, and a denial ends them all."""
    governed = CrewRun(authority, subject, budget, name=name or _name(crew), on_deny=on_deny, **options)
    results: list[Any] = _start(governed, lambda: _startable(crew).kickoff_for_each(inputs))
    return results


async def akickoff_for_each(
    crew: Any,
    authority: Authority,
    subject: Subject | None = None,
    budget: AmountLike | None = None,
    *,
    inputs: list[dict[str, Any]],
    name: str | None = None,
    on_deny: OnDenyRun = "raise",
    **options: Unpack[Options],
) -> Any:
    """`kickoff_for_each` with all inputs at a time. When one is denied, the others spend nothing more."""
    governed = CrewRun(authority, subject, budget, name=name or _name(crew), on_deny=on_deny, **options)
    return await _astart(governed, lambda: _startable(crew).akickoff_for_each(inputs))


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
        class Triage(Flow): ...        # Triage().kickoff(), kickoff_async, akickoff

    Functions and coroutine functions run as a whole inside a run; generators are refused. A crew's `copy`, `train` and
    `test`, and its agents and tasks used by themselves, are other doors: put them inside `run(...)`.
    """

    def make(default: str) -> CrewRun:
        return CrewRun(authority, subject, budget, name=name or default, on_deny=on_deny, **options)

    def decorate(thing: Any) -> Any:
        if inspect.isclass(thing):
            return _governed_class(thing, make)
        if not callable(thing):
            raise InvalidRequest("governed", f"{type(thing).__name__} cannot be governed", "a class or a function")
        if inspect.isgeneratorfunction(thing) or inspect.isasyncgenfunction(thing):
            # Its body runs after the call has returned, so a run around the call would govern nothing.
            raise InvalidRequest("governed", f"{thing.__name__} is a generator", "a function that opens its own run")
        return _wrapped(thing, lambda *_: make(thing.__name__), [])

    return cast(Callable[[F], F], decorate)


# --- one start


def _start(governed: CrewRun, start: Callable[[], Any]) -> Any:
    governed.begin()
    governed.step_in()
    try:
        result = start()
    except BaseException as error:
        failure: BaseException | None = error
        result = None
    else:
        failure = None
    finally:
        governed.step_out()
    if failure is None and (streams := _streams(result)):
        return _handed_over(governed, result, streams)
    governed.end()
    return _left(governed, result, failure)


async def _astart(governed: CrewRun, start: Callable[[], Awaitable[Any]]) -> Any:
    await governed.abegin()
    governed.step_in()
    try:
        result = await start()
    except BaseException as error:
        failure: BaseException | None = error
        result = None
    else:
        failure = None
    finally:
        governed.step_out()
    if failure is None and (streams := _streams(result)):
        return _handed_over(governed, result, streams)
    await governed.aend()
    return _left(governed, result, failure)


def _left(governed: CrewRun, result: Any, failure: BaseException | None) -> Any:
    out = governed.leaving(failure)
    if out is None:
        return _with_report(result, governed.report())
    if governed.on_deny == "finish" and out is governed.denial:
        return _with_report(_what_there_is(governed), governed.report())
    if out is failure:
        raise out
    raise out from None


def _what_there_is(governed: CrewRun) -> CrewOutput:
    """A result made of the tasks that were completed; the last one's answer is the answer."""
    outputs = list(governed.outputs)
    if not outputs:
        return CrewOutput()
    last = outputs[-1]
    return CrewOutput(raw=last.raw, pydantic=last.pydantic, json_dict=last.json_dict, tasks_output=outputs)


def _with_report(result: Any, report: CrewReport) -> Any:
    """On CrewAI's own object, as an attribute that is no field: dumps and comparisons do not see it."""
    for one in result if isinstance(result, list) else [result]:
        if hasattr(one, "__dict__"):
            object.__setattr__(one, "clearance", report)
    return result


# --- streams


def _streams(result: Any) -> list[Any]:
    found = result if isinstance(result, list) else [result]
    return [one for one in found if isinstance(one, StreamingOutputBase | StreamSessionBase)]


def _handed_over(governed: CrewRun, result: Any, streams: Sequence[Any]) -> Any:
    def finished(output: Any) -> Any:
        return _with_report(_what_there_is(governed) if output is None else output, governed.report())

    owner = Owner(governed, len(streams), finished)
    made = [owned(stream, owner) for stream in streams]
    return made if isinstance(result, list) else made[0]


# --- classes and functions


def _governed_class(kind: Any, make: Callable[[str], CrewRun]) -> Any:
    """In place: CrewAI finds classes by identity. A `@CrewBase` class gives crews that start in runs."""
    if hasattr(kind, "crew") and not hasattr(kind, "kickoff"):
        plain = kind.crew

        @wraps(plain)
        def crew(self: Any, *args: Any, **kwargs: Any) -> Any:
            return _governed_crew(plain(self, *args, **kwargs), make)

        kind.crew = crew
        return kind
    starts = [name for name in _STARTS if hasattr(kind, name)]
    if not starts:
        raise InvalidRequest("governed", f"{kind.__name__} has nothing to start", "a @CrewBase class or a Flow")
    inside: list[CrewRun] = []
    for name in starts:
        setattr(kind, name, _wrapped(getattr(kind, name), lambda self: make(_name(self)), inside))
    return kind


def _governed_crew(crew: Any, make: Callable[[str], CrewRun]) -> Any:
    inside: list[CrewRun] = []
    for name in _STARTS:
        if "__wrapped__" not in getattr(getattr(crew, name), "__dict__", {}):
            start = _wrapped(getattr(crew, name), lambda *_: make(_name(crew)), inside)
            object.__setattr__(crew, name, start)  # a Crew refuses attributes that are no fields
    return crew


def _wrapped(start: Callable[..., Any], run_of: Callable[..., CrewRun], inside: list[CrewRun]) -> Callable[..., Any]:
    """`start` in a run; what starts inside that run, such as `kickoff` called by `kickoff_async`, is of the same."""
    if inspect.iscoroutinefunction(start):

        @wraps(start)
        async def astart(*args: Any, **kwargs: Any) -> Any:
            if _is_ours(inside):
                return await start(*args, **kwargs)
            governed = run_of(*args[:1])
            inside.append(governed)
            try:
                return await _astart(governed, lambda: start(*args, **kwargs))
            finally:
                inside.remove(governed)

        return astart

    @wraps(start)
    def plain_start(*args: Any, **kwargs: Any) -> Any:
        if _is_ours(inside):
            return start(*args, **kwargs)
        governed = run_of(*args[:1])
        inside.append(governed)
        try:
            return _start(governed, lambda: start(*args, **kwargs))
        finally:
            inside.remove(governed)

    return plain_start


def _is_ours(inside: Sequence[CrewRun]) -> bool:
    return current_crew_run() in inside


def _startable(crew: Any) -> Any:
    if hasattr(crew, "kickoff"):
        return crew
    if hasattr(crew, "crew"):
        return crew.crew()
    raise InvalidRequest(
        "crew", f"{type(crew).__name__} cannot be started", "a Crew, a Flow, an Agent, a @CrewBase object"
    )


def _name(crew: Any) -> str:
    named = getattr(crew, "name", None)
    return str(named) if isinstance(crew, Crew) and named else str(named or type(crew).__name__)


def _given(**arguments: Any) -> dict[str, Any]:
    return {name: value for name, value in arguments.items() if value is not None}

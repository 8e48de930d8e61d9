"""Wrapping a crew run: `kickoff` and its kin, and the `run` block."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Unpack

from crewai import Crew
from crewai.agents.agent_builder.base_agent import BaseAgent
from crewai.types.streaming import StreamingOutputBase, StreamSessionBase
from crewai.utilities.agent_utils import is_inside_event_loop

from clearance.authority.interface import Authority
from clearance.errors import InvalidRequest
from clearance.model.amount import AmountLike
from clearance.model.subject import Subject
from clearance_crewai.checking import check_each, check_input, check_inputs, check_startable, check_tools
from clearance_crewai.claims import llms_of
from clearance_crewai.crewrun import CrewRun, OnDenyRun
from clearance_crewai.foreach import ForEach
from clearance_crewai.gate import Options
from clearance_crewai.landing import Start, result_of
from clearance_crewai.report import CrewReport
from clearance_crewai.streams import Owner, owned

Inputs = Mapping[str, Any] | str | list[Any] | None


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
    inputs: Inputs = None,
    name: str | None = None,
    on_deny: OnDenyRun = "raise",
    input_files: Any = None,
    from_checkpoint: Any = None,
    **options: Unpack[Options],
) -> Any:
    """`crew.kickoff(inputs)` in a run of its own: CrewAI's result, with the CrewReport as `result.clearance`.

        result = clearance_crewai.kickoff(crew, authority, subject=Subject(tenant="acme"), budget=usd("2"))

    A crew with `stream=True` gives CrewAI's stream: the run lasts until it is read, closed or dropped. With
    `on_deny="finish"` a denied crew gives what it has completed (`result.clearance.denied` says why it is not all), a
    denied agent an empty LiteAgentOutput, and a denied flow what the last method that it has completed gave, or None.

    A flow's result may be text, a dict or None, which cannot carry a report: start it in a block, where `denial` and
    `report()` tell.

    Args:
        crew: a Crew, an object of a `@CrewBase` class, a Flow, or an Agent with the messages as `inputs`.
        subject, budget, on_deny, options: see `run`.
        inputs, input_files, from_checkpoint: for CrewAI.

    Raises what the crew raises; a typed `Denied` (see `partial_of`) when it was refused, after one attempt. For an
    Agent in a running event loop it gives a coroutine, as CrewAI's own does.
    """
    extra = _given(input_files=input_files, from_checkpoint=from_checkpoint)
    governed = _made(crew, authority, subject, budget, name, on_deny, options)
    check_input(crew, inputs)
    if isinstance(crew, BaseAgent) and is_inside_event_loop():
        # What CrewAI's own gives there is a coroutine, which would run after its run.
        return astart_in(governed, lambda: _ready(crew, governed).akickoff(inputs, **extra))
    return start_in(governed, lambda: _ready(crew, governed).kickoff(inputs, **extra))


async def akickoff(
    crew: Any,
    authority: Authority,
    subject: Subject | None = None,
    budget: AmountLike | None = None,
    *,
    inputs: Inputs = None,
    name: str | None = None,
    on_deny: OnDenyRun = "raise",
    input_files: Any = None,
    from_checkpoint: Any = None,
    **options: Unpack[Options],
) -> Any:
    """`kickoff` for async code. Cancelled, it spends nothing more: not even in the threads that CrewAI started."""
    extra = _given(input_files=input_files, from_checkpoint=from_checkpoint)
    governed = _made(crew, authority, subject, budget, name, on_deny, options)
    check_input(crew, inputs)
    return await astart_in(governed, lambda: _ready(crew, governed).akickoff(inputs, **extra))


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
    """`crew.kickoff_for_each(inputs)` in one run: one budget for all inputs, and a denial ends them all.

    With `on_deny="finish"` there is a result for each input all the same: whole, of the tasks that were completed, or
    empty.
    """
    check_each(crew)
    check_inputs(inputs)
    governed = _made(crew, authority, subject, budget, name, on_deny, options)
    many: list[ForEach] = []

    def start() -> Any:
        many.append(ForEach(_ready(crew, governed), inputs))
        return many[0].start("kickoff_for_each", inputs)

    results: list[Any] = start_in(governed, start, many)
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
    check_each(crew)
    check_inputs(inputs)
    governed = _made(crew, authority, subject, budget, name, on_deny, options)
    many: list[ForEach] = []

    async def start() -> Any:
        many.append(ForEach(_ready(crew, governed), inputs))
        return await many[0].start("akickoff_for_each", inputs)

    return await astart_in(governed, start, many)


# --- one start


def start_in(governed: CrewRun, start: Callable[[], Any], many: Sequence[ForEach] = ()) -> Any:
    """What `start` gives, in the run. `many` holds, from its start on, what starts a crew for each of many inputs."""
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
        return _handed_over(governed, result, streams, many)
    if governed.start is None and inspect.iscoroutine(result):
        result.close()
        problem = "it is a plain function and gave a coroutine, which would run after its run"
        failure = InvalidRequest("governed", problem, "an async def function")
    governed.end()
    return _left(governed, result, failure, many)


async def astart_in(governed: CrewRun, start: Callable[[], Awaitable[Any]], many: Sequence[ForEach] = ()) -> Any:
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
        return _handed_over(governed, result, streams, many)
    await governed.aend()
    return _left(governed, result, failure, many)


def _left(governed: CrewRun, result: Any, failure: BaseException | None, many: Sequence[ForEach]) -> Any:
    out = governed.leaving(failure)
    if out is None:
        return _with_report(result, governed.report())
    if governed.on_deny == "finish" and out is governed.denial:
        return _with_report(_what_there_is(governed, many), governed.report())
    if out is failure:
        raise out
    raise out from None


def _what_there_is(governed: CrewRun, many: Sequence[ForEach]) -> Any:
    outputs = list(governed.outputs)
    return many[0].results(outputs) if many else result_of(outputs, governed.start)


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


def _handed_over(governed: CrewRun, result: Any, streams: Sequence[Any], many: Sequence[ForEach]) -> Any:
    def finished(output: Any) -> Any:
        return _with_report(output, governed.report())

    def lacking(number: int) -> Callable[[], Any]:
        if many and isinstance(result, list):  # a stream for each input
            return lambda: many[0].result(number, governed.outputs)
        return lambda: _what_there_is(governed, many)

    owner = Owner(governed, len(streams), finished)
    made = [owned(stream, owner, lacking(number)) for number, stream in enumerate(streams)]
    return made if isinstance(result, list) else made[0]


# --- what is started


def _made(
    crew: Any,
    authority: Authority,
    subject: Subject | None,
    budget: AmountLike | None,
    name: str | None,
    on_deny: OnDenyRun,
    options: Options,
) -> CrewRun:
    """A run for this crew. Raises InvalidRequest for what cannot be right, before anything begins."""
    check_startable(crew)
    governed = CrewRun(
        authority, subject, budget, name=name_of(crew) if name is None else name, on_deny=on_deny, **options
    )
    governed.start = Start(crew, "kickoff")
    if hasattr(crew, "kickoff"):
        check_tools(crew, governed.gate.named_tools())
    return governed


def _ready(crew: Any, governed: CrewRun) -> Any:
    """What has `kickoff`, now inside the run; the crew of a @CrewBase object is built there."""
    if hasattr(crew, "kickoff"):
        built = crew
    else:
        built = crew.crew()
        check_tools(built, governed.gate.named_tools())
    governed.claim(llms_of(built))
    return built


def name_of(crew: Any) -> str:
    named = getattr(crew, "name", None)
    return str(named) if isinstance(crew, Crew) and named else str(named or type(crew).__name__)


def _given(**arguments: Any) -> dict[str, Any]:
    return {name: value for name, value in arguments.items() if value is not None}

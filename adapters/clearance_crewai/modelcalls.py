"""The model calls of a run that have begun and not ended, keyed by CrewAI's call id; each is settled once."""

from __future__ import annotations

import asyncio
import logging
from asyncio.events import _get_running_loop
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from threading import get_ident
from typing import TYPE_CHECKING, Any

from crewai.hooks.dispatch import HookAborted
from crewai.llms.base_llm import LLMCallBlockedError, _current_call_id

from clearance.errors import AuthorityUnavailable, ClearanceError
from clearance.guard import Permit
from clearance.guard.outcome import Commit, Outcome, Release
from clearance.pricing import Usage
from clearance_crewai.errors import Refusal
from clearance_crewai.gate import Call, Who
from clearance_crewai.llms import Guarded, passing_on
from clearance_crewai.report import CrewLine
from clearance_crewai.usage import Asked, used

if TYPE_CHECKING:
    from clearance_crewai.crewrun import CrewRun

log = logging.getLogger("clearance.crewai")

_MAX_CAUSES = 10


class EndUnknown(Exception):
    """Stands for the end of a call of which CrewAI has told nothing: the estimate is charged."""


@dataclass(slots=True)
class OpenCall:
    """One model call under way. `thread` and `task` are where it was made, `functions` what the model may call.

    `asker` is the call of an LLM of the user's own that passes it on.
    """

    call: Call
    permit: Permit
    thread: int
    functions: Mapping[str, Any] = field(default_factory=dict)
    task: asyncio.Task[Any] | None = None
    on_task_end: Any = None
    usage: Usage | None = None
    reported: Mapping[str, Any] | None = None
    body_failed: bool = False
    asker: Guarded | None = None


class ModelCalls:
    """Thread-safe: each call belongs to one thread or task, and whoever takes it out settles it."""

    def __init__(self, run: CrewRun) -> None:
        self._run = run
        self.open: dict[str, OpenCall] = {}

    # --- beginning

    def begin(
        self,
        call_id: str,
        asked: Asked,
        who: Who,
        *,
        can_cap: bool = False,
        can_swap: bool = False,
        functions: Mapping[str, Any] | None = None,
    ) -> ClearanceError | None:
        """Reserve one call. Answers the error that it is refused with, or None. Raises interruptions only."""
        asker = None if asked.embedding else passing_on()
        refused = self._run.refusal()
        try:
            if refused is None:
                call = self._run.gate.model_call(asked, who)
                permit, call = self._run.gate.open(call, self._run.core, can_cap=can_cap, can_swap=can_swap)
                self._began(call_id, OpenCall(call, permit, get_ident(), functions or {}, asker=asker))
        except ClearanceError as error:
            self._run.deny(error)
            refused = error
        except Exception as error:  # a fault of ours must not let a call through
            log.exception("a model call could not be reserved")
            refused = AuthorityUnavailable(f"the call could not be reserved ({type(error).__name__}); see the log")
        if refused is not None and asker is not None:
            asker.passed_on(refused)
        return refused

    def _began(self, call_id: str, opened: OpenCall) -> None:
        self.open[call_id] = opened
        loop = _get_running_loop()
        task = asyncio.current_task(loop) if loop is not None else None
        if task is not None:
            opened.task, opened.on_task_end = task, partial(self._task_ended, call_id)
            task.add_done_callback(opened.on_task_end)

    # --- what becomes known on the way

    def get(self, call_id: str | None) -> OpenCall | None:
        return None if call_id is None else self.open.get(call_id)

    def note(self, call_id: str | None, reported: Mapping[str, Any] | None) -> None:
        """The provider's usage, which may come before, with or without the end. Never raises."""
        opened = self.get(call_id)
        if opened is None or reported == opened.reported:
            return  # CrewAI tells most usage twice
        opened.reported = reported
        try:
            usage = used(reported)
            cost = None if usage is None else self._run.gate.cost(opened.call, usage)
            if usage is not None and cost is not None:
                opened.usage = usage
                opened.permit.settle(cost)
                _warn_above_cap(opened, usage)
        except Exception as error:
            log.error("usage of %s was not understood (%s)", opened.permit.id, type(error).__name__)

    def function(self, name: str) -> Any:
        """What the model calls by this name, in the call that is being made here; None where nobody knows."""
        opened = self.get(_current_call_id.get())
        return None if opened is None else opened.functions.get(name)

    def body_failed(self) -> None:
        """A function that the model has called, in the call that is being made here, has failed."""
        opened = self.get(_current_call_id.get())
        if opened is not None:
            opened.body_failed = True

    # --- ends

    def end(self, call_id: str | None, error: BaseException | None = None, *, idle: bool = False) -> None:
        """Settle a call; None is success, `idle` that others have worked for it. Only the first end counts."""
        opened = self.open.pop(call_id, None) if call_id is not None else None
        if opened is not None:
            passed_on = idle and not opened.reported
            self._finish(opened, Release("another model is asked") if passed_on else _outcome(opened, error))

    def left_here(self) -> None:
        """The stack of this thread is unwound: a call of its own cannot go on, whatever ended it."""
        here, task = get_ident(), _current_task()
        for call_id, opened in list(self.open.items()):
            if opened.thread == here and (opened.task is None or opened.task is task or opened.task.done()):
                self.end(call_id, EndUnknown())

    def left_all(self) -> None:
        for call_id in list(self.open):
            self.end(call_id, EndUnknown())

    def _task_ended(self, call_id: str, task: asyncio.Task[Any]) -> None:
        """A cancelled `acall` ends without any event; its task does not."""
        self.end(call_id, asyncio.CancelledError() if task.cancelled() else EndUnknown())

    def _finish(self, opened: OpenCall, outcome: Outcome) -> None:
        if opened.task is not None:
            opened.task.remove_done_callback(opened.on_task_end)
        opened.permit.finish(outcome)
        if isinstance(outcome, Commit):
            self._run.ledger.add(_line(opened, outcome))
            if opened.asker is not None:
                opened.asker.passed_on()
        with self._run.idle:
            self._run.idle.notify_all()


def _outcome(opened: OpenCall, error: BaseException | None) -> Outcome:
    if isinstance(error, LLMCallBlockedError) or (isinstance(error, HookAborted) and not isinstance(error, Refusal)):
        return Release("another hook has stopped it")  # hooks come before the request
    return opened.permit.outcome_of(None if error is None else _of_provider(error))


def _of_provider(error: BaseException) -> BaseException:
    """CrewAI wraps what the provider's client has raised; the status is on the inner one."""
    found: BaseException | None = error
    for _ in range(_MAX_CAUSES):
        if found is None:
            break
        if isinstance(getattr(found, "status_code", None), int):
            return found
        found = found.__cause__
    return error


def _line(opened: OpenCall, outcome: Commit) -> CrewLine:
    call, usage = opened.call, opened.usage
    return CrewLine(
        agent=call.who.agent,
        task=call.who.task,
        kind=call.action.kind,
        model=call.action.name,
        tool="",
        unit=opened.permit.estimate.unit,
        calls=1,
        input_tokens=usage.input_tokens if usage else 0,
        output_tokens=usage.output_tokens if usage else 0,
        estimate=opened.permit.estimate.amount,
        actual=outcome.amount.amount,
    )


def _warn_above_cap(opened: OpenCall, usage: Usage) -> None:
    cap = None if opened.permit.caps is None else opened.permit.caps.max_tokens
    if cap is not None and opened.call.asked is not None and usage.output_tokens > cap * opened.call.asked.n:
        log.warning("%s was capped to %d tokens of output and made %d", opened.permit.id, cap, usage.output_tokens)


def _current_task() -> asyncio.Task[Any] | None:
    loop = _get_running_loop()
    return asyncio.current_task(loop) if loop is not None else None

"""Clearance's errors as CrewAI must see them, so that it neither swallows a denial nor tries it again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, cast

from crewai.hooks.dispatch import HookAborted
from crewai.tasks.task_output import TaskOutput

from clearance.errors import ClearanceError, Denied, SubjectMissing

if TYPE_CHECKING:
    from clearance_crewai.report import CrewReport

NEUTRAL = "the authority refused this"
"""CrewAI reads texts: "rate limit" in a reason would be tried again, "too many tokens" answered with a compaction."""


class RunEnded(Denied):
    """The run that this call belongs to is over: it returned, was cancelled, or its stream was given up."""

    code = "RUN_ENDED"


class CallbackFailed(Denied):
    """A function of yours, given as an option, has raised. The call that asked it is denied, and nothing ran.

    `details` carries `callback` (the option), `error` (the type's name) and `at` (file:line); not the error's text,
    which may hold anything.
    """

    code = "CALLBACK_FAILED"


class OutsideRun(SubjectMissing, HookAborted):
    """Called where no run is: a governed LLM, or anything in a thread that a run has started. Nothing was sent."""

    source: Any = "clearance"  # as HookAborted tells it

    @property
    def reason_code(self) -> str:
        return self.code


class Refusal(HookAborted):
    """Marks an error of ours inside CrewAI. `original` is the error that leaves the run."""

    original: ClearanceError


class _Why(Exception):
    """The cause of every refusal, so that CrewAI, which follows causes, does not walk into an error around it."""


WHY = NEUTRAL


def refusing(error: ClearanceError) -> tuple[Refusal, Exception]:
    """A fresh error of the same kind with a text that says nothing, and its cause: `raise a from b`.

    Fresh, because several threads may raise it at a time.
    """
    kind = _fitted(type(error))
    made: Any = kind.__new__(kind, NEUTRAL)
    made.args = (NEUTRAL,)
    made.__dict__.update(error.__dict__)
    made.reason, made.source, made.original = NEUTRAL, "clearance", error
    return made, _Why(NEUTRAL)


_made: dict[type[ClearanceError], type[Refusal]] = {}
"""One class for each kind, so that `except BudgetExceeded` works inside a run as well."""


def _fitted(kind: type[ClearanceError]) -> type[Refusal]:
    if kind not in _made:
        body: dict[str, Any] = {
            "__module__": kind.__module__,
            "__doc__": kind.__doc__,
            "__str__": lambda self: NEUTRAL,
            "__reduce__": _reduced,
            "reason_code": property(lambda self: self.original.reason_code),  # `reason` is HookAborted's here
        }
        _made.setdefault(kind, cast(type[Refusal], type(kind.__name__, (kind, Refusal), body)))
    return _made[kind]


def _reduced(refusal: Refusal) -> tuple[Any, ...]:
    """A class made at run time cannot be found by name: pickle what it stands for."""
    return _refused, (refusal.original,)


def _refused(original: ClearanceError) -> Refusal:
    return refusing(original)[0]


@dataclass(frozen=True, slots=True)
class Partial:
    """What there is of a run that was refused: the outputs of its completed tasks, and what it used.

    The report's `denied` is None here: the error that carries it is the denial.
    """

    outputs: tuple[TaskOutput, ...]
    report: CrewReport


def attach(error: ClearanceError, outputs: Sequence[TaskOutput], report: CrewReport) -> ClearanceError:
    error.__dict__["partial"] = Partial(tuple(outputs), replace(report, denied=None))  # a ring cannot be pickled
    return error


def partial_of(error: BaseException) -> Partial | None:
    """The completed outputs and the report that came with a denial out of a run; None for other errors."""
    found = error.__dict__.get("partial")
    return found if isinstance(found, Partial) else None

"""Who acts and in which run: found through one ContextVar, so threads, tasks and sub-agents inherit it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar, Token
from typing import TYPE_CHECKING, NamedTuple

from clearance.authority.interface import Authority
from clearance.errors import InvalidRequest, SubjectMissing
from clearance.model.subject import LEVELS, Subject

if TYPE_CHECKING:
    from clearance.guard.permit import Permit
    from clearance.guard.run import Run


class Frame(NamedTuple):
    """A run that was entered, or a subject that was named; `outer` is what was in force before."""

    run: Run | None
    subject: Subject | None
    outer: Frame | None


_frame: ContextVar[Frame | None] = ContextVar("clearance_frame", default=None)
permit_in_force: ContextVar[Permit | None] = ContextVar("clearance_permit", default=None)


def push(run: Run | None, subject: Subject | None) -> Token[Frame | None]:
    return _frame.set(Frame(run, subject, _frame.get()))


def pop(token: Token[Frame | None]) -> None:
    with suppress(ValueError):  # entered in another task or thread; there the run is over, which is all that counts
        _frame.reset(token)


@contextmanager
def acting_as(subject: Subject) -> Iterator[Subject]:
    """Guards inside act as `subject` unless they name another one."""
    if not isinstance(subject, Subject):
        raise InvalidRequest("subject", f"{type(subject).__name__} is not a subject", "a Subject")
    token = push(None, subject)
    try:
        yield subject
    finally:
        pop(token)


def current_run(authority: Authority | None = None) -> Run | None:
    """The innermost run that is not over, of this authority if one is given."""
    frame = _frame.get()
    while frame is not None:
        run = frame.run
        if run is not None and not run.over and (authority is None or run.authority is authority):
            return run
        frame = frame.outer
    return None


def current_subject() -> Subject | None:
    """The subject of the innermost `acting_as` or open run."""
    frame = _frame.get()
    while frame is not None:
        if frame.subject is not None:
            return frame.subject
        if frame.run is not None and not frame.run.over:
            return frame.run.subject
        frame = frame.outer
    return None


def current_permit() -> Permit | None:
    """The permit of the guarded function that is running, for `current_permit().settle(...)` in its body."""
    return permit_in_force.get()


def acting_subject(explicit: Subject | None, run: Run | None, named_run: bool = False) -> Subject:
    """Who acts: the explicit subject, else the one in force, else the run's.

    `named_run` says that the run was given explicitly; its subject then goes before the one in force. A subject
    without a tenant takes the levels that it lacks from the run's subject. Raises SubjectMissing when nobody is
    named, InvalidRequest when the subject belongs to another tenant than the run.
    """
    subject = explicit
    if subject is None and run is not None and named_run:
        subject = run.subject
    if subject is None:
        subject = current_subject() or (run.subject if run is not None else None)
    if subject is None:
        raise SubjectMissing("nobody said who acts: give subject=, or use acting_as(...) or run(...)")
    if not isinstance(subject, Subject):
        raise InvalidRequest("subject", f"{type(subject).__name__} is not a subject", "a Subject")
    return subject if run is None else _within(subject, run.subject)


def _within(subject: Subject, outer: Subject) -> Subject:
    if subject is outer:
        return subject
    if subject.tenant is None and outer.tenant is not None:
        return subject.narrowed(**{level: getattr(outer, level) for level in LEVELS})
    if subject.tenant_key != outer.tenant_key:
        raise InvalidRequest(
            "subject", f"{subject.scope_path} is of another tenant than the run", f"tenant {outer.tenant_key}"
        )
    return subject

"""`authority.guard(...)`: one object that is a with block, an async with block and a decorator."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache
from inspect import Parameter, signature
from threading import Lock
from types import TracebackType
from typing import Any, TypeVar

from clearance.authority.interface import Authority
from clearance.errors import ClearanceError, InvalidRequest
from clearance.guard.admission import Terms, Wish, admitting, wish
from clearance.guard.decorating import guarded
from clearance.guard.denial import OnDeny, check_on_deny
from clearance.guard.outcome import of_another_call
from clearance.guard.permit import Permit
from clearance.guard.run import Run
from clearance.guard.steps import Steps, aperform, perform
from clearance.model.action import Action
from clearance.model.action import action as parse_action
from clearance.model.amount import AmountLike, to_amount
from clearance.model.subject import Subject

F = TypeVar("F", bound="Callable[..., Any] | classmethod[Any, Any, Any] | staticmethod[Any, Any]")
log = logging.getLogger("clearance.guard")

_action_of = lru_cache(maxsize=1024)(parse_action)


ActionLike = Action | str | Callable[..., Action | str]
EstimateLike = AmountLike | Callable[..., AmountLike]
ActualLike = AmountLike | Callable[..., AmountLike] | None
SubjectLike = Subject | Callable[..., Subject] | None
ApproverLike = str | Callable[..., str | None] | None


class Guard:
    """Reserves before the work, settles after it, and lets nothing happen when denied.

    As a decorator it can be used any number of times, at the same time; each call has its own permit. As a with block
    it can be used again, but not twice at a time.
    """

    def __init__(
        self,
        authority: Authority,
        action: ActionLike,
        estimate: EstimateLike,
        *,
        actual: ActualLike,
        subject: SubjectLike,
        run: Run | None,
        on_deny: OnDeny,
        terms: Terms,
        approved_by: ApproverLike = None,
    ) -> None:
        self.authority = authority
        self.on_deny = on_deny
        self._action = _action_of(action) if isinstance(action, str) else action
        self._estimate = estimate if callable(estimate) else to_amount(estimate, "estimate")
        self._actual = actual if actual is None or callable(actual) else to_amount(actual, "actual")
        self._subject = subject
        self._run = run
        self._approver = approved_by if callable(approved_by) else None
        self._terms = terms if approved_by is None or callable(approved_by) else replace(terms, approved_by=approved_by)
        self._actual_takes_permit = _takes_permit(actual)
        self._turn = Lock()
        self._permit: Permit | None = None
        check_on_deny(on_deny)

    def __call__(self, fn: F) -> F:
        """Guard a function, coroutine, generator, async generator, class method, static method or method."""
        return guarded(self, fn)

    # --- what with blocks and wrappers share

    def admitting(self, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None) -> Steps[Permit]:
        """The steps to a permit for one call with these arguments."""
        try:
            wanted = self._wish(args, kwargs or {})
        except ClearanceError as error:
            of_another_call(error)
            raise
        return (yield from admitting(wanted))

    def note_actual(self, permit: Permit, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None) -> None:
        """The work succeeded: take down what it cost. Never raises; without an amount the estimate is charged.

        What the work itself has told `permit.settle` goes before `actual=`. A callable `actual` is called with `args`
        (the result, then the call's arguments; nothing for a with block), and with the permit if it takes `permit`.
        """
        if self._actual is None or permit.actual is not None:
            return
        try:
            permit.settle(self._measured(permit, args, kwargs or {}))
        except Exception as error:  # the work is done, and its result belongs to the user
            log.error("actual= failed for %s (%s); the estimate is charged", permit.id, type(error).__name__)

    def _measured(self, permit: Permit, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if not callable(self._actual):
            return self._actual
        if self._actual_takes_permit:
            return self._actual(*args, **{**kwargs, "permit": permit})
        return self._actual(*args, **kwargs)

    def _wish(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Wish:
        action = self._action(*args, **kwargs) if callable(self._action) else self._action
        subject = self._subject(*args, **kwargs) if callable(self._subject) else self._subject
        return wish(
            self.authority,
            _action_of(action) if isinstance(action, str) else action,
            self._estimate(*args, **kwargs) if callable(self._estimate) else self._estimate,
            subject=subject,
            run=self._run,
            terms=self._terms_for(args, kwargs),
        )

    def _terms_for(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Terms:
        if self._approver is None:
            return self._terms
        return replace(self._terms, approved_by=self._approver(*args, **kwargs))

    # --- with

    def __enter__(self) -> Permit:
        self._take_turn()
        try:
            permit = self._permit = perform(self.authority, self.admitting())
        except BaseException:
            self._turn.release()
            raise
        return permit.__enter__()

    async def __aenter__(self) -> Permit:
        self._take_turn()
        try:
            permit = self._permit = await aperform(self.authority, self.admitting())
        except BaseException:
            self._turn.release()
            raise
        return await permit.__aenter__()

    def __exit__(self, kind: object, exc: BaseException | None, trace: TracebackType | None) -> None:
        self._end_turn(exc).__exit__(kind, exc, trace)

    async def __aexit__(self, kind: object, exc: BaseException | None, trace: TracebackType | None) -> None:
        await self._end_turn(exc).__aexit__(kind, exc, trace)

    def _take_turn(self) -> None:
        if self.on_deny != "raise":
            raise InvalidRequest("on_deny", "cannot skip the body of a with block", '"raise", or use it as a decorator')
        if not self._turn.acquire(blocking=False):
            raise InvalidRequest("guard", "is already entered", "a guard of its own for each with block at a time")

    def _end_turn(self, exc: BaseException | None) -> Permit:
        permit, self._permit = self._permit, None
        assert permit is not None, "a with block exits only after it was entered"
        self._turn.release()
        if exc is None:
            self.note_actual(permit)
        return permit


def _takes_permit(actual: ActualLike) -> bool:
    if not callable(actual):
        return False
    try:
        parameter = signature(actual).parameters.get("permit")
    except (TypeError, ValueError):  # a builtin without a signature
        return False
    return parameter is not None and parameter.kind is not Parameter.POSITIONAL_ONLY

"""How an action ended, and what therefore happens to its reservation. Pure: no authority, no clock, no state."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, Literal

from clearance.errors import ClearanceError, Denied, InvalidRequest
from clearance.model.action import Action
from clearance.model.amount import Amount

FREE_STATUSES: Final = frozenset({400, 401, 403, 404, 405, 409, 413, 415, 422, 429})
"""HTTP answers that a provider gives before it does, and bills, any work."""

_INTERRUPTS = frozenset({"GraphBubbleUp", "GraphInterrupt"})
_MAX_REASON = 256


@dataclass(frozen=True, slots=True)
class Commit:
    """Charge `amount`. `error` is the type name of the exception that ended the action, never its message."""

    amount: Amount
    settled_as: Literal["actual", "estimate"] = "actual"
    error: str | None = None

    @property
    def metadata(self) -> dict[str, Any]:
        facts: dict[str, Any] = {"settled_as": self.settled_as}
        return {**facts, "error": self.error} if self.error else facts


@dataclass(frozen=True, slots=True)
class Release:
    """Give the whole hold back: the action certainly cost nothing. `reason` is at most 256 characters."""

    reason: str

    def __post_init__(self) -> None:
        object.__setattr__(self, "reason", self.reason[:_MAX_REASON])


Outcome = Commit | Release


def outcome_of(
    exc: BaseException | None,
    actual: Amount | None,
    estimate: Amount,
    *,
    action: Action | None = None,
    body_ran: bool = False,
) -> Outcome:
    """The settlement table.

    A known actual is committed whatever else happened. Success without one commits the estimate. Errors that are
    certain to be free release. Everything else, such as a timeout, a cancellation, a 5xx or an unknown error, may
    have cost money and commits the estimate.

    Args:
        exc: what ended the action, or None.
        actual: what it is known to have cost, or None.
        action: refines the verdict on pydantic's ValidationError: free for `tool.*` (its arguments were refused),
            unknown for other kinds (they may have parsed an answer that was paid for). Not given: free.
        body_ran: True if the work had begun; then an InvalidRequest says nothing about the cost.
    """
    if actual is not None:
        return Commit(actual, "actual", _name(exc))
    if exc is None:
        return Commit(estimate, "estimate")
    if _is_free(exc, action, body_ran):
        return Release(_name(exc) or "")
    return Commit(estimate, "estimate", _name(exc))


def of_another_call(error: ClearanceError) -> None:
    """Mark an error as the refusal of one call: for a guard further out it is an error like any other."""
    error.__dict__["_of_another_call"] = True


def is_tool(action: Action) -> bool:
    return action.kind == "tool" or action.kind.startswith("tool.")


def _name(exc: BaseException | None) -> str | None:
    return None if exc is None else type(exc).__name__


def _is_free(exc: BaseException, action: Action | None, body_ran: bool) -> bool:
    if isinstance(exc, ClearanceError):
        refused = isinstance(exc, Denied) or (isinstance(exc, InvalidRequest) and not body_ran)
        return refused and "_of_another_call" not in exc.__dict__
    if _status(exc) in FREE_STATUSES:
        return True
    if action is None or is_tool(action):
        return _is_interrupt(exc) or _is_validation_error(exc)
    return _is_interrupt(exc)


def _status(exc: BaseException) -> int | None:
    for holder in (exc, _attribute(exc, "response")):
        status = _attribute(holder, "status_code")
        if isinstance(status, int) and not isinstance(status, bool):
            return status
    return None


def _attribute(holder: object, name: str) -> object:
    try:
        return getattr(holder, name, None)
    except Exception:  # a property of a foreign exception may raise anything
        return None


def _is_interrupt(exc: BaseException) -> bool:
    """By name, so that the guard need not import the framework."""
    return any(kind.__name__ in _INTERRUPTS for kind in type(exc).__mro__)


def _is_validation_error(exc: BaseException) -> bool:
    return any(
        kind.__name__ == "ValidationError" and kind.__module__.partition(".")[0] in ("pydantic", "pydantic_core")
        for kind in type(exc).__mro__
    )

"""Clearance's errors as LangChain understands them."""

from __future__ import annotations

from contextlib import AbstractContextManager
from types import TracebackType
from typing import Any

from langchain_core.exceptions import ModelError

from clearance.errors import AuthorityUnavailable, ClearanceError


def fit(error: ClearanceError) -> ClearanceError:
    """The same error, now also a `ModelError` that is not retryable; caught as before by `except Denied`.

    ModelRetryMiddleware and LangGraph's RetryPolicy leave it alone; `with_retry()` retries every Exception unless told
    otherwise. An outage is left as it is: another try may find the authority back.
    """
    if not isinstance(error, ModelError | AuthorityUnavailable):
        error.__class__ = _fitted(type(error))
    return error


class _Fitting:
    """A class, as it is entered on each call: a generator's block takes longer."""

    __slots__ = ()

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: TracebackType | None) -> None:
        if isinstance(error, ClearanceError):
            fit(error)


_block = _Fitting()


def fitting() -> AbstractContextManager[None]:
    """Errors of Clearance that leave this block are fitted."""
    return _block


_made: dict[type[ClearanceError], type[ClearanceError]] = {}
"""One class for each kind, so that two denials of one kind are of one type."""


def _fitted(kind: type[ClearanceError]) -> type[ClearanceError]:
    """`kind` and ModelError in one class, under the name of `kind`."""
    if kind not in _made:
        body: dict[str, Any] = {"__module__": kind.__module__, "__doc__": kind.__doc__, "__reduce__": _reduced}
        _made.setdefault(kind, type(kind.__name__, (kind, ModelError), body))
    return _made[kind]


def _reduced(error: ClearanceError) -> tuple[Any, ...]:
    """A class made at run time cannot be found by name: pickle the one that it was made of, and fit that again."""
    return _rebuilt, (type(error).__mro__[1], error.message, error.__dict__)


def _rebuilt(kind: type[ClearanceError], message: str, facts: dict[str, Any]) -> ClearanceError:
    error = kind.__new__(kind, message)
    error.args = (message,)
    error.__dict__.update(facts)
    return fit(error)

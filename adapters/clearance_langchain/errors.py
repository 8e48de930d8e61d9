"""Clearance's errors as LangChain understands them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
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


@contextmanager
def fitting() -> Iterator[None]:
    """Errors of Clearance that leave this block are fitted."""
    try:
        yield
    except ClearanceError as error:
        fit(error)
        raise


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

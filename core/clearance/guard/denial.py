"""What a denied call answers in place of doing anything."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from clearance.errors import Denied, InvalidRequest


@dataclass(frozen=True, slots=True)
class Returning:
    """`on_deny=Returning(value)`: a denied call answers `value`; a generator yields it once, None not at all."""

    value: Any


OnDeny = Literal["raise"] | Returning | Callable[[Denied], Any]
"""Raise the Denied, answer a fixed value, or answer what the callable makes of the Denied.

An AuthorityUnavailable, a BadAnswer and a LimitExceeded are no denials and are always raised.
"""


def check_on_deny(on_deny: OnDeny) -> None:
    if on_deny != "raise" and not isinstance(on_deny, Returning) and not callable(on_deny):
        raise InvalidRequest("on_deny", f"{on_deny!r} is unknown", '"raise", a callable, or Returning(value)')


def refuse_async_answer(on_deny: OnDeny) -> None:
    """Sync work cannot await the answer; said when it is decorated, not when it is first denied."""
    if inspect.iscoroutinefunction(on_deny):
        raise InvalidRequest("on_deny", "is a coroutine function and the guarded function is sync", "a plain function")


def answer(on_deny: OnDeny, denied: Denied) -> Any:
    """Call inside `except Denied`. The answer may be an awaitable where the guarded work is async."""
    if on_deny == "raise":
        raise denied
    if isinstance(on_deny, Returning):
        return on_deny.value
    return on_deny(denied)


async def aanswer(on_deny: OnDeny, denied: Denied) -> Any:
    value = answer(on_deny, denied)
    return await value if inspect.isawaitable(value) and callable(on_deny) else value

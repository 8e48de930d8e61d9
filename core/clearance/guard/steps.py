"""One logic for sync and async: it is written as steps that ask for authority calls, and two thin shells make them."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any, NamedTuple, TypeVar

from clearance.authority.interface import Authority

T = TypeVar("T")


class Ask(NamedTuple):
    """One call of the authority: a verb of the protocol, by its sync name."""

    verb: str
    args: tuple[Any, ...]
    options: dict[str, Any]


Steps = Generator[Ask, Any, T]
"""Yields what it wants to ask, receives the answer or the error there, and returns the result."""


def perform(authority: Authority, steps: Steps[T]) -> T:
    """Make the calls with the sync verbs."""
    try:
        ask = next(steps)
        while True:
            try:
                answer = getattr(authority, ask.verb)(*ask.args, **ask.options)
            except BaseException as error:  # the steps decide what an error means, also an interrupt
                ask = steps.throw(error)
            else:
                ask = steps.send(answer)
    except StopIteration as end:
        result: T = end.value
        return result


async def aperform(authority: Authority, steps: Steps[T]) -> T:
    """Make the same calls with the async verbs."""
    try:
        ask = next(steps)
        while True:
            try:
                answer = await getattr(authority, "a" + ask.verb)(*ask.args, **ask.options)
            except BaseException as error:  # a cancellation too: the steps keep what was in flight
                ask = steps.throw(error)
            else:
                ask = steps.send(answer)
    except StopIteration as end:
        result: T = end.value
        return result

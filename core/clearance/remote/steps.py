"""One logic for sync and async: verbs are steps that ask for requests, pauses and work, and two shells do them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Generator
from typing import Any, NamedTuple, Protocol, TypeVar

from clearance.remote.wire import Request, Response

T = TypeVar("T")


class Send(NamedTuple):
    """Send this and give back the response; raises NoAnswer."""

    request: Request
    timeout_s: float


class Pause(NamedTuple):
    seconds: float


class Work(NamedTuple):
    """Something that waits for the disk or for the local ledger; in async code it runs beside the event loop."""

    do: Callable[[], Any]


Step = Send | Pause | Work
Steps = Generator[Step, Any, T]


class Shell(Protocol):
    def send(self, request: Request, timeout_s: float) -> Response: ...
    def asend(self, request: Request, timeout_s: float) -> Awaitable[Response]: ...


def perform(shell: Shell, steps: Steps[T], pause: Callable[[float], None] = time.sleep) -> T:
    try:
        step = next(steps)
        while True:
            try:
                answer: Any = None
                if isinstance(step, Send):
                    answer = shell.send(step.request, step.timeout_s)
                elif isinstance(step, Work):
                    answer = step.do()
                else:
                    pause(step.seconds)
            except BaseException as error:  # the steps decide what an error means, an interrupt too
                step = steps.throw(error)
            else:
                step = steps.send(answer)
    except StopIteration as end:
        result: T = end.value
        return result


async def aperform(shell: Shell, steps: Steps[T]) -> T:
    try:
        step = next(steps)
        while True:
            try:
                answer: Any = None
                if isinstance(step, Send):
                    answer = await shell.asend(step.request, step.timeout_s)
                elif isinstance(step, Work):
                    answer = await asyncio.to_thread(step.do)
                else:
                    await asyncio.sleep(step.seconds)
            except BaseException as error:
                step = steps.throw(error)
            else:
                step = steps.send(answer)
    except StopIteration as end:
        result: T = end.value
        return result

"""Cancelling the asyncio task of a stopped permit, and telling our cancellation from everybody else's."""

from __future__ import annotations

import asyncio
from asyncio.events import _get_running_loop
from contextlib import suppress
from typing import Any
from weakref import WeakKeyDictionary

from clearance.errors import Killed, Paused, Stopped
from clearance.guard.outcome import of_another_call
from clearance.model.results import Stop

AnyTask = asyncio.Task[Any]

_outstanding: WeakKeyDictionary[AnyTask, TaskWatch] = WeakKeyDictionary()
"""Tasks that we have cancelled and whose CancelledError nobody has turned into Killed or Paused yet.

One per task: nested stopped permits share it, and each entry is only touched in its task's own loop.
"""


class TaskWatch:
    """The task that does a permit's work, and the cancellations that it had before the work began."""

    __slots__ = ("_baseline", "_loop", "_over", "_task")

    def __init__(self, task: AnyTask, loop: asyncio.AbstractEventLoop) -> None:
        self._task = task
        self._loop = loop
        self._baseline = task.cancelling()
        self._over = False

    def cancel_soon(self) -> None:
        """From any thread: cancel the task if it still does this work when its loop gets to it."""
        with suppress(RuntimeError):  # the loop is closed, and the work with it
            self._loop.call_soon_threadsafe(self._cancel)

    def _cancel(self) -> None:
        if self._over or self._task.done() or self._task in _outstanding:
            return
        _outstanding[self._task] = self
        self._task.cancel()

    def end(self, exc: BaseException | None, stopped: bool) -> bool:
        """The work is over, with `exc`. True if `exc` is our own cancellation and the task's only one."""
        self._over = True
        issuer = _outstanding.get(self._task)
        if issuer is None:
            return False
        cancelled = isinstance(exc, asyncio.CancelledError)
        if issuer is not self and not (stopped and cancelled):
            return False
        del _outstanding[self._task]
        if not _is_current(self._task):
            return False  # closed elsewhere: the cancellation belongs to the task that got it
        return self._task.uncancel() <= self._baseline and cancelled


def watch_here() -> TaskWatch | None:
    """A watch on the current asyncio task, or None outside one."""
    loop = _get_running_loop()  # unlike asyncio.current_task it costs nothing where there is no loop
    task = asyncio.current_task(loop) if loop is not None else None
    return None if task is None or loop is None else TaskWatch(task, loop)


def _is_current(task: AnyTask) -> bool:
    loop = _get_running_loop()
    return loop is not None and asyncio.current_task(loop) is task


def stopped_error(stop: Stop) -> Stopped:
    """What the caller gets when its work was stopped from outside."""
    kind = Paused if stop.state == "PAUSED" else Killed
    error = kind(
        f"{stop.scope} was {stop.state.lower()} by {stop.actor}: {stop.reason}",
        scope=stop.scope,
        details={"reason": stop.reason, "actor": stop.actor, "at_ms": stop.at_ms},
    )
    of_another_call(error)  # work had begun, so its cost is unknown, here and further out
    return error

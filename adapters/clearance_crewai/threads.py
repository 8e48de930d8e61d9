"""Threads that a run's code has started without bringing them in: what they call is refused, nobody would reserve it.

A thread inherits no context, so it is marked where it is started, and a function where it is handed to an executor.
"""

from __future__ import annotations

import inspect
from asyncio.events import _get_running_loop
from collections.abc import Callable
from functools import partial, wraps
from threading import current_thread, local
from typing import Any

Method = Callable[..., Any]

_STARTED_IN = "_clearance_started_in"


class _Here(local):
    """Of this thread: ids of the runs that it works for, innermost last, and whether an executor starts a worker."""

    def __init__(self) -> None:
        self.runs: list[str] = []
        self.is_submitting = False


_here = _Here()


def started_in() -> str | None:
    """The id of the run that what runs here was started in, be it in force here or not; None if there is none."""
    from clearance_crewai.crewrun import current_crew_run

    run = current_crew_run()
    if run is not None:
        return run.id
    return _here.runs[-1] if _here.runs else getattr(current_thread(), _STARTED_IN, None)


def entered(run_id: str) -> Callable[[], None]:
    """This thread works for a run until what is given back is called, by whatever thread.

    The tasks of an event loop share a thread, so there only the context tells.
    """
    if _get_running_loop() is not None:
        return lambda: None
    runs = _here.runs
    runs.append(run_id)
    return lambda: runs.remove(run_id)


def starting(original: Method) -> Method:
    """`Thread.start`."""

    def start(self: Any) -> None:
        run_id = None if _here.is_submitting else started_in()
        if run_id:
            setattr(self, _STARTED_IN, run_id)
        original(self)

    return start


def submitting(original: Method) -> Method:
    """`ThreadPoolExecutor.submit`. Its workers serve everybody: not they are marked, but each piece of work."""

    def submit(self: Any, fn: Method, /, *args: Any, **kwargs: Any) -> Any:
        run_id = started_in()
        before, _here.is_submitting = _here.is_submitting, True
        try:
            return original(self, partial(_work, run_id, fn) if run_id else fn, *args, **kwargs)
        finally:
            _here.is_submitting = before

    return submit


def _work(run_id: str, fn: Method, /, *args: Any, **kwargs: Any) -> Any:
    """The seams stay as long as it lasts: its run may be over before, and nothing more may start in it."""
    from clearance_crewai import seams

    runs = _here.runs  # a worker has no event loop of its own yet
    runs.append(run_id)
    seams.install()
    try:
        return fn(*args, **kwargs)
    finally:
        seams.uninstall()
        runs.remove(run_id)


def agent_starts(original: Method) -> Method:
    """An agent's work: its LLM, where the class is somebody else's, tells nothing."""
    from clearance_crewai.claims import refuse_strayed

    if inspect.iscoroutinefunction(original):

        @wraps(original)
        async def astart(self: Any, *args: Any, **kwargs: Any) -> Any:
            refuse_strayed(f"agent {self.role}")
            return await original(self, *args, **kwargs)

        return astart

    @wraps(original)
    def start(self: Any, *args: Any, **kwargs: Any) -> Any:
        refuse_strayed(f"agent {self.role}")
        return original(self, *args, **kwargs)

    return start

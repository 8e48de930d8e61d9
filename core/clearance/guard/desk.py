"""What the guard keeps per authority: its caps memory, its unpaid settlements, and the process's scheduler."""

from __future__ import annotations

import atexit
import os
import time
from threading import Lock

from clearance.authority.interface import Authority
from clearance.guard.arrears import Arrears
from clearance.guard.capskeeper import CapsKeeper
from clearance.guard.heartbeat import Scheduler
from clearance.guard.process import current_pid

_SLOT = "_guard_desk"
EXIT_FLUSH_S = 2.0
"""How long the end of the process may wait for unpaid settlements."""


class Desk:
    """One per authority and process; a forked child gets a fresh one."""

    __slots__ = ("arrears", "caps", "pid", "scheduler")

    def __init__(self, scheduler: Scheduler) -> None:
        self.pid = current_pid()
        self.scheduler = scheduler
        self.caps = CapsKeeper(scheduler.clock)
        self.arrears = Arrears(scheduler.clock, scheduler.owe)


def desk_of(authority: Authority) -> Desk:
    """The desk lives in the authority's own attributes, so it goes when the authority goes."""
    desk: Desk | None = getattr(authority, _SLOT, None)
    if desk is None or desk.pid != current_pid():
        desk = seat(authority, Desk(process_scheduler()))
    return desk


def seat(authority: Authority, desk: Desk) -> Desk:
    """Give the authority this desk (tests give one with their own scheduler)."""
    setattr(authority, _SLOT, desk)
    return desk


class _Place:
    """Where the one scheduler of this process is kept."""

    def __init__(self) -> None:
        self.renew()

    def renew(self) -> None:
        self.lock = Lock()
        self.scheduler: Scheduler | None = None

    def flush(self) -> None:
        if self.scheduler is not None:
            deadline = time.monotonic() + EXIT_FLUSH_S
            for arrears in self.scheduler.owed():
                arrears.flush(max(0.0, deadline - time.monotonic()))


_place = _Place()
atexit.register(_place.flush)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_place.renew)


def process_scheduler() -> Scheduler:
    """The scheduler of this process; a forked child has its own."""
    with _place.lock:
        if _place.scheduler is None:
            _place.scheduler = Scheduler()
        return _place.scheduler

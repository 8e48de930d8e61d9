"""What the guard keeps per authority: its caps memory, its unpaid settlements, and the process's scheduler."""

from __future__ import annotations

from clearance.authority.interface import Authority
from clearance.guard.arrears import Arrears
from clearance.guard.capskeeper import CapsKeeper
from clearance.guard.heartbeat import Scheduler, process_scheduler
from clearance.guard.process import current_pid

_SLOT = "_guard_desk"


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

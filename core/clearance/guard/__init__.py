"""Reserve, act, settle: what stands between an agent's code and the authority."""

from __future__ import annotations

from clearance.guard.admission import aopen_permit, open_permit
from clearance.guard.context import acting_as, current_permit, current_run, current_subject
from clearance.guard.denial import OnDeny, Returning
from clearance.guard.guard import Guard
from clearance.guard.mixin import Guarding
from clearance.guard.outcome import Commit, Outcome, Release, outcome_of
from clearance.guard.permit import Permit
from clearance.guard.report import Line, RunReport
from clearance.guard.run import Run

__all__ = [
    "Commit",
    "Guard",
    "Guarding",
    "Line",
    "OnDeny",
    "Outcome",
    "Permit",
    "Release",
    "Returning",
    "Run",
    "RunReport",
    "acting_as",
    "aopen_permit",
    "current_permit",
    "current_run",
    "current_subject",
    "open_permit",
    "outcome_of",
]

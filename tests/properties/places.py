"""Ledgers for the machine, and how many steps it walks.

CLEARANCE_SOAK_STEPS: at least so many steps instead of the few of an ordinary test run (`make soak`: 1,000,000).
CLEARANCE_SEED: another walk; a failure prints the seed that repeats it.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import hypothesis
from hypothesis.stateful import run_state_machine_as_test
from tests.properties.machine import make_machine

from clearance.authority.clock import ManualClock
from clearance.authority.embedded import EmbeddedAuthority
from clearance.store.sqlite import SqliteStore

SOAK_STEPS = int(os.environ.get("CLEARANCE_SOAK_STEPS", "0"))
SEED = int(os.environ.get("CLEARANCE_SEED", "20261120"))
STEPS_PER_EXAMPLE = 120


class Place:
    """A ledger that lives as long as one example of the machine."""

    can_reopen = False

    def __init__(self):
        self.clock = ManualClock()
        self.made = 0
        self.authority = self.open()

    def store(self):
        return SqliteStore(":memory:")

    def open(self):
        return EmbeddedAuthority(
            self.store(), clock=self.clock, background=False, durability="process", ids=self.next_id
        )

    def next_id(self, now_ms: int) -> str:
        self.made += 1
        return f"{now_ms:012x}{self.made:06d}"

    def close(self):
        self.authority.close()


class FilePlace(Place):
    """On a file, so that it can be closed and opened again in mid-walk."""

    can_reopen = True

    def __init__(self):
        self.folder = Path(tempfile.mkdtemp(prefix="clearance-machine-"))
        super().__init__()

    def store(self):
        return SqliteStore(self.folder / "ledger.db")

    def reopen(self):
        self.authority.close()
        self.authority = self.open()

    def close(self):
        super().close()
        shutil.rmtree(self.folder)


def walk(factory: Callable[[], Place], steps: int) -> int:
    """Drive the machine for at least `steps` operations; returns how many there were.

    Hypothesis begins with the simplest example and follows each new one with up to five that resemble it, which for
    long walks means the same walk again. So each seed, counted up from SEED, gives one walk of its own.
    """
    walked, seed = 0, SEED
    while walked < steps:
        machine = make_machine(factory)
        try:
            run_state_machine_as_test(hypothesis.seed(seed)(machine), settings=_SETTINGS)
        except BaseException as error:
            error.add_note(f"repeat with CLEARANCE_SEED={seed}")
            raise
        walked, seed = walked + machine.steps, seed + 1
    return walked


_SETTINGS = hypothesis.settings(
    max_examples=2,
    stateful_step_count=STEPS_PER_EXAMPLE,
    database=None,
    deadline=None,
    print_blob=False,
    report_multiple_bugs=False,
    suppress_health_check=list(hypothesis.HealthCheck),
    phases=(hypothesis.Phase.generate, hypothesis.Phase.shrink),
)

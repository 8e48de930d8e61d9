"""Starting and ending the processes of the crash tests.

CLEARANCE_SOAK_SECONDS: how long the kill -9 loop goes on (`make soak`: 3600); 20 s without it.
CLEARANCE_SEED: another random walk; it is printed with every failure.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from clearance.authority.budgets import BudgetSpec
from clearance.authority.clock import ManualClock, SystemClock
from clearance.authority.embedded import EmbeddedAuthority
from clearance.model.amount import Amount, Unit
from clearance.store.sqlite import SqliteStore

SECONDS = float(os.environ.get("CLEARANCE_SOAK_SECONDS", "20"))
SEED = int(os.environ.get("CLEARANCE_SEED", "20261120"))
SCOPE = "tenant:acme"
HERE = Path(__file__).parent


def launch(script: str, *args: object) -> subprocess.Popen[str]:
    """A Python process of ours with pipes; it imports what this one can."""
    return subprocess.Popen(
        [sys.executable, str(HERE / script), *map(str, args)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )


def end(process: subprocess.Popen[str]) -> None:
    """Whatever became of the test, nothing of it goes on running."""
    if process.poll() is None:
        process.kill()
    process.communicate()


def microcents(amount: int) -> Amount:
    return Amount(unit=Unit.USD_MICROCENTS, amount=amount)


def new_ledger(path: Path, allocated: int, scope: str = SCOPE) -> None:
    """A ledger file with one budget, closed again."""
    authority = EmbeddedAuthority(SqliteStore(path), background=False)
    authority.set_budget(BudgetSpec(scope=scope, allocated=microcents(allocated)))
    authority.close()


def opened(path: Path, later_ms: int = 0) -> EmbeddedAuthority:
    """The ledger as it is found `later_ms` from now; time stands still there."""
    clock = ManualClock(SystemClock().now_ms() + later_ms)
    return EmbeddedAuthority(SqliteStore(path), clock=clock, background=False)

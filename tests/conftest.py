"""The ledgers that tests of the authority run on."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from clearance.authority.clock import ManualClock
from clearance.authority.embedded import EmbeddedAuthority
from clearance.store.sqlite import MEMORY, SqliteStore

# A run started in the background ignores Ctrl-C and would hand that on to the programs it tests.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def open_ledger(clock: ManualClock) -> Iterator[Callable[..., EmbeddedAuthority]]:
    """Opens the ledger at a path, without a background tick; it is closed with the test."""
    opened: list[EmbeddedAuthority] = []

    def open_at(path: str | Path, durability: str = "settlements") -> EmbeddedAuthority:
        opened.append(EmbeddedAuthority(SqliteStore(path), durability=durability, clock=clock, background=False))
        return opened[-1]

    yield open_at
    for authority in opened:
        authority.close()


@pytest.fixture(params=["memory", "file"])
def authority(
    request: pytest.FixtureRequest, tmp_path: Path, open_ledger: Callable[..., EmbeddedAuthority]
) -> EmbeddedAuthority:
    """An empty ledger, once in memory and once in a file (which does not wait for the disk)."""
    return open_ledger(MEMORY if request.param == "memory" else tmp_path / "ledger.db", durability="process")

"""The ledgers that tests of the authority run on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from clearance.authority.clock import ManualClock
from clearance.authority.embedded import EmbeddedAuthority
from clearance.store.sqlite import MEMORY, SqliteStore


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def open_ledger(clock: ManualClock) -> Iterator[Callable[[str | Path], EmbeddedAuthority]]:
    """Opens the ledger at a path, without a background tick; it is closed with the test."""
    opened: list[EmbeddedAuthority] = []

    def open_at(path: str | Path) -> EmbeddedAuthority:
        opened.append(EmbeddedAuthority(SqliteStore(path), clock=clock, background=False))
        return opened[-1]

    yield open_at
    for authority in opened:
        authority.close()


@pytest.fixture(params=["memory", "file"])
def authority(
    request: pytest.FixtureRequest, tmp_path: Path, open_ledger: Callable[[str | Path], EmbeddedAuthority]
) -> EmbeddedAuthority:
    """An empty ledger, once in memory and once in a file."""
    return open_ledger(MEMORY if request.param == "memory" else tmp_path / "ledger.db")

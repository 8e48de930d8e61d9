"""One Gateway for all of these tests."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from tests.openclaw.real.gateway import Gateway, gateway


@pytest.fixture(scope="session")
def openclaw(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    with gateway(tmp_path_factory.mktemp("openclaw"), os.environ["OPENCLAW_BIN"]) as found:
        yield found


@pytest.fixture(autouse=True)
def sound(openclaw: Gateway) -> Iterator[None]:
    """Whatever a test did: nothing is held afterwards, and the ledger is sound."""
    yield
    openclaw.serve()
    openclaw.at_rest()
    assert openclaw.authority.check() == []

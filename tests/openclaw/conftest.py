"""A served ledger for the shim's tests."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.openclaw.shim_world import Served, serving

from clearance.authority.budgets import BudgetSpec
from clearance.connecting import LocalAuthority, connect
from clearance.model.amount import usd

# `make test-openclaw` runs these: they need hundreds of megabytes and minutes.
collect_ignore = [] if os.environ.get("OPENCLAW_BIN") else ["real"]


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    authority = connect(f"sqlite:///{tmp_path}/ledger.db", durability="process")
    assert isinstance(authority, LocalAuthority)
    authority.set_budget(BudgetSpec(scope="tenant:acme", allocated=usd("5.00")))
    with serving(authority) as found:
        yield found
    assert authority.check() == []
    authority.close()

"""Forks while threads are in the middle of operations: parent and children go on, on one ledger."""

from __future__ import annotations

from pathlib import Path

from tests.crash.forker import CALLS, CHILDREN
from tests.crash.processes import SCOPE, SEED, end, launch, new_ledger, opened
from tests.properties.replay import audit


def test_children_forked_in_mid_operation_spend_from_the_same_budget(tmp_path: Path) -> None:
    ledger = tmp_path / "ledger.db"
    new_ledger(ledger, 10**9)
    process = launch("forker.py", ledger, SEED)
    try:
        said = process.communicate(timeout=240)[0].split()
    finally:
        end(process)
    acted, ends = int(said[0]), said[1:]

    assert ends == ["done"] * CHILDREN
    assert acted > 0
    authority = opened(ledger)
    balance = authority.balance(SCOPE)
    assert (balance.spent, balance.reserved) == (acted + CHILDREN * 2 * CALLS, 0)
    assert authority.check() == []
    assert audit(authority) == []
    authority.close()

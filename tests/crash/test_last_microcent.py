"""Eight processes of eight threads spend one budget to the last microcent: nothing is oversold and nobody starves."""

from __future__ import annotations

import json
from pathlib import Path

from tests.crash.processes import SCOPE, end, launch, new_ledger, opened
from tests.properties.replay import audit

PROCESSES = 8
ALLOCATED = 20_001


def test_eight_processes_spend_one_budget_to_the_last_microcent(tmp_path: Path) -> None:
    ledger = tmp_path / "ledger.db"
    new_ledger(ledger, ALLOCATED)
    spenders = [launch("spender.py", ledger, number) for number in range(PROCESSES)]
    try:
        for spender in spenders:
            assert spender.stdout is not None
            assert spender.stdout.readline() == "ready\n"
        for spender in spenders:
            assert spender.stdin is not None
            spender.stdin.write("go\n")
            spender.stdin.flush()
        told = [json.loads(spender.communicate(timeout=120)[0]) for spender in spenders]
    finally:
        for spender in spenders:
            end(spender)
    actions = [one["actions"] for one in told]

    assert sum(one["spent"] for one in told) == ALLOCATED
    assert min(actions) * 3 >= max(actions), f"somebody starved: {actions}"
    authority = opened(ledger)
    balance = authority.balance(SCOPE)
    assert (balance.spent, balance.remaining, balance.reserved, balance.debt) == (ALLOCATED, 0, 0, 0)
    assert audit(authority) == []
    authority.close()

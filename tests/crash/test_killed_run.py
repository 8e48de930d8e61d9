"""A run whose process is killed: what its calls have spent is on the books, the rest comes back."""

from __future__ import annotations

import signal
from pathlib import Path

from tests.crash.processes import SCOPE, end, launch, new_ledger, opened
from tests.properties.replay import audit


def test_spend_inside_a_killed_run_is_on_the_books_after_its_lease(tmp_path: Path) -> None:
    ledger = tmp_path / "ledger.db"
    new_ledger(ledger, 1_000)
    process = launch("runner.py", ledger)
    try:
        assert process.stdout is not None
        run = process.stdout.readline().strip()
        process.send_signal(signal.SIGKILL)
        assert process.wait(timeout=20) == -signal.SIGKILL
    finally:
        end(process)

    at_once = opened(ledger)
    before = at_once.balance(SCOPE)
    assert (before.reserved, before.spent, before.remaining) == (500, 0, 500)
    at_once.close()

    later = opened(ledger, later_ms=120_000)
    assert later.sweep() > 0
    after = later.balance(SCOPE)
    assert (after.reserved, after.spent, after.remaining, after.debt) == (0, 60, 940, 0)
    assert later.find(run).charged == 60
    assert audit(later) == []
    later.close()

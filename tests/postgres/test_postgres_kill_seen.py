"""How soon work that is under way in other processes learns of a kill."""

from __future__ import annotations

import time
from statistics import median

import pytest
from tests.authority.kit import TENANT
from tests.postgres.kit import with_budget
from tests.postgres.processes import workers

WORKERS = 6
SOON_SECONDS, LATEST_SECONDS = 0.1, 1.5


@pytest.mark.parametrize("task", ["run", "run unnotified"])
def test_runs_of_other_processes_learn_of_a_kill(url: str, task: str) -> None:
    """The processes of one machine have one clock. Without notifications the looks that go on anyway find it."""
    authority = with_budget(url, 1000)
    with workers(url, task, WORKERS) as started:
        for worker in started:
            worker.go()
        for worker in started:
            assert worker.told(20) == "running"
        # Until every one of them is listening.
        time.sleep(1.0)
        authority.kill(TENANT, reason="enough")
        answered = time.time()
        delays = [worker.told(20) - answered for worker in started]
    assert max(delays) < LATEST_SECONDS, delays
    if task == "run":
        assert median(delays) < SOON_SECONDS, delays
    authority.close()

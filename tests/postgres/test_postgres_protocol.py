"""Every test of the authority that works on any ledger, on PostgreSQL: the fixtures of this folder give the ledger."""

from __future__ import annotations

import importlib
import inspect
from pathlib import Path

SUITES = sorted(Path(__file__).parent.with_name("authority").glob("test_authority_*.py"))
# Those make stores of their own; the same things are tested here with processes.
ELSEWHERE = {"test_authority_batch", "test_authority_fork"}
# Lines of this engine's log are numbered with gaps; order, filters and paging are the conformance kit's.
COUNTING = {"test_the_log_rises_by_one_and_is_read_on_from_where_one_was", "test_events_are_filtered"}


def _borrowed() -> dict[str, object]:
    tests: dict[str, object] = {}
    for path in SUITES:
        if path.stem in ELSEWHERE:
            continue
        module = importlib.import_module(f"tests.authority.{path.stem}")
        for name, test in vars(module).items():
            if name.startswith("test_") and inspect.isfunction(test) and name not in COUNTING:
                tests[f"{path.stem}__{name.removeprefix('test_')}"] = test
    return tests


globals().update(_borrowed())

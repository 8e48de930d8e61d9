"""The authority and a naive model of the protocol give the same answers, step by step, and the books always balance."""

from __future__ import annotations

import pytest
from tests.properties.places import SOAK_STEPS, FilePlace, Place, walk

# pytest-timeout would end a soak; an ordinary walk takes well under a minute.
pytestmark = pytest.mark.timeout(0 if SOAK_STEPS else 300)

MEMORY_STEPS, FILE_STEPS = 20_000, 3_000


def test_memory_ledger_agrees_with_the_model_step_by_step() -> None:
    wanted = max(MEMORY_STEPS, SOAK_STEPS)
    assert walk(Place, wanted) >= wanted


def test_file_ledger_agrees_with_the_model_and_survives_reopening() -> None:
    wanted = max(FILE_STEPS, SOAK_STEPS // 10)
    assert walk(FilePlace, wanted) >= wanted

"""The contract's scenarios against the real Pydantic AI, whole answers and streams."""

from __future__ import annotations

from pathlib import Path

from pydantic_driver import PydanticDriver

from clearance_hooks.testing import Scenario
from clearance_hooks.testing.for_pytest import parametrized


@parametrized(PydanticDriver())
def test_pydantic_ai(scenario: Scenario, tmp_path: Path) -> None:
    scenario.run(PydanticDriver(), tmp_path)


@parametrized(PydanticDriver(stream=True))
def test_pydantic_ai_streaming(scenario: Scenario, tmp_path: Path) -> None:
    scenario.run(PydanticDriver(stream=True), tmp_path)

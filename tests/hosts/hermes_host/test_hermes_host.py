"""The contract's scenarios against the real Hermes Agent, by its own command line."""

from __future__ import annotations

from pathlib import Path

from hermes_driver import HermesDriver

from clearance_hooks.testing import Scenario
from clearance_hooks.testing.for_pytest import parametrized


@parametrized(HermesDriver())
def test_hermes(scenario: Scenario, tmp_path: Path) -> None:
    scenario.run(HermesDriver(), tmp_path)

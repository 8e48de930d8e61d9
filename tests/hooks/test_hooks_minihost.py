"""The contract's scenarios against MiniHost, sync and async, with the real OpenAI client and a provider that counts."""

from __future__ import annotations

from pathlib import Path

from hooks_world import AsyncDriver, SyncDriver

from clearance_hooks.testing import Scenario
from clearance_hooks.testing.for_pytest import parametrized


@parametrized(SyncDriver())
def test_minihost_sync(scenario: Scenario, tmp_path: Path) -> None:
    scenario.run(SyncDriver(), tmp_path)


@parametrized(AsyncDriver())
def test_minihost_async(scenario: Scenario, tmp_path: Path) -> None:
    scenario.run(AsyncDriver(), tmp_path)

"""The scenarios of every host, played by the real plugin in a host that calls it as OpenClaw does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.openclaw.shim_world import ShimDriver

from clearance_hooks.testing.for_pytest import parametrized


@parametrized(ShimDriver())
def test_the_shim(scenario: Any, tmp_path: Path) -> None:
    scenario.run(ShimDriver(), tmp_path)

"""The contract's scenarios against the real Hermes Agent, by its own command line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hermes_driver import HermesDriver

from clearance_hooks.capabilities import HERMES
from clearance_hooks.testing import Scenario, Stage
from clearance_hooks.testing.for_pytest import parametrized


@parametrized(HermesDriver())
def test_hermes(scenario: Scenario, tmp_path: Path) -> None:
    scenario.run(HermesDriver(), tmp_path)


class Misspelling(HermesDriver):
    """The operator has written `entires:`."""

    def _write_home(self, home: Path, stage: Stage, ids: list[str]) -> None:
        super()._write_home(home, stage, ids)
        config = home / "config.yaml"
        config.write_text(config.read_text().replace('"entries"', '"entires"'))


def test_a_misspelt_section_makes_no_request_and_is_named(tmp_path: Path) -> None:
    needs: dict[str, Any] = {}
    with Stage(tmp_path, HERMES, needs) as stage:
        reply = Misspelling().turn(stage, "please run the echo tool")
        stage.expect(requests=0, tool_runs=0, charged="nothing")
    assert "what stands at plugins.entires.clearance is not read" in reply.text

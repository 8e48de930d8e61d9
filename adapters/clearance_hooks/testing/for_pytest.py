"""The kit as pytest tests, one a scenario.

from clearance_hooks.testing.for_pytest import parametrized

@parametrized(MyDriver())
def test_my_host(scenario, tmp_path):
    scenario.run(MyDriver(), tmp_path)
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from clearance_hooks.testing import SCENARIOS, Driver


def parametrized(driver: Driver) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """The scenarios that this host can play."""
    import pytest

    chosen = [scenario for scenario in SCENARIOS if scenario.fits(driver)]
    return pytest.mark.parametrize("scenario", chosen, ids=[it.name.replace(" ", "-") for it in chosen])

"""The kit as pytest tests, one a spec.

from clearance.store.conformance.for_pytest import parametrized

@parametrized()
def test_my_store(spec):
    spec.run(MyLedger)
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from clearance.store.conformance import SPECS


def parametrized(*, shared: bool = True) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """`shared=False` for ledgers that only one Store can have open."""
    import pytest

    chosen = [spec for spec in SPECS if shared or not spec.shared]
    return pytest.mark.parametrize("spec", chosen, ids=[spec.name.replace(" ", "-") for spec in chosen])

"""A runner, asked by its sync and by its async methods."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from clearance_hooks import (
    Runner,
)


@pytest.fixture
def runner() -> Iterator[Runner]:
    made = Runner()
    yield made
    made.close()


@pytest.fixture(params=["sync", "async"])
def ask(request: pytest.FixtureRequest, runner: Runner) -> Callable[..., Any]:
    """Call a hook of the runner, by its sync or its async method."""

    def call(hook: str, *args: Any) -> Any:
        if request.param == "sync":
            return getattr(runner, hook)(*args)
        return asyncio.run(getattr(runner, "a" + hook)(*args))

    return call

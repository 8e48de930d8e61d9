from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import openai
import pytest

from clearance.simulator import Simulator


@pytest.fixture
def sim() -> Iterator[Simulator]:
    with Simulator() as running:
        yield running


@pytest.fixture
def start() -> Iterator[Callable[..., Simulator]]:
    """Starts a simulator with the given options; it ends with the test."""
    with ExitStack() as stack:
        yield lambda **options: stack.enter_context(Simulator(**options))


@pytest.fixture(scope="session")
def _pool() -> Iterator[Any]:
    """All clients share one connection pool: a new one for each test would take most of the time."""
    with openai.OpenAI(base_url="http://127.0.0.1:9", api_key="sim", max_retries=0, timeout=10) as pool:
        yield pool


@pytest.fixture
def client_for(_pool: Any) -> Callable[..., Any]:
    """A real OpenAI client for a simulator; it tries once unless told otherwise."""

    def make(sim: Simulator, max_retries: int = 0) -> Any:
        return _pool.with_options(base_url=sim.base_url, max_retries=max_retries)

    return make


@pytest.fixture
def client(sim: Simulator, client_for: Callable[..., Any]) -> Any:
    return client_for(sim)

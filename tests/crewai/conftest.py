"""CrewAI without telemetry, tracing or a home, no provider but the simulated one, and a world for each test."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from typing import Any

import pytest

_home = tempfile.TemporaryDirectory(prefix="clearance-crewai-")
os.environ.update(
    CREWAI_DISABLE_TELEMETRY="true",
    OTEL_SDK_DISABLED="true",
    CREWAI_TRACING_ENABLED="false",
    CREWAI_STORAGE_DIR=_home.name,
    HOME=_home.name,
    OPENAI_API_KEY="none",
)
for name in ("OPENAI_BASE_URL", "OPENAI_API_BASE"):
    os.environ.pop(name, None)

from crew_world import Stage, World  # noqa: E402
from crewai.events import crewai_event_bus  # noqa: E402
from crewai.events.stream_context import _stream_sinks  # noqa: E402
from crewai.hooks.dispatch import InterceptionPoint, _scoped_hooks_var, get_hooks  # noqa: E402

from clearance.connecting import connect  # noqa: E402
from clearance.simulator import default_script  # noqa: E402
from clearance_crewai import seams  # noqa: E402


@pytest.fixture(scope="session")
def stage() -> Iterator[Stage]:
    made = Stage()
    with made.sim:
        yield made


@pytest.fixture
def make_world(stage: Stage) -> Iterator[Callable[..., World]]:
    """A world with a script and a budget; it may leave no open reservation and nothing of ours in CrewAI."""
    worlds: list[World] = []

    def make(script: Any = None, *, budget: str | None = "1") -> World:
        stage.script = script or default_script
        stage.sim.reset()
        world = World(stage, connect("memory://"))
        worlds.append(world)
        if budget is not None:
            world.budget(budget)
        return world

    yield make
    try:
        crewai_event_bus.flush()
        assert stage.sim.wait_idle()
        for world in worlds:
            world.until(lambda world=world: world.open() == 0)  # type: ignore[misc]
            assert world.authority.check() == []
            world.until(lambda: not seams.is_installed())
        assert not _stream_sinks.get()
        assert not _scoped_hooks_var.get()
        assert not any(get_hooks(point) for point in InterceptionPoint)
    finally:
        for world in worlds:
            world.authority.close()


@pytest.fixture
def world(make_world: Callable[..., World]) -> World:
    return make_world()

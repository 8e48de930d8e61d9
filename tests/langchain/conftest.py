"""No tracing, no provider but the simulated one, and a world for each test."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Any

import pytest

for name in ("LANGSMITH_TRACING", "LANGCHAIN_TRACING_V2", "LANGCHAIN_TRACING"):
    os.environ[name] = "false"
os.environ.pop("OPENAI_BASE_URL", None)

from langchain_world import Stage, World  # noqa: E402

from clearance.connecting import connect  # noqa: E402
from clearance.simulator import default_script  # noqa: E402


@pytest.fixture(scope="session")
def stage() -> Iterator[Stage]:
    made = Stage()
    with made.sim:
        yield made
        for model in made.clients[:1]:  # all have the same connection pools
            model.root_client.close()
            made.runner.run(model.root_async_client.close())
        made.runner.close()


@pytest.fixture
def make_world(stage: Stage) -> Iterator[Callable[..., World]]:
    """A world with a script and a budget; at the end of the test it may not have an open reservation."""
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
        for world in worlds:
            world.rest()
            world.until(lambda world=world: world.open() == 0, 3.0)  # type: ignore[misc]
            assert world.authority.check() == []
    finally:
        for world in worlds:
            world.close()


@pytest.fixture
def world(make_world: Callable[..., World]) -> World:
    return make_world()


@pytest.fixture
def two(make_world: Callable[..., World]) -> World:
    """A world with two tenants that have a budget, acme and globex."""
    world = make_world()
    world.budget(scope="tenant:globex")
    return world

"""One server for most tests; every test makes tenants of its own."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest
from tests.server.contract import conforms
from tests.server.kit import ADMIN_KEY, Tenant, World, running

from clearance.authority.clock import ManualClock
from clearance.authority.embedded import EmbeddedAuthority
from clearance.server.settings import Settings
from clearance.store.sqlite import MEMORY, SqliteStore

SETTINGS = Settings(admin_key=ADMIN_KEY, webhook_private=True, webhook_http=True, poll_seconds=0.02)


@pytest.fixture(scope="session")
def shared_world() -> Iterator[World]:
    clock = ManualClock()
    authority = EmbeddedAuthority(SqliteStore(MEMORY), clock=clock, background=False)
    hooks = {"response": [conforms]}
    with running(authority, SETTINGS) as it, httpx.Client(base_url=it.url, timeout=20, event_hooks=hooks) as client:
        yield World(it, client, clock)
    authority.close()


@pytest.fixture
def world(shared_world: World) -> World:
    return shared_world


@pytest.fixture
def clock(world: World) -> ManualClock:
    assert world.clock is not None
    return world.clock


@pytest.fixture
def tenant(world: World) -> Tenant:
    """A tenant without a budget."""
    return world.tenant()


@pytest.fixture
def funded(world: World) -> Tenant:
    """A tenant with 1,000 tokens."""
    made = world.tenant()
    made.budget(1000)
    return made

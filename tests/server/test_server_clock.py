"""One millisecond on each side of every boundary of a lease."""

from __future__ import annotations

import pytest
from tests.server.kit import Tenant, World

from clearance.authority.clock import ManualClock

TTL, GRACE = 2_000, 500


@pytest.mark.parametrize(
    ("verb", "at", "status"),
    [
        ("extend", TTL - 1, 200),
        ("extend", TTL, 200),
        ("extend", TTL + 1, 410),
        ("commit", TTL + 1, 200),
        ("commit", TTL + GRACE - 1, 200),
        ("commit", TTL + GRACE, 200),
        ("commit", TTL + GRACE + 1, 410),
        ("release", TTL + GRACE, 200),
        ("release", TTL + GRACE + 1, 410),
    ],
)
def test_boundaries(verb: str, at: int, status: int, funded: Tenant, clock: ManualClock) -> None:
    held = funded.hold(100, ttl_ms=TTL, grace_period_ms=GRACE)
    clock.advance(at)
    assert funded.settle(verb, held).status_code == status


def test_what_is_past_its_grace_gives_back_once(funded: Tenant, clock: ManualClock, world: World) -> None:
    held = funded.hold(100, ttl_ms=TTL, grace_period_ms=GRACE)
    clock.advance(TTL + GRACE)
    world.running.authority.sweep()
    assert funded.remaining() == 900
    assert funded.get(f"/v1/reservations/{held}").json()["status"] == "ACTIVE"
    clock.advance(1)
    for _ in range(2):
        world.running.authority.sweep()
    assert funded.remaining() == 1000
    assert funded.get(f"/v1/reservations/{held}").status_code == 410
    (row,) = funded.get("/v1/reservations").json()["reservations"]
    assert row["status"] == "EXPIRED"
    assert "finalized_at_ms" not in row
    query = {"tenant_id": funded.name, "event_type": "reservation.expired"}
    (event,) = world.admin("GET", "/v1/admin/events", params=query).json()["events"]
    assert event["data"]["estimated_amount"] == 100
    assert event["actor"] == {"type": "system"}
    assert "request_id" not in event


def test_tenant_defaults_of_the_lease(world: World) -> None:
    tenant = world.tenant(default_reservation_ttl_ms=7_000, max_reservation_ttl_ms=9_000)
    tenant.budget(100)
    assert tenant.reserve(1).json()["remaining_ttl_ms"] == 7_000
    assert tenant.reserve(1, ttl_ms=8_000).json()["remaining_ttl_ms"] == 8_000
    assert tenant.reserve(1, ttl_ms=60_000).json()["remaining_ttl_ms"] == 9_000

"""Ways to bring a tenant into a state that refuses something."""

from __future__ import annotations

from collections.abc import Callable

import httpx
from tests.server.kit import Tenant, World, amount

from clearance.authority.clock import ManualClock

Ask = Callable[[Tenant, World], httpx.Response]


def scope_query(tenant: Tenant, below: str = "") -> str:
    return f"?scope=tenant:{tenant.name}{below}&unit=TOKENS"


def freeze(tenant: Tenant) -> None:
    answer = tenant.post("/v1/admin/budgets/freeze" + scope_query(tenant), {})
    assert answer.status_code == 200, answer.text


def close_budget(tenant: Tenant, world: World) -> None:
    world.running.authority.close_budget(f"tenant:{tenant.name}", "TOKENS")  # type: ignore[arg-type]


def over_limit(tenant: Tenant) -> None:
    """Committed more than there was, under the default policy."""
    tenant.settle("commit", tenant.hold(900), actual=amount(2000))


def owing(tenant: Tenant) -> None:
    """Debt on a budget that has no overdraft any more."""
    query = scope_query(tenant)
    tenant.request("PATCH", "/v1/admin/budgets" + query, {"overdraft_limit": amount(500)})
    held = tenant.hold(1000, overage_policy="ALLOW_WITH_OVERDRAFT")
    tenant.settle("commit", held, actual=amount(1100))
    tenant.request("PATCH", "/v1/admin/budgets" + query, {"overdraft_limit": amount(0)})


def frozen(then: Callable[[Tenant], httpx.Response]) -> Ask:
    def ask(tenant: Tenant, world: World) -> httpx.Response:
        freeze(tenant)
        return then(tenant)

    return ask


def closed(then: Callable[[Tenant], httpx.Response]) -> Ask:
    def ask(tenant: Tenant, world: World) -> httpx.Response:
        close_budget(tenant, world)
        return then(tenant)

    return ask


def finalized(first: str, second: str) -> Ask:
    def ask(tenant: Tenant, world: World) -> httpx.Response:
        held = tenant.hold(100)
        assert tenant.settle(first, held).status_code == 200
        return tenant.settle(second, held)

    return ask


def late(verb: str) -> Ask:
    def ask(tenant: Tenant, world: World) -> httpx.Response:
        held = tenant.hold(100, ttl_ms=1000, grace_period_ms=0)
        assert isinstance(world.clock, ManualClock)
        world.clock.advance(1001)
        return tenant.settle(verb, held) if verb != "get" else _swept(tenant, world, held)

    return ask


def _swept(tenant: Tenant, world: World, held: str) -> httpx.Response:
    world.running.authority.sweep()
    return tenant.get(f"/v1/reservations/{held}")


def mismatch(tenant: Tenant, world: World) -> httpx.Response:
    body = tenant.reserve_body(10)
    tenant.post("/v1/reservations", body)
    return tenant.post("/v1/reservations", {**body, "estimate": amount(11)})


def too_often(tenant: Tenant, world: World) -> httpx.Response:
    world.admin("PATCH", f"/v1/admin/tenants/{tenant.name}", {"max_reservation_extensions": 1})
    held = tenant.hold(10)
    assert tenant.settle("extend", held).status_code == 200
    return tenant.settle("extend", held)


def over(tenant: Tenant, world: World) -> httpx.Response:
    over_limit(tenant)
    return tenant.reserve(0)


def owes(tenant: Tenant, world: World) -> httpx.Response:
    owing(tenant)
    return tenant.reserve(0)


def killed(tenant: Tenant, world: World) -> httpx.Response:
    tenant.post("/v1/x-clearance/kill", {"scope": f"tenant:{tenant.name}", "reason": "test"})
    return tenant.reserve(1)

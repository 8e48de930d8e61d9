"""No key reaches another tenant, on any route."""

from __future__ import annotations

from typing import Any

import pytest
from tests.server.kit import ADMIN, Tenant, World, amount, problem

from clearance.server.routes import ROUTES

WEBHOOK = {"url": "https://example.com/hook", "event_types": ["budget.exhausted"]}


class Other:
    """What another tenant owns."""

    def __init__(self, world: World) -> None:
        self.tenant = world.tenant()
        self.tenant.budget(1000)
        self.held = self.tenant.hold(100)
        self.run = self.tenant.post("/v1/x-clearance/runs", {"subject": self.tenant.subject()}).json()["reservation_id"]
        self.webhook = self.tenant.post("/v1/webhooks", WEBHOOK).json()["subscription_id"]


def requests_of(me: Tenant, it: Other) -> dict[str, tuple[str, str, Any, tuple[int, ...]]]:
    """For every route of tenants: a request for the other's things, and how it may be refused."""
    name, scope = it.tenant.name, f"tenant:{it.tenant.name}"
    theirs: dict[str, Any] = {
        "idempotency_key": me.key(),
        "subject": {"tenant": name},
        "action": {"kind": "a", "name": "b"},
    }
    key = {"idempotency_key": me.key()}
    where = f"?scope={scope}&unit=TOKENS"
    stop = {"scope": scope, "reason": "x"}
    return {
        "POST /v1/decide": ("POST", "/v1/decide", {**theirs, "estimate": amount(1)}, (403,)),
        "POST /v1/reservations": ("POST", "/v1/reservations", {**theirs, "estimate": amount(1)}, (403,)),
        "GET /v1/reservations": ("GET", f"/v1/reservations?tenant={name}", None, (403,)),
        "GET /v1/reservations/{reservation_id}": ("GET", f"/v1/reservations/{it.held}", None, (403,)),
        "POST /v1/reservations/{reservation_id}/commit": (
            "POST",
            f"/v1/reservations/{it.held}/commit",
            {**key, "actual": amount(1)},
            (403,),
        ),
        "POST /v1/reservations/{reservation_id}/release": ("POST", f"/v1/reservations/{it.held}/release", key, (403,)),
        "POST /v1/reservations/{reservation_id}/extend": (
            "POST",
            f"/v1/reservations/{it.held}/extend",
            {**key, "extend_by_ms": 1},
            (403,),
        ),
        "GET /v1/balances": ("GET", f"/v1/balances?tenant={name}", None, (403,)),
        "POST /v1/events": ("POST", "/v1/events", {**theirs, "actual": amount(1)}, (403,)),
        "GET /v1/webhooks/{subscription_id}/deliveries": ("GET", f"/v1/webhooks/{it.webhook}/deliveries", None, (404,)),
        "GET /v1/webhooks/{subscription_id}": ("GET", f"/v1/webhooks/{it.webhook}", None, (404,)),
        "PATCH /v1/webhooks/{subscription_id}": ("PATCH", f"/v1/webhooks/{it.webhook}", {"status": "PAUSED"}, (404,)),
        "DELETE /v1/webhooks/{subscription_id}": ("DELETE", f"/v1/webhooks/{it.webhook}", None, (404,)),
        "POST /v1/webhooks": ("POST", "/v1/webhooks", {**WEBHOOK, "tenant_id": name}, (403,)),
        "POST /v1/admin/budgets": (
            "POST",
            "/v1/admin/budgets",
            {"scope": scope + "/agent:x", "unit": "TOKENS", "allocated": amount(1)},
            (403,),
        ),
        "GET /v1/admin/budgets": ("GET", f"/v1/admin/budgets?tenant_id={name}", None, (403,)),
        "PATCH /v1/admin/budgets": ("PATCH", "/v1/admin/budgets" + where, {"overdraft_limit": amount(9)}, (403,)),
        "GET /v1/admin/budgets/lookup": ("GET", "/v1/admin/budgets/lookup" + where, None, (403,)),
        "POST /v1/admin/budgets/fund": (
            "POST",
            "/v1/admin/budgets/fund" + where,
            {"operation": "CREDIT", "amount": amount(1)},
            (403,),
        ),
        "POST /v1/admin/budgets/freeze": ("POST", "/v1/admin/budgets/freeze" + where, {}, (403,)),
        "POST /v1/admin/budgets/unfreeze": ("POST", "/v1/admin/budgets/unfreeze" + where, {}, (403,)),
        "PUT /v1/x-clearance/budgets": (
            "PUT",
            "/v1/x-clearance/budgets",
            {"scope": scope, "allocated": amount(5)},
            (403,),
        ),
        "POST /v1/x-clearance/budgets/apply": (
            "POST",
            "/v1/x-clearance/budgets/apply",
            {
                "budgets": [
                    {"scope": f"tenant:{me.name}", "allocated": amount(5)},
                    {"scope": scope, "allocated": amount(5)},
                ]
            },
            (403,),
        ),
        "POST /v1/x-clearance/budgets/close": ("POST", "/v1/x-clearance/budgets/close" + where, {}, (403,)),
        "GET /v1/x-clearance/events": ("GET", f"/v1/x-clearance/events?tenant={name}", None, (403,)),
        "POST /v1/x-clearance/runs": (
            "POST",
            "/v1/x-clearance/runs",
            {"subject": me.subject(), "run_id": it.run},
            (403,),
        ),
        "POST /v1/x-clearance/runs/{reservation_id}/end": ("POST", f"/v1/x-clearance/runs/{it.run}/end", {}, (403,)),
        "POST /v1/x-clearance/hooks/openclaw": (
            "POST",
            "/v1/x-clearance/hooks/openclaw",
            {"hook": "before_tool_call", "event": {}, "ctx": {}, "config": {"tenant": name}},
            (403,),
        ),
        "POST /v1/x-clearance/kill": ("POST", "/v1/x-clearance/kill", stop, (403,)),
        "POST /v1/x-clearance/pause": ("POST", "/v1/x-clearance/pause", {**stop, "scope": f"run:{it.run}"}, (403,)),
        "POST /v1/x-clearance/resume": ("POST", "/v1/x-clearance/resume", {**stop, "scope": "*"}, (403,)),
    }


OWN_ONLY = {
    # These take nothing that could name another tenant; what they answer is looked at below.
    "GET /v1/auth/introspect",
    "GET /v1/events",
    "GET /v1/webhooks",
    "GET /v1/x-clearance/capabilities",
    "GET /v1/x-clearance/stops",
    "GET /v1/x-clearance/stream",
    "POST /v1/x-clearance/stopped",
}


def test_every_route_of_a_tenant_refuses_what_is_not_its_own(world: World, funded: Tenant) -> None:
    it = Other(world)
    before = it.tenant.balance()
    asked = requests_of(funded, it)
    for name, (method, path, body, statuses) in asked.items():
        answer = funded.request(method, path, body)
        assert answer.status_code in statuses, (name, answer.text)
        # It says no, and nothing of the other tenant.
        assert it.tenant.name not in answer.text or it.tenant.name in path or "scope" in str(body), name
    assert it.tenant.balance() == before
    tenants = {f"{route.method} {route.path}" for route in ROUTES if route.access in ("tenant", "either")}
    assert tenants == set(asked) | OWN_ONLY


def test_lists_show_ones_own(world: World, funded: Tenant) -> None:
    it = Other(world)
    it.tenant.post("/v1/x-clearance/pause", {"scope": f"tenant:{it.tenant.name}", "reason": "x"})
    for path in ("/v1/events", "/v1/webhooks", "/v1/x-clearance/stops", "/v1/reservations", "/v1/admin/budgets"):
        answer = funded.get(path)
        assert answer.status_code == 200
        assert it.tenant.name not in answer.text
    answer = funded.post("/v1/x-clearance/stopped", {"reservation_ids": [it.held, "rsv_none"]})
    assert answer.json() == {"stopped": {}}


def test_a_run_header_of_another_tenant(world: World, funded: Tenant) -> None:
    it = Other(world)
    answer = funded.post("/v1/reservations", funded.reserve_body(1), headers={"X-Clearance-Run-Id": it.run})
    assert problem(answer) == (403, "FORBIDDEN")


ADMIN_ROUTES = [route for route in ROUTES if route.access == "admin"]


@pytest.mark.parametrize("route", ADMIN_ROUTES, ids=lambda it: f"{it.method} {it.path}")
def test_admin_routes_open_to_the_operator_only(route: Any, world: World, funded: Tenant) -> None:
    path = route.path.replace("{", "").replace("}", "")
    assert problem(funded.request(route.method, path, {})) == (401, "UNAUTHORIZED")
    wrong = world.client.request(route.method, path, json={}, headers={"X-Admin-API-Key": "wrong"})
    assert problem(wrong) == (401, "UNAUTHORIZED")


TENANT_ROUTES = [route for route in ROUTES if route.access == "tenant"]


@pytest.mark.parametrize("route", TENANT_ROUTES, ids=lambda it: f"{it.method} {it.path}")
def test_the_admin_key_is_no_tenants_key(route: Any, world: World) -> None:
    path = route.path.replace("{", "").replace("}", "")
    assert problem(world.client.request(route.method, path, json={}, headers=ADMIN)) == (401, "UNAUTHORIZED")


BOUND = [route for route in ROUTES if route.permission]


@pytest.mark.parametrize("route", BOUND, ids=lambda it: f"{it.method} {it.path}")
def test_every_permission_is_enforced(route: Any, world: World) -> None:
    weak = world.tenant(permissions=["policies:read"])
    path = route.path.replace("{", "").replace("}", "")
    answer = weak.request(route.method, path, {})
    status, code = problem(answer)
    assert status == 403
    assert code in ("FORBIDDEN", "INSUFFICIENT_PERMISSIONS")
    assert answer.json()["details"]["permission"] == route.permission


def test_wildcards_of_permissions(world: World) -> None:
    reader, writer = world.tenant(permissions=["admin:read"]), world.tenant(permissions=["admin:write"])
    scope = {"scope": f"tenant:{writer.name}", "unit": "TOKENS", "allocated": amount(1)}
    assert writer.post("/v1/admin/budgets", scope).status_code == 201
    assert problem(writer.get("/v1/admin/budgets"))[0] == 403
    assert reader.get("/v1/admin/budgets").status_code == 200
    assert problem(reader.post("/v1/admin/budgets", {**scope, "scope": f"tenant:{reader.name}"}))[0] == 403


def test_a_wrong_admin_key_does_not_fall_through(funded: Tenant) -> None:
    answer = funded.request("GET", "/v1/reservations", headers={"X-Admin-API-Key": "wrong"})
    assert problem(answer) == (401, "UNAUTHORIZED")
    ignored = funded.request("GET", "/v1/balances?tenant=" + funded.name, headers={"X-Admin-API-Key": "wrong"})
    assert ignored.status_code == 200

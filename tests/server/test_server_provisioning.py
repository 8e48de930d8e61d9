"""Tenants and keys from their making to their end."""

from __future__ import annotations

import pytest
from tests.server.kit import ALL, Tenant, World, amount, problem, unique

from clearance.authority.clock import ManualClock
from clearance.server import keys

# -- tenants --------------------------------------------------------------------------------------


def test_a_tenant_is_made_once(world: World) -> None:
    body = {"tenant_id": unique("made"), "name": "Made", "status": "ACTIVE", "metadata": {"plan": "x"}}
    first = world.admin("POST", "/v1/admin/tenants", body)
    assert first.status_code == 201
    again = world.admin("POST", "/v1/admin/tenants", {**body, "name": "Other"})
    assert (again.status_code, again.json()) == (200, first.json())
    assert world.admin("GET", f"/v1/admin/tenants/{body['tenant_id']}").json() == first.json()


@pytest.mark.parametrize("name", ["ab", "A-B", "a_b", "x" * 65, "a b", ""])
def test_names_of_tenants(name: str, world: World) -> None:
    answer = world.admin("POST", "/v1/admin/tenants", {"tenant_id": name, "name": "x"})
    assert problem(answer) == (400, "INVALID_REQUEST")


def test_tenants_are_listed_in_pages(world: World) -> None:
    made = {world.tenant().name for _ in range(3)}
    found: list[str] = []
    cursor: str | None = ""
    while cursor is not None:
        query = {"limit": 2, **({"cursor": cursor} if cursor else {})}
        page = world.admin("GET", "/v1/admin/tenants", params=query).json()
        found += [row["tenant_id"] for row in page["tenants"]]
        cursor = page.get("next_cursor")
        assert page["has_more"] is (cursor is not None)
    assert made <= set(found)
    assert len(found) == len(set(found))


def test_a_suspended_tenant_cannot_enter_and_comes_back(funded: Tenant, world: World) -> None:
    path = f"/v1/admin/tenants/{funded.name}"
    assert world.admin("PATCH", path, {"status": "SUSPENDED"}).json()["status"] == "SUSPENDED"
    answer = funded.reserve(1)
    assert problem(answer) == (401, "UNAUTHORIZED")
    assert answer.json()["message"] == "TENANT_SUSPENDED"
    world.admin("PATCH", path, {"status": "ACTIVE"})
    assert funded.reserve(1).status_code == 200


def test_closing_a_tenant_ends_all_it_owns(funded: Tenant, world: World) -> None:
    held = funded.hold(100)
    hook = {"url": "https://example.com/x", "event_types": ["budget.exhausted"]}
    webhook = funded.post("/v1/webhooks", hook).json()["subscription_id"]
    path = f"/v1/admin/tenants/{funded.name}"
    assert world.admin("PATCH", path, {"status": "CLOSED"}).json()["status"] == "CLOSED"
    assert world.admin("GET", path).json()["status"] == "CLOSED"
    assert problem(funded.reserve(1)) == (401, "UNAUTHORIZED")
    assert world.admin("GET", f"/v1/reservations/{held}").json()["status"] == "RELEASED"
    query = {"tenant_id": funded.name}
    (budget,) = world.admin("GET", "/v1/admin/budgets", params=query).json()["ledgers"]
    assert (budget["status"], budget["reserved"], budget["remaining"]) == ("CLOSED", amount(0), amount(1000))
    assert world.admin("GET", f"/v1/admin/webhooks/{webhook}").json()["status"] == "DISABLED"
    types = {it["event_type"] for it in world.admin("GET", "/v1/admin/events", params=query).json()["events"]}
    assert {
        "tenant.closed",
        "budget.closed_via_tenant_cascade",
        "reservation.released_via_tenant_cascade",
        "api_key.revoked_via_tenant_cascade",
        "webhook.disabled_via_tenant_cascade",
    } <= types


def test_closed_is_for_good(funded: Tenant, world: World) -> None:
    path = f"/v1/admin/tenants/{funded.name}"
    world.admin("PATCH", path, {"status": "CLOSED"})
    assert world.admin("PATCH", path, {"status": "CLOSED"}).status_code == 200
    assert problem(world.admin("PATCH", path, {"status": "ACTIVE"})) == (409, "TENANT_CLOSED")
    key = {"tenant_id": funded.name, "name": "late"}
    assert problem(world.admin("POST", "/v1/admin/api-keys", key)) == (409, "TENANT_CLOSED")
    where = f"?scope=tenant:{funded.name}&unit=TOKENS&tenant_id={funded.name}"
    money = {"operation": "CREDIT", "amount": amount(1)}
    assert problem(world.admin("POST", "/v1/admin/budgets/fund" + where, money)) == (409, "TENANT_CLOSED")
    unknown = world.admin("PATCH", "/v1/admin/tenants/nobody", {"name": "x"})
    assert problem(unknown) == (404, "TENANT_NOT_FOUND")


def test_defaults_of_a_tenant_reach_the_ledger(world: World) -> None:
    tenant = world.tenant(default_commit_overage_policy="REJECT")
    tenant.budget(100)
    assert problem(tenant.settle("commit", tenant.hold(10), actual=amount(11))) == (409, "BUDGET_EXCEEDED")
    assert tenant.settle("commit", tenant.hold(1, overage_policy="ALLOW_IF_AVAILABLE"), actual=amount(2)).is_success


# -- keys -----------------------------------------------------------------------------------------


def test_a_secret_is_shown_once_and_kept_as_a_hash(tenant: Tenant, world: World) -> None:
    assert tenant.secret.startswith("cyc_live_")
    listed = world.admin("GET", "/v1/admin/api-keys", params={"tenant_id": tenant.name})
    assert tenant.secret not in listed.text
    (row,) = listed.json()["keys"]
    assert row["key_prefix"] == tenant.secret[: keys.PREFIX_LENGTH]
    assert not {"salt", "hash", "key_secret"} & set(row)
    kept = world.running.authority.record(keys.KIND, tenant.key_id)
    assert kept is not None
    assert tenant.secret[keys.PREFIX_LENGTH :] not in str(kept)


def test_a_key_with_the_right_prefix_and_a_wrong_end(funded: Tenant) -> None:
    wrong = funded.secret[:-1] + ("a" if funded.secret[-1] != "a" else "b")
    answer = funded.request("GET", "/v1/auth/introspect", headers={"X-Cycles-API-Key": wrong})
    assert answer.json()["message"] == "INVALID_KEY"


@pytest.mark.parametrize("text", ["", "x", "cyc_", "cyc_live_", "é" * 40, "cyc_live_" + "é" * 32, "x" * 5000])
def test_nonsense_is_401(text: str, world: World) -> None:
    headers = {"X-Cycles-API-Key": text.encode("latin-1")}
    assert problem(world.client.get("/v1/auth/introspect", headers=headers)) == (401, "UNAUTHORIZED")


def test_a_revoked_key_ends_at_once(funded: Tenant, world: World) -> None:
    assert funded.reserve(1).status_code == 200
    revoked = world.admin("DELETE", f"/v1/admin/api-keys/{funded.key_id}?reason=lost")
    assert (revoked.json()["status"], revoked.json()["revoked_reason"]) == ("REVOKED", "lost")
    answer = funded.reserve(1)
    assert (problem(answer), answer.json()["message"]) == ((401, "UNAUTHORIZED"), "KEY_REVOKED")
    assert world.admin("DELETE", f"/v1/admin/api-keys/{funded.key_id}").status_code == 200


def test_a_rotated_key(funded: Tenant, world: World, clock: ManualClock) -> None:
    path = f"/v1/x-clearance/api-keys/{funded.key_id}/rotate"
    made = world.admin("POST", path, {"overlap_seconds": 10}).json()
    new = Tenant(world, funded.name, made["key_id"], made["key_secret"])
    assert sorted(made["permissions"]) == sorted(ALL)
    assert funded.reserve(1).status_code == new.reserve(1, idempotency_key="n").status_code == 200
    clock.advance(10_001)
    assert funded.reserve(1).json()["message"] == "KEY_EXPIRED"
    at_once = world.admin("POST", f"/v1/x-clearance/api-keys/{new.key_id}/rotate").json()
    assert new.reserve(1).json()["message"] == "KEY_REVOKED"
    assert Tenant(world, funded.name, at_once["key_id"], at_once["key_secret"]).reserve(1).status_code == 200
    assert problem(world.admin("POST", f"/v1/x-clearance/api-keys/{new.key_id}/rotate")) == (409, "INVALID_REQUEST")


def test_keys_expire(world: World, clock: ManualClock) -> None:
    from datetime import UTC, datetime

    end = datetime.fromtimestamp((clock.now_ms() + 5_000) / 1000, UTC).isoformat()
    tenant = world.key_of(world.tenant().name, expires_at=end)
    assert tenant.get("/v1/auth/introspect").status_code == 200
    clock.advance(5_001)
    assert tenant.get("/v1/auth/introspect").json()["message"] == "KEY_EXPIRED"
    past = {"tenant_id": tenant.name, "name": "x", "expires_at": "2001-01-01T00:00:00Z"}
    assert problem(world.admin("POST", "/v1/admin/api-keys", past)) == (400, "INVALID_REQUEST")


def test_permissions_change_at_once(funded: Tenant, world: World) -> None:
    path = f"/v1/admin/api-keys/{funded.key_id}"
    world.admin("PATCH", path, {"permissions": ["balances:read"]})
    assert problem(funded.reserve(1)) == (403, "FORBIDDEN")
    assert problem(world.admin("PATCH", path, {"permissions": ["root"]})) == (400, "INVALID_REQUEST")


def test_default_permissions_leave_webhooks_and_events_out(world: World) -> None:
    name = world.tenant().name
    made = world.admin("POST", "/v1/admin/api-keys", {"tenant_id": name, "name": "plain"}).json()
    assert "events:read" not in made["permissions"]
    assert "reservations:create" in made["permissions"]
    unknown = world.admin("POST", "/v1/admin/api-keys", {"tenant_id": "nobody", "name": "x"})
    assert problem(unknown) == (404, "TENANT_NOT_FOUND")


def test_validating_a_secret(funded: Tenant, world: World) -> None:
    good = world.admin("POST", "/v1/auth/validate", {"key_secret": funded.secret}).json()
    assert (good["valid"], good["tenant_id"]) == (True, funded.name)
    bad = world.admin("POST", "/v1/auth/validate", {"key_secret": "cyc_live_nope"}).json()
    assert bad == {"valid": False, "reason": "INVALID_KEY"}

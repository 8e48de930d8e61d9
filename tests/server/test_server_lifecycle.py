"""Every operation once, as its schema says."""

from __future__ import annotations

from tests.server.kit import ACTION, Tenant, World, amount


def test_reserve_commit_and_read(funded: Tenant) -> None:
    made = funded.reserve(100, metadata={"job": 7}, ttl_ms=30_000)
    body = made.json()
    assert made.status_code == 200
    assert body["decision"] == "ALLOW"
    assert body["reserved"] == amount(100)
    assert body["remaining_ttl_ms"] == 30_000
    assert body["affected_scopes"] == [f"tenant:{funded.name}"]
    assert body["scope_path"] == f"tenant:{funded.name}"
    assert body["balances"][0]["remaining"] == amount(900)

    done = funded.settle("commit", body["reservation_id"], actual=amount(80), metadata={"ok": True}).json()
    assert done["status"] == "COMMITTED"
    assert done["charged"] == amount(80)
    assert done["released"] == amount(20)

    detail = funded.get(f"/v1/reservations/{body['reservation_id']}").json()
    assert detail["status"] == "COMMITTED"
    assert detail["committed"] == amount(80)
    assert detail["metadata"] == {"job": 7}
    assert detail["committed_metadata"] == {"ok": True}
    assert detail["subject"] == {"tenant": funded.name}
    assert "finalized_at_ms" in detail


def test_released_is_absent_when_nothing_came_back(funded: Tenant) -> None:
    done = funded.settle("commit", funded.hold(50), actual=amount(50)).json()
    assert "released" not in done


def test_release_gives_everything_back(funded: Tenant) -> None:
    done = funded.settle("release", funded.hold(100), reason="not needed")
    assert done.json()["released"] == amount(100)
    assert funded.remaining() == 1000


def test_extend_counts_from_the_present_end(funded: Tenant) -> None:
    first = funded.reserve(10).json()
    longer = funded.settle("extend", first["reservation_id"], extend_by_ms=5000).json()
    assert longer["status"] == "ACTIVE"
    assert longer["expires_at_ms"] == first["expires_at_ms"] + 5000
    assert longer["remaining_ttl_ms"] == 65_000


def test_event_is_201_and_names_its_charge_only_when_capped(funded: Tenant) -> None:
    done = funded.event(10, metrics={"tokens_input": 4, "custom": {"x": 1}}, client_time_ms=5)
    assert done.status_code == 201
    assert done.json()["status"] == "APPLIED"
    assert "charged" not in done.json()
    capped = funded.event(5000).json()
    assert capped["charged"] == amount(990)


def test_dry_run_and_decide_change_nothing(funded: Tenant) -> None:
    dry = funded.reserve(100, dry_run=True).json()
    assert dry["decision"] == "ALLOW"
    assert not {"reservation_id", "expires_at_ms", "remaining_ttl_ms"} & set(dry)
    denied = funded.reserve(5000, dry_run=True)
    assert denied.status_code == 200
    assert denied.json()["decision"] == "DENY"
    assert denied.json()["reason_code"] == "BUDGET_EXCEEDED"
    assert funded.decide(100).json() == {"decision": "ALLOW", "affected_scopes": [f"tenant:{funded.name}"]}
    assert funded.decide(5000).json()["reason_code"] == "BUDGET_EXCEEDED"
    assert funded.remaining() == 1000


def test_caps_come_with_the_answer_without_what_the_protocol_does_not_know(tenant: Tenant) -> None:
    spec = {
        "scope": f"tenant:{tenant.name}",
        "allocated": amount(100),
        "caps": [{"caps": {"max_tokens": 50, "models": ["small"]}}],
    }
    assert tenant.request("PUT", "/v1/x-clearance/budgets", spec).status_code == 200
    plain = tenant.reserve(1).json()
    assert plain["decision"] == "ALLOW_WITH_CAPS"
    assert plain["caps"] == {"max_tokens": 50}
    ours = tenant.post("/v1/reservations", tenant.reserve_body(1), headers={"X-Clearance-Extensions": "1"}).json()
    assert ours["caps"] == {"max_tokens": 50, "models": ["small"]}


def test_scopes_skip_absent_levels_and_keep_the_subject_as_it_was(funded: Tenant) -> None:
    subject = funded.subject(agent="Bot", dimensions={"cost": "x"})
    body = funded.reserve(1, subject=subject).json()
    assert body["affected_scopes"] == [f"tenant:{funded.name}", f"tenant:{funded.name}/agent:bot"]
    assert [it["scope_path"] for it in body["balances"]] == [f"tenant:{funded.name}"]
    detail = funded.get(f"/v1/reservations/{body['reservation_id']}").json()
    assert detail["subject"] == subject


def test_a_subject_without_tenant_stays_with_the_tenant_of_its_key(world: World, funded: Tenant) -> None:
    other = world.tenant()
    other.budget(10)
    body = funded.reserve(1, subject={"agent": "bot"})
    # No budget can be found for it, and never another tenant's.
    assert body.status_code == 404
    assert funded.decide(1, subject={"agent": "bot"}).json()["affected_scopes"] == ["agent:bot"]


def test_balances_show_the_leaf_and_the_path(funded: Tenant) -> None:
    funded.budget(300, "/agent:bot", overdraft_limit=amount(7))
    funded.hold(10, subject=funded.subject(agent="bot"))
    found = funded.balance("/agent:bot")
    assert found["scope"] == "agent:bot"
    assert found["overdraft_limit"] == amount(7)
    assert found["reserved"] == amount(10)
    assert "debt" not in found
    assert "is_over_limit" not in found


def test_int64_is_exact(tenant: Tenant) -> None:
    most = 2**63 - 1
    tenant.budget(most)
    body = tenant.reserve(2**53 + 1).json()
    assert body["reserved"]["amount"] == 2**53 + 1
    assert body["balances"][0]["remaining"]["amount"] == most - 2**53 - 1
    done = tenant.settle("commit", body["reservation_id"], actual=amount(2**53 + 1)).json()
    assert done["charged"]["amount"] == 2**53 + 1
    rest = tenant.reserve(most - 2**53 - 1)
    assert rest.status_code == 200
    assert tenant.remaining() == 0


def test_introspection_of_both_kinds_of_key(world: World) -> None:
    admin = world.admin("GET", "/v1/auth/introspect").json()
    assert admin["auth_type"] == "admin"
    assert admin["permissions"] == ["*"]
    assert all(admin["capabilities"].values())
    assert "tenant_id" not in admin
    reader = world.tenant(permissions=["budgets:read", "admin:write"])
    tenant = reader.get("/v1/auth/introspect").json()
    assert tenant["tenant_id"] == reader.name
    assert tenant["capabilities"]["view_budgets"]
    assert tenant["capabilities"]["manage_webhooks"]
    assert not tenant["capabilities"]["view_tenants"]
    assert not tenant["capabilities"]["view_reservations"]


def test_action_keeps_its_tags(funded: Tenant) -> None:
    action = {**ACTION, "tags": ["a", "b"]}
    held = funded.hold(1, action=action)
    assert funded.get(f"/v1/reservations/{held}").json()["action"] == action

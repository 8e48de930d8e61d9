"""Budgets from their making to their end."""

from __future__ import annotations

from typing import Any

import pytest
from tests.server.kit import Tenant, World, amount, problem


def test_a_budget_by_the_operator_and_by_the_tenant(world: World) -> None:
    tenant = world.tenant()
    body = {"tenant_id": tenant.name, "scope": f"tenant:{tenant.name}", "unit": "TOKENS", "allocated": amount(10)}
    made = world.admin("POST", "/v1/admin/budgets", body)
    assert made.status_code == 201
    assert made.json()["remaining"] == amount(10)
    assert problem(world.admin("POST", "/v1/admin/budgets", body)) == (409, "DUPLICATE_RESOURCE")
    del body["tenant_id"]
    assert problem(world.admin("POST", "/v1/admin/budgets", body)) == (400, "INVALID_REQUEST")
    named = {**body, "tenant_id": tenant.name, "scope": f"tenant:{tenant.name}/agent:a"}
    assert problem(tenant.post("/v1/admin/budgets", named)) == (400, "INVALID_REQUEST")
    assert tenant.budget(5, "/agent:Bot")["scope"] == f"tenant:{tenant.name}/agent:bot"


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"allocated": amount(1, "CREDITS")}, (400, "UNIT_MISMATCH")),
        ({"overdraft_limit": amount(1, "CREDITS")}, (400, "UNIT_MISMATCH")),
        ({"scope": "agent:x/tenant:y"}, (400, "INVALID_REQUEST")),
        ({"scope": "planet:x"}, (400, "INVALID_REQUEST")),
        ({"rollover_policy": "NONE"}, (400, "INVALID_REQUEST")),
    ],
)
def test_budgets_that_are_refused(change: Any, expected: tuple[int, str], tenant: Tenant) -> None:
    body = {"scope": f"tenant:{tenant.name}", "unit": "TOKENS", "allocated": amount(1)}
    assert problem(tenant.post("/v1/admin/budgets", {**body, **change})) == expected


def where(tenant: Tenant) -> str:
    return f"?scope=tenant:{tenant.name}&unit=TOKENS"


def test_funding(funded: Tenant, world: World) -> None:
    def fund(**body: Any) -> Any:
        return funded.post("/v1/admin/budgets/fund" + where(funded), body)

    assert fund(operation="CREDIT", amount=amount(100)).json()["new_remaining"] == amount(1100)
    assert fund(operation="DEBIT", amount=amount(50)).json()["new_allocated"] == amount(1050)
    assert problem(fund(operation="DEBIT", amount=amount(5000))) == (409, "BUDGET_EXCEEDED")
    funded.event(50)
    assert fund(operation="RESET", amount=amount(500)).json()["new_remaining"] == amount(450)
    reset = fund(operation="RESET_SPENT", amount=amount(600), spent=amount(10)).json()
    assert (reset["new_spent"], reset["new_remaining"]) == (amount(10), amount(590))
    assert problem(fund(operation="CREDIT", amount=amount(1, "CREDITS"))) == (400, "UNIT_MISMATCH")
    assert problem(fund(operation="GIFT", amount=amount(1))) == (400, "INVALID_REQUEST")
    money = {"operation": "CREDIT", "amount": amount(1)}
    assert problem(world.admin("POST", "/v1/admin/budgets/fund" + where(funded), money)) == (400, "INVALID_REQUEST")
    path = f"/v1/admin/budgets/fund{where(funded)}&tenant_id={funded.name}"
    assert world.admin("POST", path, money).status_code == 200


def test_int64_overflow_is_400_and_changes_nothing(tenant: Tenant) -> None:
    tenant.budget(2**63 - 1)
    money = {"operation": "CREDIT", "amount": amount(1)}
    assert problem(tenant.post("/v1/admin/budgets/fund" + where(tenant), money)) == (400, "INVALID_REQUEST")
    assert tenant.remaining() == 2**63 - 1


def test_freezing_and_back(funded: Tenant) -> None:
    def transition(verb: str) -> Any:
        return funded.post(f"/v1/admin/budgets/{verb}" + where(funded), {"reason": "audit"})

    assert transition("freeze").json()["status"] == "FROZEN"
    assert problem(transition("freeze"))[0] == 409
    money = {"operation": "CREDIT", "amount": amount(1)}
    assert problem(funded.post("/v1/admin/budgets/fund" + where(funded), money)) == (409, "BUDGET_FROZEN")
    assert transition("unfreeze").json()["status"] == "ACTIVE"
    assert problem(transition("unfreeze"))[0] == 409
    assert funded.request("POST", "/v1/admin/budgets/freeze" + where(funded)).status_code == 200


def test_looking_up_and_changing(funded: Tenant) -> None:
    path = "/v1/admin/budgets"
    changed = funded.request("PATCH", path + where(funded), {"overdraft_limit": amount(7)}).json()
    assert changed["overdraft_limit"] == amount(7)
    assert funded.get(path + "/lookup" + where(funded)).json() == changed
    missing = funded.get(f"{path}/lookup?scope=tenant:{funded.name}&unit=CREDITS")
    assert problem(missing) == (404, "BUDGET_NOT_FOUND")
    assert problem(funded.get(f"{path}/lookup?scope=tenant:{funded.name}")) == (400, "INVALID_REQUEST")


def test_budgets_are_listed_in_pages_and_filtered(funded: Tenant) -> None:
    for number in range(5):
        funded.budget(1, f"/agent:a{number}")
    funded.budget(1, "/workspace:w", unit="CREDITS")
    seen: list[str] = []
    query: dict[str, Any] = {"limit": 2}
    while True:
        page = funded.get("/v1/admin/budgets", **query).json()
        seen += [row["scope"] for row in page["ledgers"]]
        if not page["has_more"]:
            break
        query["cursor"] = page["next_cursor"]
    assert len(seen) == len(set(seen)) == 7
    credits = funded.get("/v1/admin/budgets", unit="CREDITS").json()["ledgers"]
    assert [row["scope"] for row in credits] == [f"tenant:{funded.name}/workspace:w"]
    below = funded.get("/v1/admin/budgets", scope_prefix=f"tenant:{funded.name}/agent:a1").json()["ledgers"]
    assert len(below) == 1
    other = funded.get("/v1/admin/budgets", unit="CREDITS", cursor=query["cursor"])
    assert problem(other) == (400, "INVALID_REQUEST")


def test_a_whole_spec_with_its_period(tenant: Tenant) -> None:
    spec = {
        "scope": f"tenant:{tenant.name}",
        "allocated": amount(100),
        "period": {"every": "day", "timezone": "Europe/Berlin"},
        "overage_policy": "REJECT",
    }
    made = tenant.request("PUT", "/v1/x-clearance/budgets", spec).json()
    assert made["period"] == {"every": "day", "kind": "calendar", "timezone": "Europe/Berlin"}
    assert "period_start" in made
    assert tenant.request("PUT", "/v1/x-clearance/budgets", spec).json() == made
    bad = {**spec, "period": {"every": "day", "timezone": "Mars/Base"}}
    assert problem(tenant.request("PUT", "/v1/x-clearance/budgets", bad)) == (400, "INVALID_REQUEST")

"""Lists: their filters, windows, order and cursors; and the event log."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from tests.server.kit import Tenant, World, amount, problem

from clearance.authority.clock import ManualClock

PATH = "/v1/reservations"


def at(ms: int) -> str:
    return datetime.fromtimestamp(ms / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def ids(tenant: Tenant, **query: Any) -> list[str]:
    answer = tenant.get(PATH, **query)
    assert answer.status_code == 200, answer.text
    return [row["reservation_id"] for row in answer.json()["reservations"]]


def pages(tenant: Tenant, **query: Any) -> list[str]:
    found: list[str] = []
    while True:
        body = tenant.get(PATH, **query).json()
        found += [row["reservation_id"] for row in body["reservations"]]
        assert body["has_more"] is ("next_cursor" in body)
        if not body["has_more"]:
            return found
        query["cursor"] = body["next_cursor"]


@pytest.fixture
def five(funded: Tenant, clock: ManualClock) -> list[str]:
    """Held one second apart, of rising size."""
    held = []
    for number in range(5):
        held.append(
            funded.hold(number + 1, subject=funded.subject(agent=f"A{number % 2}"), idempotency_key=f"k{number}")
        )
        clock.advance(1000)
    return held


def test_filters(funded: Tenant, five: list[str]) -> None:
    funded.settle("commit", five[0], actual=amount(1))
    assert ids(funded, status="COMMITTED") == five[:1]
    assert set(ids(funded, agent="a1")) == {five[1], five[3]}
    assert ids(funded, agent="A1", status="EXPIRED") == []
    assert ids(funded, idempotency_key="k3") == [five[3]]
    assert len(funded.get(PATH, tenant=funded.name).json()["reservations"]) == 5


def test_the_order(funded: Tenant, five: list[str]) -> None:
    assert ids(funded) == five[::-1]
    assert ids(funded, sort_dir="asc") == five
    assert ids(funded, sort_by="RESERVED") == five[::-1]
    assert ids(funded, sort_by="reserved", sort_dir="ASC") == five
    assert ids(funded, sort_by="reservation_id", sort_dir="asc") == sorted(five)


@pytest.mark.parametrize("sort_by", ["reservation_id", "tenant", "scope_path", "status", "reserved", "created_at_ms"])
@pytest.mark.parametrize("sort_dir", ["asc", "desc"])
def test_pages_cover_everything_once(sort_by: str, sort_dir: str, funded: Tenant, five: list[str]) -> None:
    found = pages(funded, limit=2, sort_by=sort_by, sort_dir=sort_dir)
    assert found == ids(funded, sort_by=sort_by, sort_dir=sort_dir)
    assert sorted(found) == sorted(five)


def test_windows_are_inclusive(funded: Tenant, five: list[str], clock: ManualClock) -> None:
    start = clock.now_ms() - 5000
    assert ids(funded, **{"from": at(start + 1000), "to": at(start + 3000), "sort_dir": "asc"}) == five[1:4]
    assert ids(funded, **{"from": at(start + 4000)}) == five[4:]
    assert ids(funded, expires_to=at(start + 60_000)) == five[:1]
    funded.settle("release", five[2])
    assert ids(funded, finalized_from=at(start)) == [five[2]]
    assert ids(funded, finalized_from=at(clock.now_ms() + 1)) == []
    empty = dict.fromkeys(("from", "to", "expires_from", "expires_to", "finalized_from", "finalized_to"), "")
    assert len(ids(funded, **empty)) == 5
    plus = at(start + 4000).replace("Z", "+00:00")
    answer = funded.get(f"{PATH}?from={plus}")
    assert [row["reservation_id"] for row in answer.json()["reservations"]] == five[4:]


@pytest.mark.parametrize(
    "query",
    [
        {"limit": "0"},
        {"limit": "201"},
        {"limit": "x"},
        {"limit": "1.5"},
        {"limit": ""},
        {"status": "OPEN"},
        {"sort_by": "size"},
        {"sort_dir": "up"},
        {"cursor": "garbage"},
        {"cursor": "eyJhIjoxfQ"},
        {"cursor": "W10"},
        {"cursor": "é"},
        {"from": "yesterday"},
        {"from": "2026-01-01"},
        {"from": "2026-01-01T00:00:00"},
        {"finalized_from": "2026-02-01T00:00:00Z", "finalized_to": "2026-01-01T00:00:00Z"},
    ],
)
def test_wrong_parameters(query: dict[str, str], funded: Tenant) -> None:
    assert problem(funded.get(PATH, **query)) == (400, "INVALID_REQUEST")


def test_a_cursor_belongs_to_its_filters(funded: Tenant, five: list[str]) -> None:
    cursor = funded.get(PATH, limit=2, status="ACTIVE").json()["next_cursor"]
    assert funded.get(PATH, limit=3, status="ACTIVE", cursor=cursor).status_code == 200
    assert funded.get(PATH, status="ACTIVE", cursor=cursor, include="metadata").status_code == 200
    for other in ({"status": "COMMITTED"}, {"status": "ACTIVE", "sort_dir": "asc"}, {"status": "ACTIVE", "app": "x"}):
        assert problem(funded.get(PATH, cursor=cursor, **other)) == (400, "INVALID_REQUEST")


def test_include(funded: Tenant) -> None:
    funded.settle("commit", funded.hold(1, metadata={"m": 1}), actual=amount(1), metadata={"c": 2})

    def row(**query: str) -> dict[str, Any]:
        return dict(funded.get(PATH, **query).json()["reservations"][0])

    assert not {"metadata", "committed_metadata"} & set(row())
    assert row()["committed"] == amount(1)
    assert row(include="metadata, ,nonsense")["metadata"] == {"m": 1}
    assert row(include="metadata,committed_metadata,evidence")["committed_metadata"] == {"c": 2}


def test_the_operator_lists_by_tenant(funded: Tenant, world: World) -> None:
    held = funded.hold(1)
    rows = world.admin("GET", PATH, params={"tenant": funded.name}).json()["reservations"]
    assert [row["reservation_id"] for row in rows] == [held]
    assert world.admin("GET", f"{PATH}/{held}").status_code == 200


# -- balances -------------------------------------------------------------------------------------


def test_balances_by_segment_and_page(funded: Tenant) -> None:
    funded.budget(1, "/workspace:w")
    funded.budget(2, "/workspace:w/agent:a")
    funded.budget(3, "/agent:a")
    path = f"tenant:{funded.name}"

    def paths(**query: Any) -> list[str]:
        return [it["scope_path"] for it in funded.get("/v1/balances", **query).json()["balances"]]

    assert len(paths(tenant=funded.name)) == 4
    assert paths(workspace="W") == [f"{path}/workspace:w", f"{path}/workspace:w/agent:a"]
    assert paths(workspace="w", agent="a", include_children="true") == [f"{path}/workspace:w/agent:a"]
    assert paths(agent="nobody") == []
    first = funded.get("/v1/balances", tenant=funded.name, limit=3).json()
    rest = funded.get("/v1/balances", tenant=funded.name, limit=3, cursor=first["next_cursor"]).json()
    assert first["has_more"]
    assert not rest["has_more"]
    assert len(first["balances"]) + len(rest["balances"]) == 4
    assert problem(funded.get("/v1/balances", tenant=funded.name, include_children="yes"))[0] == 400
    assert paths(scope_prefix=f"{path}/workspace:w") == [f"{path}/workspace:w", f"{path}/workspace:w/agent:a"]
    assert len(paths(unit="TOKENS")) == 4


def test_the_invariant_holds_on_every_balance(funded: Tenant) -> None:
    funded.hold(7)
    funded.event(5)
    it = funded.balance()
    figures = {name: it.get(name, {"amount": 0})["amount"] for name in ("allocated", "spent", "reserved", "debt")}
    assert it["remaining"]["amount"] == figures["allocated"] - figures["spent"] - figures["reserved"] - figures["debt"]


# -- events ---------------------------------------------------------------------------------------


def events(tenant: Tenant, **query: Any) -> list[dict[str, Any]]:
    answer = tenant.world.admin("GET", "/v1/admin/events", params={"tenant_id": tenant.name, **query})
    assert answer.status_code == 200, answer.text
    return list(answer.json()["events"])


def test_the_log_by_type_category_scope_and_window(funded: Tenant, clock: ManualClock) -> None:
    funded.budget(10, "/agent:bot")
    start = clock.now_ms()
    clock.advance(10)
    funded.reserve(5000)
    assert [it["event_type"] for it in events(funded, category="budget")] == ["budget.created"] * 2
    (denied,) = events(funded, event_type="reservation.denied")
    assert denied["data"]["reason_code"] == "BUDGET_EXCEEDED"
    assert denied["data"]["requested_amount"] == 5000
    assert denied["data"]["remaining"] == 1000
    assert events(funded, **{"from": at(start + 1)}) == [denied]
    assert len(events(funded, to=at(start))) >= 2
    assert denied not in events(funded, to=at(start))
    assert len(events(funded, scope=f"tenant:{funded.name}/agent:bot")) == 1
    assert events(funded, event_type="policy.created") == []
    assert events(funded, search="nothing") == []
    single = funded.world.admin("GET", f"/v1/admin/events/{denied['event_id']}")
    assert single.json() == denied
    missing = funded.world.admin("GET", "/v1/admin/events/log_999999999999")
    assert problem(missing) == (404, "EVENT_NOT_FOUND")
    assert problem(funded.world.admin("GET", "/v1/admin/events/x")) == (404, "EVENT_NOT_FOUND")


def test_the_log_in_pages(funded: Tenant) -> None:
    for _ in range(5):
        funded.hold(1)
    for direction in ("asc", "desc"):
        whole = [it["event_id"] for it in events(funded, sort_dir=direction, limit=100)]
        query: dict[str, Any] = {"tenant_id": funded.name, "sort_dir": direction, "limit": 2}
        found: list[str] = []
        while True:
            body = funded.world.admin("GET", "/v1/admin/events", params=query).json()
            found += [it["event_id"] for it in body["events"]]
            if not body["has_more"]:
                break
            query["cursor"] = body["next_cursor"]
        assert found == whole == sorted(whole, reverse=direction == "desc")


def test_a_tenant_sees_the_types_of_the_protocol_and_ours_when_asked(funded: Tenant) -> None:
    funded.reserve(5000)
    funded.hold(1)
    seen = {it["event_type"] for it in funded.get("/v1/events").json()["events"]}
    assert seen == {"tenant.created", "budget.created", "reservation.denied"}
    ours = funded.get("/v1/events", event_type="custom.reservation.created").json()["events"]
    assert len(ours) == 1
    assert funded.get("/v1/events", category="api_key").json()["events"] == []


def test_crossings_are_told(funded: Tenant) -> None:
    funded.settle("commit", funded.hold(900), actual=amount(1500))
    types = [it["event_type"] for it in funded.get("/v1/events").json()["events"]]
    assert {"budget.exhausted", "budget.over_limit_entered", "reservation.commit_overage"} <= set(types)
    (exhausted,) = funded.get("/v1/events", event_type="budget.exhausted").json()["events"]
    assert exhausted["data"]["utilization"] == 1.0

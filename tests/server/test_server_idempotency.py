"""The same key: the same answer once, whatever happened since."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
from tests.server.kit import Tenant, World, amount, problem

from clearance.authority.clock import ManualClock

VERBS = ("decide", "reserve", "dry_run", "commit", "release", "extend", "event")


def request_of(tenant: Tenant, verb: str) -> tuple[str, dict[str, Any], dict[str, Any]]:
    """Path, body, and what to change for a mismatch."""
    key = {"idempotency_key": tenant.key()}
    if verb in ("decide", "reserve", "dry_run"):
        body = tenant.reserve_body(10, **({"dry_run": True} if verb == "dry_run" else {}))
        return ("/v1/decide" if verb == "decide" else "/v1/reservations"), body, {"estimate": amount(11)}
    if verb == "event":
        body = {**tenant.reserve_body(10, estimate=...), "actual": amount(10)}
        return "/v1/events", body, {"actual": amount(11)}
    path = f"/v1/reservations/{tenant.hold(10)}/{verb}"
    if verb == "commit":
        return path, {**key, "actual": amount(7)}, {"actual": amount(8)}
    if verb == "release":
        return path, {**key, "reason": "a"}, {"reason": "b"}
    return path, {**key, "extend_by_ms": 1000}, {"extend_by_ms": 1001}


@pytest.mark.parametrize("verb", VERBS)
def test_a_replay_is_the_first_answer(verb: str, funded: Tenant, clock: ManualClock) -> None:
    path, body, _ = request_of(funded, verb)
    first = funded.post(path, body)
    assert first.status_code in (200, 201), first.text
    funded.hold(100)
    clock.advance(250)
    again = funded.post(path, dict(reversed(body.items())))
    assert again.status_code == first.status_code
    expected = first.json()
    if "remaining_ttl_ms" in expected:
        expected["remaining_ttl_ms"] -= 250
    assert again.json() == expected


@pytest.mark.parametrize("verb", VERBS)
def test_other_arguments_are_a_mismatch(verb: str, funded: Tenant) -> None:
    path, body, change = request_of(funded, verb)
    assert funded.post(path, body).is_success
    assert problem(funded.post(path, {**body, **change})) == (409, "IDEMPOTENCY_MISMATCH")


@pytest.mark.parametrize("verb", VERBS)
def test_concurrent_duplicates_have_one_effect(verb: str, funded: Tenant, world: World) -> None:
    path, body, _ = request_of(funded, verb)
    before = funded.remaining()
    with ThreadPoolExecutor(8) as pool:
        answers = list(
            pool.map(lambda _: httpx.post(world.running.url + path, json=body, headers=funded.headers), range(16))
        )
    assert {answer.status_code for answer in answers} <= {200, 201}
    assert len({answer.text for answer in answers}) == 1
    moved = {"reserve": -10, "event": -10, "commit": 3, "release": 10}.get(verb, 0)
    assert funded.remaining() - before == moved


@pytest.mark.parametrize("verb", VERBS)
def test_a_replay_after_the_tenant_was_closed(verb: str, funded: Tenant, world: World) -> None:
    path, body, _ = request_of(funded, verb)
    first = funded.post(path, body).json()
    world.running.authority.close_tenant(funded.name)
    again = funded.post(path, body)
    assert again.is_success
    assert {**again.json(), "remaining_ttl_ms": 0} == {**first, "remaining_ttl_ms": 0}


@pytest.mark.parametrize("verb", ["reserve", "extend"])
def test_remaining_ttl_of_a_replay(verb: str, funded: Tenant, clock: ManualClock) -> None:
    """Computed anew from the first expiry: never negative, and 0 once the reservation has ended."""
    path, body, _ = request_of(funded, verb)
    first = funded.post(path, body).json()
    held = first.get("reservation_id") or path.split("/")[3]
    assert funded.settle("extend", held, extend_by_ms=100_000).status_code == 200
    assert funded.post(path, body).json()["expires_at_ms"] == first["expires_at_ms"]
    clock.advance(70_000)
    assert funded.post(path, body).json()["remaining_ttl_ms"] == 0
    funded.settle("commit", held)
    assert funded.post(path, body).json()["remaining_ttl_ms"] == 0


def test_after_finalisation_another_key_is_finalized_and_the_same_key_replays(funded: Tenant) -> None:
    path, body, _ = request_of(funded, "commit")
    first = funded.post(path, body).json()
    assert funded.post(path, body).json() == first
    other = {**body, "idempotency_key": funded.key()}
    assert problem(funded.post(path, other)) == (409, "RESERVATION_FINALIZED")


def test_live_and_dry_share_their_keys_and_decide_has_its_own(funded: Tenant) -> None:
    body = funded.reserve_body(10)
    assert funded.post("/v1/reservations", body).status_code == 200
    assert problem(funded.post("/v1/reservations", {**body, "dry_run": True})) == (409, "IDEMPOTENCY_MISMATCH")
    assert funded.post("/v1/decide", body).status_code == 200


def test_keys_of_settlements_belong_to_their_reservation(funded: Tenant) -> None:
    body = {"idempotency_key": "the-same", "actual": amount(5)}
    for _ in range(2):
        assert funded.post(f"/v1/reservations/{funded.hold(10)}/commit", body).status_code == 200
    assert funded.remaining() == 990


def test_keys_of_tenants_are_apart(world: World) -> None:
    for _ in range(2):
        tenant = world.tenant()
        tenant.budget(100)
        assert tenant.reserve(10, idempotency_key="shared").status_code == 200


def test_metrics_and_client_time_count(funded: Tenant) -> None:
    path, body, _ = request_of(funded, "commit")
    assert funded.post(path, {**body, "metrics": {"latency_ms": 1}}).status_code == 200
    assert problem(funded.post(path, {**body, "metrics": {"latency_ms": 2}})) == (409, "IDEMPOTENCY_MISMATCH")
    path, body, _ = request_of(funded, "event")
    assert funded.post(path, {**body, "client_time_ms": 1}).status_code == 201
    assert problem(funded.post(path, {**body, "client_time_ms": 2})) == (409, "IDEMPOTENCY_MISMATCH")


def test_a_denied_decision_stays_denied(tenant: Tenant) -> None:
    tenant.budget(5)
    body = tenant.reserve_body(10)
    assert tenant.post("/v1/decide", body).json()["decision"] == "DENY"
    query = f"?scope=tenant:{tenant.name}&unit=TOKENS"
    tenant.post("/v1/admin/budgets/fund" + query, {"operation": "CREDIT", "amount": amount(100)})
    assert tenant.post("/v1/decide", body).json()["decision"] == "DENY"
    assert tenant.decide(10).json()["decision"] == "ALLOW"


def test_a_replayed_funding_shows_the_first_figures(funded: Tenant) -> None:
    path = f"/v1/admin/budgets/fund?scope=tenant:{funded.name}&unit=TOKENS"
    body = {"operation": "CREDIT", "amount": amount(100), "idempotency_key": "f1"}
    first = funded.post(path, body).json()
    assert (first["previous_allocated"], first["new_allocated"]) == (amount(1000), amount(1100))
    funded.hold(7)
    assert funded.post(path, body).json() == first
    assert problem(funded.post(path, {**body, "amount": amount(1)})) == (409, "IDEMPOTENCY_MISMATCH")

"""What every answer carries, and how a trace is chosen."""

from __future__ import annotations

import re
from typing import Any

import pytest
from tests.server.kit import ADMIN, Tenant, World, amount

TRACE, OTHER, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "0af7651916cd43dd8448eb211c80319c", "00f067aa0ba902b7"

ANYTHING = [
    ("GET", "/v1/balances?tenant={tenant}", None, True),
    ("GET", "/v1/balances", None, True),
    ("GET", "/v1/balances", None, False),
    ("POST", "/v1/decide", {"x": 1}, True),
    ("GET", "/v1/reservations/none", None, True),
    ("GET", "/nothing", None, True),
    ("DELETE", "/v1/reservations", None, True),
    ("GET", "/healthz", None, False),
    ("GET", "/openapi.json", None, False),
    ("GET", "/docs", None, False),
]


@pytest.mark.parametrize(("method", "path", "body", "with_key"), ANYTHING)
def test_every_answer_is_traceable(
    method: str, path: str, body: Any, with_key: bool, funded: Tenant, world: World
) -> None:
    headers = funded.headers if with_key else {}
    answer = world.client.request(method, path.format(tenant=funded.name), json=body, headers=headers)
    assert re.fullmatch("[0-9a-f]{32}", answer.headers["X-Cycles-Trace-Id"])
    assert answer.headers["X-Request-Id"]
    assert len(answer.headers.get_list("X-Request-Id")) == 1
    if answer.status_code >= 400:
        assert answer.json()["request_id"] == answer.headers["X-Request-Id"]
        assert answer.json()["trace_id"] == answer.headers["X-Cycles-Trace-Id"]


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({"traceparent": f"00-{TRACE}-{SPAN}-01"}, TRACE),
        ({"traceparent": f"00-{TRACE.upper()}-{SPAN}-00"}, TRACE),
        ({"traceparent": f"00-{TRACE}-{SPAN}-01", "X-Cycles-Trace-Id": OTHER}, TRACE),
        ({"X-Cycles-Trace-Id": OTHER}, OTHER),
        ({"X-Cycles-Trace-Id": OTHER.upper()}, OTHER),
        ({"traceparent": f"01-{TRACE}-{SPAN}-01", "X-Cycles-Trace-Id": OTHER}, OTHER),
        ({"traceparent": f"00-{'0' * 32}-{SPAN}-01", "X-Cycles-Trace-Id": OTHER}, OTHER),
        ({"traceparent": f"00-{TRACE}-{'0' * 16}-01"}, None),
        ({"traceparent": f"00-{TRACE}-{SPAN}"}, None),
        ({"X-Cycles-Trace-Id": "0" * 32}, None),
        ({"X-Cycles-Trace-Id": "xyz"}, None),
        ({}, None),
    ],
)
def test_the_trace(headers: dict[str, str], expected: str | None, funded: Tenant) -> None:
    found = funded.request("GET", "/v1/auth/introspect", headers=headers).headers["X-Cycles-Trace-Id"]
    assert found == expected or (expected is None and found not in (TRACE, OTHER))


def test_an_inbound_request_id_is_ignored(funded: Tenant) -> None:
    first = funded.request("GET", "/v1/auth/introspect", headers={"X-Request-Id": "mine"})
    second = funded.request("GET", "/v1/auth/introspect", headers={"X-Request-Id": "mine"})
    assert len({"mine", first.headers["X-Request-Id"], second.headers["X-Request-Id"]}) == 3


def test_the_tenant_is_named_to_tenants_only(funded: Tenant, world: World) -> None:
    assert funded.get("/v1/balances").headers["X-Cycles-Tenant"] == funded.name
    assert "X-Cycles-Tenant" not in world.admin("GET", "/v1/admin/tenants").headers


def test_without_a_limit_the_limit_headers_say_so(funded: Tenant) -> None:
    headers = funded.get("/v1/auth/introspect").headers
    assert (headers["X-RateLimit-Remaining"], headers["X-RateLimit-Reset"]) == ("-1", "0")


def test_a_header_may_repeat_the_key(funded: Tenant) -> None:
    body = funded.reserve_body(1)
    answer = funded.post("/v1/reservations", body, headers={"X-Idempotency-Key": body["idempotency_key"]})
    assert answer.status_code == 200


def test_bodies_are_compact_and_without_nulls(funded: Tenant) -> None:
    text = funded.reserve(5, metadata={"a": 1}).text
    assert ": " not in text
    assert "null" not in text


def test_405_names_what_is_allowed(funded: Tenant) -> None:
    assert funded.request("PUT", "/v1/events").headers["Allow"] == "GET, POST"


def test_the_trace_and_the_request_are_in_the_events(funded: Tenant, world: World) -> None:
    answer = funded.post("/v1/reservations", funded.reserve_body(1), headers={"X-Cycles-Trace-Id": TRACE})
    query = {"request_id": answer.headers["X-Request-Id"]}
    (event,) = world.client.get("/v1/admin/events", params=query, headers=ADMIN).json()["events"]
    assert event["trace_id"] == TRACE
    assert event["actor"] == {"type": "api_key", "key_id": funded.key_id}
    assert event["event_type"] == "custom.reservation.created"


def test_the_operator_releases_on_behalf_of_a_tenant_and_the_log_says_so(funded: Tenant, world: World) -> None:
    held = funded.hold(10)
    body = {"idempotency_key": "force", "reason": "[INCIDENT_FORCE_RELEASE]"}
    answer = world.admin("POST", f"/v1/reservations/{held}/release", body)
    assert answer.json()["released"] == amount(10)
    query = {"request_id": answer.headers["X-Request-Id"]}
    (event,) = world.client.get("/v1/admin/events", params=query, headers=ADMIN).json()["events"]
    assert event["actor"] == {"type": "admin_on_behalf_of"}
    assert event["data"]["reason"] == "[INCIDENT_FORCE_RELEASE]"

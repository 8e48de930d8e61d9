"""Health, the API's own description, and that no input makes it fail."""

from __future__ import annotations

import json
import re
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.server.kit import Tenant, World, problem

from clearance.server.eventtypes import CATEGORIES, NOT_EMITTED, TABLE
from clearance.server.names import names
from clearance.server.routes import ROUTES


def test_health(world: World) -> None:
    for path in ("/healthz", "/actuator/health", "/actuator/health/readiness", "/actuator/health/liveness"):
        assert world.client.get(path).json() == {"status": "UP"}


def test_the_description_is_of_these_routes(world: World) -> None:
    document = world.client.get("/openapi.json").json()
    described = {(method.upper(), path) for path, methods in document["paths"].items() for method in methods}
    assert described == {(route.method, route.path) for route in ROUTES}
    text = json.dumps(document)
    named = set(document["components"]["schemas"])
    assert set(re.findall(r'"#/components/schemas/(\w+)"', text)) <= named
    assert "null" not in json.dumps(document["components"]["schemas"])
    identifiers = [op["operationId"] for methods in document["paths"].values() for op in methods.values()]
    assert len(identifiers) == len(set(identifiers))


def test_the_page_needs_nothing_from_elsewhere(world: World) -> None:
    answer = world.client.get("/docs")
    assert answer.headers["Content-Type"].startswith("text/html")
    assert "://" not in answer.text
    assert "default-src 'none'" in answer.headers["Content-Security-Policy"]


def test_the_table_of_event_types() -> None:
    for kind in TABLE.values():
        assert kind.category in CATEGORIES
        assert kind.type.removeprefix("custom.").startswith(kind.category + ".")
    assert not NOT_EMITTED & {kind.type for kind in TABLE.values()}


VALUES: Any = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=20)
    | st.sampled_from(["TOKENS", "acme"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=8,
)
FIELDS = names(
    "idempotency_key subject action estimate actual ttl_ms grace_period_ms overage_policy dry_run metadata metrics "
    "client_time_ms extend_by_ms reason"
)
PATHS = [
    "/v1/decide",
    "/v1/reservations",
    "/v1/events",
    "/v1/reservations/x/commit",
    "/v1/reservations/x/release",
    "/v1/reservations/x/extend",
    "/v1/webhooks",
    "/v1/admin/budgets",
    "/v1/x-clearance/runs",
    "/v1/x-clearance/kill",
    "/v1/x-clearance/stopped",
]


@given(path=st.sampled_from(PATHS), change=st.dictionaries(st.sampled_from(FIELDS), VALUES, min_size=1, max_size=3))
@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_body_makes_it_fail(path: str, change: dict[str, Any], funded: Tenant) -> None:
    body = {**funded.reserve_body(1), **change}
    raw = json.dumps(body).encode()
    answer = funded.request("POST", path, content=raw, headers={"Content-Type": "application/json"})
    assert answer.status_code < 500, answer.text
    if answer.status_code >= 400:
        problem(answer)


QUERIES = ["limit", "cursor", "status", "from", "to", "sort_by", "tenant", "agent", "unit", "scope_prefix", "after"]
LISTS = ["/v1/reservations", "/v1/balances", "/v1/events", "/v1/admin/budgets", "/v1/admin/budgets/lookup"]


@given(
    path=st.sampled_from(LISTS),
    query=st.dictionaries(st.sampled_from(QUERIES), st.text(max_size=12) | st.integers().map(str), max_size=4),
)
@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_query_makes_it_fail(path: str, query: dict[str, str], funded: Tenant) -> None:
    encodable = {name: text.encode("utf-8", "replace").decode() for name, text in query.items()}
    assert funded.get(path, **encodable).status_code < 500


@given(raw=st.binary(max_size=200))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_bytes_make_it_fail(raw: bytes, funded: Tenant) -> None:
    assert funded.request("POST", "/v1/reservations", content=raw).status_code == 400

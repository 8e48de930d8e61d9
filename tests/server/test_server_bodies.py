"""Bodies are closed and strict: what is not in the schema is refused, and the answer names it."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from tests.server.kit import ACTION, Tenant, amount, problem

POSTS = ("decide", "reserve", "commit", "release", "extend", "event")


def ask(tenant: Tenant, verb: str, **changes: Any) -> httpx.Response:
    if verb in ("commit", "release", "extend"):
        return tenant.settle(verb, tenant.hold(10), **changes)
    return {"decide": tenant.decide, "reserve": tenant.reserve, "event": tenant.event}[verb](1, **changes)


def refused(answer: httpx.Response, field: str) -> None:
    assert problem(answer) == (400, "INVALID_REQUEST"), answer.text
    assert answer.json()["details"]["field"].startswith(field), answer.text


@pytest.mark.parametrize("verb", POSTS)
def test_unknown_fields(verb: str, funded: Tenant) -> None:
    refused(ask(funded, verb, surprise=1), "surprise")


@pytest.mark.parametrize("verb", POSTS)
@pytest.mark.parametrize("key", ["", "x" * 257, 7, None])
def test_the_key(verb: str, key: Any, funded: Tenant) -> None:
    refused(ask(funded, verb, idempotency_key=key), "idempotency_key")


@pytest.mark.parametrize("verb", POSTS)
def test_the_header_alone_is_no_key(verb: str, funded: Tenant) -> None:
    path = {"decide": "/v1/decide", "reserve": "/v1/reservations", "event": "/v1/events"}.get(verb)
    path = path or f"/v1/reservations/{funded.hold(1)}/{verb}"
    refused(funded.post(path, {}, headers={"X-Idempotency-Key": "k"}), "")


@pytest.mark.parametrize("verb", ["decide", "reserve", "commit", "event"])
@pytest.mark.parametrize("value", [-1, 2**63, 1.0, 1.5, "1", True, None])
def test_amounts_are_strict_int64(verb: str, value: Any, funded: Tenant) -> None:
    name = "actual" if verb in ("commit", "event") else "estimate"
    refused(ask(funded, verb, **{name: amount(value)}), f"{name}.amount")


NEGATIVE: list[tuple[str, Any, str]] = [
    ("ttl_ms", 999, "ttl_ms"),
    ("ttl_ms", 86_400_001, "ttl_ms"),
    ("ttl_ms", "60000", "ttl_ms"),
    ("ttl_ms", None, "ttl_ms"),
    ("grace_period_ms", -1, "grace_period_ms"),
    ("grace_period_ms", 60_001, "grace_period_ms"),
    ("overage_policy", "reject", "overage_policy"),
    ("overage_policy", None, "overage_policy"),
    ("dry_run", "true", "dry_run"),
    ("dry_run", 1, "dry_run"),
    ("dry_run", None, "dry_run"),
    ("metadata", None, "metadata"),
    ("metadata", [], "metadata"),
    ("subject", None, "subject"),
    ("subject", {}, "subject"),
    ("subject", {"tenant": None, "agent": "a"}, "subject.tenant"),
    ("subject", {"agent": ""}, "subject.agent"),
    ("subject", {"agent": "a b"}, "subject.agent"),
    ("subject", {"agent": "a/b"}, "subject.agent"),
    ("subject", {"agent": "a\n"}, "subject.agent"),
    ("subject", {"agent": "x" * 129}, "subject.agent"),
    ("subject", {"agent": "a", "team": "b"}, "subject.team"),
    ("subject", {"agent": "a", "dimensions": {"k": 1}}, "subject.dimensions"),
    ("subject", {"agent": "a", "dimensions": {"k": "x" * 257}}, "subject.dimensions"),
    ("subject", {"agent": "a", "dimensions": {str(i): "x" for i in range(17)}}, "subject.dimensions"),
    ("action", {"kind": "", "name": "x"}, "action.kind"),
    ("action", {"kind": " ", "name": "x"}, "action.kind"),
    ("action", {"kind": "x" * 65, "name": "x"}, "action.kind"),
    ("action", {"kind": "x", "name": "x" * 257}, "action.name"),
    ("action", {**ACTION, "tags": ["t"] * 11}, "action.tags"),
    ("action", {**ACTION, "tags": ["t" * 65]}, "action.tags"),
    ("action", {**ACTION, "policy_keys": {}}, "action.policy_keys"),
    ("estimate", {"unit": "EUR", "amount": 1}, "estimate.unit"),
    ("estimate", {"unit": "TOKENS"}, "estimate.amount"),
    ("estimate", {"unit": "TOKENS", "amount": 1, "x": 1}, "estimate.x"),
]


@pytest.mark.parametrize(("name", "value", "field"), NEGATIVE)
def test_reserve_refuses(name: str, value: Any, field: str, funded: Tenant) -> None:
    refused(funded.reserve(1, **{name: value}), field)


@pytest.mark.parametrize(
    ("verb", "changes", "field"),
    [
        ("extend", {"extend_by_ms": 0}, "extend_by_ms"),
        ("extend", {"extend_by_ms": 86_400_001}, "extend_by_ms"),
        ("release", {"reason": "x" * 257}, "reason"),
        ("release", {"reason": None}, "reason"),
        ("commit", {"metrics": {"tokens_input": -1}}, "metrics.tokens_input"),
        ("commit", {"metrics": {"speed": 1}}, "metrics.speed"),
        ("commit", {"metrics": None}, "metrics"),
        ("event", {"client_time_ms": -1}, "client_time_ms"),
        ("event", {"ttl_ms": 1000}, "ttl_ms"),
    ],
)
def test_settlements_refuse(verb: str, changes: dict[str, Any], field: str, funded: Tenant) -> None:
    refused(ask(funded, verb, **changes), field)


@pytest.mark.parametrize("name", ["idempotency_key", "subject", "action", "estimate"])
def test_required_fields(name: str, funded: Tenant) -> None:
    refused(funded.reserve(1, **{name: ...}), name)


@pytest.mark.parametrize(
    "raw", [b"", b"{", b"[]", b"null", b"7", b'"x"', b'{"a":NaN}', b"\xff\xfe", b'{"subject":' * 5000]
)
def test_what_is_no_object(raw: bytes, funded: Tenant) -> None:
    assert problem(funded.request("POST", "/v1/reservations", content=raw)) == (400, "INVALID_REQUEST")


def test_metadata_that_is_no_json_number(funded: Tenant) -> None:
    raw = b'{"idempotency_key":"nan","subject":{"agent":"a"},"action":{"kind":"a","name":"b"},'
    raw += b'"estimate":{"unit":"TOKENS","amount":1},"metadata":{"x":NaN}}'
    assert problem(funded.request("POST", "/v1/reservations", content=raw)) == (400, "INVALID_REQUEST")


def test_unknown_query_parameters_are_ignored(funded: Tenant) -> None:
    assert funded.post("/v1/reservations?future=1", funded.reserve_body(1)).status_code == 200
    assert funded.get("/v1/reservations?future=1").status_code == 200


def test_the_edges_are_taken(funded: Tenant) -> None:
    assert funded.reserve(0, ttl_ms=1000, grace_period_ms=60_000).status_code == 200
    assert funded.reserve(0, ttl_ms=86_400_000, grace_period_ms=0).status_code == 200
    assert funded.reserve(0, idempotency_key="k" * 256).status_code == 200

"""The core without a network: requests as bytes, and every kind of answer as a result or the right error."""

from __future__ import annotations

import json
from typing import Any

import pytest

from clearance import errors
from clearance.authority.requests import ask
from clearance.errors import (
    AuthorityUnavailable,
    BudgetExceeded,
    BudgetFrozen,
    BudgetNotFound,
    ClearanceError,
    Conflict,
    Denied,
    InvalidRequest,
    Killed,
    LimitExceeded,
    NotFound,
    Paused,
    UnitMismatch,
)
from clearance.model.amount import INT64_MAX, Amount, Unit, tokens, usd
from clearance.model.results import Decision, Settlement
from clearance.remote import requests
from clearance.remote.answers import judge
from clearance.remote.errors import BadAnswer, Forbidden, NotAuthorized
from clearance.remote.requests import key_of
from clearance.remote.retries import Doubt
from clearance.remote.wire import Call, Json, Response
from remote.conftest import ACME, TOOL


def reserving(run_id: str | None = None, estimate: Amount | None = None, **options: Any) -> Call[Decision]:
    asked = ask(
        ACME,
        TOOL,
        estimate or usd(1),
        ttl_ms=60_000,
        grace_period_ms=5_000,
        overage_policy=None,
        run_id=run_id,
        idempotency_key="k",
        metadata=None,
    )
    return requests.reserve(asked, **options)


def answered(status: int, body: Json | bytes, **headers: str) -> Response:
    return Response(status, headers, body if isinstance(body, bytes) else json.dumps(body).encode())


def refused(call: Call[Any], status: int, code: str, **details: Any) -> ClearanceError:
    body = {
        "error": code,
        "message": "m",
        "request_id": "r",
        "trace_id": "t",
        "cycles_evidence": {},
        "details": details,
    }
    with pytest.raises(ClearanceError) as caught:
        judge(call, answered(status, body))
    return caught.value


GRANTED: Json = {
    "decision": "ALLOW",
    "affected_scopes": ["tenant:acme", "tenant:acme/agent:bot"],
    "reservation_id": "rsv_1",
    "expires_at_ms": 5,
    "remaining_ttl_ms": 3,
}
COMMIT = requests.commit("rsv_1", usd("0.5"), "k", {}, None)
EXTEND = requests.extend("rsv_1", 1000, "k", None, None)
COMMITTED: Json = {"status": "COMMITTED", "charged": {"unit": "USD_MICROCENTS", "amount": 50_000_000}}


def test_a_reserve_is_the_protocols_body() -> None:
    call = reserving()
    assert (call.request.method, call.request.path) == ("POST", "/v1/reservations")
    assert json.loads(call.request.body or b"") == {
        "idempotency_key": "k",
        "subject": {"tenant": "acme", "agent": "bot"},
        "action": {"kind": "tool.call", "name": "search"},
        "estimate": {"unit": "USD_MICROCENTS", "amount": 100_000_000},
        "ttl_ms": 60_000,
        "grace_period_ms": 5_000,
    }
    assert (b"x-clearance-run-id", b"run_1") in reserving("run_1").request.headers
    assert json.loads(reserving(dry_run=True).request.body or b"")["dry_run"] is True


def test_ids_are_quoted_in_paths_and_numbers_are_exact() -> None:
    call = requests.commit("a/b?ü", Amount(unit=Unit.TOKENS, amount=INT64_MAX), "k", {}, None)
    assert call.request.path == "/v1/reservations/a%2Fb%3F%C3%BC/commit"
    assert json.loads(call.request.body or b"")["actual"]["amount"] == 2**63 - 1
    answer = judge(call, answered(200, {"status": "COMMITTED", "charged": {"unit": "TOKENS", "amount": 2**63 - 1}}))
    assert isinstance(answer, Settlement)
    assert answer.charged == 2**63 - 1


def test_a_key_is_made_when_none_is_given() -> None:
    assert key_of("mine") == "mine"
    assert key_of(None) != key_of(None)
    with pytest.raises(InvalidRequest):
        key_of("x" * 257)


def test_unknown_fields_nulls_and_reasons_do_not_break_the_reader() -> None:
    odd = {
        **GRANTED,
        "caps": None,
        "reason_code": "NEWER_THAN_US",
        "cycles_evidence": {"x": 1},
        "zzz": [1],
        "balances": 7,
    }
    odd["balances"] = [
        None,
        {"scope": 1},
        {"scope": "agent:bot", "remaining": {"unit": "USD_MICROCENTS", "amount": -5}},
    ]
    answer = judge(reserving(), answered(200, odd))
    assert isinstance(answer, Decision)
    assert answer.reservation_id == "rsv_1"
    assert answer.reason_code == "NEWER_THAN_US"
    assert answer.balances[0].remaining == -5
    bare = judge(reserving(), answered(200, {"decision": "ALLOW", "reservation_id": "r"}))
    assert isinstance(bare, Decision)
    assert bare.affected_scopes == ACME.scopes
    assert bare.remaining_ttl_ms is None


def test_caps_we_know_are_read_and_caps_we_do_not_know_are_ignored() -> None:
    body = {**GRANTED, "decision": "ALLOW_WITH_CAPS", "caps": {"max_tokens": 5, "tool_denylist": ["rm"], "newer": 1}}
    answer = judge(reserving(), answered(200, body))
    assert isinstance(answer, Decision)
    assert answer.caps is not None
    assert (answer.caps.max_tokens, answer.caps.tool_denylist) == (5, ("rm",))
    broken = judge(reserving(), answered(200, {**body, "caps": {"max_tokens": "many"}}))
    assert isinstance(broken, Doubt), "a limit that cannot be read is not no limit"


BROKEN: list[bytes | Json] = [
    b"",
    b"[]",
    b"null",
    b"\xff",
    b"<html>",
    {},
    {**COMMITTED, "status": "APPLIED"},
    {"status": "COMMITTED"},
    {**COMMITTED, "charged": {"unit": "TOKENS", "amount": 5}},
    {**COMMITTED, "charged": {"unit": "USD_MICROCENTS", "amount": -1}},
    {**COMMITTED, "charged": {"unit": "USD_MICROCENTS", "amount": 1.5}},
    {**COMMITTED, "charged": {"unit": "USD_MICROCENTS", "amount": True}},
    {**COMMITTED, "charged": {"unit": "USD_MICROCENTS", "amount": 2**63}},
    {**COMMITTED, "released": "all"},
]


@pytest.mark.parametrize("body", BROKEN, ids=range(len(BROKEN)))
def test_only_a_valid_body_with_the_exact_status_settles(body: bytes | Json) -> None:
    verdict = judge(COMMIT, answered(200, body))
    assert isinstance(verdict, Doubt)
    assert isinstance(verdict.error, BadAnswer)
    assert not verdict.outage


@pytest.mark.parametrize("status", [201, 202, 204, 206])
def test_another_2xx_is_ambiguous(status: int) -> None:
    verdict = judge(COMMIT, answered(status, COMMITTED))
    assert isinstance(verdict, Doubt)
    assert isinstance(verdict.error, BadAnswer)


DENIALS = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, Denied)]


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        (409, "BUDGET_EXCEEDED", BudgetExceeded),
        (409, "BUDGET_FROZEN", BudgetFrozen),
        (409, "BUDGET_CLOSED", errors.BudgetClosed),
        (409, "OVERDRAFT_LIMIT_EXCEEDED", errors.OverdraftLimitExceeded),
        (409, "DEBT_OUTSTANDING", errors.DebtOutstanding),
        (409, "TENANT_CLOSED", errors.TenantClosed),
        (404, "NOT_FOUND", BudgetNotFound),
        (409, "ACTION_QUOTA_EXCEEDED", Denied),
        (403, "ACTION_KIND_DENIED", Denied),
        (400, "UNIT_MISMATCH", UnitMismatch),
        (400, "INVALID_REQUEST", InvalidRequest),
        (401, "UNAUTHORIZED", NotAuthorized),
        (403, "FORBIDDEN", Forbidden),
        (409, "IDEMPOTENCY_MISMATCH", errors.IdempotencyMismatch),
    ],
)
def test_every_refusal_of_a_reserve_is_its_own_error(status: int, code: str, kind: type[ClearanceError]) -> None:
    error = refused(reserving(), status, code, scope="tenant:acme", remaining=3)
    assert type(error) is kind
    assert error.scope == "tenant:acme"
    assert error.details["remaining"] == 3
    assert not isinstance(error, AuthorityUnavailable)


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        (404, "NOT_FOUND", NotFound),
        (409, "RESERVATION_FINALIZED", errors.ReservationFinalized),
        (410, "RESERVATION_EXPIRED", errors.ReservationExpired),
        (409, "BUDGET_EXCEEDED", BudgetExceeded),
        (409, "SOMETHING_NEW", BadAnswer),
        (418, "TEAPOT", BadAnswer),
        (400, "BUDGET_EXCEEDED", BadAnswer),
    ],
)
def test_every_refusal_of_a_commit_is_its_own_error(status: int, code: str, kind: type[ClearanceError]) -> None:
    assert type(refused(COMMIT, status, code)) is kind


def test_a_stop_is_told_by_its_reason() -> None:
    assert type(refused(reserving(), 409, "BUDGET_FROZEN", reason_code="KILLED")) is Killed
    assert type(refused(EXTEND, 409, "BUDGET_FROZEN", reason_code="PAUSED")) is Paused
    assert type(refused(reserving(), 404, "NOT_FOUND", reason_code="BUDGET_NOT_FOUND")) is BudgetNotFound
    assert type(refused(reserving("run_1"), 404, "NOT_FOUND")) is NotFound, "the run is unknown, nothing was denied"
    assert type(refused(EXTEND, 409, "INVALID_REQUEST")) in (Conflict, BadAnswer)


@pytest.mark.parametrize("status", [500, 502, 503, 504, 599])
def test_a_5xx_is_an_outage_whatever_it_says(status: int) -> None:
    verdict = judge(reserving(), answered(status, {"error": "BUDGET_EXCEEDED", "message": "m"}))
    assert isinstance(verdict, Doubt)
    assert verdict.outage
    assert type(verdict.error) is AuthorityUnavailable


@pytest.mark.parametrize(("status", "body"), [(404, b"<html>"), (409, b"{}"), (301, b""), (405, b"no")])
def test_a_refusal_that_is_not_the_protocols_is_a_bad_answer_not_a_denial(status: int, body: bytes) -> None:
    with pytest.raises(BadAnswer) as caught:
        judge(reserving(), answered(status, body))
    assert not isinstance(caught.value, Denied | AuthorityUnavailable)


@pytest.mark.parametrize(
    ("given", "wait_s"), [("7", 7), ("0", 0), ("-1", None), ("1.5", None), ("Fri, 20 Nov 2026 14:00:00 GMT", None)]
)
def test_retry_after_is_delta_seconds_only(given: str, wait_s: int | None) -> None:
    body = {"error": "LIMIT_EXCEEDED", "message": "m", "request_id": "r"}
    verdict = judge(COMMIT, answered(429, body, **{"retry-after": given}))
    assert isinstance(verdict, Doubt)
    assert verdict.retry_after_s == wait_s
    assert isinstance(verdict.error, LimitExceeded)
    assert not verdict.outage


def test_a_live_deny_is_a_denial_and_a_dry_one_an_answer() -> None:
    deny = {"decision": "DENY", "affected_scopes": [], "reason_code": "BUDGET_EXCEEDED"}
    with pytest.raises(BudgetExceeded):
        judge(reserving(), answered(200, deny))
    dry = judge(reserving(dry_run=True), answered(200, {**deny, "reason_code": "ACTION_QUOTA_EXCEEDED"}))
    assert isinstance(dry, Decision)
    assert (dry.allowed, dry.reason_code) == (False, "ACTION_QUOTA_EXCEEDED")


def test_a_lease_of_an_older_server_is_counted_from_what_was_left() -> None:
    call = requests.extend("rsv_1", 1000, "k", before_ms=10_000, left_ms=400)
    lease = judge(call, answered(200, {"status": "ACTIVE", "expires_at_ms": 10_700}))
    assert not isinstance(lease, Doubt)
    assert lease.remaining_ttl_ms == 1_100


def test_tokens_are_not_dollars() -> None:
    assert json.loads(reserving(estimate=tokens(7)).request.body or b"")["estimate"] == {"unit": "TOKENS", "amount": 7}

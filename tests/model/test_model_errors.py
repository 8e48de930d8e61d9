"""Codes and statuses are the protocol's; every error keeps its facts across processes."""

from __future__ import annotations

import pickle

import pytest

from clearance import errors
from clearance.errors import ClearanceError, InvalidRequest

TABLE = [
    ("InvalidRequest", "INVALID_REQUEST", 400),
    ("UnitMismatch", "UNIT_MISMATCH", 400),
    ("NotFound", "NOT_FOUND", 404),
    ("BudgetNotFound", "NOT_FOUND", 404),
    ("BudgetExceeded", "BUDGET_EXCEEDED", 409),
    ("BudgetFrozen", "BUDGET_FROZEN", 409),
    ("BudgetClosed", "BUDGET_CLOSED", 409),
    ("OverdraftLimitExceeded", "OVERDRAFT_LIMIT_EXCEEDED", 409),
    ("DebtOutstanding", "DEBT_OUTSTANDING", 409),
    ("TenantClosed", "TENANT_CLOSED", 409),
    ("Killed", "KILLED", 409),
    ("Paused", "PAUSED", 409),
    ("IdempotencyMismatch", "IDEMPOTENCY_MISMATCH", 409),
    ("ReservationFinalized", "RESERVATION_FINALIZED", 409),
    ("ReservationExpired", "RESERVATION_EXPIRED", 410),
    ("MaxExtensionsExceeded", "MAX_EXTENSIONS_EXCEEDED", 409),
    ("LimitExceeded", "LIMIT_EXCEEDED", 429),
    ("AuthorityUnavailable", "INTERNAL_ERROR", 500),
    ("StoreFull", "INTERNAL_ERROR", 500),
]


@pytest.mark.parametrize(("name", "code", "status"), TABLE)
def test_each_error_has_the_code_and_status_of_the_protocol(name: str, code: str, status: int) -> None:
    kind: type[ClearanceError] = getattr(errors, name)
    assert (kind.code, kind.status) == (code, status)


def test_a_missing_budget_is_not_found_on_the_wire_and_has_a_reason_of_its_own() -> None:
    assert errors.BudgetNotFound("none").reason_code == "BUDGET_NOT_FOUND"
    assert errors.BudgetExceeded("no").reason_code == "BUDGET_EXCEEDED"


@pytest.mark.parametrize(
    ("kind", "also"),
    [
        (errors.InvalidRequest, ValueError),
        (errors.NotFound, LookupError),
        (errors.Denied, PermissionError),
        (errors.BudgetNotFound, errors.NotFound),
        (errors.AuthorityUnavailable, ConnectionError),
        (errors.StoreFull, errors.AuthorityUnavailable),
        (errors.Killed, errors.Stopped),
    ],
)
def test_errors_are_also_what_python_calls_them(kind: type[Exception], also: type[Exception]) -> None:
    assert issubclass(kind, also)


def test_an_outage_is_not_a_denial() -> None:
    assert not issubclass(errors.AuthorityUnavailable, errors.Denied)
    assert not issubclass(errors.Denied, errors.AuthorityUnavailable)


@pytest.mark.parametrize(
    "name", [name for name in errors.__all__ if not issubclass(getattr(errors, name), InvalidRequest)]
)
def test_every_error_crosses_a_process_pool_with_its_facts(name: str) -> None:
    error = getattr(errors, name)("said", scope="tenant:a", retry_after_ms=5, details={"remaining": 1})
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is type(error)
    assert (str(again), again.args) == ("said", ("said",))
    assert (again.scope, again.retry_after_ms, again.details) == ("tenant:a", 5, {"remaining": 1})


def test_bad_input_names_the_field_the_problem_and_what_is_allowed() -> None:
    error = pickle.loads(pickle.dumps(InvalidRequest("ttl_ms", "5 is refused", "1000 to 86400000")))
    assert str(error) == "ttl_ms: 5 is refused; allowed: 1000 to 86400000"
    assert (error.field, error.problem, error.allowed) == ("ttl_ms", "5 is refused", "1000 to 86400000")

"""Bad input is refused with the field, the problem and what is allowed, and the ledger stays as it was."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from tests.authority.kit import ACME, BOT, CALL, TENANT, budget, hold, ledger, run

from clearance.authority.budgets import BudgetSpec
from clearance.authority.clock import ManualClock
from clearance.authority.embedded import EmbeddedAuthority
from clearance.errors import (
    BudgetNotFound,
    ClearanceError,
    IdempotencyMismatch,
    InvalidRequest,
    NotFound,
    ReservationExpired,
    ReservationFinalized,
    UnitMismatch,
)
from clearance.model.amount import Unit, tokens, usd
from clearance.model.subject import Subject
from clearance.store.sqlite import MEMORY, SqliteStore


@pytest.fixture
def authority(open_ledger: Callable[[str], EmbeddedAuthority]) -> EmbeddedAuthority:
    """In memory only: what is refused never reaches the store."""
    return open_ledger(MEMORY)


DEEP: dict[str, Any] = {}
for _ in range(50_000):
    DEEP = {"a": DEEP}
LOOP: dict[str, Any] = {}
LOOP["loop"] = LOOP

SHARED: list[tuple[str, dict[str, Any], str]] = [
    ("no subject", {"subject": None}, "subject"),
    ("subject of another type", {"subject": {"tenant": "acme"}}, "subject"),
    ("no action", {"action": "llm.completion"}, "action"),
    ("amount that is an int", {"amount": 5}, "amount"),
    ("amount that is a float", {"amount": 5.0}, "amount"),
    ("empty key", {"idempotency_key": ""}, "idempotency_key"),
    ("long key", {"idempotency_key": "k" * 257}, "idempotency_key"),
    ("key of another type", {"idempotency_key": 5}, "idempotency_key"),
    ("key with half a character", {"idempotency_key": "\ud800"}, "idempotency_key"),
    ("empty run", {"run_id": ""}, "run_id"),
    ("long run", {"run_id": "r" * 129}, "run_id"),
    ("run of another type", {"run_id": 5}, "run_id"),
]
WITH_METADATA: list[tuple[str, dict[str, Any], str]] = [
    ("metadata that is no object", {"metadata": [1]}, "metadata"),
    ("metadata that is no JSON", {"metadata": {"a": object()}}, "metadata"),
    ("metadata with NaN", {"metadata": {"a": float("nan")}}, "metadata"),
    ("metadata that is too long", {"metadata": {"a": "x" * 16_384}}, "metadata"),
    ("metadata that is too long in bytes", {"metadata": {"a": "ö" * 9_000}}, "metadata"),
    ("metadata with half a character", {"metadata": {"a": "\ud800"}}, "metadata"),
    ("metadata in a loop", {"metadata": LOOP}, "metadata"),
    ("metadata without a bottom", {"metadata": DEEP}, "metadata"),
    ("unknown policy", {"overage_policy": "ALLOW"}, "overage_policy"),
]
RESERVING: list[tuple[str, dict[str, Any], str]] = [
    ("ttl below 1 s", {"ttl_ms": 999}, "ttl_ms"),
    ("ttl above a day", {"ttl_ms": 86_400_001}, "ttl_ms"),
    ("ttl with a fraction", {"ttl_ms": 1000.0}, "ttl_ms"),
    ("ttl that is a bool", {"ttl_ms": True}, "ttl_ms"),
    ("negative grace", {"grace_period_ms": -1}, "grace_period_ms"),
    ("grace above a minute", {"grace_period_ms": 60_001}, "grace_period_ms"),
]
CASES = [
    *(("reserve", *case) for case in (*SHARED, *WITH_METADATA, *RESERVING)),
    *(("event", *case) for case in (*SHARED, *WITH_METADATA)),
    *(("dry_run", *case) for case in SHARED),
    *(("decide", *case) for case in SHARED if "run_id" not in case[1]),
]


@pytest.mark.parametrize(("verb", "what", "change", "field"), CASES, ids=lambda it: it if isinstance(it, str) else "")
def test_a_bad_request_is_refused_with_its_field(
    authority: EmbeddedAuthority, verb: str, what: str, change: dict[str, Any], field: str
) -> None:
    budget(authority)
    before = ledger(authority)
    asked: dict[str, Any] = {"subject": ACME, "action": CALL, "amount": tokens(1), **change}
    money = "actual" if verb == "event" else "estimate"
    with pytest.raises(InvalidRequest) as refused:
        getattr(authority, verb)(**{money if name == "amount" else name: value for name, value in asked.items()})
    assert refused.value.field == (money if field == "amount" else field)
    assert refused.value.problem
    assert refused.value.allowed
    assert len(refused.value.message) < 500
    assert ledger(authority) == before


HELD = "the reservation"
ON_WHAT_IS_HELD: list[tuple[str, tuple[Any, ...], dict[str, Any], type[ClearanceError]]] = [
    ("commit", (HELD, 5), {}, InvalidRequest),
    ("commit", (HELD, None), {}, InvalidRequest),
    ("commit", ("", tokens(1)), {}, InvalidRequest),
    ("commit", (None, tokens(1)), {}, InvalidRequest),
    ("commit", ("x" * 129, tokens(1)), {}, InvalidRequest),
    ("commit", ("\ud800", tokens(1)), {}, InvalidRequest),
    ("commit", ("rsv_none", tokens(1)), {}, NotFound),
    ("commit", (HELD, usd(1)), {}, UnitMismatch),
    ("commit", (HELD, tokens(1)), {"metadata": {"a": {1, 2}}}, InvalidRequest),
    ("commit", (HELD, tokens(1)), {"idempotency_key": ""}, InvalidRequest),
    ("release", ("rsv_none",), {}, NotFound),
    ("release", (HELD,), {"reason": "x" * 257}, InvalidRequest),
    ("release", (HELD,), {"reason": 5}, InvalidRequest),
    ("release", (HELD,), {"reason": "\udfff"}, InvalidRequest),
    ("extend", ("rsv_none", 1000), {}, NotFound),
    ("extend", (HELD, 0), {}, InvalidRequest),
    ("extend", (HELD, -1), {}, InvalidRequest),
    ("extend", (HELD, 86_400_001), {}, InvalidRequest),
    ("extend", (HELD, 1.5), {}, InvalidRequest),
    ("extend", (HELD, True), {}, InvalidRequest),
    ("end_run", ("run_none",), {}, NotFound),
    ("end_run", ("",), {}, InvalidRequest),
    ("start_run", (ACME, 5), {}, InvalidRequest),
    ("start_run", (ACME, tokens(1)), {"name": ""}, InvalidRequest),
    ("start_run", (ACME, tokens(1)), {"name": "n" * 257}, InvalidRequest),
    ("start_run", (ACME, tokens(1)), {"ttl_ms": 5}, InvalidRequest),
    ("start_run", (ACME, usd(1)), {}, UnitMismatch),
]


@pytest.mark.parametrize(("verb", "arguments", "options", "error"), ON_WHAT_IS_HELD)
def test_a_bad_settlement_extension_or_run_is_refused(
    authority: EmbeddedAuthority,
    verb: str,
    arguments: tuple[Any, ...],
    options: dict[str, Any],
    error: type[ClearanceError],
) -> None:
    budget(authority)
    held = hold(authority, 10)
    before = ledger(authority)
    with pytest.raises(error):
        getattr(authority, verb)(*(held if it == HELD else it for it in arguments), **options)
    assert ledger(authority) == before
    assert authority.get(held).is_open


FUNDING: list[tuple[tuple[Any, ...], dict[str, Any], str]] = [
    (("acme", "CREDIT", tokens(1)), {}, "scope"),
    ((None, "CREDIT", tokens(1)), {}, "scope"),
    ((TENANT, "GIVE", tokens(1)), {}, "operation"),
    ((TENANT, None, tokens(1)), {}, "operation"),
    ((TENANT, "CREDIT", 5.0), {}, "amount"),
    ((TENANT, "CREDIT", tokens(1)), {"spent": tokens(1)}, "spent"),
    ((TENANT, "RESET_SPENT", tokens(1)), {"spent": usd(1)}, "spent"),
    ((TENANT, "RESET_SPENT", tokens(1)), {"spent": 5}, "spent"),
    ((TENANT, "CREDIT", tokens(1)), {"reason": "x" * 513}, "reason"),
    ((TENANT, "CREDIT", tokens(1)), {"reason": 5}, "reason"),
    ((TENANT, "CREDIT", tokens(1)), {"idempotency_key": ""}, "idempotency_key"),
    ((TENANT, "CREDIT", tokens(2**63 - 1)), {}, "allocated"),
]


@pytest.mark.parametrize(("arguments", "options", "field"), FUNDING)
def test_bad_funding_is_refused(
    authority: EmbeddedAuthority, arguments: tuple[Any, ...], options: dict[str, Any], field: str
) -> None:
    budget(authority)
    before = ledger(authority)
    with pytest.raises(InvalidRequest) as refused:
        authority.fund(*arguments, **options)
    assert refused.value.field == field
    assert ledger(authority) == before


@pytest.mark.parametrize("verb", ["freeze", "unfreeze", "close_budget"])
@pytest.mark.parametrize(
    ("arguments", "field"), [((TENANT, "EUR"), "unit"), ((TENANT, 5), "unit"), (("acme", Unit.TOKENS), "scope")]
)
def test_a_status_needs_a_scope_and_a_unit(
    authority: EmbeddedAuthority, verb: str, arguments: tuple[Any, ...], field: str
) -> None:
    budget(authority)
    with pytest.raises(InvalidRequest) as refused:
        getattr(authority, verb)(*arguments)
    assert refused.value.field == field


@pytest.mark.parametrize(
    ("spec", "field"),
    [
        ({"scope": "acme"}, "scope"),
        ({"scope": 5}, "scope"),
        ({"allocated": 5.0}, "allocated"),
        ({"allocated": {"unit": "TOKENS", "amount": -1}}, "allocated"),
        ({"overdraft_limit": -1}, "overdraft_limit"),
        ({"overdraft_limit": 1.5}, "overdraft_limit"),
        ({"overage_policy": "NEVER"}, "overage_policy"),
        ({"period": {"every": "year"}}, "period"),
        ({"caps": [{"caps": {"max_tokens": -1}}]}, "caps.0"),
        ({"caps": [{"caps": {}}] * 17}, "caps"),
        ({"currency": "EUR"}, "currency"),
    ],
)
def test_a_bad_budget_is_refused(authority: EmbeddedAuthority, spec: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        authority.set_budget(BudgetSpec(**{"scope": TENANT, "allocated": tokens(1), **spec}))
    assert refused.value.field == field
    assert ledger(authority) == ([], [])


def test_the_named_mistakes_leave_the_ledger_as_it_was(authority: EmbeddedAuthority, clock: ManualClock) -> None:
    budget(authority)
    settled, late = hold(authority, 10, idempotency_key="k"), hold(authority, 10)
    inside = run(authority, 10)
    authority.commit(settled, tokens(4))
    clock.advance(65_001)
    authority.sweep()
    before = ledger(authority)
    mistakes: list[tuple[Any, type[ClearanceError], str]] = [
        (lambda: authority.commit(settled, tokens(4)), ReservationFinalized, "committed before"),
        (lambda: authority.commit(late, tokens(4)), ReservationExpired, "has expired"),
        (lambda: authority.release(late), ReservationExpired, "has expired"),
        (lambda: authority.end_run(inside), ReservationFinalized, "committed before"),
        (lambda: hold(authority, 11, idempotency_key="k"), IdempotencyMismatch, "use a new key"),
        (lambda: authority.reserve(BOT, CALL, usd(1)), UnitMismatch, "TOKENS"),
    ]
    for mistake, error, says in mistakes:
        with pytest.raises(error, match=says):
            mistake()
        assert ledger(authority) == before
    with pytest.raises(BudgetNotFound, match="tried tenant:none, tenant:none/agent:bot"):
        hold(authority, 1, Subject(tenant="none", agent="bot"))
    # The denial itself is in the log.
    assert ledger(authority)[0] == before[0]


def test_an_unknown_durability_is_refused() -> None:
    store = SqliteStore(MEMORY)
    with pytest.raises(InvalidRequest, match="power, settlements, process"):
        EmbeddedAuthority(store, durability="never", background=False)
    store.close()

"""When several things are wrong at once, the gravest is named (protocol section 15)."""

from __future__ import annotations

from typing import Any

import pytest
from tests.authority.kit import ACME, AGENT, BOT, CALL, TENANT, budget, hold, ledger, put_account

from clearance.authority.clock import ManualClock
from clearance.authority.embedded import EmbeddedAuthority
from clearance.errors import (
    BudgetExceeded,
    BudgetFrozen,
    ClearanceError,
    IdempotencyMismatch,
    InvalidRequest,
    Killed,
    MaxExtensionsExceeded,
    NotFound,
    OverdraftLimitExceeded,
    ReservationExpired,
    ReservationFinalized,
    TenantClosed,
    UnitMismatch,
)
from clearance.model.amount import Unit, tokens, usd
from clearance.model.subject import Subject

PAST_GRACE = 60_000 + 5_000 + 1
FRESH: list[tuple[set[str], type[ClearanceError]]] = [
    ({"bad ttl", "used key", "closed tenant", "killed", "frozen"}, InvalidRequest),
    ({"unknown run", "closed tenant", "killed", "frozen"}, NotFound),
    ({"used key", "closed tenant", "killed", "frozen"}, IdempotencyMismatch),
    ({"closed tenant", "killed", "frozen"}, TenantClosed),
    ({"closed tenant", "no budget"}, TenantClosed),
    ({"killed", "frozen"}, Killed),
    ({"killed", "no budget"}, Killed),
    ({"killed", "wrong unit"}, Killed),
    ({"frozen", "exceeded"}, BudgetFrozen),
    ({"exceeded"}, BudgetExceeded),
    ({"wrong unit"}, UnitMismatch),
    ({"no budget"}, NotFound),
]


@pytest.mark.parametrize(("wrong", "error"), FRESH)
def test_a_hold_that_is_wrong_in_several_ways(
    authority: EmbeddedAuthority, wrong: set[str], error: type[ClearanceError]
) -> None:
    budget(authority, "tenant:acme/agent:spare", 10)
    if "no budget" not in wrong:
        budget(authority, TENANT, 1000)
    authority.reserve(Subject(tenant="acme", agent="spare"), CALL, tokens(0), idempotency_key="used")
    if "frozen" in wrong:
        authority.freeze(TENANT, Unit.TOKENS)
    if "killed" in wrong:
        authority.kill(TENANT, reason="r", actor="a")
    if "closed tenant" in wrong:
        authority.close_tenant("acme")
    options: dict[str, Any] = {}
    if "bad ttl" in wrong:
        options["ttl_ms"] = 1
    if "used key" in wrong:
        options["idempotency_key"] = "used"
    if "unknown run" in wrong:
        options["run_id"] = "run_none"
    estimate = usd(1) if "wrong unit" in wrong else tokens(5000 if "exceeded" in wrong else 1)
    before = authority.balances().items
    with pytest.raises(error) as refused:
        authority.reserve(ACME, CALL, estimate, **options)
    assert type(refused.value) is error or error is NotFound
    assert authority.balances().items == before


SETTLING: list[tuple[str, set[str], type[ClearanceError]]] = [
    ("commit", {"unknown", "closed tenant"}, NotFound),
    ("release", {"unknown", "closed tenant"}, NotFound),
    ("extend", {"unknown", "closed tenant"}, NotFound),
    ("commit", {"used key", "committed", "wrong unit"}, IdempotencyMismatch),
    ("commit", {"closed tenant", "committed"}, TenantClosed),
    ("release", {"closed tenant", "committed"}, TenantClosed),
    ("extend", {"closed tenant", "committed"}, TenantClosed),
    ("commit", {"closed tenant", "expired"}, TenantClosed),
    ("release", {"closed tenant", "expired"}, TenantClosed),
    ("extend", {"closed tenant", "expired"}, TenantClosed),
    ("commit", {"committed", "wrong unit"}, ReservationFinalized),
    ("commit", {"released", "late"}, ReservationFinalized),
    ("release", {"committed", "late"}, ReservationFinalized),
    ("extend", {"committed", "late", "killed", "most extensions"}, ReservationFinalized),
    ("commit", {"expired", "wrong unit"}, ReservationExpired),
    ("commit", {"late", "wrong unit"}, UnitMismatch),
    ("commit", {"late", "too much"}, ReservationExpired),
    ("release", {"late"}, ReservationExpired),
    ("extend", {"late", "most extensions", "killed"}, ReservationExpired),
    ("extend", {"most extensions", "killed"}, Killed),
    ("extend", {"most extensions"}, MaxExtensionsExceeded),
    ("commit", {"wrong unit", "too much"}, UnitMismatch),
    ("commit", {"too much"}, BudgetExceeded),
]


@pytest.mark.parametrize(("verb", "wrong", "error"), SETTLING)
def test_a_settlement_that_is_wrong_in_several_ways(
    authority: EmbeddedAuthority, clock: ManualClock, verb: str, wrong: set[str], error: type[ClearanceError]
) -> None:
    budget(authority)
    held = hold(authority, 100, overage_policy="REJECT")
    if "most extensions" in wrong:
        for _ in range(10):
            authority.extend(held, 1)
    if "committed" in wrong:
        authority.commit(held, tokens(1), idempotency_key="used")
    if "released" in wrong:
        authority.release(held)
    if "expired" in wrong:
        clock.advance(PAST_GRACE)
        assert authority.sweep() == 1
    if "killed" in wrong:
        authority.kill(TENANT, reason="r", actor="a")
    if "closed tenant" in wrong:
        authority.close_tenant("acme")
    if "late" in wrong:
        unswept(authority, clock)
    target = "rsv_none" if "unknown" in wrong else held
    amount = usd(1) if "wrong unit" in wrong else tokens(500 if "too much" in wrong else 2)
    arguments: dict[str, tuple[Any, ...]] = {"commit": (target, amount), "release": (target,), "extend": (target, 1000)}
    key = {"idempotency_key": "used"} if "used key" in wrong else {}
    before = ledger(authority)
    with pytest.raises(error) as refused:
        getattr(authority, verb)(*arguments[verb], **key)
    assert type(refused.value) is error
    assert ledger(authority) == before


def unswept(authority: EmbeddedAuthority, clock: ManualClock) -> None:
    """Past lease and grace, with the sweep by use just behind us, so that only the clock speaks."""
    clock.advance(PAST_GRACE - 1)
    authority.dry_run(Subject(tenant="nobody"), CALL, tokens(0))
    clock.advance(100)


def test_an_event_names_the_gravest_reason(authority: EmbeddedAuthority) -> None:
    put_account(authority, TENANT, allocated=5, over_limit=True, debt=5)
    put_account(authority, AGENT, status="FROZEN")
    with pytest.raises(BudgetExceeded):
        authority.event(BOT, CALL, tokens(10), overage_policy="REJECT")
    with pytest.raises(BudgetFrozen):
        authority.event(BOT, CALL, tokens(10))
    authority.close_tenant("acme")
    with pytest.raises(TenantClosed):
        authority.event(BOT, CALL, tokens(10))


def test_over_the_limit_comes_before_debt(authority: EmbeddedAuthority) -> None:
    put_account(authority, TENANT, allocated=5, over_limit=True, debt=5)
    with pytest.raises(OverdraftLimitExceeded):
        hold(authority, 1)

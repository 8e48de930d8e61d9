"""Every row of the error table."""

from __future__ import annotations

from typing import Any

import pytest
from tests.server.kit import Tenant, World, amount, problem
from tests.server.states import (
    Ask,
    closed,
    finalized,
    frozen,
    killed,
    late,
    mismatch,
    over,
    scope_query,
    too_often,
)

from clearance.errors import StoreError
from clearance.store.interface import Changes

ROWS: dict[str, tuple[int, str, Ask]] = {
    "malformed body": (400, "INVALID_REQUEST", lambda t, w: t.request("POST", "/v1/decide", content=b"{")),
    "no body": (400, "INVALID_REQUEST", lambda t, w: t.request("POST", "/v1/decide")),
    "unknown field": (400, "INVALID_REQUEST", lambda t, w: t.reserve(1, more=1)),
    "dimensions only": (400, "INVALID_REQUEST", lambda t, w: t.reserve(1, subject={"dimensions": {"a": "b"}})),
    "unknown enum": (400, "INVALID_REQUEST", lambda t, w: t.reserve(1, overage_policy="MAYBE")),
    "key in header differs": (
        400,
        "INVALID_REQUEST",
        lambda t, w: t.post("/v1/decide", t.reserve_body(1), headers={"X-Idempotency-Key": "other"}),
    ),
    "no balance filter": (400, "INVALID_REQUEST", lambda t, w: t.get("/v1/balances")),
    "reversed window": (
        400,
        "INVALID_REQUEST",
        lambda t, w: t.get("/v1/reservations?from=2026-02-01T00:00:00Z&to=2026-01-01T00:00:00Z"),
    ),
    "admin list without tenant": (400, "INVALID_REQUEST", lambda t, w: w.admin("GET", "/v1/reservations")),
    "long id": (400, "INVALID_REQUEST", lambda t, w: t.get("/v1/reservations/" + "x" * 129)),
    "unit of reserve": (400, "UNIT_MISMATCH", lambda t, w: t.reserve(1, estimate=amount(1, "CREDITS"))),
    "unit of dry run": (
        400,
        "UNIT_MISMATCH",
        lambda t, w: t.reserve(1, estimate=amount(1, "CREDITS"), dry_run=True),
    ),
    "unit of decide": (400, "UNIT_MISMATCH", lambda t, w: t.decide(1, estimate=amount(1, "CREDITS"))),
    "unit of event": (400, "UNIT_MISMATCH", lambda t, w: t.event(1, actual=amount(1, "CREDITS"))),
    "unit of commit": (
        400,
        "UNIT_MISMATCH",
        lambda t, w: t.settle("commit", t.hold(), actual=amount(1, "CREDITS")),
    ),
    "no key": (401, "UNAUTHORIZED", lambda t, w: w.client.get("/v1/balances?tenant=x")),
    "unknown key": (
        401,
        "UNAUTHORIZED",
        lambda t, w: t.request("GET", "/v1/balances", headers={"X-Cycles-API-Key": "cyc_live_" + "x" * 32}),
    ),
    "another's subject": (403, "FORBIDDEN", lambda t, w: t.reserve(1, subject={"tenant": "other"})),
    "another's balances": (403, "FORBIDDEN", lambda t, w: t.get("/v1/balances?tenant=other")),
    "unknown reservation": (404, "NOT_FOUND", lambda t, w: t.settle("commit", "rsv_none")),
    "no budget": (404, "NOT_FOUND", lambda t, w: w.tenant().reserve(1)),
    "no budget for an event": (404, "NOT_FOUND", lambda t, w: w.tenant().event(1)),
    "too little": (409, "BUDGET_EXCEEDED", lambda t, w: t.reserve(1001)),
    "too much under REJECT": (
        409,
        "BUDGET_EXCEEDED",
        lambda t, w: t.settle("commit", t.hold(10, overage_policy="REJECT"), actual=amount(11)),
    ),
    "event under REJECT": (409, "BUDGET_EXCEEDED", lambda t, w: t.event(1001, overage_policy="REJECT")),
    "frozen": (409, "BUDGET_FROZEN", frozen(lambda t: t.reserve(1))),
    "frozen event": (409, "BUDGET_FROZEN", frozen(lambda t: t.event(1))),
    "closed": (409, "BUDGET_CLOSED", closed(lambda t: t.reserve(1))),
    "closed event": (409, "BUDGET_CLOSED", closed(lambda t: t.event(1))),
    "over the limit": (409, "OVERDRAFT_LIMIT_EXCEEDED", over),
    "beyond the overdraft": (
        409,
        "OVERDRAFT_LIMIT_EXCEEDED",
        lambda t, w: (
            t.request("PATCH", "/v1/admin/budgets" + scope_query(t), {"overdraft_limit": amount(5)})
            and t.settle("commit", t.hold(1000, overage_policy="ALLOW_WITH_OVERDRAFT"), actual=amount(1006))
        ),
    ),
    "committed then released": (409, "RESERVATION_FINALIZED", finalized("commit", "release")),
    "released then committed": (409, "RESERVATION_FINALIZED", finalized("release", "commit")),
    "committed then extended": (409, "RESERVATION_FINALIZED", finalized("commit", "extend")),
    "same key, other body": (409, "IDEMPOTENCY_MISMATCH", mismatch),
    "too many extensions": (409, "MAX_EXTENSIONS_EXCEEDED", too_often),
    "killed": (409, "BUDGET_FROZEN", killed),
    "late commit": (410, "RESERVATION_EXPIRED", late("commit")),
    "late release": (410, "RESERVATION_EXPIRED", late("release")),
    "late extend": (410, "RESERVATION_EXPIRED", late("extend")),
    "expired and read": (410, "RESERVATION_EXPIRED", late("get")),
    "no such path": (404, "NOT_FOUND", lambda t, w: t.get("/v1/nothing")),
    "wrong method": (405, "INVALID_REQUEST", lambda t, w: t.request("PUT", "/v1/decide", {})),
    "wrong media type": (
        415,
        "INVALID_REQUEST",
        lambda t, w: t.request("POST", "/v1/decide", content=b"a=b", headers={"Content-Type": "text/plain"}),
    ),
    "too long": (413, "INVALID_REQUEST", lambda t, w: t.request("POST", "/v1/decide", content=b"x" * 300_000)),
}


@pytest.mark.parametrize("row", ROWS)
def test_every_error(row: str, funded: Tenant, world: World) -> None:
    status, code, ask = ROWS[row]
    assert problem(ask(funded, world)) == (status, code)


def test_debt_without_overdraft(funded: Tenant, world: World) -> None:
    """Made behind the server: every change of a limit makes the over-limit flag anew, and that outranks the debt."""

    def owe(tx: Any, now_ms: int) -> None:
        account = tx.account(funded.name, f"tenant:{funded.name}", "TOKENS")
        tx.write(Changes(accounts=[account._replace(debt=5, over_limit=False)]), now_ms)

    world.running.authority.keep(owe)
    assert problem(funded.reserve(0)) == (409, "DEBT_OUTSTANDING")


def test_a_stop_says_what_it_is(funded: Tenant, world: World) -> None:
    details = killed(funded, world).json()["details"]
    assert details["reason_code"] == "KILLED"
    assert details["reason"] == "test"
    assert details["actor"]


def test_a_wrong_unit_names_the_right_ones(funded: Tenant) -> None:
    details = funded.reserve(1, estimate=amount(1, "CREDITS")).json()["details"]
    assert details["scope"] == f"tenant:{funded.name}"
    assert details["requested_unit"] == "CREDITS"
    assert details["expected_units"] == ["TOKENS"]


def test_a_failed_reserve_is_not_remembered(tenant: Tenant) -> None:
    tenant.budget(10)
    body = tenant.reserve_body(100)
    assert tenant.post("/v1/reservations", body).status_code == 409
    tenant.post("/v1/admin/budgets/fund" + scope_query(tenant), {"operation": "CREDIT", "amount": amount(90)})
    assert tenant.post("/v1/reservations", body).status_code == 200


def test_an_outage_of_the_ledger_is_one_line_in_the_log(
    funded: Tenant, world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def gone(*_: object, **__: object) -> None:
        raise StoreError("ledger at db:5432 cannot be reached")

    monkeypatch.setattr(world.running.authority, "areserve", gone)
    answer = funded.reserve(1)
    assert problem(answer) == (500, "INTERNAL_ERROR")
    assert "db:5432" not in answer.text
    (line,) = [record for record in caplog.records if record.name == "clearance.server"]
    assert "db:5432 cannot be reached" in line.getMessage()
    assert not line.exc_info

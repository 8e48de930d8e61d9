"""Every row of the error table, and which of two errors wins."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import httpx
import pytest
from tests.server.kit import ACTION, Tenant, World, amount, problem

from clearance.authority.clock import ManualClock
from clearance.store.interface import Changes, Record

Ask = Callable[[Tenant, World], httpx.Response]


def scope_query(tenant: Tenant, below: str = "") -> str:
    return f"?scope=tenant:{tenant.name}{below}&unit=TOKENS"


def freeze(tenant: Tenant) -> None:
    answer = tenant.post("/v1/admin/budgets/freeze" + scope_query(tenant), {})
    assert answer.status_code == 200, answer.text


def close_budget(tenant: Tenant, world: World) -> None:
    world.running.authority.close_budget(f"tenant:{tenant.name}", "TOKENS")  # type: ignore[arg-type]


def over_limit(tenant: Tenant) -> None:
    """Committed more than there was, under the default policy."""
    tenant.settle("commit", tenant.hold(900), actual=amount(2000))


def owing(tenant: Tenant) -> None:
    """Debt on a budget that has no overdraft any more."""
    query = scope_query(tenant)
    tenant.request("PATCH", "/v1/admin/budgets" + query, {"overdraft_limit": amount(500)})
    held = tenant.hold(1000, overage_policy="ALLOW_WITH_OVERDRAFT")
    tenant.settle("commit", held, actual=amount(1100))
    tenant.request("PATCH", "/v1/admin/budgets" + query, {"overdraft_limit": amount(0)})


def frozen(then: Callable[[Tenant], httpx.Response]) -> Ask:
    def ask(tenant: Tenant, world: World) -> httpx.Response:
        freeze(tenant)
        return then(tenant)

    return ask


def closed(then: Callable[[Tenant], httpx.Response]) -> Ask:
    def ask(tenant: Tenant, world: World) -> httpx.Response:
        close_budget(tenant, world)
        return then(tenant)

    return ask


def finalized(first: str, second: str) -> Ask:
    def ask(tenant: Tenant, world: World) -> httpx.Response:
        held = tenant.hold(100)
        assert tenant.settle(first, held).status_code == 200
        return tenant.settle(second, held)

    return ask


def late(verb: str) -> Ask:
    def ask(tenant: Tenant, world: World) -> httpx.Response:
        held = tenant.hold(100, ttl_ms=1000, grace_period_ms=0)
        assert isinstance(world.clock, ManualClock)
        world.clock.advance(1001)
        return tenant.settle(verb, held) if verb != "get" else _swept(tenant, world, held)

    return ask


def _swept(tenant: Tenant, world: World, held: str) -> httpx.Response:
    world.running.authority.sweep()
    return tenant.get(f"/v1/reservations/{held}")


def mismatch(tenant: Tenant, world: World) -> httpx.Response:
    body = tenant.reserve_body(10)
    tenant.post("/v1/reservations", body)
    return tenant.post("/v1/reservations", {**body, "estimate": amount(11)})


def too_often(tenant: Tenant, world: World) -> httpx.Response:
    world.admin("PATCH", f"/v1/admin/tenants/{tenant.name}", {"max_reservation_extensions": 1})
    held = tenant.hold(10)
    assert tenant.settle("extend", held).status_code == 200
    return tenant.settle("extend", held)


def over(tenant: Tenant, world: World) -> httpx.Response:
    over_limit(tenant)
    return tenant.reserve(0)


def owes(tenant: Tenant, world: World) -> httpx.Response:
    owing(tenant)
    return tenant.reserve(0)


def killed(tenant: Tenant, world: World) -> httpx.Response:
    tenant.post("/v1/x-clearance/kill", {"scope": f"tenant:{tenant.name}", "reason": "test"})
    return tenant.reserve(1)


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


# -- precedence -----------------------------------------------------------------------------------


def bad_key_bad_body(t: Tenant, w: World) -> httpx.Response:
    return w.client.post("/v1/decide", content=b"{", headers={"X-Cycles-API-Key": "nonsense"})


def other_subject_replay(t: Tenant, w: World) -> httpx.Response:
    body = t.reserve_body(1)
    t.post("/v1/reservations", body)
    return t.post("/v1/reservations", {**body, "subject": {"tenant": "other"}})


def foreign(w: World) -> str:
    other = w.tenant()
    other.budget(100)
    return other.hold(1)


def replay_then(change: Callable[[Tenant, World], Any]) -> Callable[[Tenant, World], httpx.Response]:
    def ask(t: Tenant, w: World) -> httpx.Response:
        body = t.reserve_body(10)
        assert t.post("/v1/reservations", body).status_code == 200
        change(t, w)
        return t.post("/v1/reservations", body)

    return ask


def mismatch_then(change: Callable[[Tenant, World], Any]) -> Callable[[Tenant, World], httpx.Response]:
    def ask(t: Tenant, w: World) -> httpx.Response:
        body = t.reserve_body(10)
        assert t.post("/v1/reservations", body).status_code == 200
        change(t, w)
        return t.post("/v1/reservations", {**body, "estimate": amount(11)})

    return ask


def close_tenant(t: Tenant, w: World) -> None:
    """Behind the server's back, so that the key still opens."""
    w.running.authority.close_tenant(t.name)


def two_levels(first: str, t: Tenant, w: World) -> httpx.Response:
    """The tenant has too little, the agent is frozen: the root is looked at first."""
    t.budget(10_000, "/agent:bot")
    t.post("/v1/admin/budgets/freeze" + scope_query(t, "/agent:bot"), {})
    return t.reserve(5000, subject=t.subject(agent="bot"))


def expiry_before_unit(t: Tenant, w: World) -> httpx.Response:
    held = t.hold(10, ttl_ms=1000, grace_period_ms=0)
    assert w.clock
    w.clock.advance(1001)
    w.running.authority.sweep()
    return t.settle("commit", held, actual=amount(1, "CREDITS"))


def clock_before_maximum(t: Tenant, w: World) -> httpx.Response:
    w.admin("PATCH", f"/v1/admin/tenants/{t.name}", {"max_reservation_extensions": 0})
    held = t.hold(10, ttl_ms=1000)
    assert w.clock
    w.clock.advance(1001)
    return t.settle("extend", held)


def closed_then(verb: str) -> Callable[[Tenant, World], httpx.Response]:
    def ask(t: Tenant, w: World) -> httpx.Response:
        held = t.hold(10)
        close_tenant(t, w)
        return t.settle(verb, held)

    return ask


PAIRS: dict[str, tuple[int, str, Ask]] = {
    "401 before 400": (401, "UNAUTHORIZED", bad_key_bad_body),
    "400 before 403": (400, "INVALID_REQUEST", lambda t, w: t.reserve(1, subject={"tenant": "other"}, ttl_ms=1)),
    "400 before 404": (400, "INVALID_REQUEST", lambda t, w: t.settle("commit", "rsv_none", actual=amount(-1))),
    "header key before 404": (
        400,
        "INVALID_REQUEST",
        lambda t, w: t.request(
            "POST",
            "/v1/reservations/rsv_none/release",
            {"idempotency_key": "a"},
            headers={"X-Idempotency-Key": "b"},
        ),
    ),
    "404 before the rest": (404, "NOT_FOUND", lambda t, w: t.settle("commit", "rsv_x", actual=amount(1, "CREDITS"))),
    "403 before unit": (
        403,
        "FORBIDDEN",
        lambda t, w: t.settle("commit", foreign(w), actual=amount(1, "CREDITS")),
    ),
    "403 before idempotency": (403, "FORBIDDEN", other_subject_replay),
    "mismatch before frozen": (409, "IDEMPOTENCY_MISMATCH", mismatch_then(lambda t, w: freeze(t))),
    "mismatch before closed tenant": (409, "IDEMPOTENCY_MISMATCH", mismatch_then(close_tenant)),
    "closed tenant before budgets": (
        409,
        "TENANT_CLOSED",
        lambda t, w: (freeze(t), close_tenant(t, w), t.reserve(1))[2],
    ),
    "closed tenant before finalized (commit)": (409, "TENANT_CLOSED", closed_then("commit")),
    "closed tenant before finalized (release)": (409, "TENANT_CLOSED", closed_then("release")),
    "closed tenant before finalized (extend)": (409, "TENANT_CLOSED", closed_then("extend")),
    "closed tenant, event": (409, "TENANT_CLOSED", lambda t, w: (close_tenant(t, w), t.event(1))[1]),
    "expiry before the unit": (410, "RESERVATION_EXPIRED", expiry_before_unit),
    "clock before the maximum": (410, "RESERVATION_EXPIRED", clock_before_maximum),
    "root to leaf": (409, "BUDGET_EXCEEDED", lambda t, w: two_levels("tenant", t, w)),
    "frozen before exceeded": (409, "BUDGET_FROZEN", frozen(lambda t: t.reserve(5000))),
    "over limit before debt": (409, "OVERDRAFT_LIMIT_EXCEEDED", owes),
    "budget before other units": (
        409,
        "BUDGET_EXCEEDED",
        lambda t, w: (t.budget(5, unit="CREDITS"), t.reserve(5000))[1],
    ),
}


@pytest.mark.parametrize("pair", PAIRS)
def test_precedence(pair: str, funded: Tenant, world: World) -> None:
    status, code, ask = PAIRS[pair]
    assert problem(ask(funded, world)) == (status, code)


@pytest.mark.parametrize(
    "change",
    [lambda t, w: freeze(t), close_tenant, lambda t, w: killed(t, w), lambda t, w: close_budget(t, w)],
    ids=["frozen", "tenant closed", "killed", "budget closed"],
)
def test_a_replay_beats_the_present_state(change: Any, funded: Tenant, world: World) -> None:
    assert replay_then(change)(funded, world).status_code == 200


@pytest.mark.parametrize("ask", ["decide", "dry_run"])
def test_decide_answers_200_whatever_the_budget_is(ask: str, funded: Tenant, world: World) -> None:
    def asked(value: int = 1) -> dict[str, Any]:
        answer = funded.decide(value) if ask == "decide" else funded.reserve(value, dry_run=True)
        assert answer.status_code == 200
        return dict(answer.json())

    assert asked(5000)["reason_code"] == "BUDGET_EXCEEDED"
    freeze(funded)
    assert asked()["reason_code"] == "BUDGET_FROZEN"
    killed(funded, world)
    assert asked()["reason_code"] == "KILLED"
    close_tenant(funded, world)
    assert asked()["reason_code"] == "TENANT_CLOSED"
    empty = world.tenant()
    body = empty.reserve_body(1, dry_run=ask == "dry_run" or ...)
    path = "/v1/decide" if ask == "decide" else "/v1/reservations"
    assert empty.post(path, body).json()["reason_code"] == "BUDGET_NOT_FOUND"


def test_reads_of_a_closed_tenant_are_unaffected(funded: Tenant, world: World) -> None:
    held = funded.hold(10)
    close_tenant(funded, world)
    assert funded.get(f"/v1/reservations/{held}").json()["status"] == "RELEASED"
    assert world.admin("GET", f"/v1/reservations?tenant={funded.name}").status_code == 200


def test_a_tenant_record_that_cannot_be_read_is_500_and_changes_nothing(funded: Tenant, world: World) -> None:
    sound = world.running.authority.record("tenant", funded.name)
    assert sound is not None

    def put(record: Record) -> None:
        world.running.authority.keep(lambda tx, now_ms: tx.write(Changes(records=[record]), now_ms))
        world.running.app.server.forget()

    put(sound._replace(body={**sound.body, "status": "closed"}))
    assert problem(funded.reserve(1)) == (500, "INTERNAL_ERROR")
    put(sound)
    assert funded.remaining() == 1000


def test_action_and_settlement_go_on_when_frozen(funded: Tenant) -> None:
    held, other = funded.hold(10, action=ACTION), funded.hold(10)
    freeze(funded)
    assert funded.settle("commit", held, actual=amount(10)).status_code == 200
    assert funded.settle("release", other).status_code == 200

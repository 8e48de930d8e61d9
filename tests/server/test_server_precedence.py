"""Which of two errors wins, and what a replay and a preflight do about both."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import httpx
import pytest
from tests.server.kit import ACTION, Tenant, World, amount, problem
from tests.server.states import (
    Ask,
    close_budget,
    freeze,
    frozen,
    killed,
    owes,
    scope_query,
)

from clearance.store.interface import Changes, Record


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

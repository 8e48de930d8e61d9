"""The client over the real server: the same verbs, results and errors as the embedded authority."""

from __future__ import annotations

import asyncio
import itertools
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from clearance.authority.budgets import BudgetSpec
from clearance.errors import (
    AlreadyExists,
    BudgetExceeded,
    BudgetFrozen,
    BudgetNotFound,
    InvalidRequest,
    Killed,
    NotFound,
    Paused,
    ReservationFinalized,
    Stopped,
    UnitMismatch,
)
from clearance.guard.guard import Guard
from clearance.model.action import Action
from clearance.model.amount import tokens, usd
from clearance.model.caps import Caps, CapsRule
from clearance.model.subject import Subject
from clearance.remote import Forbidden, NotAuthorized, RemoteAuthority
from clearance.store.interface import ReservationQuery
from remote.conftest import ADMIN, TOOL, RealServer, eventually, records

_numbers = itertools.count(1)


@pytest.fixture
def client(real: RealServer, tmp_path: Path) -> Iterator[RemoteAuthority]:
    made = RemoteAuthority(
        real.url, api_key=real.api_key, admin_key=ADMIN, tenant="acme", journal=tmp_path, timeout_ms=8_000
    )
    yield made
    made.close()


@pytest.fixture
def bot(client: RemoteAuthority) -> Subject:
    """A workspace of this test's own, with 10 USD."""
    subject = Subject(tenant="acme", workspace=f"w{os.getpid()}-{next(_numbers)}")
    client.set_budget(BudgetSpec(scope=subject.scope_path, allocated=usd(10)))
    return subject


def test_a_lifecycle(client: RemoteAuthority, bot: Subject, tmp_path: Path) -> None:
    held = client.reserve(bot, TOOL, usd(2), metadata={"why": "test"})
    assert held.affected_scopes == bot.scopes
    assert held.balances[-1].remaining == usd(8).amount
    assert held.remaining_ttl_ms == 60_000
    lease = client.extend(held.reservation_id or "", 5_000)
    assert 60_000 < lease.remaining_ttl_ms <= 65_000
    done = client.commit(held.reservation_id or "", usd("0.5"))
    assert (done.charged, done.released, done.estimate) == (usd("0.5").amount, usd("1.5").amount, usd(2).amount)
    found = client.get(held.reservation_id or "")
    assert (found.status, found.charged, found.metadata) == ("COMMITTED", usd("0.5").amount, {"why": "test"})
    other = client.reserve(bot, TOOL, usd(1))
    assert client.release(other.reservation_id or "", reason="no").released == usd(1).amount
    assert client.event(bot, TOOL, usd("0.25")).charged == usd("0.25").amount
    assert client.balance(bot.scope_path).spent == usd("0.75").amount
    assert client.dry_run(bot, TOOL, usd(100)).reason_code == "BUDGET_EXCEEDED"
    assert client.decide(bot, TOOL, usd(1)).allowed
    assert records(tmp_path) == []


def test_the_errors_are_those_of_the_embedded_authority(client: RemoteAuthority, bot: Subject) -> None:
    with pytest.raises(BudgetExceeded) as caught:
        client.reserve(bot, TOOL, usd(100))
    assert caught.value.scope == bot.scope_path
    assert caught.value.details["remaining"] == usd(10).amount
    with pytest.raises(BudgetNotFound):
        client.reserve(Subject(tenant="acme", agent="nobody"), TOOL, usd(1))
    with pytest.raises(UnitMismatch):
        client.reserve(bot, TOOL, tokens(1))
    with pytest.raises(NotFound):
        client.commit("rsv_unknown", usd(1))
    with pytest.raises(NotFound):
        client.reserve(bot, TOOL, usd(1), run_id="run_unknown")
    with pytest.raises(Forbidden):
        client.reserve(Subject(tenant="other"), TOOL, usd(1))
    held = client.reserve(bot, TOOL, usd(1))
    client.release(held.reservation_id or "")
    with pytest.raises(ReservationFinalized):
        client.commit(held.reservation_id or "", usd(1))
    client.freeze(bot.scope_path, reason="test")
    with pytest.raises(BudgetFrozen):
        client.reserve(bot, TOOL, usd(1))
    client.unfreeze(bot.scope_path)


def test_a_wrong_key_is_neither_denial_nor_outage(real: RealServer) -> None:
    stranger = RemoteAuthority(real.url, api_key="cyc_live_" + "x" * 32)
    with pytest.raises(NotAuthorized) as caught:
        stranger.reserve(Subject(tenant="acme"), TOOL, usd(1))
    assert "x" * 32 not in str(caught.value)
    stranger.close()


def test_the_guard_over_http_sync_and_async(client: RemoteAuthority, bot: Subject) -> None:
    guard: Guard = client.guard("tool.call:search", "1", actual="0.1", subject=bot)

    @guard
    def work() -> int:
        return 1

    @guard
    async def awork() -> int:
        return 2

    async def both() -> int:
        try:
            return await awork()
        finally:
            await client.aclose()

    assert work() + asyncio.run(both()) == 3
    with pytest.raises(BudgetExceeded), client.guard(TOOL, "50", subject=bot):
        raise AssertionError("denied means that nothing happens")
    balance = client.balance(bot.scope_path)
    assert (balance.spent, balance.reserved) == (usd("0.2").amount, 0)


def test_caps_come_through_also_the_models(client: RemoteAuthority, bot: Subject) -> None:
    caps = Caps(max_tokens=7, tool_denylist=("rm",), models=("small",))
    client.set_budget(BudgetSpec(scope=bot.scope_path, allocated=usd(10), caps=(CapsRule(caps=caps),)))
    held = client.reserve(bot, TOOL, usd(1))
    assert held.decision == "ALLOW_WITH_CAPS"
    assert held.caps == caps


def test_runs_are_the_servers(client: RemoteAuthority, bot: Subject) -> None:
    with client.run(bot, "5") as run:
        assert client.balance(bot.scope_path).reserved == usd(5).amount
        with client.guard(TOOL, "1") as permit:
            permit.settle("0.5")
        with client.run(None, "2", name="inner"), client.guard(TOOL, "2") as permit:
            permit.settle("1")
        with pytest.raises(BudgetExceeded), client.guard(TOOL, "4"):
            pass
        client.event(bot, TOOL, usd("0.25"), run_id=run.id)
    assert run.settlement is not None
    assert run.settlement.charged == usd("1.75").amount
    balance = client.balance(bot.scope_path)
    assert (balance.spent, balance.reserved) == (usd("1.75").amount, 0)


def test_a_run_by_its_async_verbs(client: RemoteAuthority, bot: Subject) -> None:
    async def main() -> int:
        run = await client.astart_run(bot, usd(3))
        held = await client.areserve(bot, TOOL, usd(1), run_id=run.reservation_id)
        await client.aextend(run.reservation_id or "", 1000)
        await client.acommit(held.reservation_id or "", usd("0.5"))
        ended = await client.aend_run(run.reservation_id or "")
        await client.aclose()
        return ended.charged

    assert asyncio.run(main()) == usd("0.5").amount


def test_a_kill_stops_what_is_open_and_what_comes(client: RemoteAuthority, bot: Subject) -> None:
    held = client.reserve(bot, TOOL, usd(1))
    stop = client.kill(bot.scope_path, reason="enough", actor="ops")
    assert held.reservation_id in stop.in_flight
    assert client.stopped([held.reservation_id or "", "rsv_unknown"])[held.reservation_id or ""].state == "KILLED"
    with pytest.raises(Killed) as caught:
        client.reserve(bot, TOOL, usd(1))
    assert caught.value.details["reason"] == "enough"
    with pytest.raises(Killed):
        client.extend(held.reservation_id or "", 1000)
    assert client.commit(held.reservation_id or "", usd(1)).status == "COMMITTED"
    client.resume(bot.scope_path, reason="go on")
    client.pause(bot.scope_path, reason="later")
    with pytest.raises(Paused):
        client.reserve(bot, TOOL, usd(1))
    client.resume(bot.scope_path, reason="go on")
    assert client.reserve(bot, TOOL, usd(1)).allowed
    assert bot.scope_path in [found.scope for found in client.stops()]


def test_the_guard_notices_a_kill_over_http(client: RemoteAuthority, bot: Subject) -> None:
    async def main() -> None:
        try:
            async with client.guard(TOOL, "1", subject=bot):
                await asyncio.to_thread(client.kill, bot.scope_path, reason="enough")
                await asyncio.sleep(20)
        finally:
            await client.aclose()

    began = time.monotonic()
    with pytest.raises(Stopped):
        asyncio.run(main())
    assert time.monotonic() - began < 10


def test_budgets_are_made_and_funded(client: RemoteAuthority, bot: Subject) -> None:
    scope = bot.scope_path
    with pytest.raises(AlreadyExists):
        client.set_budget(BudgetSpec(scope=scope, allocated=usd(1)), must_be_new=True)
    assert client.fund(scope, "CREDIT", usd(5), idempotency_key="f1").allocated == usd(15).amount
    assert client.fund(scope, "CREDIT", usd(5), idempotency_key="f1").allocated == usd(15).amount
    made = client.set_budget(BudgetSpec(scope=scope + "/agent:new", allocated=usd(1)), must_be_new=True)
    assert (made.scope, made.allocated, made.tenant) == (scope + "/agent:new", usd(1).amount, "acme")
    assert [it.scope for it in client.balances(scope).items] == [scope, scope + "/agent:new"]
    with pytest.raises(NotFound):
        client.balance(scope, "TOKENS")


def test_lists_go_on_page_by_page(client: RemoteAuthority, bot: Subject) -> None:
    ids = {client.reserve(bot, Action(kind="tool.call", name=f"t{n}"), usd("0.1")).reservation_id for n in range(5)}
    query = ReservationQuery(scope=bot.scope_path, status="ACTIVE")
    page = client.reservations(query, limit=2)
    found = list(page.items)
    while page.next_cursor:
        page = client.reservations(query, limit=2, cursor=page.next_cursor)
        found += page.items
    assert {it.id for it in found} == ids
    with pytest.raises(InvalidRequest):
        client.reservations(ReservationQuery(kind="run"))


def test_an_expired_reservation_settles_as_an_event(client: RemoteAuthority, bot: Subject, real: RealServer) -> None:
    held = client.reserve(bot, TOOL, usd(1), ttl_ms=1_000, grace_period_ms=0)
    eventually(lambda: real.authority.find(held.reservation_id or "").status == "EXPIRED" or not time.sleep(0.1), 5)
    time.sleep(1.2)
    answer = client.commit(held.reservation_id or "", usd("0.5"))
    assert (answer.status, answer.charged) == ("APPLIED", usd("0.5").amount)
    assert client.balance(bot.scope_path).spent == usd("0.5").amount
    assert client.find(held.reservation_id or "").status in ("EXPIRED", "ACTIVE")

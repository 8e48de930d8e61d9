"""The operator's verbs that only a Clearance server can answer, and a run's key."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from clearance.authority.budgets import BudgetSpec
from clearance.errors import AuthorityUnavailable, BudgetClosed, IdempotencyMismatch, InvalidRequest, NotFound
from clearance.model.amount import usd
from clearance.model.caps import Caps, CapsRule
from clearance.model.period import Period
from clearance.model.subject import Subject
from clearance.remote import Administration, Forbidden, NotOffered, RemoteAuthority
from clearance.store.interface import EventQuery
from remote.conftest import ADMIN, TOOL, Open, RealServer
from remote.faulty import FaultyServer

_numbers = itertools.count(1)


@pytest.fixture
def client(real: RealServer, tmp_path: Path) -> Iterator[RemoteAuthority]:
    made = RemoteAuthority(real.url, api_key=real.api_key, admin_key=ADMIN, journal=tmp_path, timeout_ms=8_000)
    yield made
    made.close()


@pytest.fixture
def agent(real: RealServer, tmp_path: Path) -> Iterator[RemoteAuthority]:
    """With a tenant's key alone."""
    made = RemoteAuthority(real.url, api_key=real.api_key, journal=tmp_path, timeout_ms=8_000)
    yield made
    made.close()


@pytest.fixture
def bot(client: RemoteAuthority) -> Subject:
    subject = Subject(tenant="acme", workspace=f"o{os.getpid()}-{next(_numbers)}")
    client.set_budget(BudgetSpec(scope=subject.scope_path, allocated=usd(10)))
    return subject


def test_budgets_are_applied_all_or_none(client: RemoteAuthority, agent: RemoteAuthority, bot: Subject) -> None:
    scope = bot.scope_path
    caps = (CapsRule(caps=Caps(max_tokens=5), below_percent=20),)
    specs = [
        BudgetSpec(scope=scope, allocated=usd(20), period=Period(every="day")),
        BudgetSpec(scope=f"{scope}/agent:a", allocated=usd(2), caps=caps, overdraft_limit=7),
    ]
    found = client.apply_budgets(specs)
    assert [(it.scope, it.allocated) for it in found] == [(it.scope, it.allocated.amount) for it in specs]
    assert (found[0].period, found[1].caps, found[1].overdraft_limit) == (Period(every="day"), caps, 7)
    closed = BudgetSpec(scope=f"{scope}/agent:c", allocated=usd(1))
    client.set_budget(closed)
    client.close_budget(closed.scope)
    with pytest.raises(BudgetClosed):
        client.apply_budgets([BudgetSpec(scope=scope, allocated=usd(99)), closed])
    assert client.balance(scope).allocated == usd(20).amount
    with pytest.raises(Forbidden):
        agent.apply_budgets([specs[0], BudgetSpec(scope="tenant:other", allocated=usd(1))])
    assert client.apply_budgets([]) == []


def test_a_budget_is_closed_for_good(agent: RemoteAuthority, bot: Subject) -> None:
    assert agent.close_budget(bot.scope_path, reason="moved").status == "CLOSED"
    with pytest.raises(BudgetClosed):
        agent.reserve(bot, TOOL, usd(1))
    with pytest.raises(NotFound):
        agent.close_budget(bot.scope_path + "/agent:none")


def test_a_tenant_is_closed_by_the_operator_only(
    client: RemoteAuthority, agent: RemoteAuthority, real: RealServer
) -> None:
    name = f"gone-{os.getpid()}-{next(_numbers)}"
    with Administration(real.url, admin_key=ADMIN) as admin:
        admin.create_tenant(name, {"name": name})
        with pytest.raises(Exception, match="admin"):
            agent.close_tenant(name)
        client.close_tenant(name)
        client.close_tenant(name)
        assert admin.tenant(name)["status"] == "CLOSED"
    with pytest.raises(NotFound):
        client.close_tenant("never-was")


def test_the_log_is_the_embedded_authoritys(client: RemoteAuthority, bot: Subject, real: RealServer) -> None:
    held = client.reserve(bot, TOOL, usd(1)).reservation_id or ""
    client.commit(held, usd("0.5"))
    client.kill(bot.scope_path, reason="enough")
    queries = [
        EventQuery(scope=bot.scope_path),
        EventQuery(reservation_id=held),
        EventQuery(types=("control.killed",), descending=True),
        EventQuery(tenant="acme", after=3),
    ]
    for query in queries:
        found = client.events(query, limit=5)
        assert found == real.authority.events(query, limit=5) != []
    assert client.events(EventQuery(scope="*")) == real.authority.events(EventQuery(scope="*"))
    with pytest.raises(InvalidRequest, match="limit"):
        client.events(limit=5000)


def test_a_tenants_key_sees_its_own_part_of_the_log(agent: RemoteAuthority, client: RemoteAuthority) -> None:
    client.set_budget(BudgetSpec(scope="tenant:other", allocated=usd(1)))
    found = agent.events(EventQuery(descending=True), limit=1000)
    assert found
    assert {it.tenant for it in found} == {"acme"}
    assert not [it for it in found if it.type.startswith(("api_key.", "webhook."))]
    assert agent.events(EventQuery(types=("api_key.created",))) == []
    with pytest.raises(Forbidden):
        agent.events(EventQuery(tenant="other"))


def test_a_run_that_is_started_again_with_its_key_is_the_same_run(agent: RemoteAuthority, bot: Subject) -> None:
    first = agent.start_run(bot, usd(2), idempotency_key="run-1")
    again = agent.start_run(bot, usd(2), idempotency_key="run-1")
    assert again.reservation_id == first.reservation_id
    assert agent.balance(bot.scope_path).reserved == usd(2).amount
    with pytest.raises(IdempotencyMismatch):
        agent.start_run(bot, usd(3), idempotency_key="run-1")
    other = agent.start_run(bot, usd(2))
    assert other.reservation_id != first.reservation_id
    for run in (first, other):
        agent.end_run(run.reservation_id or "")


def test_a_lost_start_of_a_run_is_asked_again_only_where_its_key_is_known(server: FaultyServer, connect: Open) -> None:
    server.vendor = True
    client = connect()
    server.fail("start_run", *["lost"] * 9)
    with pytest.raises(AuthorityUnavailable):
        client.start_run(Subject(tenant="acme"), usd(1))
    assert server.count()["start_run"] == 1
    server.extra["capabilities"] = {"extensions": ["runs", "runs.keys"]}
    with pytest.raises(AuthorityUnavailable):
        connect().start_run(Subject(tenant="acme"), usd(1))
    keys = [seen.headers["x-idempotency-key"] for seen in server.of("start_run")[1:]]
    assert len(keys) > 1
    assert len(set(keys)) == 1


@pytest.mark.parametrize("verb", ["events", "apply_budgets", "close_budget"])
def test_a_server_of_the_base_protocol_is_not_asked_for_more(connect: Open, server: FaultyServer, verb: str) -> None:
    arguments = {
        "close_budget": ["tenant:acme"],
        "apply_budgets": [[BudgetSpec(scope="tenant:acme", allocated=usd(1))]],
    }
    with pytest.raises(NotOffered, match="Clearance server"):
        getattr(connect(), verb)(*arguments.get(verb, []))
    assert set(server.count()) == {"capabilities"}

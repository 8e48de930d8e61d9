"""Closing a tenant: for good, and everything it had comes to an end."""

from __future__ import annotations

import pytest
from tests.authority.kit import (
    ACME,
    AGENT,
    BOT,
    CALL,
    TENANT,
    balance,
    budget,
    events,
    figures,
    hold,
    kinds,
    ledger,
    run,
)

from clearance.authority.embedded import EmbeddedAuthority
from clearance.errors import BudgetClosed, InvalidRequest, TenantClosed
from clearance.model.amount import tokens
from clearance.model.subject import Subject


def test_open_calls_are_released_runs_are_charged_and_budgets_close(authority: EmbeddedAuthority) -> None:
    budget(authority, TENANT, 1000)
    budget(authority, AGENT, 500)
    call = hold(authority, 100, BOT)
    outer = run(authority, 200, BOT)
    inner = run(authority, 100, BOT, run_id=outer)
    authority.commit(hold(authority, 30, BOT, run_id=inner), tokens(30))
    in_run = hold(authority, 20, BOT, run_id=inner)
    authority.close_tenant("ACME")
    assert figures(authority, TENANT) == (970, 0, 30, 0)
    assert figures(authority, AGENT) == (470, 0, 30, 0)
    assert {b.status for b in authority.balances().items} == {"CLOSED"}
    states = [authority.get(it).status for it in (call, in_run, inner, outer)]
    assert states == ["RELEASED", "RELEASED", "COMMITTED", "COMMITTED"]
    assert {event.data["reason"] for event in events(authority, "reservation.released")} == {"tenant_closed"}
    closed = events(authority, "budget.closed_via_tenant_cascade")
    assert [event.scope for event in closed] == [TENANT, AGENT]


def test_closing_again_changes_nothing(authority: EmbeddedAuthority) -> None:
    budget(authority)
    authority.close_tenant("acme")
    before = ledger(authority)
    authority.close_tenant("acme")
    assert ledger(authority) == before


def test_other_tenants_go_on(authority: EmbeddedAuthority) -> None:
    budget(authority, "tenant:other", 100)
    held = hold(authority, 10, Subject(tenant="other"))
    authority.close_tenant("acme")
    assert authority.commit(held, tokens(10)).charged == 10
    assert balance(authority, "tenant:other").status == "ACTIVE"


def test_nothing_is_granted_or_debited_any_more(authority: EmbeddedAuthority) -> None:
    budget(authority)
    authority.close_tenant("acme")
    for refused in (
        lambda: hold(authority, 0),
        lambda: run(authority, 0),
        lambda: run(authority, None),
        lambda: authority.event(ACME, CALL, tokens(0)),
    ):
        with pytest.raises(TenantClosed):
            refused()
    with pytest.raises(BudgetClosed):
        authority.fund(TENANT, "CREDIT", tokens(1))
    assert authority.decide(ACME, CALL, tokens(0)).reason_code == "TENANT_CLOSED"


def test_a_tenant_without_anything_can_be_closed_too(authority: EmbeddedAuthority) -> None:
    authority.close_tenant("empty")
    assert kinds(authority) == ["tenant.closed"]
    with pytest.raises(TenantClosed):
        hold(authority, 0, Subject(tenant="empty"))


def test_a_bad_name_is_refused(authority: EmbeddedAuthority) -> None:
    with pytest.raises(InvalidRequest):
        authority.close_tenant("a b")
    assert authority.events() == []

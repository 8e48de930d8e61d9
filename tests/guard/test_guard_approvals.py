"""Some tools need a person's yes: without it nothing runs and nothing stays held, with it the yes is kept."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

from clearance.authority.budgets import BudgetSpec
from clearance.config import parse
from clearance.connecting import LocalAuthority, connect
from clearance.errors import ApprovalRequired, CapsViolated, InvalidRequest
from clearance.guard import open_permit
from clearance.guard.capskeeper import CapsKeeper
from clearance.model.action import action
from clearance.model.amount import credits, usd
from clearance.model.caps import Caps, CapsRule
from clearance.model.subject import Subject
from clearance.store.interface import EventQuery, ReservationQuery

ACME = Subject(tenant="acme")
APPROVALS = Caps(approval_tools=("send_email", "pay_*"))


@pytest.fixture
def ledger() -> Iterator[LocalAuthority]:
    made = connect("memory://")
    made.set_budget(BudgetSpec(scope="tenant:acme", allocated=usd(1), caps=(CapsRule(caps=APPROVALS),)))
    yield made
    made.close()


def kept(ledger: LocalAuthority) -> Any:
    (found,) = ledger.reservations(ReservationQuery()).items
    return found


@pytest.mark.parametrize("name", ["send_email", "pay_", "pay_invoice"])
def test_without_a_yes_nothing_runs_and_nothing_stays_held(ledger: LocalAuthority, name: str) -> None:
    with pytest.raises(ApprovalRequired, match=f"tool '{name}' needs a person's approval") as denied:
        ledger.guard(f"tool.call:{name}", 5, subject=ACME)(lambda: pytest.fail("ran"))()
    assert (denied.value.reason_code, denied.value.details) == ("APPROVAL_REQUIRED", {"tool": name})
    assert kept(ledger).status == "RELEASED"
    (released,) = ledger.events(EventQuery(types=("reservation.released",)))
    assert released.data["reason"] == "ApprovalRequired"
    balance = ledger.balance("tenant:acme")
    assert (balance.reserved, balance.spent) == (0, 0)


@pytest.mark.parametrize("what", ["tool.call:send_emails", "tool.call:repay_x", "llm.completion:send_email"])
def test_nothing_else_needs_one(ledger: LocalAuthority, what: str) -> None:
    assert ledger.guard(what, 5, subject=ACME)(lambda: 42)() == 42


def test_a_tool_with_an_action_kind_of_its_own_is_a_tool_when_its_name_is_given(ledger: LocalAuthority) -> None:
    with pytest.raises(ApprovalRequired):
        open_permit(ledger, "message.email.send:mail", usd(0), subject=ACME, tool="send_email")
    open_permit(ledger, "message.email.send:mail", usd(0), subject=ACME, tool="look_up").release()


def test_a_call_with_a_yes_runs_and_keeps_the_name(ledger: LocalAuthority) -> None:
    with ledger.guard("tool.call:send_email", 5, subject=ACME, metadata={"why": "x"}, approved_by="ann@acme"):
        pass
    assert (kept(ledger).status, kept(ledger).metadata) == ("COMMITTED", {"why": "x", "approved_by": "ann@acme"})


def test_the_arguments_can_decide_who_has_approved(ledger: LocalAuthority) -> None:
    approved = {"bob@acme": "ann"}
    send = ledger.guard("tool.call:send_email", 0, subject=ACME, approved_by=lambda to: approved.get(to))(str)
    assert send("bob@acme") == "bob@acme"
    with pytest.raises(ApprovalRequired):
        send("eve@other")


def test_async_work_asks_as_well(ledger: LocalAuthority) -> None:
    @ledger.guard("tool.call:pay_all", 0, subject=ACME)
    async def pay() -> None:
        pytest.fail("ran")

    with pytest.raises(ApprovalRequired):
        asyncio.run(pay())


@pytest.mark.parametrize("who", ["", "  ", "x" * 257, 5])
def test_a_yes_names_a_person(ledger: LocalAuthority, who: Any) -> None:
    with pytest.raises(InvalidRequest, match="approved_by"):
        ledger.guard("tool.call:send_email", 5, subject=ACME, approved_by=who)
    assert ledger.reservations(ReservationQuery()).items == []


def test_a_yes_opens_no_other_door(ledger: LocalAuthority) -> None:
    caps = Caps(approval_tools=("send_email",), tool_denylist=("send_email",))
    ledger.set_budget(BudgetSpec(scope="tenant:acme", allocated=usd(1), caps=(CapsRule(caps=caps),)))
    with pytest.raises(CapsViolated):
        ledger.guard("tool.call:send_email", 5, subject=ACME, approved_by="ann")(lambda: pytest.fail("ran"))()


def test_what_would_be_refused_anyway_asks_nobody(clock: Any) -> None:
    keeper, caps = CapsKeeper(clock), Caps(approval_tools=("mail",), max_steps_remaining=0)
    mail = action("tool.call:mail")
    for _ in range(2):
        with pytest.raises(ApprovalRequired):
            keeper.admit("run_1", mail, caps)  # asking takes no step
    keeper.admit("run_1", mail, caps, approved=True)
    with pytest.raises(CapsViolated, match="no steps left"):
        keeper.admit("run_1", mail, caps)


def test_a_rule_of_any_scope_on_the_way_holds(ledger: LocalAuthority) -> None:
    caps = Caps(approval_tools=("rm",))
    scope = "tenant:acme/agent:bot"
    ledger.set_budget(BudgetSpec(scope=scope, allocated=usd(1), caps=(CapsRule(caps=caps),)))
    bot = Subject(tenant="acme", agent="bot")
    for name in ("rm", "send_email"):
        with pytest.raises(ApprovalRequired):
            ledger.guard(f"tool.call:{name}", 5, subject=bot)(lambda: pytest.fail("ran"))()


def test_a_tool_inside_a_run_asks_too(ledger: LocalAuthority) -> None:
    with ledger.run(ACME, usd("0.5")):
        with pytest.raises(ApprovalRequired):
            ledger.guard("tool.call:pay_all", 5)(lambda: pytest.fail("ran"))()
    assert ledger.balance("tenant:acme").spent == 0


def test_observing_only_reports_it(ledger: LocalAuthority) -> None:
    assert ledger.guard("tool.call:pay_all", 5, subject=ACME, dry_run="observe")(lambda: 42)() == 42


def test_clearance_yaml_names_them() -> None:
    text = 'budgets: [{scope: tenant:acme, allocated: 5, unit: CREDITS, caps: [{approval_tools: [send, "pay_*"]}]}]'
    (spec,) = parse(text).budgets
    assert spec.allocated == credits(5)
    assert spec.caps == (CapsRule(caps=Caps(approval_tools=("send", "pay_*"))),)

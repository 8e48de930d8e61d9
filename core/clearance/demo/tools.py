"""A tool that may run three times and no more, however often the model asks."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from langchain.agents import create_agent
from langchain_core.tools import tool

from clearance.authority.budgets import BudgetSpec
from clearance.connecting import LocalAuthority, open_ledger
from clearance.demo.agents import MODEL, Halted, chat_model
from clearance.demo.facts import Check, Facts, Lane, Screen, body_of, money
from clearance.demo.stage import QUIET_S, Acting, balance_or_none, denials, settled_calls
from clearance.errors import Denied
from clearance.model.amount import Unit, credits, usd
from clearance.model.subject import Subject
from clearance.simulator import Reply, ScriptedRequest, SimulatedUsage, Simulator, ToolCall
from clearance_langchain import ClearanceCallbackHandler

SCOPE = "tenant:acme"
TASK = "Tell every customer that the lamp is back in stock."
ALLOWED_RUNS = 3


@dataclass(frozen=True, slots=True)
class Tools(Facts):
    """`mails_in_outbox` counts the lines that the tool's body has written, `requests` and `paid` the simulator's."""

    model: str
    tool: str
    allowed_runs: int
    asked_by_model: int
    mails_in_outbox: int
    spent_credits: int
    left_credits: int
    requests: int
    requests_at_denial: int
    paid_microcents: int
    spent_microcents: int
    denied_action: str
    denial: str


def mails_the_next_customer(request: ScriptedRequest) -> Reply:
    """A model with a long list of customers."""
    number = len(request.tool_results) + 1
    mail = {"to": f"customer{number}@example.com", "text": "The Meridian desk lamp is back in stock."}
    return Reply(tool_calls=(ToolCall("send_email", mail),), usage=SimulatedUsage(request.input_tokens, 0, 240, 180))


def with_clearance(agent: Any, authority: LocalAuthority) -> None:
    authority.set_budget(BudgetSpec(scope="tenant:acme", allocated=usd("1.00")))
    authority.set_budget(BudgetSpec(scope="tenant:acme", allocated=credits(3)))
    mailer, costs = Subject(tenant="acme"), {"send_email": credits(1)}
    guard = ClearanceCallbackHandler(authority, mailer, tool_costs=costs)
    agent.invoke({"messages": [("user", TASK)]}, config={"callbacks": [guard]})


def play(screen: Screen, folder: Path, seconds: float) -> Tools:
    ledger, outbox = folder / "ledger.db", folder / "outbox.txt"
    outbox.touch()
    with Simulator(script=mails_the_next_customer) as sim:
        authority = open_ledger(ledger)
        try:
            return _played(screen, sim, authority, ledger, outbox)
        finally:
            authority.close()


def _played(screen: Screen, sim: Simulator, authority: LocalAuthority, ledger: Path, outbox: Path) -> Tools:
    screen.act("A tool that may run three times and no more", body_of(with_clearance))
    halt = threading.Event()
    agent = _mailer(sim.base_url, outbox, halt)
    acting = Acting(lambda: with_clearance(agent, authority))
    acting.watch(lambda: screen.show([_tool_lane(authority, outbox), _model_lane(sim, authority)]), halt)
    denied = acting.must_have_ended_by(Denied)
    screen.say(f"Denied: {denied}")
    time.sleep(QUIET_S)
    return _reckoned(sim, authority, ledger, outbox, str(denied))


def _mailer(sim_url: str, outbox: Path, halt: threading.Event) -> Any:
    @tool
    def send_email(to: str, text: str) -> str:
        """Send one mail."""
        if halt.is_set():
            raise Halted
        with outbox.open("a") as lines:
            lines.write(f"{to}: {text}\n")
        return f"Sent to {to}. 4,811 customers are left."

    return create_agent(chat_model(sim_url), [send_email])


def _mails(outbox: Path) -> int:
    return len(outbox.read_text().splitlines())


def _reckoned(sim: Simulator, authority: LocalAuthority, ledger: Path, outbox: Path, denial: str) -> Tools:
    sim.wait_idle()
    stats, money = sim.stats(), authority.balance(SCOPE)
    budget = authority.balance(SCOPE, Unit.CREDITS)
    (said_no, *_) = denials(authority)
    action = said_no.data["action"]
    facts = Tools(
        ledger=ledger,
        checks=(),
        model=MODEL,
        tool="send_email",
        allowed_runs=ALLOWED_RUNS,
        asked_by_model=stats["answered"],
        mails_in_outbox=_mails(outbox),
        spent_credits=budget.spent,
        left_credits=budget.remaining,
        requests=stats["requests"] + stats["in_flight"],
        requests_at_denial=sum(record.at * 1000 <= said_no.at_ms for record in sim.requests),
        paid_microcents=stats["cost"],
        spent_microcents=money.spent,
        denied_action=f"{action['kind']}:{action['name']}",
        denial=denial,
    )
    settled = len(settled_calls(authority, "tool.call"))
    return replace(facts, checks=_checks(facts, settled))


def _checks(it: Tools, settled: int) -> tuple[Check, ...]:
    return (
        Check(
            "The tool ran three times and no more",
            it.mails_in_outbox == it.allowed_runs,
            f"{it.mails_in_outbox} mails in the outbox, the model asked {it.asked_by_model} times",
        ),
        Check(
            "Its fourth run was denied before it began",
            it.asked_by_model == it.allowed_runs + 1 and it.denied_action == f"tool.call:{it.tool}",
            f"denied: {it.denied_action}",
        ),
        Check(
            "Every run is on the books",
            it.spent_credits == it.mails_in_outbox == settled and it.left_credits == 0,
            f"{it.spent_credits} credits spent in {settled} settled runs, {it.left_credits} left",
        ),
        Check(
            "Not one provider request after the denial",
            it.requests == it.requests_at_denial,
            f"{it.requests_at_denial} at the denial, {it.requests} a moment later",
        ),
        Check(
            "The ledger is the provider's bill, to the microcent",
            it.spent_microcents == it.paid_microcents,
            f"{money(it.spent_microcents)} and {money(it.paid_microcents)}",
        ),
    )


def _tool_lane(authority: LocalAuthority, outbox: Path) -> Lane:
    budget = balance_or_none(authority, SCOPE, Unit.CREDITS)
    spent = budget.spent if budget else 0
    return Lane("send_email", _mails(outbox), spent, ALLOWED_RUNS, unit=Unit.CREDITS)


def _model_lane(sim: Simulator, authority: LocalAuthority) -> Lane:
    money = balance_or_none(authority, SCOPE)
    return Lane(MODEL, sim.stats()["requests"], money.spent if money else 0, usd("1").amount)

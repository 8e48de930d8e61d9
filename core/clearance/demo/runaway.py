"""The same buggy agent twice: without Clearance until the demo's clock stops it, then with a budget of one dollar."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from pathlib import Path

from langchain_classic.agents import AgentExecutor

from clearance.authority.budgets import BudgetSpec
from clearance.connecting import LocalAuthority, open_ledger
from clearance.demo.agents import MODEL, TASK, Halted, reasons_and_retries, writer
from clearance.demo.facts import Check, Facts, Lane, Screen, body_of, money
from clearance.demo.stage import QUIET_S, Acting, balance_or_none, denials, settled_calls
from clearance.errors import Denied
from clearance.model.amount import usd
from clearance.model.subject import Subject
from clearance.simulator import Simulator
from clearance_langchain import ClearanceCallbackHandler

SCOPE = "tenant:acme"


@dataclass(frozen=True, slots=True)
class Unguarded:
    """What the agent did before the demo's clock stopped it. An hour is at the rate that was measured."""

    seconds: float
    requests: int
    paid_microcents: int
    hour_microcents: int


@dataclass(frozen=True, slots=True)
class Guarded:
    """What the guarded agent did. `requests` and `paid` are the simulator's counts, the rest is on the books."""

    seconds: float
    requests: int
    paid_microcents: int
    requests_at_denial: int
    requests_a_moment_later: int
    budget_microcents: int
    spent_microcents: int
    left_microcents: int
    held_microcents: int
    next_call_microcents: int
    settled_calls: int
    denial: str


@dataclass(frozen=True, slots=True)
class Runaway(Facts):
    model: str
    unguarded: Unguarded
    guarded: Guarded


def without_clearance(agent: AgentExecutor) -> None:
    agent.invoke({"input": TASK})


def with_clearance(agent: AgentExecutor, authority: LocalAuthority) -> None:
    authority.set_budget(BudgetSpec(scope="tenant:acme", allocated=usd("1.00")))
    guard = ClearanceCallbackHandler(authority, Subject(tenant="acme"))
    agent.invoke({"input": TASK}, config={"callbacks": [guard]})


def play(screen: Screen, folder: Path, seconds: float) -> Runaway:
    ledger = folder / "ledger.db"
    with Simulator(script=reasons_and_retries) as sim:
        unguarded = _unguarded(screen, sim, seconds)
        sim.wait_idle()
        sim.reset()
        authority = open_ledger(ledger)
        try:
            guarded, checks = _guarded(screen, sim, authority)
        finally:
            authority.close()
    return Runaway(ledger, checks, MODEL, unguarded, guarded)


def _unguarded(screen: Screen, sim: Simulator, seconds: float) -> Unguarded:
    screen.act("Without Clearance: an agent whose quality check never passes", body_of(without_clearance))
    halt = threading.Event()
    deadline = time.monotonic() + seconds

    def keep_time() -> None:
        if halt.is_set() or time.monotonic() > deadline:
            raise Halted

    agent = writer(sim.base_url, keep_time)
    deadline = time.monotonic() + seconds
    acting = Acting(lambda: without_clearance(agent))
    acting.watch(lambda: screen.show([_unguarded_lane(sim)]), halt)
    acting.must_have_ended_by(Halted)
    sim.wait_idle()
    stats = sim.stats()
    screen.say(f"Stopped by the demo's clock after {acting.seconds:.1f} s. Nothing else would have stopped it.")
    hour = round(stats["cost"] * 3600 / acting.seconds)
    return Unguarded(acting.seconds, stats["requests"], stats["cost"], hour)


def _guarded(screen: Screen, sim: Simulator, authority: LocalAuthority) -> tuple[Guarded, tuple[Check, ...]]:
    screen.act("With Clearance: one callback handler and a budget of 1.00 USD", body_of(with_clearance))
    halt = threading.Event()

    def stop_if_interrupted() -> None:
        if halt.is_set():
            raise Halted

    agent = writer(sim.base_url, stop_if_interrupted)
    acting = Acting(lambda: with_clearance(agent, authority))
    acting.watch(lambda: screen.show([_guarded_lane(sim, authority)]), halt)
    denied = acting.must_have_ended_by(Denied)
    screen.say(f"Denied: {denied}")
    time.sleep(QUIET_S)
    return _reckoned(sim, authority, acting.seconds, str(denied))


def _reckoned(
    sim: Simulator, authority: LocalAuthority, seconds: float, denial: str
) -> tuple[Guarded, tuple[Check, ...]]:
    sim.wait_idle()
    stats, balance = sim.stats(), authority.balance(SCOPE)
    (said_no, *_) = denials(authority)
    facts = Guarded(
        seconds=seconds,
        requests=stats["requests"],
        paid_microcents=stats["cost"],
        requests_at_denial=sum(record.at * 1000 <= said_no.at_ms for record in sim.requests),
        requests_a_moment_later=stats["requests"] + stats["in_flight"],
        budget_microcents=balance.allocated,
        spent_microcents=balance.spent,
        left_microcents=balance.remaining,
        held_microcents=balance.reserved,
        next_call_microcents=said_no.data["requested"],
        settled_calls=len(settled_calls(authority)),
        denial=denial,
    )
    return facts, _checks(facts, stats["unpriced"])


def _checks(it: Guarded, unpriced: int) -> tuple[Check, ...]:
    after = it.requests_a_moment_later - it.requests_at_denial
    return (
        Check(
            "Not one provider request after the denial",
            after == 0,
            f"{it.requests_at_denial} at the denial, {it.requests_a_moment_later} a moment later",
        ),
        Check(
            "Spend is at most the budget",
            max(it.spent_microcents, it.paid_microcents) <= it.budget_microcents,
            f"{money(it.spent_microcents)} of {money(it.budget_microcents)}",
        ),
        Check(
            "The ledger is the provider's bill, to the microcent",
            it.spent_microcents == it.paid_microcents and not unpriced,
            f"{money(it.spent_microcents)} and {money(it.paid_microcents)}",
        ),
        Check(
            "Every request was reserved before and settled after",
            it.settled_calls == it.requests and it.held_microcents == 0,
            f"{it.settled_calls} settled calls, {it.requests} requests, {money(it.held_microcents)} held",
        ),
    )


def _unguarded_lane(sim: Simulator) -> Lane:
    stats = sim.stats()
    return Lane("unguarded", stats["requests"], stats["cost"])


def _guarded_lane(sim: Simulator, authority: LocalAuthority) -> Lane:
    balance = balance_or_none(authority, SCOPE)
    if balance is None:
        return Lane("guarded", 0, 0, usd("1").amount)
    return Lane("guarded", sim.stats()["requests"], balance.spent, balance.allocated)

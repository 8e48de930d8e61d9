"""A process that is killed in the middle of its run, and what the books say before, at the kill, and after."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from pathlib import Path

from langchain_classic.agents import AgentExecutor

from clearance.authority.budgets import BudgetSpec
from clearance.connecting import LocalAuthority, open_ledger
from clearance.demo.agents import MODEL, TASK, reasons_and_retries
from clearance.demo.agents import writer as writing_agent
from clearance.demo.facts import Check, Facts, Lane, Screen, body_of, money
from clearance.demo.processes import workers
from clearance.demo.stage import LOOK_EVERY_S, settled_calls
from clearance.model.amount import usd
from clearance.model.subject import Subject
from clearance.simulator import Simulator
from clearance.store.interface import ReservationQuery
from clearance_langchain import ClearanceCallbackHandler

SCOPE = "tenant:acme"
CALLS_BEFORE_KILL = 20
_LONGEST_S = 30.0


@dataclass(frozen=True, slots=True)
class Books:
    """The tenant's budget, and the run's own account, at one moment. The run's figures are 0 when there is no run."""

    when: str
    allocated_microcents: int
    held_microcents: int
    spent_microcents: int
    left_microcents: int
    run_spent_microcents: int
    run_status: str


@dataclass(frozen=True, slots=True)
class Crash(Facts):
    model: str
    exit_code: int | None
    calls: int
    requests: int
    paid_microcents: int
    settled_calls: int
    before: Books
    at_kill: Books
    after: Books
    seconds_to_settle: float
    problems_found: tuple[str, ...]


def with_clearance(agent: AgentExecutor, authority: LocalAuthority) -> None:
    writer = Subject(tenant="acme")
    guard = ClearanceCallbackHandler(authority, writer)
    with authority.run(writer, budget="1.00", ttl_ms=2000):
        agent.invoke({"input": TASK}, config={"callbacks": [guard]})


def work(pipe: Connection, name: str, sim_url: str, ledger: str) -> None:
    """The process that will not live to its end: one of its tool calls takes for ever."""
    from clearance.demo import quiet

    checks = 0

    def hang_at_the_last() -> None:
        nonlocal checks
        checks += 1
        if checks == CALLS_BEFORE_KILL:
            pipe.send("busy")
            pipe.poll(None)  # until it is killed, or left alone
            os._exit(1)

    with quiet():
        pipe.send("ready")
        with_clearance(writing_agent(sim_url, hang_at_the_last), open_ledger(ledger))


def play(screen: Screen, folder: Path, seconds: float) -> Crash:
    ledger = folder / "ledger.db"
    with Simulator(script=reasons_and_retries) as sim:
        authority = open_ledger(ledger)
        try:
            return _played(screen, sim, authority, ledger)
        finally:
            authority.close()


def _played(screen: Screen, sim: Simulator, authority: LocalAuthority, ledger: Path) -> Crash:
    screen.act("A process killed in the middle of its run", body_of(with_clearance))
    authority.set_budget(BudgetSpec(scope=SCOPE, allocated=usd("2")))
    before = _books(authority, "before")
    with workers(work, ["agent"], (sim.base_url, str(ledger)), preload=__name__) as (agent,):
        screen.show(_lanes(sim, authority))
        agent.must_say("ready")
        _until(lambda: agent.hear() == "busy", lambda: screen.show(_lanes(sim, authority)))
        exit_code = agent.kill()
    at_kill = _books(authority, "at the kill")
    screen.show(_lanes(sim, authority))
    screen.say("Killed with SIGKILL: no handler, no clean-up. Its lease runs out now.")
    killed = time.monotonic()
    _until(lambda: _swept(authority), lambda: screen.show(_lanes(sim, authority)))
    after = _books(authority, "after its lease")
    screen.say("The lease has run out: the tenant was charged what the run had spent, and the rest is free.")
    stats = sim.stats()
    facts = Crash(
        ledger=ledger,
        checks=(),
        model=MODEL,
        exit_code=exit_code,
        calls=CALLS_BEFORE_KILL,
        requests=stats["requests"] + stats["in_flight"],
        paid_microcents=stats["cost"],
        settled_calls=len(settled_calls(authority)),
        before=before,
        at_kill=at_kill,
        after=after,
        seconds_to_settle=time.monotonic() - killed,
        problems_found=tuple(authority.check()),
    )
    return replace(facts, checks=_checks(facts))


def _books(authority: LocalAuthority, when: str) -> Books:
    budget = authority.balance(SCOPE)
    runs = authority.reservations(ReservationQuery(kind="run")).items
    return Books(
        when=when,
        allocated_microcents=budget.allocated,
        held_microcents=budget.reserved,
        spent_microcents=budget.spent,
        left_microcents=budget.remaining,
        run_spent_microcents=_spent_inside(authority),
        run_status=runs[0].status if runs else "none",
    )


def _spent_inside(authority: LocalAuthority) -> int:
    """What the settled calls inside the run were charged; the tenant is charged it when the run ends."""
    return sum(call.charged or 0 for call in settled_calls(authority) if call.runs)


def _swept(authority: LocalAuthority) -> bool:
    """Any use of the ledger settles what has expired; here nobody else is left to use it."""
    authority.sweep()
    return authority.balance(SCOPE).reserved == 0


def _checks(it: Crash) -> tuple[Check, ...]:
    inside = it.at_kill.run_spent_microcents
    return (
        Check(
            "The process was killed in the middle of its run",
            it.exit_code not in (0, None) and it.at_kill.run_status == "ACTIVE",
            f"exit code {it.exit_code}, the run still held {money(it.at_kill.held_microcents)}",
        ),
        Check(
            "Its spend is still on the books",
            it.after.spent_microcents == inside > 0,
            f"{money(inside)} at the kill, {money(it.after.spent_microcents)} after",
        ),
        Check(
            "The ledger is the provider's bill, to the microcent",
            it.after.spent_microcents == it.paid_microcents and it.settled_calls == it.requests,
            f"{money(it.after.spent_microcents)} and {money(it.paid_microcents)} for {it.requests} requests",
        ),
        Check(
            "What the dead run held is free again",
            it.after.held_microcents == 0
            and it.after.left_microcents == it.after.allocated_microcents - it.after.spent_microcents,
            f"{money(it.after.held_microcents)} held, {money(it.after.left_microcents)} left,"
            f" {it.seconds_to_settle:.1f} s after the kill",
        ),
        Check("The file is whole", not it.problems_found, f"{len(it.problems_found)} problems found"),
    )


def _until(done: Callable[[], bool], look: Callable[[], None]) -> None:
    deadline = time.monotonic() + _LONGEST_S
    while not done():
        look()
        if time.monotonic() > deadline:
            raise RuntimeError(f"nothing happened within {_LONGEST_S:.0f} s")
        time.sleep(LOOK_EVERY_S)
    look()


def _lanes(sim: Simulator, authority: LocalAuthority) -> list[Lane]:
    budget = authority.balance(SCOPE)
    run = Lane("the run", sim.stats()["requests"], _spent_inside(authority), usd("1").amount)
    return [run, Lane("the tenant", None, budget.spent, budget.allocated, held=budget.reserved)]

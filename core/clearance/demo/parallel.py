"""Eight worker processes share the last dollar of one budget, on one ledger file."""

from __future__ import annotations

import itertools
import time
from collections import Counter
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from clearance.authority.budgets import BudgetSpec
from clearance.connecting import LocalAuthority, open_ledger
from clearance.demo.agents import MODEL, chat_model
from clearance.demo.facts import Check, Facts, Lane, Screen, body_of, money
from clearance.demo.processes import Worker, workers
from clearance.demo.stage import LOOK_EVERY_S, QUIET_S, denials, settled_calls
from clearance.errors import Denied
from clearance.model.amount import usd
from clearance.model.reservation import Reservation
from clearance.model.subject import Subject
from clearance.simulator import Reply, ScriptedRequest, SimulatedUsage, Simulator
from clearance_langchain import ClearanceCallbackHandler

SCOPE = "tenant:acme"
NAMES = tuple(f"worker-{number}" for number in range(1, 9))
MAX_OUTPUT_TOKENS = 800
_LONGEST_S = 45.0


@dataclass(frozen=True, slots=True)
class Share:
    """What one worker got: by the simulator's records, and by the books."""

    worker: str
    requests: int
    paid_microcents: int
    spent_microcents: int
    denied: bool


@dataclass(frozen=True, slots=True)
class Parallel(Facts):
    model: str
    seconds: float
    shares: tuple[Share, ...]
    requests: int
    requests_after_denial: int
    paid_microcents: int
    budget_microcents: int
    spent_microcents: int
    left_microcents: int
    held_microcents: int
    settled_calls: int
    next_call_microcents: int


def summarises(request: ScriptedRequest) -> Reply:
    """A model that uses what it may, nearly."""
    usage = SimulatedUsage(request.input_tokens, 0, MAX_OUTPUT_TOKENS - 20, MAX_OUTPUT_TOKENS - 120)
    return Reply(text="The customer wants a lamp that does not flicker.", usage=usage)


def with_clearance(llm: Any, authority: LocalAuthority, name: str) -> None:
    worker = Subject(tenant="acme", agent=name)
    guard = ClearanceCallbackHandler(authority, worker)
    for ticket in itertools.count(1):
        llm.invoke(f"Summarise ticket {ticket}.", config={"callbacks": [guard]})


def work(pipe: Connection, name: str, sim_url: str, ledger: str) -> None:
    """One worker process: until it is denied."""
    from clearance.demo import quiet

    with quiet():
        llm = chat_model(sim_url, MAX_OUTPUT_TOKENS, model_kwargs={"user": name})
        authority = open_ledger(ledger)
        pipe.send("ready")
        pipe.recv()
        try:
            with_clearance(llm, authority, name)
        except Denied:
            pipe.send("denied")
        finally:
            authority.close()


def play(screen: Screen, folder: Path, seconds: float) -> Parallel:
    ledger = folder / "ledger.db"
    screen.act("Eight worker processes share the last dollar", body_of(with_clearance))
    with Simulator(script=summarises) as sim:
        authority = open_ledger(ledger)
        try:
            authority.set_budget(BudgetSpec(scope=SCOPE, allocated=usd("1")))
            args = (sim.base_url, str(ledger))
            with workers(work, NAMES, args, preload=__name__) as crew:
                raced_s = _race(screen, sim, authority, crew)
                return _reckoned(sim, authority, ledger, raced_s)
        finally:
            authority.close()


def _race(screen: Screen, sim: Simulator, authority: LocalAuthority, crew: list[Worker]) -> float:
    """Lets all go at once and watches until each was denied; answers how many seconds it took."""
    screen.show(_lanes(sim, authority))
    for worker in crew:
        worker.must_say("ready")
    began = time.monotonic()
    for worker in crew:
        worker.tell("go")
    running = list(crew)
    while running:
        running = [worker for worker in running if worker.hear() != "denied"]
        screen.show(_lanes(sim, authority))
        if time.monotonic() - began > _LONGEST_S:
            raise RuntimeError(f"{len(running)} workers were not denied within {_LONGEST_S:.0f} s")
        time.sleep(LOOK_EVERY_S)
    seconds = time.monotonic() - began
    sim.wait_idle()
    screen.show(_lanes(sim, authority))
    screen.say("All eight were denied: what is left does not pay one more call.")
    time.sleep(QUIET_S)
    return seconds


def _reckoned(sim: Simulator, authority: LocalAuthority, ledger: Path, seconds: float) -> Parallel:
    stats, balance = sim.stats(), authority.balance(SCOPE)
    settled, no = settled_calls(authority), denials(authority)
    denied_at = {str(event.scope).rpartition(":")[2]: event.at_ms for event in no}
    late = sum(record.at * 1000 > denied_at.get(record.body["user"], 0) for record in sim.requests)
    facts = Parallel(
        ledger=ledger,
        checks=(),
        model=MODEL,
        seconds=seconds,
        shares=_shares(sim, settled, denied_at),
        requests=stats["requests"],
        requests_after_denial=late + stats["in_flight"],
        paid_microcents=stats["cost"],
        budget_microcents=balance.allocated,
        spent_microcents=balance.spent,
        left_microcents=balance.remaining,
        held_microcents=balance.reserved,
        settled_calls=len(settled),
        next_call_microcents=min((event.data["requested"] for event in no), default=0),
    )
    return replace(facts, checks=_checks(facts))


def _shares(sim: Simulator, settled: list[Reservation], denied_at: dict[str, int]) -> tuple[Share, ...]:
    requests: Counter[str] = Counter()
    paid: Counter[str] = Counter()
    spent: Counter[str] = Counter()
    for record in sim.requests:
        requests[record.body["user"]] += 1
        paid[record.body["user"]] += record.cost or 0
    for call in settled:
        spent[call.subject["agent"]] += call.charged or 0
    return tuple(Share(name, requests[name], paid[name], spent[name], name in denied_at) for name in NAMES)


def _checks(it: Parallel) -> tuple[Check, ...]:
    return (
        Check(
            "All eight together were paid for within the budget",
            it.paid_microcents <= it.budget_microcents,
            f"{money(it.paid_microcents)} of {money(it.budget_microcents)}",
        ),
        Check(
            "Not one request of a worker after its denial",
            it.requests_after_denial == 0 and all(share.denied for share in it.shares),
            f"{it.requests} requests, {it.requests_after_denial} after a denial",
        ),
        Check(
            "Each share on the books is the provider's bill for it",
            all(share.paid_microcents == share.spent_microcents for share in it.shares)
            and it.spent_microcents == it.paid_microcents,
            f"{money(it.spent_microcents)} and {money(it.paid_microcents)}",
        ),
        Check(
            "Every request was reserved before and settled after",
            it.settled_calls == it.requests and it.held_microcents == 0,
            f"{it.settled_calls} settled calls, {money(it.held_microcents)} held",
        ),
        Check(
            "Nothing that one more call could use was left",
            0 <= it.left_microcents < it.next_call_microcents,
            f"{money(it.left_microcents)} left, {money(it.next_call_microcents)} needed",
        ),
    )


def _lanes(sim: Simulator, authority: LocalAuthority) -> list[Lane]:
    requests: Counter[str] = Counter()
    paid: Counter[str] = Counter()
    for record in sim.requests:
        requests[record.body["user"]] += 1
        paid[record.body["user"]] += record.cost or 0
    balance = authority.balance(SCOPE)
    each = [Lane(name, requests[name], paid[name], bar_of=balance.allocated) for name in NAMES]
    return [*each, Lane("the budget", sum(requests.values()), balance.spent, balance.allocated, held=balance.reserved)]

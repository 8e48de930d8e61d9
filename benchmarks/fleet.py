"""A fleet: 10,000 agents of 100 tenants, half of them of one hot tenant, on one PostgreSQL."""

from __future__ import annotations

import asyncio
import multiprocessing
import random
import time
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Barrier
from time import perf_counter, perf_counter_ns
from typing import Any

from benchmarks.databases import database
from benchmarks.results import Goal, Row, Say, Section, at_most
from benchmarks.samples import quantile
from benchmarks.sizes import Sizes
from benchmarks.workload import ACTION, ACTUAL, ESTIMATE, PLENTY, keys
from clearance import BudgetSpec, Subject, connect
from clearance.connecting import LocalAuthority
from clearance.errors import LimitExceeded

HOW = (
    "Worker processes with an event loop each; an agent is a task that thinks for a while, reserves on its tenant's "
    "budget and its own, acts for a moment and commits. Half of the agents are of one hot tenant. All on the host of "
    "the database, `synchronous_commit = on`, durability `power`. *Waits* are of a reserve and its commit together, "
    "without thinking and acting. CPU is that of the workers for one lifecycle. At the end balances must be the sum "
    "of what the agents were told."
)
PATIENCE = 300.0
HOT = "hot"


@dataclass(frozen=True)
class Fleet:
    agents: int
    tenants: int
    processes: int
    think_seconds: float
    seconds: float


FLEETS = {
    "full": Fleet(10_000, 100, 2, 10.0, 40.0),
    "quick": Fleet(2_000, 100, 2, 4.0, 6.0),
    "tiny": Fleet(40, 4, 2, 0.1, 0.5),
}


def run(sizes: Sizes, say: Say) -> Section:
    fleet = FLEETS[sizes.name]
    section = Section("fleet", f"A fleet of {fleet.agents:,} agents", HOW)
    with database() as server:
        url = server.new_database()
        authority = _budgets(url, fleet)
        say(f"{fleet.agents:,} agents, {fleet.tenants} tenants, {fleet.processes} processes")
        told = _all(url, fleet)
        section.rows = [_row(kind, told, fleet) for kind in ("hot tenant", "other tenants", "all")]
        wrong = _wrong(authority, told)
        authority.close()
    section.goals = [
        at_most("agents of other tenants do not wait for the hot one: p99 at most 250 ms", _p99(section), 250, " ms"),
        Goal("balances are the sum of what was told, nothing is oversold", f"{wrong:,} off", wrong == 0),
    ]
    return section


def _tenant(agent: int, fleet: Fleet) -> str:
    return HOT if agent % 2 else f"t{agent // 2 % (fleet.tenants - 1)}"


def _budgets(url: str, fleet: Fleet) -> LocalAuthority:
    authority = connect(url)
    assert isinstance(authority, LocalAuthority)
    tenants = sorted({_tenant(agent, fleet) for agent in range(fleet.agents)})
    scopes = [f"tenant:{name}" for name in tenants]
    scopes += [f"tenant:{_tenant(agent, fleet)}/agent:a{agent}" for agent in range(fleet.agents)]
    for start in range(0, len(scopes), 500):
        authority.apply_budgets([BudgetSpec(scope=scope, allocated=PLENTY) for scope in scopes[start : start + 500]])
    return authority


def _all(url: str, fleet: Fleet) -> list[dict[str, Any]]:
    fresh = multiprocessing.get_context("spawn")
    gate = fresh.Barrier(fleet.processes)
    pipes = [fresh.Pipe(duplex=False) for _ in range(fleet.processes)]
    workers = [fresh.Process(target=_work, args=(url, fleet, n, gate, out)) for n, (_, out) in enumerate(pipes)]
    for worker in workers:
        worker.start()
    try:
        return [_received(receiver) for receiver, _ in pipes]
    finally:
        for worker in workers:
            worker.join(10)
            worker.kill()


def _received(receiver: Connection) -> dict[str, Any]:
    if not receiver.poll(PATIENCE):
        raise TimeoutError("a worker of the fleet gave no answer")
    told: dict[str, Any] = receiver.recv()
    return told


def _work(url: str, fleet: Fleet, number: int, gate: Barrier, out: Connection) -> None:
    authority = connect(url, durability="power")
    assert isinstance(authority, LocalAuthority)
    told: dict[str, Any] = {"hot tenant": [], "other tenants": [], "shed": 0}
    gate.wait(PATIENCE)
    before = time.process_time()
    mine = range(number, fleet.agents, fleet.processes)
    asyncio.run(_agents(authority, fleet, mine, told))
    told["cpu"] = time.process_time() - before
    authority.close()
    out.send(told)


async def _agents(authority: LocalAuthority, fleet: Fleet, mine: range, told: dict[str, Any]) -> None:
    end = perf_counter() + fleet.seconds

    async def live(agent: int) -> None:
        rng = random.Random(agent)
        tenant = _tenant(agent, fleet)
        subject = Subject(tenant=tenant, agent=f"a{agent}")
        times = told["hot tenant" if tenant == HOT else "other tenants"]
        await asyncio.sleep(rng.random() * fleet.think_seconds)
        while perf_counter() < end:
            await _act(authority, subject, times, told)
            await asyncio.sleep(rng.expovariate(1 / fleet.think_seconds))

    await asyncio.gather(*(live(agent) for agent in mine))


async def _act(authority: LocalAuthority, subject: Subject, times: list[int], told: dict[str, Any]) -> None:
    key, began = keys(1)[0], perf_counter_ns()
    try:
        held = await authority.areserve(subject, ACTION, ESTIMATE, idempotency_key=key)
    except LimitExceeded:
        told["shed"] += 1
        return
    waited = perf_counter_ns() - began
    await asyncio.sleep(0.01)
    began = perf_counter_ns()
    await authority.acommit(str(held.reservation_id), ACTUAL, idempotency_key=key)
    times.append(waited + perf_counter_ns() - began)


def _row(kind: str, told: list[dict[str, Any]], fleet: Fleet) -> Row:
    kinds = ("hot tenant", "other tenants") if kind == "all" else (kind,)
    times = sorted(time for one in told for name in kinds for time in one[name])
    lifecycles = sum(len(one[name]) for one in told for name in ("hot tenant", "other tenants"))
    return {
        "agents of": kind,
        "lifecycles": len(times),
        "lifecycles/s": len(times) / fleet.seconds,
        "p50 ms": quantile(times, 0.5) / 1e6 if times else None,
        "p99 ms": quantile(times, 0.99) / 1e6 if times else None,
        "p99.9 ms": quantile(times, 0.999) / 1e6 if times else None,
        "CPU us": sum(one["cpu"] for one in told) / lifecycles * 1e6 if kind == "all" and lifecycles else None,
    }


def _p99(section: Section) -> float | None:
    row = section.row("other tenants")
    value = row["p99 ms"] if row else None
    return value if isinstance(value, float) else None


def _wrong(authority: LocalAuthority, told: list[dict[str, Any]]) -> int:
    """By how much the books differ from what the agents were told, in microcents."""
    expected = sum(len(one[name]) for one in told for name in ("hot tenant", "other tenants")) * ACTUAL.amount
    found, cursor = 0, None
    while True:
        page = authority.balances(limit=200, cursor=cursor)
        roots = [balance for balance in page.items if "/" not in balance.scope]
        found += sum(balance.spent for balance in roots)
        if any(balance.spent + balance.reserved > balance.allocated for balance in page.items):
            return -1
        cursor = page.next_cursor
        if cursor is None:
            return abs(found - expected)

"""The server: many clients over HTTP, next to the same HTTP stack without a decision; and our guard next to a peer."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from benchmarks import http_servers
from benchmarks.http_load import TENANT, Load, measured
from benchmarks.http_servers import SEPARATE, SHARED, Served
from benchmarks.results import Goal, Row, Say, Section, at_least, at_most
from benchmarks.samples import Limit, Measure, Samples, contest, quantile, timed
from benchmarks.sizes import Sizes
from benchmarks.workload import ACTION, ACTUAL, ESTIMATE, folder
from clearance import Subject
from clearance.remote import RemoteAuthority

DURABILITY = "settlements"
HOW = (
    "A lifecycle is POST /v1/reservations and POST .../commit over loopback, server and clients in a process each, "
    f"durability `{DURABILITY}`. *Constant answer* is the same HTTP stack (uvicorn, the same limits) deciding nothing. "
    "CPU is that of the server for one lifecycle. The last rows are one caller in a process: our guard and the "
    "`runcycles` decorator, both against our server, both with their journals; their CPU is that of the caller."
)
CONSTANT, GUARD, PEER = "constant answer", "guard over HTTP", "runcycles decorator"
GOAL_CLIENTS = 32


def run(sizes: Sizes, say: Say) -> Section:
    section = Section("server", "The server", HOW)
    with folder() as place:
        for who in (SHARED, SEPARATE, CONSTANT):
            for clients in sizes.http_clients:
                say(f"{who}, {clients} clients")
                section.rows.append(_crowd(place, who, clients, sizes))
        say("callers")
        section.rows += _callers(place, sizes, say)
    section.goals += _goals(section, sizes)
    return section


def _crowd(place: Path, who: str, clients: int, sizes: Sizes) -> Row:
    ledger = place / f"{who}-{clients}.db"
    serving = http_servers.constant() if who == CONSTANT else http_servers.ours(ledger, who, clients, DURABILITY)
    with serving as served:
        rounds, cpu, count = Samples(), 0.0, 0
        measured(_load(served, clients, sizes.http_lifecycles // 10, sizes.http_seconds))
        for _ in range(sizes.caller_rounds):
            before = served.cpu
            done = measured(_load(served, clients, sizes.http_lifecycles, sizes.http_seconds))
            cpu, count = cpu + served.cpu - before, count + len(done.times)
            rounds.add(done.times, done.wall)
    return _row(who, clients, rounds, cpu / count)


def _load(served: Served, clients: int, most: int, seconds: float) -> Load:
    return Load(served.port, served.api_key, clients, most, seconds)


def _row(who: str, clients: int, samples: Samples, cpu: float) -> Row:
    return {
        "who": who,
        "clients": f"{clients}",
        "lifecycles/s": samples.rate,
        "p50 ms": samples.p50 / 1_000,
        "p99 ms": samples.p99 / 1_000,
        "CPU us": cpu * 1e6,
    }


# -- one caller: our guard, and the peer's decorator -------------------------------------------------------------------


def _callers(place: Path, sizes: Sizes, say: Say) -> list[Row]:
    with ExitStack() as stack:
        served = stack.enter_context(http_servers.ours(place / "callers.db", SHARED, 1, DURABILITY))
        contestants = {GUARD: _guarded(served, place / "ours", stack)}
        try:
            version("runcycles")
            contestants[PEER] = _decorated(served, place / "theirs", stack)
        except PackageNotFoundError:
            say("runcycles is not installed; `make bench` installs it")
        cpu = {name: _Clocked(measure) for name, measure in contestants.items()}
        found = contest(dict(cpu.items()), sizes.rounds, sizes.one_round)
        return [_row(name, 1, samples, cpu[name].seconds) for name, samples in found.items()]


class _Clocked:
    """A measure, and the CPU of this process for each of its lifecycles in the best round."""

    def __init__(self, measure: Measure) -> None:
        self._measure = measure
        self.rounds: list[int] = []

    def __call__(self, limit: Limit) -> list[int]:
        before = time.process_time_ns()
        times = self._measure(limit)
        self.rounds.append((time.process_time_ns() - before) // max(1, len(times)))
        return times

    @property
    def seconds(self) -> float:
        return quantile(sorted(self.rounds), 0.5) / 1e9


def _guarded(served: Served, journal: Path, stack: ExitStack) -> Measure:
    authority = RemoteAuthority(
        f"http://127.0.0.1:{served.port}", api_key=served.api_key, tenant=TENANT, journal=journal, timeout_ms=9_000
    )
    stack.callback(authority.close)

    @authority.guard(ACTION, ESTIMATE, subject=Subject(tenant=TENANT, agent="c0"), actual=ACTUAL)
    def call() -> None:
        pass

    return _timed(call)


def _decorated(served: Served, journal: Path, stack: ExitStack) -> Measure:
    import runcycles

    config = runcycles.CyclesConfig(
        base_url=f"http://127.0.0.1:{served.port}", api_key=served.api_key, tenant=TENANT, journal_dir=str(journal)
    )
    client = stack.enter_context(runcycles.CyclesClient(config))

    @runcycles.cycles(
        ESTIMATE.amount,
        actual=ACTUAL.amount,
        action_kind=ACTION.kind,
        action_name=ACTION.name,
        client=client,
        tenant=TENANT,
        agent="c0",
    )
    def call() -> None:
        pass

    return _timed(call)


def _timed(call: Callable[[], None]) -> Measure:
    return lambda limit: timed(lambda _: call(), limit)


# -- goals -------------------------------------------------------------------------------------------------------------


def _goals(section: Section, sizes: Sizes) -> list[Goal]:
    many = f"{sizes.http_clients[-1]}"
    at_32 = _figure(section, "lifecycles/s", SHARED, f"{GOAL_CLIENTS}")
    last, busy = _figure(section, "lifecycles/s", SHARED, many), at_32
    flat = last / busy if last and busy else None
    return [
        at_least(f"{GOAL_CLIENTS} clients, shared budget: at least 3,000 lifecycles/s", at_32, 3_000, "/s"),
        at_most("one client: p50 at most 2 ms", _figure(section, "p50 ms", SHARED, "1"), 2, " ms"),
        at_least(f"{many} clients reach 90% of what {GOAL_CLIENTS} do", flat, 0.9),
        at_most("our guard takes at most half of the peer's time", _ratio(section, "p50 ms"), 0.5),
        at_most("our guard takes at most half of the peer's CPU", _ratio(section, "CPU us"), 0.5),
    ]


def _figure(section: Section, name: str, *where: str) -> float | None:
    row = section.row(*where)
    value = row[name] if row is not None else None
    return value if isinstance(value, float) else None


def _ratio(section: Section, name: str) -> float | None:
    ours, theirs = _figure(section, name, GUARD), _figure(section, name, PEER)
    return ours / theirs if ours and theirs else None

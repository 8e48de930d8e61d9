"""PostgreSQL: one hot tenant and a hundred, direct and through the server, next to the same rows by hand; growth."""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import perf_counter, perf_counter_ns

import psycopg

from benchmarks import http_servers
from benchmarks.databases import database
from benchmarks.http_load import Load, measured
from benchmarks.postgres_floor import PostgresFloor
from benchmarks.results import Row, Say, Section, at_least, at_most
from benchmarks.samples import Samples
from benchmarks.sizes import Sizes
from benchmarks.workload import ACTION, ACTUAL, ESTIMATE, PLENTY, keys
from clearance import BudgetSpec, Subject, connect
from clearance.connecting import LocalAuthority

HOW = (
    "A PostgreSQL of its own with `synchronous_commit = on` and real syncs, on the machine of the callers. *Direct* is "
    "one process with threads over the database, four budgeted scopes a call: at `power` every answer waits for the "
    "disk, at `settlements`, the default, a new hold does not; *server*: `http_load`'s clients of one server process. "
    "*By hand* are PL/pgSQL functions that write the same kinds of rows and check nothing but the balance. *One call "
    "each* is a connection a caller. *In batches*, the batched floor, is one connection that asks for as many at once "
    "as there are callers, which is what those could have under way, and pays for no caller. *Full batches* are always "
    "64, by two connections: no callers wait for an answer there. All take a turn in each round."
)
ONE, HUNDRED = "1 hot", "100"
DIRECT = {durability: f"direct, `{durability}`" for durability in ("power", "settlements")}
SERVER, EACH = "server, `power`", "by hand, one call each"
BATCHED, FULL = "by hand, in batches", "by hand, full batches"
FULL_BATCH = 64
GROWTH_CALLERS = 8


@dataclass(frozen=True)
class Amounts:
    callers: tuple[int, ...]
    tenants: int
    rounds: int
    seconds: float
    past: tuple[int, ...]
    scopes: tuple[int, ...]


AMOUNTS = {
    "full": Amounts((1, 8, 32, 128), 100, 3, 4.0, (1_000, 1_000_000), (10, 100_000)),
    "quick": Amounts((1, 8, 32, 128), 100, 1, 1.5, (1_000, 100_000), (10, 10_000)),
    "tiny": Amounts((4,), 3, 1, 0.1, (10, 100), (10, 20)),
}


def run(sizes: Sizes, say: Say) -> Section:
    amounts = AMOUNTS[sizes.name]
    section = Section("postgres", "PostgreSQL", HOW)
    with database() as server:
        for tenants in (ONE, HUNDRED):
            section.rows += _crowds(server.new_database, tenants, amounts, say)
        growth = _growth(server.new_database, amounts, say)
    section.rows += [row for row, _ in growth]
    _judge(section, amounts, [times for _, times in growth])
    return section


# -- many callers ------------------------------------------------------------------------------------------------------


def _crowds(new_database: Callable[[], str], tenants: str, amounts: Amounts, say: Say) -> list[Row]:
    count = 1 if tenants == ONE else amounts.tenants
    opened = {who: _opened(new_database(), count, durability) for durability, who in DIRECT.items()}
    floor = PostgresFloor(new_database(), count)
    rows = []
    try:
        for callers in amounts.callers:
            say(f"{tenants} tenant(s), {callers} callers")
            found = {who: Samples() for who in (*opened, EACH, BATCHED, FULL)}
            for authority, subjects in opened.values():
                _crowd(authority, subjects, callers, amounts.seconds / 4)
            for _ in range(amounts.rounds):
                for who, (authority, subjects) in opened.items():
                    gc.collect()
                    found[who].add(*_crowd(authority, subjects, callers, amounts.seconds))
                found[EACH].add(*floor.measure(callers, 1, amounts.seconds / 2))
                found[BATCHED].add(*_batches(floor, 1, callers, amounts.seconds / 2))
                # More connections than this on one row only wait for each other.
                found[FULL].add(*_batches(floor, min(callers, 2), FULL_BATCH, amounts.seconds / 2))
            if tenants == ONE:
                found[SERVER] = _served(new_database(), callers, amounts)
            best = found[BATCHED].rate
            rows += [_row(who, tenants, callers, samples, best) for who, samples in found.items()]
    finally:
        for authority, _ in opened.values():
            authority.close()
    return rows


def _batches(floor: PostgresFloor, connections: int, size: int, seconds: float) -> tuple[list[int], float]:
    """Each lifecycle of a batch takes as long as the batch."""
    times, wall = floor.measure(connections, size, seconds)
    return [time for time in times for _ in range(size)], wall


def _opened(url: str, tenants: int, durability: str) -> tuple[LocalAuthority, list[Subject]]:
    authority = connect(url, durability=durability)
    assert isinstance(authority, LocalAuthority)
    subjects = [Subject(tenant=f"t{n}", workspace="production", app="support", agent="triage") for n in range(tenants)]
    for subject in subjects:
        authority.apply_budgets([BudgetSpec(scope=scope, allocated=PLENTY) for scope in subject.scopes])
    return authority, subjects


def _crowd(
    authority: LocalAuthority, subjects: Sequence[Subject], callers: int, seconds: float
) -> tuple[list[int], float]:
    """Threads without think time; each takes one tenant after the other."""
    times: list[list[int]] = [[] for _ in range(callers)]
    gate = threading.Barrier(callers + 1)
    errors: list[BaseException] = []

    def work(number: int) -> None:
        try:
            gate.wait(60)
            end, turn, made = perf_counter() + seconds, number, []
            while perf_counter() < end:
                made = made or keys(500)
                began = perf_counter_ns()
                _lifecycle(authority, subjects[turn % len(subjects)], made.pop())
                times[number].append(perf_counter_ns() - began)
                turn += callers
        except BaseException as error:
            errors.append(error)

    crowd = [threading.Thread(target=work, args=(number,)) for number in range(callers)]
    for thread in crowd:
        thread.start()
    gate.wait(60)
    began = perf_counter()
    for thread in crowd:
        thread.join()
    if errors:
        raise errors[0]
    return [time for mine in times for time in mine], perf_counter() - began


def _lifecycle(authority: LocalAuthority, subject: Subject, key: str) -> None:
    held = authority.reserve(subject, ACTION, ESTIMATE, idempotency_key=key)
    authority.commit(str(held.reservation_id), ACTUAL, idempotency_key=key)


def _served(url: str, callers: int, amounts: Amounts) -> Samples:
    samples = Samples()
    with http_servers.ours(url, http_servers.SHARED, callers, "power") as served:  # type: ignore[arg-type]
        for number in range(amounts.rounds + 1):
            load = Load(served.port, served.api_key, callers, 10**6, amounts.seconds / (1 if number else 4))
            done = measured(load)
            if number:
                samples.add(done.times, done.wall)
    return samples


def _row(who: str, tenants: str, callers: int, samples: Samples, floor: float) -> Row:
    return {
        "who": who,
        "tenants": tenants,
        "callers": f"{callers}",
        "lifecycles/s": samples.rate,
        "times the batched floor": samples.rate / floor,
        "p50 ms": samples.p50 / 1_000,
        "p99 ms": samples.p99 / 1_000,
        "p99.9 ms": samples.tail / 1_000,
    }


# -- growth ------------------------------------------------------------------------------------------------------------

PAST = (
    "INSERT INTO clearance.reservations SELECT 'rsv_0' || lpad(n::text, 12, '0'), 't0', 'call', 'COMMITTED', "
    "'USD_MICROCENTS', 2, 1, 1, 'tenant:t0', NULL, n, n, n, NULL, 0, NULL, repeat('x', 400), NULL, ARRAY['tenant:t0'] "
    "FROM generate_series(1, %s) n",
    "INSERT INTO clearance.events SELECT -n, n, 't0', 'reservation.created', NULL, "
    "'rsv_0' || lpad((n / 2)::text, 12, '0'), repeat('x', 400) FROM generate_series(1, 2 * %s) n",
    "INSERT INTO clearance.answers SELECT decode(md5(n::text), 'hex'), 't0', decode(md5(n::text), 'hex'), n "
    "FROM generate_series(1, 2 * %s) n",
)
MORE_SCOPES = (
    "INSERT INTO clearance.accounts SELECT 't' || n %% 50, 'tenant:t' || n %% 50 || '/agent:a' || n, 'USD_MICROCENTS', "
    "1000, 0, 0, 0, false, 0, 'ACTIVE', NULL, NULL, NULL, NULL, NULL, 0 FROM generate_series(1, %s) n"
)


def _growth(new_database: Callable[[], str], amounts: Amounts, say: Say) -> list[tuple[Row, float]]:
    """The last column of the answer: p50 as a multiple of that of the smallest ledger, round by round."""
    kinds: dict[str, tuple[Sequence[str], tuple[int, ...]]] = {
        "past reservations": (PAST, amounts.past),
        "other scopes": ((MORE_SCOPES,), amounts.scopes),
    }
    rows = []
    for kind, (fill, counts) in kinds.items():
        say(f"growth: {kind}")
        opened = [(count, *_filled(new_database(), fill, count)) for count in counts]
        found = {count: Samples() for count in counts}
        for _ in range(amounts.rounds + 1):
            for count, authority, subjects in opened:
                found[count].add(*_crowd(authority, subjects, GROWTH_CALLERS, amounts.seconds / 2))
        for count, authority, _ in opened:
            authority.close()
            found[count].rounds.pop(0)
            found[count].walls.pop(0)
            times = found[count].over(found[counts[0]])
            row = _row(f"{count:,} {kind}", ONE, GROWTH_CALLERS, found[count], found[counts[0]].rate)
            rows.append((row | {"times the batched floor": None}, times))
    return rows


def _filled(url: str, fill: Sequence[str], count: int) -> tuple[LocalAuthority, list[Subject]]:
    authority, subjects = _opened(url, 1, "power")
    with psycopg.connect(url, autocommit=True) as connection:
        for statement in fill:
            connection.execute(statement.encode(), (count,))
        connection.execute("VACUUM ANALYZE")
        connection.execute("CHECKPOINT")
    return authority, subjects


# -- goals -------------------------------------------------------------------------------------------------------------


def _judge(section: Section, amounts: Amounts, growth: Sequence[float]) -> None:
    callers = "32" if 32 in amounts.callers else f"{amounts.callers[-1]}"
    hot = section.row(DIRECT["power"], ONE, callers)
    assert hot is not None
    rate, p99, share = hot["lifecycles/s"], hot["p99 ms"], hot["times the batched floor"]
    assert isinstance(rate, float)
    assert isinstance(p99, float)
    assert isinstance(share, float)
    section.goals += [
        at_least(f"hot tenant, {callers} callers, `power`: at least 4,000 lifecycles/s", rate, 4_000, "/s"),
        at_most(f"hot tenant, {callers} callers, `power`: p99 at most 60 ms", p99, 60, " ms"),
        at_least("hot tenant, `power`: at least 25 % of the batched floor", share, 0.25),
        at_most(f"p50 after {amounts.past[-1]:,} past reservations within 20 %", growth[1], 1.2, " times"),
        at_most(f"p50 among {amounts.scopes[-1]:,} other scopes within 20 %", growth[3], 1.2, " times"),
    ]

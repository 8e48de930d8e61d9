"""Many processes on one ledger: nothing is oversold, nobody starves, a kill is atomic, a death loses nothing."""

from __future__ import annotations

import threading
import time
from collections import Counter

import psycopg
from tests.authority.kit import BOT, CALL, TENANT, budget
from tests.postgres.kit import open_authority, with_budget
from tests.postgres.processes import workers
from tests.postgres.server import Server

from clearance.errors import Killed
from clearance.model.amount import tokens
from clearance.model.reservation import Reservation
from clearance.store.interface import EventQuery, ReservationQuery
from clearance.store.postgres import PostgresStore

PROCESSES = 32
ALLOCATED = 9_600


def test_32_processes_spend_one_budget_to_the_last_unit(url: str) -> None:
    with_budget(url, ALLOCATED).close()
    with workers(url, "spend", PROCESSES) as started:
        for worker in started:
            worker.go()
        told = [worker.told() for worker in started]
    authority = open_authority(url)
    balance = authority.balance(TENANT, "TOKENS")
    assert sum(one["spent"] for one in told) == ALLOCATED
    assert (balance.spent, balance.remaining, balance.reserved, balance.debt) == (ALLOCATED, 0, 0, 0)
    assert authority.check() == []
    actions = sorted(one["actions"] for one in told)
    assert actions[-1] <= 3 * actions[0], f"somebody starved: {actions}"
    assert _deadlocks(url) == 0
    authority.close()


def _deadlocks(url: str) -> int:
    with psycopg.connect(url) as connection:
        row = connection.execute("SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()").fetchone()
    assert row is not None
    return int(row[0])


def test_a_kill_is_atomic_with_the_grants_of_every_process(url: str) -> None:
    authority = with_budget(url, 10**6)
    with workers(url, "reserve", 6) as started:
        for worker in started:
            worker.go()
        time.sleep(0.7)
        stop = authority.kill(TENANT, reason="enough", actor="ann")
        answered = time.time()
        told = [worker.told(20) for worker in started]
    held = {name for one in told for name in one["held"]}
    assert len(held) > 6
    # Named in the answer is exactly what was granted before it: nothing later, nothing left out.
    assert set(stop.in_flight) == held
    assert max(one["learned"] for one in told) - answered < 2.0
    killed = authority.events(EventQuery(types=("control.killed",)))[0].seq
    granted = authority.events(EventQuery(types=("reservation.created",)), limit=1000)
    assert all(event.seq < killed for event in granted)
    authority.close()


def test_a_kill_reaches_runs_that_hold_nothing(url: str) -> None:
    """Where a tenant has no account to lock, the gate is what a grant and a kill meet at."""
    ours, theirs = open_authority(url), open_authority(url)
    stop_now, started = threading.Event(), []

    def start_runs() -> None:
        while not stop_now.is_set():
            try:
                started.append(theirs.start_run(BOT, None).reservation_id)
            except Killed:
                return

    thread = threading.Thread(target=start_runs)
    thread.start()
    time.sleep(0.3)
    stop = ours.kill("*", reason="enough")
    thread.join(10)
    stop_now.set()
    assert set(stop.in_flight) == set(started)
    assert len(started) > 1
    ours.close()
    theirs.close()


def test_stops_are_told_to_other_processes_at_once(url: str) -> None:
    ours, theirs = with_budget(url, 10), PostgresStore(url)
    told = threading.Event()
    theirs.on_stops_changed(told.set)
    time.sleep(0.3)
    delays = []
    for state in (ours.kill, ours.resume, ours.pause):
        told.clear()
        state(TENANT, reason="a drill")
        began = time.monotonic()
        assert told.wait(3)
        delays.append(time.monotonic() - began)
    assert sorted(delays)[1] < 0.5, delays
    theirs.close()
    ours.close()


def test_stops_are_found_without_notifications(url: str) -> None:
    """As behind a pooler that passes none on."""
    ours, theirs = with_budget(url, 10), PostgresStore(url)
    told = threading.Event()
    theirs.on_stops_changed(told.set)
    time.sleep(0.3)
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("UPDATE clearance.stops_version SET version = version + 1")
    assert told.wait(2.5)
    theirs.close()
    ours.close()


def test_no_acknowledged_settlement_is_lost_by_kill_nine(url: str) -> None:
    """Workers and backends die in the middle; what was acknowledged is there once, and the books balance."""
    authority = with_budget(url, 10**9)
    acknowledged: list[tuple[str, int]] = []
    with workers(url, "settle", 4) as started:
        for worker in started:
            worker.go()
        for worker in started[:2]:
            time.sleep(0.6)
            _end_backends(url)
            time.sleep(0.4)
            acknowledged += worker.kill()
        time.sleep(0.6)
        for worker in started[2:]:
            acknowledged += worker.kill()
    _settled_once(url, acknowledged)
    authority.close()


def test_no_acknowledged_settlement_is_lost_when_the_server_dies() -> None:
    """kill -9 of a backend makes PostgreSQL throw away its memory and recover from its log."""
    own = Server(fsync="on")
    try:
        url = own.new_database()
        with_budget(url, 10**9, durability="power").close()
        acknowledged: list[tuple[str, int]] = []
        with workers(url, "settle", 3) as started:
            for worker in started:
                worker.go()
            time.sleep(0.8)
            own.kill_a_backend()
            time.sleep(1.5)
            for worker in started:
                acknowledged += worker.kill()
        own.await_ready()
        _settled_once(url, acknowledged)
    finally:
        own.stop()


def _end_backends(url: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )


def _settled_once(url: str, acknowledged: list[tuple[str, int]]) -> None:
    assert len(acknowledged) > 20, "nothing much happened"
    authority = open_authority(url)
    assert authority.check() == []
    lines = Counter()
    after = 0
    while page := authority.events(EventQuery(after=after, types=("reservation.committed",)), limit=1000):
        lines.update((event.reservation_id, event.data["actual"]) for event in page)
        after = page[-1].seq
    assert max(lines.values()) == 1
    assert [it for it in acknowledged if lines[it] != 1] == []
    balance = authority.balance(TENANT, "TOKENS")
    open_holds: list[Reservation] = authority.reservations(ReservationQuery(status="ACTIVE"), limit=200).items
    assert balance.spent == sum(actual for _, actual in lines)
    assert balance.reserved == sum(it.estimate for it in open_holds)
    authority.close()


def test_many_processes_settle_the_same_keys_once(url: str) -> None:
    """The same idempotency key at the same time by several: one does it, the others get its answer."""
    budgeted = with_budget(url, 1000)
    authorities = [open_authority(url) for _ in range(4)]
    answers: list[list[object]] = [[] for _ in range(10)]

    def ask(n: int, turn: int) -> None:
        answers[n].append(authorities[turn].reserve(BOT, CALL, tokens(7), idempotency_key=f"key-{n}").reservation_id)

    for n in range(10):
        threads = [threading.Thread(target=ask, args=(n, turn)) for turn in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert [len(set(found)) for found in answers] == [1] * 10
    assert [len(found) for found in answers] == [4] * 10
    assert budgeted.balance(TENANT, "TOKENS").reserved == 70
    for authority in (*authorities, budgeted):
        authority.close()


def test_many_processes_make_the_same_budget_once(url: str) -> None:
    authorities = [open_authority(url) for _ in range(4)]
    errors: list[Exception] = []

    def make(turn: int) -> None:
        try:
            for n in range(8):
                budget(authorities[turn], f"tenant:acme/agent:a{n}", 100 + turn)
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=make, args=(turn,)) for turn in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert len(authorities[0].balances().items) == 8
    assert len(authorities[0].events(EventQuery(types=("budget.created",)))) == 8
    for authority in authorities:
        authority.close()

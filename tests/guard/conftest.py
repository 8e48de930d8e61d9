"""An authority of plain dicts, and what the tests of the guard share."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from clearance.authority.budgets import BudgetSpec
from clearance.connecting import LocalAuthority
from clearance.errors import (
    BudgetExceeded,
    IdempotencyMismatch,
    Killed,
    NotFound,
    Paused,
    ReservationExpired,
    ReservationFinalized,
)
from clearance.guard import Guarding
from clearance.guard.desk import Desk, seat
from clearance.guard.heartbeat import Scheduler
from clearance.model.amount import Amount, Unit, usd
from clearance.model.caps import Caps
from clearance.model.results import Decision, Lease, Settlement, Stop
from clearance.model.subject import Subject
from clearance.store.interface import ReservationQuery
from clearance.store.sqlite import MEMORY, SqliteStore

ASYNC = ("reserve", "commit", "release", "extend", "event", "start_run", "end_run", "dry_run")


@dataclass
class Row:
    id: str
    kind: str
    subject: Subject
    action: str
    estimate: int
    run_id: str | None
    ttl_ms: int
    status: str = "ACTIVE"
    actual: int | None = None
    metadata: dict[str, Any] = field(default_factory=dict)
    reason: str | None = None
    keys: list[str | None] = field(default_factory=list)


class FakeAuthority(Guarding):
    """Enough of an authority to hold a guard to its promises. `failures[verb]` are raised one by one."""

    def __init__(self, budget: int = 10**15) -> None:
        self.budget = budget
        self.rows: dict[str, Row] = {}
        self.events: list[dict[str, Any]] = []
        self.calls: list[tuple[str, Any]] = []
        self.failures: dict[str, list[BaseException]] = {}
        self.lost_answers: dict[str, list[BaseException]] = {}
        self.caps: Caps | None = None
        self.stops: dict[str, Stop] = {}
        self.pause_s = 0.0
        self._answers: dict[tuple[str, str], tuple[Any, Any]] = {}
        self._lock = threading.RLock()

    # --- what tests ask

    def set_funds(self, budget: int) -> None:
        self.budget = budget

    def open(self) -> list[Row]:
        return [row for row in self.rows.values() if row.status == "ACTIVE"]

    def only(self) -> Row:
        (row,) = [row for row in self.rows.values() if row.kind == "call"]
        return row

    def count(self) -> Counter[str]:
        return Counter(verb for verb, _ in self.calls)

    def kill(self, scope: str, state: str = "KILLED") -> None:
        self.stops[scope] = Stop(scope, "acme", state, "test", "tester", 0)  # type: ignore[arg-type]

    # --- verbs

    def reserve(self, subject: Any, action: Any, estimate: Any, **options: Any) -> Decision:
        return self._call("reserve", options, lambda: self._hold("call", subject, action, estimate, options))

    def start_run(self, subject: Any, budget: Any = None, *, name: str = "run", **options: Any) -> Decision:
        amount = usd(0) if budget is None else budget
        return self._call("start_run", options, lambda: self._hold("run", subject, name, amount, options))

    def dry_run(self, subject: Any, action: Any, estimate: Any, **options: Any) -> Decision:
        raise NotImplementedError

    def commit(self, reservation_id: str, actual: Amount, **options: Any) -> Settlement:
        return self._call("commit", options, lambda: self._settle(reservation_id, "COMMITTED", actual, options))

    def release(self, reservation_id: str, **options: Any) -> Settlement:
        return self._call("release", options, lambda: self._settle(reservation_id, "RELEASED", None, options))

    def end_run(self, run_id: str, **options: Any) -> Settlement:
        return self._call("end_run", options, lambda: self._settle(run_id, "COMMITTED", usd(0), options))

    def event(self, subject: Any, action: Any, actual: Amount, **options: Any) -> Settlement:
        def record() -> Settlement:
            self.events.append({"subject": subject, "action": action, "actual": actual.amount, **options})
            return Settlement("APPLIED", actual.unit, 0, actual.amount, actual.amount)

        return self._call("event", options, record)

    def extend(self, reservation_id: str, extend_by_ms: int, **options: Any) -> Lease:
        def extend() -> Lease:
            row = self._row(reservation_id)
            return Lease(reservation_id, 0, row.ttl_ms)

        return self._call("extend", {**options, "by": extend_by_ms}, extend)

    def stopped(self, reservation_ids: Any) -> dict[str, Stop]:
        self._log("stopped", list(reservation_ids))
        return {i: stop for i in reservation_ids if (stop := self._stop_of(self.rows[i].subject, self.rows[i].run_id))}

    def __getattr__(self, name: str) -> Any:
        if name[:1] != "a" or name[1:] not in ASYNC:
            raise AttributeError(name)
        verb = getattr(self, name[1:])

        async def twin(*args: Any, **options: Any) -> Any:
            await asyncio.sleep(self.pause_s)
            answer = verb(*args, **options)
            await asyncio.sleep(self.pause_s)
            return answer

        return twin

    # --- inside

    def _log(self, verb: str, what: Any) -> None:
        with self._lock:
            self.calls.append((verb, what))

    def _call(self, verb: str, options: dict[str, Any], work: Any) -> Any:
        with self._lock:
            self._log(verb, options)
            if self.failures.get(verb):
                raise self.failures[verb].pop(0)
            place = (verb, options.get("idempotency_key") or "")
            if place[1] and place in self._answers:
                payload, answer = self._answers[place]
                if payload != options:
                    raise IdempotencyMismatch("other payload")
                return answer
            answer = work()
            if place[1]:
                self._answers[place] = (options, answer)
            if self.lost_answers.get(verb):
                raise self.lost_answers[verb].pop(0)
            return answer

    def _stop_of(self, subject: Subject, run_id: str | None) -> Stop | None:
        for scope, stop in self.stops.items():
            if scope in subject.scopes or scope == f"run:{run_id}":
                return stop
        return None

    def _hold(self, kind: str, subject: Subject, action: Any, estimate: Amount, options: dict[str, Any]) -> Decision:
        stop = self._stop_of(subject, options.get("run_id"))
        if stop is not None:
            raise (Paused if stop.state == "PAUSED" else Killed)("stopped", scope=stop.scope)
        if sum(row.estimate for row in self.open()) + estimate.amount > self.budget:
            raise BudgetExceeded("too little", scope=subject.scope_path)
        row_id = f"{kind}_{len(self.rows) + 1}"
        row = Row(row_id, kind, subject, str(action), estimate.amount, options.get("run_id"), options["ttl_ms"])
        row.metadata = dict(options.get("metadata") or {})
        self.rows[row_id] = row
        return Decision(
            "ALLOW_WITH_CAPS" if self.caps else "ALLOW",
            subject.scopes,
            estimate.unit,
            estimate.amount,
            reservation_id=row_id,
            remaining_ttl_ms=row.ttl_ms,
            caps=self.caps if kind == "call" else None,
        )

    def _row(self, row_id: str) -> Row:
        if row_id not in self.rows:
            raise NotFound(row_id)
        row = self.rows[row_id]
        if row.status == "EXPIRED":
            raise ReservationExpired(row_id)
        if row.status != "ACTIVE":
            raise ReservationFinalized(row_id)
        return row

    def _settle(self, row_id: str, status: str, actual: Amount | None, options: dict[str, Any]) -> Settlement:
        row = self._row(row_id)
        row.status = status
        row.actual = None if actual is None else actual.amount
        row.metadata = dict(options.get("metadata") or {})
        row.reason = options.get("reason")
        row.keys.append(options.get("idempotency_key"))
        charged = row.actual or 0
        return Settlement(status, Unit.USD_MICROCENTS, row.estimate, charged, charged)  # type: ignore[arg-type]


VERB_OF = {"reservation.created": "reserve", "reservation.committed": "commit", "reservation.released": "release"}


class RealAuthority(LocalAuthority):
    """The embedded authority in memory, with the questions that tests ask the fake."""

    def __init__(self, budget: int = 10**12) -> None:
        super().__init__(SqliteStore(MEMORY), durability="process")
        self.set_funds(budget)

    def set_funds(self, budget: int) -> None:
        spec = BudgetSpec(scope="tenant:acme", allocated=Amount(unit=Unit.USD_MICROCENTS, amount=budget))
        self.set_budget(spec)

    def open(self) -> list[Any]:
        return self.reservations(ReservationQuery(status="ACTIVE"), limit=200).items

    def only(self) -> Row:
        (found,) = self.reservations(ReservationQuery(kind="call")).items
        row = Row(found.id, found.kind, Subject(**found.subject), "", found.estimate, None, 0)
        row.status, row.actual, row.metadata = found.status, found.actual, found.committed_metadata or {}
        return row

    def count(self) -> Counter[str]:
        return Counter(VERB_OF[event.type] for event in self.events() if event.type in VERB_OF)


class FakeClock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += seconds


def wait_until(true: Any, timeout_s: float = 5.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not true():
        assert time.monotonic() < deadline, "it never became true"
        time.sleep(0.005)


@pytest.fixture(name="wait_until")
def _wait_until() -> Any:
    return wait_until


@pytest.fixture
def acme() -> Subject:
    return Subject(tenant="acme", agent="bot")


@pytest.fixture
def authority() -> FakeAuthority:
    return FakeAuthority()


@pytest.fixture
def real() -> Iterator[RealAuthority]:
    authority = RealAuthority()
    yield authority
    authority.close()


@pytest.fixture(params=["fake", "real"])
def either(request: pytest.FixtureRequest) -> Any:
    """Both authorities, one after the other: what holds for one must hold for the other."""
    return request.getfixturevalue("authority" if request.param == "fake" else "real")


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def timed(authority: FakeAuthority, clock: FakeClock) -> Scheduler:
    """The authority's scheduler, on a clock of ours and without a thread."""
    scheduler = Scheduler(clock, threaded=False)
    seat(authority, Desk(scheduler))
    return scheduler

"""The words that specs are written in."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any, NamedTuple, Protocol, TypeVar

from clearance.errors import StoreError
from clearance.model.account import Account
from clearance.model.reservation import Reservation
from clearance.store.interface import Changes, NewEvent, Store, Transaction

NOW_MS = 1_800_000_000_000
T = TypeVar("T")


class Ledger(Protocol):
    """A place that a Store is opened on; empty at first."""

    def open(self) -> Store: ...
    def close(self) -> None: ...


NewLedger = Callable[[], Ledger]


class Violation(AssertionError):
    """An engine did not do what its interface says."""


class Failure(NamedTuple):
    spec: str
    problem: str

    def __str__(self) -> str:
        return f"{self.spec}: {self.problem}"


@dataclass
class Bench:
    """What a spec works with: `store`, and more stores on the same ledger by `another`."""

    ledger: Ledger
    opened: list[Store] = field(default_factory=list)

    @property
    def store(self) -> Store:
        return self.opened[0] if self.opened else self.another()

    def another(self) -> Store:
        self.opened.append(self.ledger.open())
        return self.opened[-1]

    def write(self, *changes: Changes, store: Store | None = None) -> list[int]:
        """Each by a transaction of its own; the seqs of their first events."""
        seqs = []
        for change in changes:
            with (store or self.store).transaction(flush=False) as tx:
                seqs.append(tx.write(change, NOW_MS))
        return seqs

    def close(self) -> None:
        for store in self.opened:
            store.close()
        self.ledger.close()


@dataclass(frozen=True)
class Spec:
    name: str
    check: Callable[[Bench], None]
    shared: bool = False

    def run(self, new_ledger: NewLedger) -> None:
        """Raises Violation, or whatever the engine raised."""
        bench = Bench(new_ledger())
        try:
            self.check(bench)
        finally:
            bench.close()

    def failure(self, new_ledger: NewLedger) -> Failure | None:
        try:
            self.run(new_ledger)
        except Violation as violation:
            return Failure(self.name, str(violation))
        except Exception as error:
            last = traceback.extract_tb(error.__traceback__)[-1]
            return Failure(self.name, f"{type(error).__name__}: {error} ({last.filename}:{last.lineno})")
        return None


def spec(check: Callable[[Bench], None]) -> Spec:
    """The name of the function, in words, is what must hold."""
    return Spec(check.__name__.replace("_", " "), check)


def shared_spec(check: Callable[[Bench], None]) -> Spec:
    """For ledgers that several Stores can have open."""
    return Spec(check.__name__.replace("_", " "), check, shared=True)


def specs_of(module: ModuleType) -> Iterable[Spec]:
    return [value for value in vars(module).values() if isinstance(value, Spec)]


LIMIT_SECONDS = 20


def until_done(store: Store, change: Callable[[Transaction], object]) -> None:
    """Run it until the engine has no reason to have it run again, as the authority's queue does."""
    end = time.monotonic() + LIMIT_SECONDS
    while True:
        try:
            with store.transaction(flush=False) as tx:
                change(tx)
            return
        except StoreError as error:
            if error.retry_after_ms != 0 or time.monotonic() > end:
                raise


def expect(what: str, got: T, expected: T) -> None:
    if got != expected:
        raise Violation(f"{what}: expected {_shown(expected)}, got {_shown(got)}")


def expect_error(what: str, call: Callable[[], object], kind: type[Exception]) -> None:
    try:
        got = call()
    except kind:
        return
    raise Violation(f"{what}: expected {kind.__name__}, got {_shown(got)}")


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 300 else text[:300] + "..."


# -- values ---------------------------------------------------------------------------------------------


def account(scope: str = "tenant:acme", unit: str = "TOKENS", tenant: str = "acme", **fields: Any) -> Account:
    return Account(tenant, scope, unit, **{"allocated": 1000, "created_at_ms": NOW_MS, **fields})


def reservation(name: str, *, tenant: str = "acme", **fields: Any) -> Reservation:
    """A hold of 10 on the tenant's budget, due a minute from now."""
    scopes = (f"tenant:{tenant}", f"tenant:{tenant}/agent:bot")
    facts: dict[str, Any] = {
        "kind": "call",
        "status": "ACTIVE",
        "unit": "TOKENS",
        "estimate": 10,
        "subject": {"tenant": tenant, "agent": "bot"},
        "action": {"kind": "llm.completion", "name": "model"},
        "affected_scopes": scopes,
        "held_on": scopes[:1],
        "created_at_ms": NOW_MS,
        "expires_at_ms": NOW_MS + 60_000,
        "grace_period_ms": 0,
        "overage_policy": "ALLOW_IF_AVAILABLE",
        "max_extensions": 10,
        "metadata": {},
    }
    return Reservation(id=name, tenant=tenant, **{**facts, **fields})


def event(kind: str = "reservation.created", tenant: str = "acme", **fields: Any) -> NewEvent:
    facts: dict[str, Any] = {"scope": f"tenant:{tenant}", "reservation_id": None, "data": {}}
    return NewEvent(kind, tenant, **{**facts, **fields})

"""What an engine must give: one transaction at a time over keyed rows, and reads beside it.

Semantics live in `authority`; an engine only keeps rows. All of a transaction's changes happen or none does. What a
transaction has written is seen by its own later reads.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from clearance.model.account import Account
from clearance.model.reservation import Reservation
from clearance.model.results import Event, Stop

AccountKey = tuple[str, str, str]
"""(tenant, scope, unit)"""


class Tenant(NamedTuple):
    """A governed tenant. No row means: no guard, defaults apply (protocol section 16.2)."""

    tenant: str
    status: str = "ACTIVE"
    overage_policy: str | None = None
    max_extensions: int | None = None


class Record(NamedTuple):
    """A named JSON document of some kind (an API key, a webhook, a delivery), perhaps with a due time."""

    kind: str
    id: str
    tenant: str
    body: dict[str, Any]
    due_at_ms: int | None = None


class Answered(NamedTuple):
    """What an idempotency key was used for: the hash of its payload and the event that keeps the answer."""

    payload: bytes
    seq: int


class NewEvent(NamedTuple):
    """An event before it has its place in the log."""

    type: str
    tenant: str
    scope: str | None
    reservation_id: str | None
    data: dict[str, Any]


class Place(NamedTuple):
    """Where the answer of an idempotency key is kept: hashes of (tenant, endpoint, key) and of the payload."""

    key: bytes
    payload: bytes


class Needs(NamedTuple):
    """What an operation will look up, as far as it is known beforehand, so that a batch can be read at once."""

    accounts: Sequence[tuple[str, Sequence[str], Sequence[str]]] = ()
    """(tenant, scopes, units): the tenant's row, and its accounts on all these scopes in all these units."""
    reservations: Sequence[str] = ()
    answers: Sequence[bytes] = ()


@dataclass(slots=True)
class Changes:
    """Everything that one operation writes. `events[0]` keeps the answer that `place` replays.

    `renewals` are the periods that it found to be over; they go into the log before `events`.
    """

    accounts: Sequence[Account] = ()
    dropped_accounts: Sequence[AccountKey] = ()
    opened: Sequence[Reservation] = ()
    changed: Sequence[Reservation] = ()
    renewals: Sequence[NewEvent] = ()
    events: Sequence[NewEvent] = ()
    stops: Sequence[Stop] = ()
    tenants: Sequence[Tenant] = ()
    records: Sequence[Record] = ()
    dropped_records: Sequence[tuple[str, str]] = ()
    """(kind, id)"""
    place: Place | None = None


class Rows(Protocol):
    """What an evaluation may look up."""

    def account(self, tenant: str, scope: str, unit: str) -> Account | None: ...
    def accounts_on(self, tenant: str, scopes: Sequence[str], unit: str) -> Sequence[Account | None]:
        """One for each scope."""
        ...

    def accounts_of(self, tenant: str, scope: str) -> Sequence[Account]:
        """The scope's accounts in every unit."""
        ...

    def accounts_below(self, tenant: str) -> Sequence[Account]: ...
    def reservation(self, reservation_id: str) -> Reservation | None: ...
    def open_in_run(self, run_id: str) -> Sequence[Reservation]:
        """Open reservations and runs whose innermost run is `run_id`, by id."""
        ...

    def open_below(self, tenant: str | None, scope: str) -> Sequence[Reservation]:
        """Open reservations under a scope or `run:<id>`, by due time, then id; tenant None means everybody's."""
        ...

    def due(self, now_ms: int, limit: int) -> Sequence[Reservation]:
        """Open reservations past lease and grace, the oldest first, then by id."""
        ...

    def stops(self) -> Mapping[tuple[str, str], Stop]:
        """Every kill and pause in force, by (tenant, scope) and in that order."""
        ...

    def tenant(self, tenant: str) -> Tenant | None: ...
    def record(self, kind: str, record_id: str) -> Record | None: ...
    def records(self, kind: str, tenant: str | None, after: str, limit: int) -> Sequence[Record]:
        """By id, those after `after`; tenant None means everybody's."""
        ...

    def due_records(self, kind: str, now_ms: int, limit: int) -> Sequence[Record]:
        """Those whose time has come, the oldest first."""
        ...

    def answered(self, key: bytes) -> Answered | None: ...
    def event(self, seq: int) -> Event | None: ...


class Transaction(Rows, Protocol):
    writes: int
    """How many times `write` was called; tells whether an operation that failed had begun to write."""

    def prefetch(self, needs: Sequence[Needs]) -> None:
        """Read what a batch will look up. Only for speed: a look-up that was not announced is right as well."""
        ...

    def write(self, changes: Changes, now_ms: int) -> int:
        """Take the changes of one operation; returns the seq of its first event (0 without events)."""
        ...


@dataclass(frozen=True, slots=True)
class ReservationQuery:
    """Filters of `reservations`; windows are inclusive epoch ms (protocol section 14.2)."""

    tenant: str | None = None
    status: str | None = None
    kind: str | None = None
    run_id: str | None = None
    scope: str | None = None
    segments: tuple[str, ...] = ()
    idempotency_key: str | None = None
    created_from_ms: int | None = None
    created_to_ms: int | None = None
    expires_from_ms: int | None = None
    expires_to_ms: int | None = None
    finalized_from_ms: int | None = None
    finalized_to_ms: int | None = None
    sort_by: str = "created_at_ms"
    descending: bool = True


@dataclass(frozen=True, slots=True)
class EventQuery:
    after: int = 0
    tenant: str | None = None
    scope: str | None = None
    types: tuple[str, ...] = ()
    reservation_id: str | None = None
    descending: bool = False


class Reader(Protocol):
    """Reads of committed state that never wait for a writer."""

    def reservation(self, reservation_id: str) -> Reservation | None: ...
    def reservations(self, query: ReservationQuery, limit: int, after: tuple[Any, str] | None) -> list[Reservation]: ...
    def accounts(self, tenant: str | None, limit: int, after: AccountKey | None) -> list[Account]: ...
    def events(self, query: EventQuery, limit: int) -> list[Event]: ...
    def stops(self) -> list[Stop]: ...
    def open_stops(self, reservation_ids: Sequence[str]) -> dict[str, Stop]:
        """The stop, if any, that lies on each of these open reservations."""
        ...

    def tenants(self) -> list[Tenant]: ...
    def record(self, kind: str, record_id: str) -> Record | None: ...
    def records(self, kind: str, tenant: str | None, after: str, limit: int) -> Sequence[Record]: ...


class MustWait(Exception):
    """A transaction cannot be had at once; nothing was done."""


class Store(Protocol):
    """An engine. Thread-safe; `transaction` is held by one thread at a time."""

    def transaction(self, *, flush: bool, wait: bool = True) -> AbstractContextManager[Transaction]:
        """A write transaction, committed at exit, rolled back on an exception.

        `flush=True`: the commit has reached the disk when the block ends (survives a power cut); else it survives
        the death of the process. `wait=False`: asked from an event loop, which must not be held up by others, a network
        or a slow disk; raises MustWait at the beginning if it might be. Raises StoreError kinds.
        """
        ...

    def read(self) -> AbstractContextManager[Reader]: ...
    def tidy(self) -> None:
        """Housekeeping that may take its time (checkpoint); called from a background thread."""
        ...

    def describe(self) -> dict[str, Any]:
        """Facts for `status` and `doctor`."""
        ...

    def check(self) -> Iterator[str]:
        """Every problem that a full look at the storage finds; slow."""
        ...

    def close(self) -> None: ...

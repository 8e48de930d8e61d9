"""The write transaction of the SQLite engine: rows cached over a batch, and between batches while nobody else wrote."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from time import perf_counter
from typing import Any

import apsw

from clearance.model.account import Account
from clearance.model.amount import Unit
from clearance.model.reservation import Reservation
from clearance.model.results import EVERYTHING, Event, Stop
from clearance.model.subject import covers
from clearance.store.interface import AccountKey, Answered, Changes, Needs, Record, Tenant
from clearance.store.sqlite import statements as sql
from clearance.store.sqlite.answers import MAX_RECENT, Answers
from clearance.store.sqlite.rows import (
    Row,
    account_row,
    dumps,
    record_row,
    reservation_row,
    reservation_update,
    to_account,
    to_event,
    to_record,
    to_reservation,
)

MAX_CACHED_ROWS = 20_000


class SqliteTransaction:
    """Reads through caches; keeps changes until `flush`, so that a row touched by many operations is written once.

    The caches stay valid while the pager's data version is what it was after our last commit: no other connection has
    written since.
    """

    def __init__(self, connection: apsw.Connection) -> None:
        self._connection = connection
        self._known = Answers(connection)
        self._version = -1
        self.writes = 0
        self.forget()

    # -- life of one transaction ------------------------------------------------------------------

    def begin(self) -> None:
        self._connection.execute(sql.BEGIN)
        version = self._connection.data_version()
        if version != self._version or len(self._accounts) + len(self._open) > MAX_CACHED_ROWS:
            self.forget()
            self._version = version
        elif len(self._known.written) > MAX_RECENT:
            self._known.forget()

    def commit(self) -> float:
        """Returns the seconds that the storage took."""
        self.flush()
        began = perf_counter()
        self._connection.execute(sql.COMMIT)
        took = perf_counter() - began
        # Our own commit moves the number too; somebody else's shows only when the next transaction begins.
        self._version = self._connection.data_version()
        return took

    def rollback(self) -> None:
        self.forget()
        self._version = -1
        if self._connection.in_transaction:
            self._connection.execute(sql.ROLLBACK)

    def forget(self) -> None:
        self._accounts: dict[AccountKey, Account | None] = {}
        self._stored: dict[AccountKey, Account] = {}
        self._open: dict[str, Reservation] = {}
        self._stops: dict[tuple[str, str], Stop] | None = None
        self._tenants: dict[str, Tenant | None] = {}
        self._last_seq: int | None = None
        self._known.forget()
        # What is pending.
        self._dirty: dict[AccountKey, Account] = {}
        self._dropped: list[AccountKey] = []
        self._inserted: dict[str, Reservation] = {}
        self._updated: dict[str, Reservation] = {}
        self._events: list[Row] = []
        self._answers: list[Row] = []
        self._new_stops: list[Stop] = []
        self._new_tenants: list[Tenant] = []
        self._new_records: dict[tuple[str, str], Record | None] = {}

    # -- reads ------------------------------------------------------------------------------------

    def account(self, tenant: str, scope: str, unit: str) -> Account | None:
        key = (tenant, scope, unit)
        try:
            return self._accounts[key]
        except KeyError:
            self._read_accounts(tenant, scope)
            return self._accounts.setdefault(key, None)

    def accounts_on(self, tenant: str, scopes: Sequence[str], unit: str) -> list[Account | None]:
        try:
            return [self._accounts[tenant, scope, unit] for scope in scopes]
        except KeyError:
            return [self.account(tenant, scope, unit) for scope in scopes]

    def _read_accounts(self, tenant: str, scope: str) -> None:
        """In every unit at once: who asks for one has often a question about the others."""
        rows = self._connection.execute(sql.GET_ACCOUNTS_OF_SCOPE, (tenant, scope)).fetchall()
        stored = {row[2]: to_account(row) for row in rows}
        for unit in Unit:
            key = (tenant, scope, unit.value)
            if key not in self._accounts:
                account = self._accounts[key] = stored.get(unit)
                if account is not None:
                    self._stored[key] = account

    def accounts_of(self, tenant: str, scope: str) -> list[Account]:
        return [to_account(row) for row in self._all(sql.GET_ACCOUNTS_OF_SCOPE, (tenant, scope))]

    def accounts_below(self, tenant: str) -> list[Account]:
        return [to_account(row) for row in self._all(sql.GET_ACCOUNTS_OF_TENANT, (tenant,))]

    def reservation(self, reservation_id: str) -> Reservation | None:
        found = self._open.get(reservation_id)
        found = found or self._updated.get(reservation_id) or self._inserted.get(reservation_id)
        if found is None:
            row = self._one(sql.GET_RESERVATION, (reservation_id,))
            found = to_reservation(row) if row else None
            if found and found.is_open:
                self._open[found.id] = found
        return found

    def open_in_run(self, run_id: str) -> list[Reservation]:
        return [to_reservation(row) for row in self._all(sql.GET_OPEN_IN_RUN, (run_id,))]

    def open_below(self, tenant: str | None, scope: str) -> list[Reservation]:
        found = [to_reservation(row) for row in self._all(sql.GET_OPEN, ())]
        runs = {it.id for it in found if it.kind == "run" and lies_below(it, tenant, scope)}
        return [it for it in found if lies_below(it, tenant, scope) or not runs.isdisjoint(it.runs)]

    def due(self, now_ms: int, limit: int) -> list[Reservation]:
        return [to_reservation(row) for row in self._all(sql.GET_DUE, (now_ms, limit))]

    def stops(self) -> dict[tuple[str, str], Stop]:
        if self._stops is None:
            self._stops = {(row[0], row[1]): to_stop(row) for row in self._all(sql.GET_STOPPED, ())}
        return self._stops

    def tenant(self, tenant: str) -> Tenant | None:
        if tenant not in self._tenants:
            row = self._one(sql.GET_TENANT, (tenant,))
            self._tenants[tenant] = Tenant(*row) if row else None
        return self._tenants[tenant]

    def record(self, kind: str, record_id: str) -> Record | None:
        rows = self._all(sql.GET_RECORD, (kind, record_id))
        return to_record(rows[0]) if rows else None

    def records(self, kind: str, tenant: str | None, after: str, limit: int) -> list[Record]:
        return list_records(self._all, kind, tenant, after, limit)

    def due_records(self, kind: str, now_ms: int, limit: int) -> list[Record]:
        return [to_record(row) for row in self._all(sql.GET_DUE_RECORDS, (kind, now_ms, limit))]

    def answered(self, key: bytes) -> Answered | None:
        return self._known.find(key)

    def prefetch(self, needs: Sequence[Needs]) -> None:
        """Keys only: rows are cached anyway."""
        if len(needs) > 1:
            self._known.look_up([key for need in needs for key in need.answers])

    def event(self, seq: int) -> Event | None:
        rows = self._all(sql.GET_EVENT, (seq,))
        return to_event(rows[0]) if rows else None

    def _one(self, statement: str, bindings: tuple[Any, ...]) -> Row | None:
        rows = self._connection.execute(statement, bindings).fetchall()
        return rows[0] if rows else None

    def _all(self, statement: str, bindings: tuple[Any, ...]) -> list[Row]:
        """A search: what this transaction has changed so far must be in the tables first."""
        self.flush()
        return self._connection.execute(statement, bindings).fetchall()

    # -- writes -----------------------------------------------------------------------------------

    def write(self, changes: Changes, now_ms: int) -> int:
        self.writes += 1
        if changes.accounts:
            changed = {account[:3]: account for account in changes.accounts}
            self._accounts.update(changed)
            self._dirty.update(changed)
        for key in changes.dropped_accounts:
            self._accounts[key] = None
            self._dirty.pop(key, None)
            self._stored.pop(key, None)
            self._dropped.append(key)
        for reservation in changes.opened:
            self._inserted[reservation.id] = self._open[reservation.id] = reservation
        for reservation in changes.changed:
            self._change_reservation(reservation)
        if changes.stops:
            self._write_stops(changes.stops)
        for tenant in changes.tenants:
            self._tenants[tenant.tenant] = tenant
            self._new_tenants.append(tenant)
        for record in changes.records:
            self._new_records[record[:2]] = record
        for name in changes.dropped_records:
            self._new_records[name] = None
        first = self._write_events(changes, now_ms) if changes.events else 0
        if changes.place is not None:
            place, payload = changes.place
            self._known.written[place] = Answered(payload, first)
            self._answers.append((place, payload, first))
        return first

    def _change_reservation(self, reservation: Reservation) -> None:
        pending = self._inserted if reservation.id in self._inserted else self._updated
        pending[reservation.id] = reservation
        if reservation.is_open:
            self._open[reservation.id] = reservation
        else:
            self._open.pop(reservation.id, None)

    def _write_stops(self, stops: Sequence[Stop]) -> None:
        self._new_stops.extend(stops)
        self.flush()
        self._stops = None

    def _write_events(self, changes: Changes, now_ms: int) -> int:
        if self._last_seq is None:
            self._last_seq = int(self._all(sql.LAST_SEQ, ())[0][0])
        events = [*changes.renewals, *changes.events] if changes.renewals else changes.events
        for seq, event in enumerate(events, start=self._last_seq + 1):
            self._events.append(
                (seq, now_ms, event.tenant, event.type, event.scope, event.reservation_id, dumps(event.data))
            )
        self._last_seq += len(events)
        return self._last_seq - len(changes.events) + 1

    def flush(self) -> None:
        """Bring everything pending into the tables, one statement a table."""
        run = self._connection.executemany
        if self._dirty:
            self._flush_accounts()
        if self._inserted:
            run(sql.INSERT_RESERVATION, [reservation_row(it) for it in self._inserted.values()])
            self._inserted = {}
        if self._updated:
            run(sql.UPDATE_RESERVATION, [reservation_update(it) for it in self._updated.values()])
            self._updated = {}
        if self._events:
            run(sql.INSERT_EVENT, self._events)
            self._events = []
        if self._answers:
            run(sql.INSERT_ANSWER, self._answers)
            self._answers = []
        if self._dropped or self._new_stops or self._new_tenants or self._new_records:
            self._flush_rare()

    def _flush_rare(self) -> None:
        run = self._connection.executemany
        run(sql.DROP_ACCOUNT, self._dropped)
        run(sql.PUT_STOP, [(s.tenant, s.scope, s.state, s.reason, s.actor, s.at_ms) for s in self._new_stops])
        run(sql.PUT_TENANT, self._new_tenants)
        run(sql.PUT_RECORD, [record_row(record) for record in self._new_records.values() if record])
        run(sql.DROP_RECORD, [name for name, record in self._new_records.items() if record is None])
        self._dropped, self._new_stops, self._new_tenants, self._new_records = [], [], [], {}

    def _flush_accounts(self) -> None:
        """Most accounts have only moved; the rest of the row is written when it differs."""
        dirty, stored = self._dirty, self._stored
        moved, put = [], []
        for key, account in dirty.items():
            old = stored.get(key)
            if old is not None and old[8:] == account[8:]:
                moved.append(account[3:8] + key)
            else:
                put.append(account_row(account))
        self._connection.executemany(sql.MOVE_ACCOUNT, moved)
        if put:
            self._connection.executemany(sql.PUT_ACCOUNT, put)
        stored.update(dirty)
        self._dirty = {}


def list_records(
    search: Callable[[str, tuple[Any, ...]], list[Row]], kind: str, tenant: str | None, after: str, limit: int
) -> list[Record]:
    if tenant is None:
        rows = search(sql.GET_RECORDS, (kind, after, limit))
    else:
        rows = search(sql.GET_RECORDS_OF_TENANT, (kind, tenant, after, limit))
    return [to_record(row) for row in rows]


def to_stop(row: Row) -> Stop:
    return Stop(tenant=row[0], scope=row[1], state=row[2], reason=row[3], actor=row[4], at_ms=row[5])


def lies_below(reservation: Reservation, tenant: str | None, scope: str) -> bool:
    """Does a stop on (tenant, scope) reach this reservation? Scope `*` reaches all, `run:<id>` its run and below."""
    if scope == EVERYTHING:
        return tenant is None or tenant == "" or reservation.tenant == tenant
    if tenant is not None and reservation.tenant != tenant:
        return False
    if scope.startswith("run:"):
        run_id = scope.removeprefix("run:")
        return run_id == reservation.id or run_id in reservation.runs
    return covers(scope, reservation.scope_path) or scope == f"tenant:{reservation.tenant}"

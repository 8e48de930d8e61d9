"""The write transaction of the PostgreSQL engine: rows locked and read at once, changes kept until the commit."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from clearance.model.account import Account
from clearance.model.reservation import Reservation
from clearance.model.results import Event, Stop
from clearance.store.interface import AccountKey, Answered, Changes, Needs, NewEvent, Record, Tenant
from clearance.store.postgres import statements as sql
from clearance.store.postgres.holding import Holding
from clearance.store.postgres.locks import EVERYBODY, Wanted
from clearance.store.postgres.log import LINES
from clearance.store.postgres.rows import is_name
from clearance.store.sqlite.rows import dumps, to_account, to_event, to_record, to_reservation
from clearance.store.sqlite.transaction import lies_below, to_stop


class PostgresTransaction(Holding):
    """Every look-up of a row that may change locks it, if the batch has not announced it."""

    # -- reads ------------------------------------------------------------------------------------

    def prefetch(self, needs: Sequence[Needs]) -> None:
        self.take_first(Wanted.of(needs))

    def account(self, tenant: str, scope: str, unit: str) -> Account | None:
        key = (tenant, scope, unit)
        if key not in self._accounts:
            self.take(Wanted(accounts={key}))
        return self._accounts[key]

    def accounts_on(self, tenant: str, scopes: Sequence[str], unit: str) -> list[Account | None]:
        return [self.account(tenant, scope, unit) for scope in scopes]

    def accounts_of(self, tenant: str, scope: str) -> list[Account]:
        return [to_account(row) for row in self.search(sql.GET_ACCOUNTS_OF_SCOPE, (tenant, scope))]

    def accounts_below(self, tenant: str) -> list[Account]:
        return [to_account(row) for row in self.search(sql.GET_ACCOUNTS_OF_TENANT, (tenant,))]

    def reservation(self, reservation_id: str) -> Reservation | None:
        if reservation_id not in self._reservations:
            if not is_name(reservation_id):
                return None
            self.take(Wanted(reservations={reservation_id}))
        return self._reservations[reservation_id]

    def open_in_run(self, run_id: str) -> list[Reservation]:
        return self._locked_open(sql.FIND_OPEN_IN_RUN, (run_id,)) if is_name(run_id) else []

    def due(self, now_ms: int, limit: int) -> list[Reservation]:
        found = self._locked_open(sql.FIND_DUE, (now_ms, limit))
        return sorted((it for it in found if it.due_at_ms <= now_ms), key=lambda it: it.due_at_ms)

    def _locked_open(self, statement: str, bindings: Sequence[Any]) -> list[Reservation]:
        """What a search has found may have been settled since: lock it, and look again."""
        names = [row[0] for row in self.search(statement, bindings)]
        unknown = {name for name in names if name not in self._reservations}
        if unknown:
            self.take(Wanted(reservations=unknown))
        found = [self._reservations[name] for name in names]
        return [it for it in found if it is not None and it.is_open]

    def open_below(self, tenant: str | None, scope: str) -> list[Reservation]:
        """Asked by what ends a whole scope, so every grant that is under way must be through, and no other begin."""
        self.take(Wanted(whole_tenants={tenant or EVERYBODY}))
        statement = sql.GET_OPEN if tenant is None else sql.GET_OPEN_OF_TENANT
        rows = self.search(statement, () if tenant is None else (tenant,))
        found = [self._reservations.get(row[0]) or to_reservation(row) for row in rows]
        self._reservations.update((it.id, it) for it in found)
        runs = {it.id for it in found if it.kind == "run" and lies_below(it, tenant, scope)}
        return [it for it in found if lies_below(it, tenant, scope) or not runs.isdisjoint(it.runs)]

    def stops(self) -> dict[tuple[str, str], Stop]:
        """The version that was read after the locks says whether the stops read before are still all there are."""
        self.begin_reading()
        self._saw_stops = True
        known = self._known_stops
        if known is None or known[0] != self._stops_version or self._changed_stops:
            rows = self.search(sql.GET_STOPPED, ())
            known = (rows[0][0], {(row[1], row[2]): to_stop(row[1:]) for row in rows if row[1] is not None})
            if self._changed_stops:
                return known[1]
            if known[0] != self._stops_version:
                raise self.fail("the stops changed")
            self._known_stops = known
        return known[1]

    def tenant(self, tenant: str) -> Tenant | None:
        if tenant not in self._tenants:
            rows = self.search(sql.GET_TENANTS_NAMED, ([tenant],))
            self._tenants[tenant] = Tenant(*rows[0]) if rows else None
        return self._tenants[tenant]

    def record(self, kind: str, record_id: str) -> Record | None:
        rows = self.search(sql.LOCK_RECORD, (kind, record_id))
        if not rows:
            self._missing_records.add((kind, record_id))
        return to_record(rows[0]) if rows else None

    def records(self, kind: str, tenant: str | None, after: str, limit: int) -> list[Record]:
        if tenant is None:
            rows = self.search(sql.GET_RECORDS, (kind, after, limit))
        else:
            rows = self.search(sql.GET_RECORDS_OF_TENANT, (kind, tenant, after, limit))
        return [to_record(row) for row in rows]

    def due_records(self, kind: str, now_ms: int, limit: int) -> list[Record]:
        """Those that no other process has just taken."""
        return [to_record(row) for row in self.search(sql.CLAIM_DUE_RECORDS, (kind, now_ms, limit))]

    def answered(self, key: bytes) -> Answered | None:
        if key not in self._answers:
            rows = self.search(sql.GET_ANSWERS, ([key],))
            self._answers[key] = Answered(*rows[0][1:]) if rows else None
        return self._answers[key]

    def event(self, seq: int) -> Event | None:
        if seq in self._lines:
            return to_event(self._lines[seq])
        rows = self.search(sql.GET_EVENT, (seq,))
        return to_event(rows[0]) if rows else None

    # -- writes -----------------------------------------------------------------------------------

    def write(self, changes: Changes, now_ms: int) -> int:
        self.writes += 1
        self._prepare(changes)
        for account in changes.accounts:
            self._accounts[account[:3]] = self._pending.accounts[account[:3]] = account
        for key in changes.dropped_accounts:
            self._drop(key)
        for reservation in changes.opened:
            self._reservations[reservation.id] = self._pending.inserted[reservation.id] = reservation
            self._opened.add(reservation.id)
        for reservation in changes.changed:
            self._change(reservation)
        for stop in changes.stops:
            self._pending.stops[stop.tenant, stop.scope] = stop
            self._changed_stops = True
        for tenant in changes.tenants:
            self._tenants[tenant.tenant] = self._pending.tenants[tenant.tenant] = tenant
        for record in changes.records:
            self._pending.records[record[:2]] = record
        for name in changes.dropped_records:
            self._pending.records[name] = None
        first = self._write_events(changes, now_ms)
        if changes.place is not None:
            self._answers[changes.place.key] = Answered(changes.place.payload, first)
            self._pending.answers.append((changes.place.key, changes.events[0].tenant, changes.place.payload, first))
        return first

    def _prepare(self, changes: Changes) -> None:
        """Lock what is written without having been looked up; see rule 3 of `locks` for gates."""
        if self._is_held(changes):
            return
        missing = {account[:3] for account in changes.accounts} | set(changes.dropped_accounts)
        missing -= self._accounts.keys()
        unlocked = {it.id for it in changes.changed} - self._locked - self._opened
        if unlocked:
            # What ends a scope settles one after another what `open_below` has found: lock the rest with the first.
            unlocked |= {name for name, it in self._reservations.items() if it} - self._locked - self._opened
        if missing or unlocked:
            self.take(Wanted(accounts=missing, reservations=unlocked))
        # A kill need not know of a run's own account: whoever opens it holds what the run is held on.
        founding = {a.tenant for a in changes.accounts if a[:3] not in self._stored and not a.scope.startswith("run:")}
        granting = {it.tenant for it in changes.opened} - self._tenants_held
        stopping = {stop.tenant for stop in changes.stops}
        gates = (founding | granting | stopping) - self._gates
        if gates:
            self.take(Wanted(gates={EVERYBODY, *gates}, tenants=granting))
        elif self._number is None:
            self.begin_reading()

    def _is_held(self, changes: Changes) -> bool:
        """Nearly always: everything was announced, and each account was there before."""
        if self._number is None or changes.stops or changes.dropped_accounts:
            return False
        for account in changes.accounts:
            if account[:3] not in self._stored:
                return False
        for it in changes.opened:
            if it.tenant not in self._tenants_held:
                return False
        return all(it.id in self._locked or it.id in self._opened for it in changes.changed)

    def _drop(self, key: AccountKey) -> None:
        self._accounts[key] = None
        self._pending.accounts.pop(key, None)
        if self._stored.pop(key, None) is not None:
            self._pending.dropped[key] = None

    def _change(self, reservation: Reservation) -> None:
        pending = self._pending
        part = pending.inserted if reservation.id in pending.inserted else pending.updated
        self._reservations[reservation.id] = part[reservation.id] = reservation

    def _write_events(self, changes: Changes, now_ms: int) -> int:
        """The seq of the first of `events`."""
        seqs = [self._write_event(event, now_ms) for event in (*changes.renewals, *changes.events)]
        return seqs[len(changes.renewals)] if changes.events else 0

    def _write_event(self, event: NewEvent, now_ms: int) -> int:
        seq = self._next_seq()
        row = (seq, now_ms, event.tenant, event.type, event.scope, event.reservation_id, dumps(event.data))
        self._pending.events.append(row)
        self._lines[seq] = row
        return seq

    def _next_seq(self) -> int:
        if self._lines_used == LINES:
            self.take_number()
        assert self._number is not None
        seq = self._number * LINES + self._lines_used
        self._lines_used += 1
        return seq

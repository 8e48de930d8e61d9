"""The life of one transaction: what it has locked and read, what it has written, and how it ends."""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from psycopg import errors

from clearance.errors import StoreError
from clearance.model.account import Account
from clearance.model.reservation import Reservation
from clearance.model.results import Stop
from clearance.store.interface import AccountKey, Answered, Tenant
from clearance.store.postgres import statements as sql
from clearance.store.postgres.connection import Link
from clearance.store.postgres.locks import Wanted
from clearance.store.postgres.log import TAKE_NUMBER
from clearance.store.postgres.pending import Pending
from clearance.store.postgres.problems import Lost, contended, is_contended, unknown_outcome
from clearance.store.postgres.wire import Row, Statement
from clearance.store.sqlite.rows import to_account, to_reservation

TRIES = 6
PAUSE_SECONDS = 0.02


class Holding:
    """`writes` counts the calls of `write`, as the interface wants it."""

    def __init__(self, link: Link, place: str) -> None:
        self._link = link
        self._place = place
        self.writes = 0
        self._known_stops: tuple[int, dict[tuple[str, str], Stop]] | None = None
        """Of a version. Never used to grant before that version was read again under the locks of the batch."""
        self._late = Wanted()
        """What earlier tries of this batch were too late to lock."""
        self.forget()

    def forget(self) -> None:
        self._accounts: dict[AccountKey, Account | None] = {}
        self._stored: dict[AccountKey, Account] = {}
        self._reservations: dict[str, Reservation | None] = {}
        self._locked: set[str] = set()
        self._opened: set[str] = set()
        self._tenants: dict[str, Tenant | None] = {}
        self._tenants_held: set[str] = set()
        self._gates: set[str] = set()
        self._answers: dict[bytes, Answered | None] = {}
        self._missing_records: set[tuple[str, str]] = set()
        self._lines: dict[int, Row] = {}
        self._number: int | None = None
        self._lines_used = 0
        self._stops_version = -1
        self._saw_stops = self._changed_stops = False
        self._pending = Pending()
        self._begun = self._sent_writes = False
        self._failed: StoreError | None = None

    # -- beginning and ending ---------------------------------------------------------------------

    def begin(self) -> None:
        """Nothing is sent: the first statements go together."""
        self.forget()

    def commit(self, flush: bool) -> None:
        if self._failed is not None:
            raise self._failed
        if not self._begun:
            return
        statements = self._write_statements()
        if flush and not self._link.flushes:
            statements.append((sql.FLUSH_ON, ()))
        elif not flush and self._link.flushes:
            statements.append((sql.FLUSH_OFF, ()))
        written = self._sent_writes
        try:
            self._send([*statements, (sql.COMMIT, ())])
        except Lost as lost:
            # Of a transaction without writes nothing can be lost: its answers came from rows that were locked.
            if written:
                raise unknown_outcome(self._place, lost) from lost
            self._failed = None
        self._begun = False
        self._late = Wanted()

    def rollback(self) -> None:
        self.forget()
        self._link.end_transaction()

    def fail(self, why: str) -> StoreError:
        """What this transaction has seen is not true any more; it must be run again."""
        self._failed = self._failed or contended(self._place, why)
        return self._failed

    # -- talking ----------------------------------------------------------------------------------

    def _send(self, statements: Sequence[Statement]) -> list[list[Row]]:
        """All statements of a transaction go through here. After an error nothing more is sent."""
        if self._failed is not None:
            raise self._failed
        if self._begun and not self._link.is_open:
            raise Lost(f"{self._place} ended the connection; nothing was written")
        try:
            opening: list[Statement] = []
            if not self._begun:
                if not self._link.is_open:
                    # The database may come back from a backup, with an older version of other stops.
                    self._known_stops = None
                _ = self._link.connection
                opening = [(sql.BEGIN, ())] if self._link.is_direct else [(sql.BEGIN, ()), (sql.LIMITS_HERE, ())]
                self._begun = True
            return self._link.run([*opening, *statements])[len(opening) :]
        except StoreError as error:
            self._failed = error
            raise

    def search(self, statement: str, bindings: Sequence[Any]) -> list[Row]:
        """What this transaction has changed so far must be in the tables first."""
        self.begin_reading()
        return self._send([*self._write_statements(), (statement, bindings)])[-1]

    def _write_statements(self) -> list[Statement]:
        pending, self._pending = self._pending, Pending()
        statements = list(pending.statements(self._stored, self._missing_records))
        self._missing_records -= pending.records.keys()
        self._stored.update(pending.accounts)
        self._sent_writes = self._sent_writes or bool(statements)
        return statements

    # -- locks ------------------------------------------------------------------------------------

    def take_first(self, wanted: Wanted) -> None:
        """Nothing was evaluated yet, so a lost connection or a deadlock only means to begin again."""
        wanted.add_locks(self._late)
        lost = 0
        for left in reversed(range(TRIES)):
            try:
                self._take(wanted, nowait=False)
                return
            except StoreError as error:
                if isinstance(error.__cause__, errors.LockNotAvailable):
                    raise StoreError(
                        f"{self._place}: another process holds these budgets for {sql.LOCK_TIMEOUT_MS // 1000} s; "
                        "nothing was written"
                    ) from error
                lost += isinstance(error, Lost)
                if left == 0 or lost > 1 or not (lost or is_contended(error)):
                    raise
            self.rollback()
            time.sleep(random.uniform(0, PAUSE_SECONDS))

    def take(self, wanted: Wanted) -> None:
        """Later needs do not wait while anything is held: see rule 1 of `locks`."""
        if self._number is None:
            self.take_first(wanted)
            return
        # What was read without a lock must still be so.
        again = replace(wanted, tenants=wanted.tenants | (self._tenants.keys() - self._pending.tenants.keys()))
        try:
            self._take(again, nowait=bool(self._stored or self._locked or self._gates))
        except StoreError as error:
            if is_contended(error):
                self._late.add_locks(wanted)
            raise

    def begin_reading(self) -> None:
        if self._number is None:
            self.take_first(Wanted())

    def take_number(self) -> None:
        self._take(Wanted(), nowait=True)

    def _take(self, wanted: Wanted, *, nowait: bool) -> None:
        parts = (
            wanted.gate_locks(nowait),
            wanted.account_locks(nowait),
            wanted.reservation_locks(nowait),
            wanted.answer_reads(),
            wanted.tenant_reads(),
            ((TAKE_NUMBER, ()),),
        )
        results = iter(self._send([statement for part in parts for statement in part]))
        _, accounts, reservations, answers, tenants, number = [[next(results) for _ in part] for part in parts]
        self._gates |= wanted.gates | wanted.whole_tenants
        for result in accounts:
            self._hold_accounts(result)
        for key in wanted.accounts:
            self._accounts.setdefault(key, None)
        for result in reservations:
            self._hold_reservations(wanted, result)
        for result in answers:
            self._read_answers(wanted, result)
        for result in tenants:
            self._read_tenants(wanted, result)
        self._read_number(*number[0][0])
        # An account that came while we waited was opened by one who held an account. Once a look finds no new one,
        # all of them are held, and no other can come.
        if len(accounts) == 2 and len(accounts[0]) != len(accounts[1]):
            self._take(Wanted(whole_tenants=wanted.whole_tenants), nowait=True)

    def _hold_accounts(self, rows: Sequence[Row]) -> None:
        for row in rows:
            key: AccountKey = (row[0], row[1], row[2])
            if key not in self._stored:
                self._accounts[key] = self._stored[key] = to_account(row)
                self._tenants_held.add(row[0])

    def _hold_reservations(self, wanted: Wanted, rows: Sequence[Row]) -> None:
        for row in rows:
            found, known = to_reservation(row), self._reservations.get(row[0])
            if known is not None and row[0] not in self._locked and known != found:
                raise self.fail(f"{row[0]} changed")
            if row[0] not in self._locked:
                self._reservations[row[0]] = found
                self._locked.add(row[0])
        for name in wanted.reservations:
            self._reservations.setdefault(name, None)

    def _read_answers(self, wanted: Wanted, rows: Sequence[Row]) -> None:
        found = {bytes(key): Answered(payload, seq) for key, payload, seq in rows}
        for key in wanted.answers:
            self._answers.setdefault(key, found.get(key))

    def _read_tenants(self, wanted: Wanted, rows: Sequence[Row]) -> None:
        found = {row[0]: Tenant(*row) for row in rows}
        owners = {it.tenant for name in wanted.reservations if (it := self._reservations[name])}
        for name in (wanted.tenants | owners) - self._pending.tenants.keys():
            if name in self._tenants and self._tenants[name] != found.get(name):
                raise self.fail(f"tenant {name} changed")
            self._tenants[name] = found.get(name)

    def _read_number(self, number: int, stops_version: int) -> None:
        if self._saw_stops and not self._changed_stops and stops_version != self._stops_version:
            raise self.fail("a stop came")
        self._number, self._lines_used = number, 0
        self._stops_version = stops_version

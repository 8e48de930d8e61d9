"""What a transaction has written and not yet sent: one statement a table, however many operations touched it."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping

from clearance.model.account import Account
from clearance.model.reservation import Reservation
from clearance.model.results import Stop
from clearance.store.interface import AccountKey, Record, Tenant
from clearance.store.postgres import statements as sql
from clearance.store.postgres.rows import (
    columns,
    moved_account,
    new_account,
    new_reservation,
    stop_row,
)
from clearance.store.postgres.wire import Statement
from clearance.store.sqlite.rows import Row, record_row, reservation_update


class Pending:
    def __init__(self) -> None:
        self.accounts: dict[AccountKey, Account] = {}
        self.dropped: dict[AccountKey, None] = {}
        self.inserted: dict[str, Reservation] = {}
        self.updated: dict[str, Reservation] = {}
        self.events: list[Row] = []
        self.answers: list[Row] = []
        self.stops: dict[tuple[str, str], Stop] = {}
        self.tenants: dict[str, Tenant] = {}
        self.records: dict[tuple[str, str], Record | None] = {}

    def __bool__(self) -> bool:
        return any(vars(self).values())

    def statements(
        self, stored: Mapping[AccountKey, Account], missing: Collection[tuple[str, str]]
    ) -> Iterator[Statement]:
        """In one order of tables and keys, so that two transactions never wait for each other here.

        A record that was looked up and `missing` must still be so: whoever comes second has to look again.
        """
        if self.dropped:
            yield sql.DROP_ACCOUNTS, columns(sorted(self.dropped))
        yield from self._account_writes(stored)
        if self.inserted:
            rows = [new_reservation(self.inserted[name]) for name in sorted(self.inserted)]
            yield sql.INSERT_RESERVATIONS, columns(rows)
        if self.updated:
            rows = [reservation_update(self.updated[name]) for name in sorted(self.updated)]
            yield sql.UPDATE_RESERVATIONS, columns(rows)
        if self.answers:
            yield sql.INSERT_ANSWERS, columns(sorted(self.answers))
        if self.events:
            yield sql.INSERT_EVENTS, columns(self.events)
        yield from self._rare_writes(missing)

    def _account_writes(self, stored: Mapping[AccountKey, Account]) -> Iterator[Statement]:
        """Most accounts have only moved; the rest of the row is written when it differs."""
        new, moved, amended = [], [], []
        for key in sorted(self.accounts):
            account, old = self.accounts[key], stored.get(key)
            if old is None:
                new.append(new_account(account))
            elif old[8:] == account[8:]:
                moved.append(moved_account(account))
            else:
                amended.append(new_account(account))
        if new:
            yield sql.INSERT_ACCOUNTS, columns(new)
        if moved:
            yield sql.MOVE_ACCOUNTS, columns(moved)
        if amended:
            yield sql.AMEND_ACCOUNTS, columns(amended)

    def _rare_writes(self, missing: Collection[tuple[str, str]]) -> Iterator[Statement]:
        if self.stops:
            yield sql.PUT_STOPS, columns(stop_row(self.stops[place]) for place in sorted(self.stops))
            yield sql.RAISE_STOPS_VERSION, ()
            yield sql.NOTIFY, ()
        if self.tenants:
            yield sql.PUT_TENANTS, columns(self.tenants[name] for name in sorted(self.tenants))
        rows = [(name, record_row(record)) for name, record in sorted(self.records.items()) if record]
        new = [row for name, row in rows if name in missing]
        put = [row for name, row in rows if name not in missing]
        dropped = [name for name, record in sorted(self.records.items()) if record is None]
        if new:
            yield sql.INSERT_RECORDS, columns(new)
        if put:
            yield sql.PUT_RECORDS, columns(put)
        if dropped:
            yield sql.DROP_RECORDS, columns(dropped)

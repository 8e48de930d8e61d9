"""What a transaction has written and not yet sent: one statement a table, however many operations touched it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from clearance.model.account import Account
from clearance.model.reservation import Reservation
from clearance.model.results import Stop
from clearance.store.interface import AccountKey, Record, Tenant
from clearance.store.postgres import statements as sql
from clearance.store.postgres.connection import Statement
from clearance.store.postgres.rows import (
    changed_reservation,
    columns,
    moved_account,
    new_account,
    new_reservation,
    stop_row,
)
from clearance.store.sqlite.rows import Row, record_row

_CONFIGURATION = Account._fields.index("overdraft_limit")


class Write(NamedTuple):
    """A statement, and how many rows it must touch: fewer mean that somebody else was faster."""

    statement: Statement
    must_touch: int | None = None


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

    def writes(self, stored: Mapping[AccountKey, Account], due: Mapping[str, int | None]) -> Iterator[Write]:
        """In one order of tables and keys, so that two transactions never wait for each other here."""
        if self.dropped:
            yield Write((sql.DROP_ACCOUNTS, columns(sorted(self.dropped))))
        yield from self._account_writes(stored)
        if self.inserted:
            rows = [new_reservation(self.inserted[name]) for name in sorted(self.inserted)]
            yield Write((sql.INSERT_RESERVATIONS, columns(rows)))
        if self.updated:
            rows = [changed_reservation(self.updated[name], due[name]) for name in sorted(self.updated)]
            yield Write((sql.UPDATE_RESERVATIONS, columns(rows)), len(rows))
        if self.answers:
            yield Write((sql.INSERT_ANSWERS, columns(sorted(self.answers))))
        if self.events:
            yield Write((sql.INSERT_EVENTS, columns(self.events)))
        yield from self._rare_writes()

    def _account_writes(self, stored: Mapping[AccountKey, Account]) -> Iterator[Write]:
        """Most accounts have only moved; the rest of the row is written when it differs."""
        new, moved, amended = [], [], []
        for key in sorted(self.accounts):
            account, old = self.accounts[key], stored.get(key)
            if old is None:
                new.append(new_account(account))
            elif old[_CONFIGURATION] == account[_CONFIGURATION] and old[9:] == account[9:]:
                moved.append(moved_account(account))
            else:
                amended.append(new_account(account))
        if new:
            yield Write((sql.INSERT_ACCOUNTS, columns(new)))
        if moved:
            yield Write((sql.MOVE_ACCOUNTS, columns(moved)), len(moved))
        if amended:
            yield Write((sql.AMEND_ACCOUNTS, columns(amended)), len(amended))

    def _rare_writes(self) -> Iterator[Write]:
        if self.stops:
            yield Write((sql.PUT_STOPS, columns(stop_row(self.stops[place]) for place in sorted(self.stops))))
            yield Write((sql.RAISE_STOPS_VERSION, ()))
            yield Write((sql.NOTIFY, ()))
        if self.tenants:
            yield Write((sql.PUT_TENANTS, columns(self.tenants[name] for name in sorted(self.tenants))))
        put = [record_row(record) for _, record in sorted(self.records.items()) if record]
        dropped = [name for name, record in sorted(self.records.items()) if record is None]
        if put:
            yield Write((sql.PUT_RECORDS, columns(put)))
        if dropped:
            yield Write((sql.DROP_RECORDS, columns(dropped)))

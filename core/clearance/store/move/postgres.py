"""The tables of a PostgreSQL ledger."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import psycopg

from clearance.store.move.tables import TABLES, RowRefused, Values, plain
from clearance.store.postgres import PostgresStore
from clearance.store.postgres.log import LINES
from clearance.store.postgres.problems import ours

READ = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"
# Whoever wants a row of the ledger waits until it is filled.
WRITE = "BEGIN; LOCK TABLE clearance.accounts, clearance.reservations, clearance.events IN EXCLUSIVE MODE"
# Lines that are written from now on come after those that were loaded.
RAISE_NUMBERS = (
    "SELECT setval('clearance.numbers', greatest((SELECT last_value FROM clearance.numbers), "
    f"(SELECT coalesce(max(seq), 0) / {LINES} + 1 FROM clearance.events)))"
)
RAISE_STOPS = "UPDATE clearance.stops_version SET version = version + 1"
OWNERS = (
    "UPDATE clearance.answers a SET tenant = e.tenant FROM clearance.events e WHERE e.seq = a.seq AND a.tenant = ''"
)
READ_AT_ONCE = 2_000


class PostgresShelf:
    def __init__(self, store: PostgresStore) -> None:
        self._store = store
        self._connection: psycopg.Connection[tuple[Any, ...]] | None = None

    @contextlib.contextmanager
    def reading(self) -> Iterator[PostgresShelf]:
        with self._transaction(READ):
            yield self

    @contextlib.contextmanager
    def writing(self) -> Iterator[PostgresShelf]:
        with self._transaction(WRITE):
            yield self

    @contextlib.contextmanager
    def _transaction(self, begin: str) -> Iterator[None]:
        try:
            with psycopg.connect(self._store.conninfo, autocommit=True, prepare_threshold=None) as connection:
                self._connection = connection
                connection.execute(begin.encode())
                try:
                    yield
                except BaseException:
                    connection.execute("ROLLBACK")
                    raise
                connection.execute("COMMIT")
        except psycopg.Error as error:
            raise ours(error, self._store.place) from error

    def rows(self, table: str) -> Iterator[Values]:
        assert self._connection is not None
        statement = f"SELECT {', '.join(TABLES[table])} FROM clearance.{table} ORDER BY 1, 2"
        with self._connection.cursor(name="clearance_move") as cursor:
            cursor.itersize = READ_AT_ONCE
            cursor.execute(statement.encode())
            for row in cursor:
                yield [plain(value) for value in row]

    def load(self, table: str, rows: Sequence[Values]) -> None:
        assert self._connection is not None
        columns, fill = TABLES[table], _FILL.get(table)
        added = _ADDED.get(table, ())
        statement = f"COPY clearance.{table} ({', '.join((*columns, *added))}) FROM STDIN"
        try:
            with self._connection.cursor() as cursor, cursor.copy(statement.encode()) as copy:
                for row in rows:
                    copy.write_row(fill(row) if fill else row)
        except (psycopg.IntegrityError, psycopg.DataError) as error:
            raise RowRefused(_index(error), _why(error)) from None

    def finish(self) -> None:
        assert self._connection is not None
        for statement in (OWNERS, RAISE_STOPS, RAISE_NUMBERS):
            self._connection.execute(statement.encode())


def _index(error: psycopg.Error) -> int | None:
    """`COPY events, line 2: ...` in whatever language the server speaks."""
    found = re.match(r"COPY \w+, \D*(\d+)", error.diag.context or "")
    return int(found[1]) - 1 if found else None


def _why(error: psycopg.Error) -> str:
    twice = isinstance(error, psycopg.errors.UniqueViolation)
    return "this row was there before" if twice else error.diag.message_primary or type(error).__name__


def _account(row: Values) -> Values:
    return [*row[:7], row[7] if row[7] is None else bool(row[7]), *row[8:]]


def _reservation(row: Values) -> Values:
    return [*row, json.loads(row[16] or "{}").get("held_on")]


def _answer(row: Values) -> Values:
    return [*(None if it is None else bytes.fromhex(it) for it in row[:2]), row[2], ""]


_ADDED = {"reservations": ("held_on",), "answers": ("tenant",)}
_FILL: dict[str, Callable[[Values], Values]] = {
    "accounts": _account,
    "reservations": _reservation,
    "answers": _answer,
}

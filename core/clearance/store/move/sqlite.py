"""The tables of a SQLite ledger."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

import apsw

from clearance.store.move.tables import TABLES, RowRefused, Values, plain
from clearance.store.sqlite import SqliteStore
from clearance.store.sqlite.reader import SqliteReader
from clearance.store.sqlite.transaction import SqliteTransaction

_BYTES = {"key", "payload"}


class SqliteShelf:
    def __init__(self, store: SqliteStore) -> None:
        self._store = store
        self._connection: apsw.Connection | None = None

    @contextlib.contextmanager
    def reading(self) -> Iterator[SqliteShelf]:
        with self._store.read() as reader:
            assert isinstance(reader, SqliteReader)
            self._connection = reader._connection
            yield self

    @contextlib.contextmanager
    def writing(self) -> Iterator[SqliteShelf]:
        with self._store.transaction(flush=True) as transaction:
            assert isinstance(transaction, SqliteTransaction)
            self._connection = transaction._connection
            yield self
            transaction.forget()

    def rows(self, table: str) -> Iterator[Values]:
        assert self._connection is not None
        for row in self._connection.execute(f"SELECT {', '.join(TABLES[table])} FROM {table} ORDER BY 1, 2"):
            yield [plain(value) for value in row]

    def load(self, table: str, rows: Sequence[Values]) -> None:
        assert self._connection is not None
        columns = TABLES[table]
        hexed = [n for n, column in enumerate(columns) if column in _BYTES and table == "answers"]
        marks = ", ".join("?" * len(columns))
        taken = 0

        def filled() -> Iterator[Values]:
            nonlocal taken
            for row in rows:
                taken += 1
                yield [bytes.fromhex(v) if n in hexed and v is not None else v for n, v in enumerate(row)]

        try:
            self._connection.executemany(f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({marks})", filled())
        except apsw.ConstraintError as error:
            twice = str(error).startswith("UNIQUE")
            raise RowRefused(taken - 1, "this row was there before" if twice else str(error)) from None

    def finish(self) -> None:
        pass

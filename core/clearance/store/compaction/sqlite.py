"""Compaction of a SQLite ledger: each batch is a transaction like any other, behind the same fair lock."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator, Sequence
from typing import Any, Self

import apsw

from clearance.model.results import Event
from clearance.store.compaction.thinning import Verdict
from clearance.store.sqlite import SqliteStore
from clearance.store.sqlite import statements as sql
from clearance.store.sqlite.reader import SqliteReader
from clearance.store.sqlite.rows import dumps, to_event
from clearance.store.sqlite.transaction import SqliteTransaction

AT_ONCE = 10_000
AGES = (
    "SELECT max(seq), min(CASE WHEN at_ms >= ? THEN seq END) FROM "
    "(SELECT seq, at_ms FROM events WHERE seq > ? ORDER BY seq LIMIT ?)"
)
KEYS = (
    "SELECT a.key, a.seq <= ? AND NOT EXISTS (SELECT 1 FROM events e JOIN reservations r ON r.id = e.reservation_id "
    "WHERE e.seq = a.seq AND r.due_at_ms IS NOT NULL) FROM answers a WHERE a.key > ? ORDER BY a.key LIMIT ?"
)
REMOVE_KEY = "DELETE FROM answers WHERE key = ?"
LINES = f"SELECT {sql.EVENT_COLUMNS} FROM events WHERE seq < ? ORDER BY seq DESC LIMIT ?"
PRESENT = "SELECT id FROM reservations WHERE id IN ({})"
REMOVE_LINE = "DELETE FROM events WHERE seq = ?"
REMOVE_RESERVATION = "DELETE FROM reservations WHERE id = ? AND due_at_ms IS NULL"
CARRY = "UPDATE events SET type = ?, reservation_id = NULL, data = ? WHERE seq = ?"


class SqliteBench:
    def __init__(self, store: SqliteStore) -> None:
        self._store = store

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def newest_seq(self) -> int:
        return int(self._look(sql.LAST_SEQ, ())[0][0])

    def ages(self, after: int, before_ms: int) -> tuple[int | None, int | None]:
        last, first_young = self._look(AGES, (before_ms, after, AT_ONCE))[0]
        return last, first_young

    def keys(self, after: bytes, through_seq: int, limit: int) -> tuple[bytes, list[bytes]] | None:
        rows = self._look(KEYS, (through_seq, after, limit))
        return (rows[-1][0], [key for key, is_old in rows if is_old]) if rows else None

    def remove_keys(self, keys: Sequence[bytes]) -> None:
        with self._writing() as connection:
            connection.executemany(REMOVE_KEY, [(key,) for key in keys])

    def lines(self, below: int, limit: int) -> list[Event]:
        return [to_event(row) for row in self._look(LINES, (below, limit))]

    def present(self, reservation_ids: Collection[str]) -> set[str]:
        marks = ", ".join("?" * len(reservation_ids))
        return {row[0] for row in self._look(PRESENT.format(marks), tuple(reservation_ids))}

    def replace(self, verdict: Verdict) -> None:
        with self._writing() as connection:
            connection.executemany(REMOVE_RESERVATION, [(name,) for name in verdict.settled])
            connection.executemany(REMOVE_LINE, [(seq,) for seq in verdict.removed])
            connection.executemany(CARRY, [(line.type, dumps(line.data), line.seq) for line in verdict.carried])

    def _look(self, statement: str, bindings: tuple[Any, ...]) -> list[tuple[Any, ...]]:
        with self._store.read() as reader:
            assert isinstance(reader, SqliteReader)
            return reader._all(statement, bindings)

    @contextlib.contextmanager
    def _writing(self) -> Iterator[apsw.Connection]:
        # No flush: what a power cut brings back is removed again next time.
        with self._store.transaction(flush=False) as transaction:
            assert isinstance(transaction, SqliteTransaction)
            yield transaction._connection
            transaction.forget()

"""The floor: the same rows by hand on a bare connection, with no evaluator, no cross-process lock and no caches.

Schema, statements and the sizes of the rows are those of a real ledger; everything is computed before the clock starts.
Unlike the real store it switches no pragma between operations and leaves checkpoints to SQLite's default.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import apsw

from benchmarks.samples import Limit, timed
from benchmarks.workload import ACTION, ACTUAL, ESTIMATE, MEMORY, SUBJECT, keys, open_ledger
from clearance.authority.ids import new_id
from clearance.store.sqlite import statements as sql
from clearance.store.sqlite.engine import schema
from clearance.store.sqlite.rows import reservation_update, to_reservation

Row = tuple[Any, ...]
ALL_ACCOUNTS = f"SELECT {sql.ACCOUNT_COLUMNS} FROM accounts ORDER BY scope"
LAST_EVENT = f"SELECT {sql.EVENT_COLUMNS} FROM events ORDER BY seq DESC LIMIT 1"
SYNCHRONOUS = {"process": "NORMAL", "power": "FULL"}


@dataclass(frozen=True)
class Shapes:
    """The rows of one real lifecycle, to be written again with other ids."""

    accounts: list[Row]
    opened: Row
    granted: Row
    closed: Row
    settled: Row


def shapes(folder: Path) -> Shapes:
    """Write one lifecycle to a real ledger and read what it has left."""
    path = folder / "shapes.db"
    authority = open_ledger(path, "process")
    bare = apsw.Connection(str(path))
    try:
        reserve_key, commit_key = keys(2)
        decision = authority.reserve(SUBJECT, ACTION, ESTIMATE, idempotency_key=reserve_key)
        where = (decision.reservation_id,)
        opened, granted = _one(bare, sql.GET_RESERVATION, where), _one(bare, LAST_EVENT)
        authority.commit(where[0] or "", ACTUAL, idempotency_key=commit_key)
        closed = reservation_update(to_reservation(_one(bare, sql.GET_RESERVATION, where)))
        return Shapes(bare.execute(ALL_ACCOUNTS).fetchall(), opened, granted, closed, _one(bare, LAST_EVENT))
    finally:
        bare.close()
        authority.close()


class Floor:
    """One bare connection on a ledger of its own; `measure` writes lifecycles and gives their times."""

    def __init__(self, path: Path | str, durability: str, rows: Shapes) -> None:
        self._rows = rows
        self._done = 0
        self._connection = apsw.Connection(":memory:" if path == MEMORY else str(path))
        run = self._connection.execute
        run(f"PRAGMA journal_mode = {'MEMORY' if path == MEMORY else 'WAL'}")
        run(f"PRAGMA synchronous = {SYNCHRONOUS[durability]}")
        run("PRAGMA cache_size = -65536")
        for text in schema():
            run(text)
        self._connection.executemany(sql.PUT_ACCOUNT, rows.accounts)

    def measure(self, limit: Limit) -> list[int]:
        made = [self._prepared() for _ in range(limit.most)]
        return timed(lambda number: self._lifecycle(*made[number]), limit)

    def close(self) -> None:
        self._connection.close()

    def _lifecycle(
        self,
        held: list[Row],
        opened: Row,
        granted: Row,
        first: Row,
        moved: list[Row],
        closed: Row,
        settled: Row,
        then: Row,
    ) -> None:
        run, run_many = self._connection.execute, self._connection.executemany
        run(sql.BEGIN)
        run_many(sql.MOVE_ACCOUNT, held)
        run(sql.INSERT_RESERVATION, opened)
        run(sql.INSERT_EVENT, granted)
        run(sql.INSERT_ANSWER, first)
        run(sql.COMMIT)
        run(sql.BEGIN)
        run_many(sql.MOVE_ACCOUNT, moved)
        run(sql.UPDATE_RESERVATION, closed)
        run(sql.INSERT_EVENT, settled)
        run(sql.INSERT_ANSWER, then)
        run(sql.COMMIT)

    def _prepared(self) -> tuple[list[Row], Row, Row, Row, list[Row], Row, Row, Row]:
        """The rows of the next lifecycle: ids rise, amounts go on, texts keep their sizes."""
        shapes, before = self._rows, self._done * ACTUAL.amount
        self._done += 1
        reserve_seq, commit_seq = self._done * 2 - 1, self._done * 2
        reservation_id = "rsv_" + new_id(shapes.opened[10] + self._done)
        return (
            [_moved(row, ESTIMATE.amount, before) for row in shapes.accounts],
            (reservation_id, *shapes.opened[1:]),
            (reserve_seq, *shapes.granted[1:5], reservation_id, shapes.granted[6]),
            (_key(reservation_id), os.urandom(16), reserve_seq),
            [_moved(row, 0, before + ACTUAL.amount) for row in shapes.accounts],
            (*shapes.closed[:-1], reservation_id),
            (commit_seq, *shapes.settled[1:5], reservation_id, shapes.settled[6]),
            (_key(reservation_id), os.urandom(16), commit_seq),
        )


def _key(reservation_id: str) -> bytes:
    """Six bytes of time, sixteen of a hash."""
    return bytes.fromhex(reservation_id[4:16]) + os.urandom(16)


def _moved(account: Row, reserved: int, spent: int) -> Row:
    tenant, scope, unit, allocated = account[:4]
    return (allocated, reserved, spent, 0, 0, tenant, scope, unit)


def _one(connection: apsw.Connection, statement: str, bindings: Row = ()) -> Row:
    rows: list[Row] = connection.execute(statement, bindings).fetchall()
    return rows[0]

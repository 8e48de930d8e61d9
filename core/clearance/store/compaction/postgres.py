"""Compaction of a PostgreSQL ledger, on a connection of its own. It locks nothing that a grant needs."""

from __future__ import annotations

import time
from collections.abc import Collection, Sequence
from typing import Self

from clearance.errors import StoreError
from clearance.model.results import Event
from clearance.store.compaction.thinning import Verdict
from clearance.store.postgres import PostgresStore
from clearance.store.postgres import statements as sql
from clearance.store.postgres.connection import Link
from clearance.store.postgres.log import LAST_NUMBER, LOWEST_BOUND, complete_up_to
from clearance.store.postgres.problems import Lost, is_contended
from clearance.store.postgres.rows import columns
from clearance.store.postgres.wire import Row, Statement
from clearance.store.sqlite.rows import dumps, to_event

AT_ONCE = 10_000
TRIES = 10
NEWEST = "SELECT coalesce(max(seq), 0) FROM clearance.events"
AGES = (
    "SELECT max(seq), min(seq) FILTER (WHERE at_ms >= %s) FROM "
    "(SELECT seq, at_ms FROM clearance.events WHERE seq > %s ORDER BY seq LIMIT %s) page"
)
KEYS = (
    "SELECT a.key, a.seq <= %s AND NOT EXISTS (SELECT FROM clearance.events e JOIN clearance.reservations r "
    "ON r.id = e.reservation_id WHERE e.seq = a.seq AND r.due_at_ms IS NOT NULL) "
    "FROM (SELECT key, seq FROM clearance.answers WHERE key > %s ORDER BY key LIMIT %s) a ORDER BY a.key"
)
REMOVE_KEYS = "DELETE FROM clearance.answers WHERE key = ANY(%s::bytea[])"
LINES = f"SELECT {sql.EVENT_COLUMNS} FROM clearance.events WHERE seq < %s ORDER BY seq DESC LIMIT %s"
PRESENT = "SELECT id FROM clearance.reservations WHERE id = ANY(%s::text[])"
REMOVE_LINES = "DELETE FROM clearance.events WHERE seq = ANY(%s::bigint[])"
REMOVE_RESERVATIONS = "DELETE FROM clearance.reservations WHERE id = ANY(%s::text[]) AND due_at_ms IS NULL"
CARRY = (
    "UPDATE clearance.events e SET type = n.type, reservation_id = NULL, data = n.data "
    "FROM unnest(%s::text[], %s::text[], %s::bigint[]) n(type, data, seq) WHERE e.seq = n.seq"
)


class PostgresBench:
    def __init__(self, store: PostgresStore) -> None:
        self._link = Link(store.conninfo, store.place, writes=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._link.close()

    def newest_seq(self) -> int:
        """Below what is still being written, whatever the clock of its writer says."""
        last, lowest, newest = self._link.run([(LAST_NUMBER, ()), (LOWEST_BOUND, ()), (NEWEST, ())])
        return min(complete_up_to(last[0][0], lowest[0][0]), int(newest[0][0]))

    def ages(self, after: int, before_ms: int) -> tuple[int | None, int | None]:
        last, first_young = self._run((AGES, (before_ms, after, AT_ONCE)))[0]
        return last, first_young

    def keys(self, after: bytes, through_seq: int, limit: int) -> tuple[bytes, list[bytes]] | None:
        rows = self._run((KEYS, (through_seq, after, limit)))
        return (rows[-1][0], [key for key, is_old in rows if is_old]) if rows else None

    def remove_keys(self, keys: Sequence[bytes]) -> None:
        self._change([(REMOVE_KEYS, (list(keys),))])

    def lines(self, below: int, limit: int) -> list[Event]:
        return [to_event(row) for row in self._run((LINES, (below, limit)))]

    def present(self, reservation_ids: Collection[str]) -> set[str]:
        return {row[0] for row in self._run((PRESENT, (sorted(reservation_ids),)))}

    def replace(self, verdict: Verdict) -> None:
        changes: list[Statement] = [
            (REMOVE_RESERVATIONS, (sorted(verdict.settled),)),
            (REMOVE_LINES, (sorted(verdict.removed),)),
        ]
        if verdict.carried:
            rows = [(line.type, dumps(line.data), line.seq) for line in verdict.carried]
            changes.append((CARRY, columns(rows)))
        self._change(changes)

    def _change(self, statements: Sequence[Statement]) -> None:
        # No flush: what a crash brings back is removed again next time.
        self._run((sql.BEGIN, ()), (sql.LIMITS_HERE, ()), *statements, (sql.FLUSH_OFF, ()), (sql.COMMIT, ()))

    def _run(self, *statements: Statement) -> list[Row]:
        """The rows of the last. All may be run twice, so a lost connection or a busy row is nobody's trouble."""
        for left in reversed(range(TRIES)):
            try:
                return self._link.run(statements)[-1]
            except StoreError as error:
                self._link.end_transaction()
                if left == 0 or not (isinstance(error, Lost) or is_contended(error)):
                    raise
                time.sleep(0.05 * (TRIES - left))
        raise AssertionError("unreachable")

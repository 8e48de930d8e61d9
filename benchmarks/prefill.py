"""Fill a ledger with past reservations by bulk SQL: copies of its one real lifecycle under other ids and keys."""

from __future__ import annotations

import os
from pathlib import Path

import apsw

from clearance.store.sqlite import statements as sql

_NUMBERS = "WITH RECURSIVE numbers(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < :past)"
_ID = "printf('rsv_%012x', :start + numbers.n) || lower(hex(randomblob(10)))"


def prefill(path: Path, past: int) -> None:
    """`path` holds one settled lifecycle and is not open elsewhere. Ids and used keys rise with time."""
    bare = apsw.Connection(str(path))
    try:
        bare.execute("PRAGMA journal_mode = OFF")
        bare.execute("PRAGMA synchronous = OFF")
        bare.execute("PRAGMA cache_size = -262144")
        with bare:
            _copy(bare, past)
        bare.execute("PRAGMA journal_mode = WAL")
    finally:
        bare.close()
    _flush(path)


def _copy(bare: apsw.Connection, past: int) -> None:
    found: list[tuple[int, int]] = bare.execute(
        "SELECT (SELECT min(created_at_ms) FROM reservations), (SELECT max(seq) FROM events)"
    ).fetchall()  # type: ignore[assignment]
    ((first_ms, last_seq),) = found
    facts = {"past": past, "start": first_ms - past - 1, "last": last_seq}
    bare.execute("CREATE TEMP TABLE model AS SELECT * FROM reservations LIMIT 1")
    bare.execute("CREATE TEMP TABLE logged AS SELECT * FROM events WHERE reservation_id IS NOT NULL ORDER BY seq")
    bare.execute(f"CREATE TEMP TABLE ids AS {_NUMBERS} SELECT n, {_ID} AS id FROM numbers", facts)
    rest = ", ".join(f"model.{column}" for column in sql.RESERVATION_COLUMNS.split(", ")[1:])
    bare.execute(
        f"INSERT INTO reservations ({sql.RESERVATION_COLUMNS}) SELECT ids.id, {rest} FROM ids, model ORDER BY ids.n"
    )
    bare.execute(
        f"INSERT INTO events ({sql.EVENT_COLUMNS}) "
        "SELECT :last + 2 * ids.n - 2 + logged.rowid, at_ms, tenant, type, scope, ids.id, data "
        "FROM ids, logged ORDER BY ids.n, logged.rowid",
        facts,
    )
    bare.execute(
        f"{_NUMBERS.replace(':past', '2 * :past')} INSERT INTO answers (key, payload, seq) "
        "SELECT unhex(printf('%012x', :start + (n + 1) / 2) || hex(randomblob(16))), "
        "randomblob(16), :last + n FROM numbers",
        facts,
    )


def _flush(path: Path) -> None:
    """What is still to be written must not be written while something is measured."""
    handle = os.open(path, os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)

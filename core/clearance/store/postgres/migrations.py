"""Brings a database to the present schema, while other processes serve from it.

Each migration is a transaction of its own that holds the lock of the version table, which works behind any pooler. The
rule for authors: add, never change or drop what the release before uses, so that processes of both releases can serve
at once; what became useless goes two releases later.
"""

from __future__ import annotations

import time
from importlib import resources

import psycopg
from psycopg import errors

from clearance.errors import StoreVersion
from clearance.store.postgres.connection import Link
from clearance.store.postgres.problems import ours
from clearance.store.postgres.wire import Row

EXISTS = "SELECT to_regclass('clearance.migrations') IS NOT NULL"
FOUND = "SELECT number, name FROM clearance.migrations ORDER BY number"
MAKE = (
    "CREATE SCHEMA IF NOT EXISTS clearance",
    "CREATE TABLE IF NOT EXISTS clearance.migrations "
    "(number BIGINT PRIMARY KEY, name TEXT NOT NULL, applied_at TIMESTAMPTZ NOT NULL DEFAULT now())",
)
LOCK = "LOCK TABLE clearance.migrations IN EXCLUSIVE MODE"
INSERT = "INSERT INTO clearance.migrations (number, name) VALUES (%s, %s)"
# A change of a table that cannot be had soon must not make everybody else queue behind it.
LIMIT = "SET LOCAL lock_timeout = '2s'"
TRIES = 10


def schema() -> list[tuple[str, str]]:
    """(name, SQL), oldest first; number n brings a ledger to version n."""
    folder = resources.files("clearance.store.schema").joinpath("postgres")
    files = sorted((entry for entry in folder.iterdir() if entry.name.endswith(".sql")), key=lambda entry: entry.name)
    return [(entry.name.removesuffix(".sql"), entry.read_text(encoding="utf-8")) for entry in files]


def found(link: Link) -> list[str]:
    """The migrations that the database has, by name."""
    if not link.run([(EXISTS, ())])[0][0][0]:
        return []
    return [row[1] for row in link.run([(FOUND, ())])[0]]


def migrate(link: Link, place: str) -> list[str]:
    """Apply what is missing; returns their names. Raises StoreVersion for the schema of a newer Clearance."""
    known = schema()
    applied: list[str] = []
    while True:
        present = found(link)
        if len(present) > len(known):
            raise StoreVersion(
                f"{place} has schema {len(present)}, this Clearance knows {len(known)}; nothing was changed. "
                "Use a newer Clearance"
            )
        if len(present) == len(known):
            return applied
        applied += _apply_next(link, place, known)


def _apply_next(link: Link, place: str, known: list[tuple[str, str]]) -> list[str]:
    for left in reversed(range(TRIES)):
        try:
            return _apply(link.connection, known)
        except (errors.UniqueViolation, errors.DuplicateObject, errors.LockNotAvailable, errors.DeadlockDetected) as e:
            # Somebody else is at it, or a long transaction holds a table.
            if left == 0:
                raise ours(e, place) from e
            time.sleep(0.05 * (TRIES - left))
        except psycopg.Error as error:
            raise ours(error, place) from error
    raise AssertionError("unreachable")


def _apply(connection: psycopg.Connection[Row], known: list[tuple[str, str]]) -> list[str]:
    with connection.transaction():
        connection.execute(LIMIT)
        for statement in MAKE:
            connection.execute(statement)
        connection.execute(LOCK)
        row = connection.execute("SELECT count(*) FROM clearance.migrations").fetchone()
        assert row is not None
        number = int(row[0])
        if number >= len(known):
            return []
        name, text = known[number]
        connection.execute(text.encode())
        connection.execute(INSERT, (number + 1, name))
        return [name]

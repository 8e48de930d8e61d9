"""The engine past one machine: one PostgreSQL database, many processes on many machines.

One connection a process writes, because the queue in front of a store runs one batch at a time; a few read; one
listens for stops. Nothing depends on a session, so a transaction-mode pooler may stand between.
"""

from __future__ import annotations

import contextlib
import os
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any

import psycopg

from clearance.errors import StoreError, StoreVersion
from clearance.store.interface import MustWait, Reader, Transaction
from clearance.store.postgres import migrations
from clearance.store.postgres.checks import CHECKS
from clearance.store.postgres.connection import Link, conninfo_of, place_of
from clearance.store.postgres.listener import Listener
from clearance.store.postgres.problems import ours
from clearance.store.postgres.reader import PostgresReader
from clearance.store.postgres.transaction import PostgresTransaction

MAX_READERS = 4

_stores: weakref.WeakSet[PostgresStore] = weakref.WeakSet()


class PostgresStore:
    """A Store on PostgreSQL 15 or newer. `url` is anything that libpq takes: postgresql://user@host/database.

    With `migrate=False` a database that is not at this version's schema is refused instead of brought to it.
    """

    def __init__(self, url: str, *, migrate: bool = True) -> None:
        self._conninfo = conninfo_of(url)
        self._place = place_of(url)
        self._closed = False
        self._start_empty()
        try:
            self._require_schema(migrate)
        except BaseException:
            self._writer.close()
            raise
        _stores.add(self)

    @property
    def place(self) -> str:
        """Where the ledger is, without secrets."""
        return self._place

    @property
    def conninfo(self) -> str:
        """For a connection of one's own; may hold a password."""
        return self._conninfo

    def _start_empty(self) -> None:
        self._mutex = threading.Lock()
        self._readers_mutex = threading.Lock()
        self._readers_free = threading.BoundedSemaphore(MAX_READERS)
        self._readers: list[Link] = []
        self._lent: set[Link] = set()
        self._listener: Listener | None = None
        self._writer = Link(self._conninfo, self._place, writes=True)
        self._transaction = PostgresTransaction(self._writer, self._place)

    def _link(self) -> Link:
        return Link(self._conninfo, self._place)

    def _require_schema(self, migrate: bool) -> None:
        if migrate:
            migrations.migrate(self._writer, self._place)
        elif len(migrations.found(self._writer)) != len(migrations.schema()):
            raise StoreVersion(f"{self._place} has another schema than this Clearance: run `clearance db migrate`")

    # -- transactions -----------------------------------------------------------------------------

    def transaction(self, *, flush: bool, wait: bool = True) -> AbstractContextManager[Transaction]:
        """`flush=False`: a crash of the database server itself may lose it, as a power cut does; our own death not."""
        if not wait:
            raise MustWait
        return _Writing(self, flush)

    @contextlib.contextmanager
    def read(self) -> Iterator[Reader]:
        self._require_open()
        with self._readers_free:
            with self._readers_mutex:
                link = self._readers.pop() if self._readers else self._link()
                self._lent.add(link)
            try:
                yield PostgresReader(link)
            finally:
                self._give_back(link)

    def _give_back(self, link: Link) -> None:
        with self._readers_mutex:
            self._lent.discard(link)
            if not self._closed:
                self._readers.append(link)
                return
        link.close()

    def _require_open(self) -> None:
        if self._closed:
            raise StoreError(f"the ledger {self._place} was closed")

    # -- stops ------------------------------------------------------------------------------------

    def on_stops_changed(self, changed: Callable[[], None]) -> None:
        """Call this, from a thread of its own, soon after any process has set or lifted a stop.

        Within milliseconds by notification, within about a second without. One callback a store; None is polled for
        until the first call.
        """
        with self._mutex:
            self._require_open()
            before, self._listener = self._listener, Listener(self._link(), changed)
        if before:
            before.close()

    # -- housekeeping -----------------------------------------------------------------------------

    def tidy(self) -> None:
        """PostgreSQL keeps house by itself."""

    def migrate(self) -> list[str]:
        """Bring the schema to this version; returns the names of what was applied."""
        with self._mutex:
            self._require_open()
            return migrations.migrate(self._writer, self._place)

    def describe(self) -> dict[str, Any]:
        with self._borrowed() as link:
            connection = link.connection
            row = link.run(
                [
                    (
                        "SELECT current_setting('server_version'), current_database(), "
                        "pg_database_size(current_database()), current_setting('synchronous_commit'), "
                        "current_setting('synchronous_standby_names'), pg_is_in_recovery(), current_setting('fsync')",
                        (),
                    )
                ]
            )[0][0]
            return {
                "engine": "postgresql",
                "path": self._place,
                "postgresql": row[0],
                "database": row[1],
                "bytes": row[2],
                "synchronous_commit": row[3],
                "synchronous_standbys": row[4],
                "is_standby": row[5],
                "fsync": row[6],
                "is_pooled": not link.is_direct,
                "encrypted": bool(connection.pgconn.ssl_in_use),
                "schema": len(migrations.found(link)),
            }

    def check(self) -> Iterator[str]:
        with self._borrowed() as link:
            for statement in CHECKS:
                yield from (str(row[0]) for row in link.run([(statement, ())])[0])

    @contextlib.contextmanager
    def _borrowed(self) -> Iterator[Link]:
        with self.read() as reader:
            assert isinstance(reader, PostgresReader)
            yield reader.link

    # -- ending -----------------------------------------------------------------------------------

    def close(self) -> None:
        """Finish the running transaction and end every session. May be called again."""
        with self._mutex:
            if self._closed:
                return
            self._closed = True
            self._writer.close()
            listener, self._listener = self._listener, None
        with self._readers_mutex:
            readers, self._readers = self._readers, []
        for link in readers:
            link.close()
        if listener:
            listener.close()

    def after_fork(self) -> None:
        """In a child: the parent's sessions are not ours; the next use opens new ones."""
        for link in (*self._readers, *self._lent, self._writer):
            link.abandon()
        if self._listener:
            self._listener.abandon()
        self._start_empty()


class _Writing:
    """`PostgresStore.transaction`, as a class because it is on the way of every operation."""

    __slots__ = ("_flush", "_store")

    def __init__(self, store: PostgresStore, flush: bool) -> None:
        self._store = store
        self._flush = flush

    def __enter__(self) -> Transaction:
        self._store._mutex.acquire()
        try:
            self._store._require_open()
            self._store._transaction.begin()
        except BaseException:
            self._store._mutex.release()
            raise
        return self._store._transaction

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        transaction = self._store._transaction
        try:
            if error is None:
                transaction.commit(self._flush)
        finally:
            try:
                transaction.rollback()
            finally:
                self._store._mutex.release()
        if isinstance(error, psycopg.Error):
            raise ours(error, self._store.place) from error


def _after_fork_in_child() -> None:
    for store in list(_stores):
        store.after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)

"""The default engine: one SQLite file, many threads and processes of one machine."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import apsw

from clearance.errors import StoreCorrupt, StoreError, StoreReadOnly
from clearance.store.interface import MustWait, Reader, Transaction
from clearance.store.sqlite.failures import ours, translated
from clearance.store.sqlite.filelock import FileLock
from clearance.store.sqlite.forks import never_collect, tell_of_forks
from clearance.store.sqlite.migrations import migrate, schema
from clearance.store.sqlite.place import APPLICATION_ID, RESTORE, file_system, prepare
from clearance.store.sqlite.reader import SqliteReader
from clearance.store.sqlite.transaction import SqliteTransaction

MEMORY = ":memory:"
BUSY_TIMEOUT_MS = 5_000
CACHE_KIB = 65_536
CHECKPOINT_BYTES = 4 * 1024 * 1024
"""A write-ahead log this long is folded back by the background tick, beside the writers."""
CHECKPOINT_PAGES = 2_000
"""A writer does it itself at this length: rarely enough for the 99th percentile, before the log slows everybody."""
QUICK_FLUSH_SECONDS = 0.0005
"""An event loop may wait so long itself: to change threads twice takes about as long."""
MAX_FLUSH_SECONDS, FORGIVING = 0.01, 0.7
"""A slow flush is remembered for so many quick ones as it takes to shrink it below QUICK_FLUSH_SECONDS."""
QUICK_CHECK_BYTES = 16 * 1024 * 1024
MAX_READERS = 4
FORK_WAIT_SECONDS = 10.0


class SqliteStore:
    """A Store on SQLite. `path` is a file, or `:memory:` for a ledger that ends with the process."""

    def __init__(self, path: str | Path) -> None:
        self._path = MEMORY if str(path) == MEMORY else str(Path(path).expanduser().absolute())
        self._is_memory = self._path == MEMORY
        self._pid = os.getpid()
        self._sound = False
        self._start_empty()
        if not self._is_memory:
            prepare(Path(self._path))
        self._open()
        tell_of_forks(self)

    @property
    def path(self) -> str:
        return self._path

    def _start_empty(self) -> None:
        self._mutex = threading.Lock()
        self._readers_mutex = threading.Lock()
        self._reader_back = threading.Condition(self._readers_mutex)
        self._readers: list[apsw.Connection] = []
        self._reading = 0
        self._forking = False
        self._connection: apsw.Connection | None = None
        self._lock: FileLock | None = None
        self._flushing: bool | None = None
        self._flush_seconds = 0.0 if self._is_memory else MAX_FLUSH_SECONDS
        self._closed = False

    # -- opening ----------------------------------------------------------------------------------

    def _open(self) -> None:
        with translated(self._path):
            if not self._is_memory:
                self._lock = self._file_lock()
                self._lock.acquire()
            try:
                self._connection = self._connect()
                if not self._is_memory:
                    self._require_sound(self._connection)
                migrate(self._connection, self._path, schema())
            except BaseException:
                self._drop_connections()
                raise
            finally:
                if self._lock:
                    self._lock.release()
            self._transaction = SqliteTransaction(self._connection)

    def _file_lock(self) -> FileLock:
        try:
            return FileLock(self._path + ".lock")
        except OSError as error:
            message = f"{self._path}.lock cannot be opened ({error.strerror}); the ledger needs it beside the file"
            raise StoreReadOnly(message) from error

    def _connect(self) -> apsw.Connection:
        existed = self._is_memory or (os.path.exists(self._path) and os.path.getsize(self._path) > 0)
        connection = apsw.Connection(self._path)
        connection.set_busy_timeout(BUSY_TIMEOUT_MS)
        if not existed:
            connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute(f"PRAGMA journal_mode = {'MEMORY' if self._is_memory else 'WAL'}")
        connection.execute(f"PRAGMA wal_autocheckpoint = {CHECKPOINT_PAGES}")
        connection.execute(f"PRAGMA cache_size = -{CACHE_KIB}")
        connection.execute("PRAGMA trusted_schema = OFF")
        return connection

    def _require_sound(self, connection: apsw.Connection) -> None:
        if self._sound or os.path.getsize(self._path) > QUICK_CHECK_BYTES:
            return
        verdict = connection.execute("PRAGMA quick_check(1)").fetchall()[0][0]
        if verdict != "ok":
            raise StoreCorrupt(f"{self._path} is damaged ({verdict}); nothing was changed. {RESTORE}")
        self._sound = True

    # -- transactions -----------------------------------------------------------------------------

    def transaction(self, *, flush: bool, wait: bool = True) -> AbstractContextManager[Transaction]:
        return _Writing(self, flush, wait)

    def _begin(self, flush: bool, wait: bool) -> SqliteTransaction:
        if not wait and (self._connection is None or (flush and self._flush_seconds > QUICK_FLUSH_SECONDS)):
            raise MustWait
        if self._closed or self._connection is None:
            self._ready()
        if self._lock is not None:
            if wait:
                self._lock.acquire()
            elif not self._lock.try_acquire():
                raise MustWait
        try:
            if flush is not self._flushing:
                self._set_flushing(flush)
            if wait:
                self._transaction.begin()
            else:
                self._begin_at_once()
        except BaseException:
            if self._lock is not None:
                self._lock.release()
            raise
        return self._transaction

    def _begin_at_once(self) -> None:
        """Other programs, such as a backup, do not know our lock."""
        assert self._connection is not None
        self._connection.set_busy_timeout(0)
        try:
            self._transaction.begin()
        except apsw.BusyError:
            raise MustWait from None
        finally:
            self._connection.set_busy_timeout(BUSY_TIMEOUT_MS)

    def _end(self, *, commit: bool) -> None:
        try:
            if commit:
                took = self._transaction.commit()
                if self._flushing:
                    self._flush_seconds = max(took, min(self._flush_seconds, MAX_FLUSH_SECONDS) * FORGIVING)
        except BaseException:
            commit = False
            raise
        finally:
            if not commit:
                self._transaction.rollback()
            if self._lock is not None:
                self._lock.release()

    def _set_flushing(self, flush: bool) -> None:
        if not self._is_memory:
            assert self._connection is not None
            self._connection.execute(f"PRAGMA synchronous = {'FULL' if flush else 'NORMAL'}")
        self._flushing = flush

    def _ready(self) -> None:
        if self._closed:
            raise StoreError(f"the ledger {self._path} was closed")
        if self._connection is None:
            self._open()

    @contextlib.contextmanager
    def read(self) -> Iterator[Reader]:
        if self._is_memory:
            with self._mutex, translated(self._path):
                self._ready()
                assert self._connection is not None
                yield SqliteReader(self._connection)
            return
        with translated(self._path):
            connection = self._take_reader()
            try:
                with connection:
                    yield SqliteReader(connection)
            finally:
                self._give_reader(connection)

    def _take_reader(self) -> apsw.Connection:
        # A writer holds the mutex for as long as it writes; a reader needs it only to open or to be told of the end.
        if self._closed or self._connection is None:
            with self._mutex:
                self._ready()
        with self._readers_mutex:
            self._reading += 1
            if self._readers:
                return self._readers.pop()
        try:
            connection = apsw.Connection(self._path, flags=apsw.SQLITE_OPEN_READWRITE)
            connection.set_busy_timeout(BUSY_TIMEOUT_MS)
            connection.execute("PRAGMA query_only = ON")
        except BaseException:
            self._reader_gone()
            raise
        return connection

    def _give_reader(self, connection: apsw.Connection) -> None:
        with self._readers_mutex:
            keep = len(self._readers) < MAX_READERS and not self._closed and self._pid == os.getpid()
            if keep:
                self._readers.append(connection)
        if not keep:
            connection.close()
        self._reader_gone()

    def _reader_gone(self) -> None:
        with self._reader_back:
            self._reading -= 1
            self._reader_back.notify_all()

    # -- housekeeping -----------------------------------------------------------------------------

    def _wal_bytes(self) -> int:
        try:
            return os.stat(self._path + "-wal").st_size
        except OSError:
            return 0

    def tidy(self) -> None:
        """Fold the write-ahead log back, beside the writers: they are not held up by it."""
        if self._is_memory or self._closed or self._wal_bytes() < CHECKPOINT_BYTES:
            return
        with translated(self._path):
            connection = self._take_reader()
            try:
                connection.execute("PRAGMA query_only = OFF")
                connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_PASSIVE)
                connection.execute("PRAGMA query_only = ON")
            finally:
                self._give_reader(connection)

    def describe(self) -> dict[str, Any]:
        facts: dict[str, Any] = {"engine": "sqlite", "path": self._path, "sqlite": apsw.sqlite_lib_version()}
        if not self._is_memory:
            facts |= {
                "bytes": os.path.getsize(self._path),
                "wal_bytes": self._wal_bytes(),
                "file_system": file_system(Path(self._path)),
                "schema": len(schema()),
            }
        return facts

    def check(self) -> Iterator[str]:
        with self.read(), translated(self._path):
            connection = apsw.Connection(self._path) if not self._is_memory else self._connection
            assert connection is not None
            rows = connection.execute("PRAGMA integrity_check(100)").fetchall()
        yield from (str(row[0]) for row in rows if row[0] != "ok")

    # -- ending -----------------------------------------------------------------------------------

    def close(self) -> None:
        """Finish the running transaction, fold the log back and let go of the file. May be called again."""
        with self._mutex:
            if self._closed:
                return
            self._closed = True
            self._drop_connections()

    def _drop_connections(self) -> None:
        with self._readers_mutex:
            readers, self._readers = self._readers, []
        for connection in (*readers, self._connection):
            if connection is not None:
                connection.close()
        self._connection = None
        if self._lock:
            self._lock.close()
            self._lock = None

    def before_fork(self) -> None:
        """Let go of the file: SQLite keeps its locks in memory, so a child would believe that it holds the parent's.

        Its own locks would then be missing, and the last of the others to close would delete the log under it. A
        transaction or read in another thread is waited for.
        """
        self._forking = self._mutex.acquire(timeout=FORK_WAIT_SECONDS)
        if not self._forking:
            return
        with self._reader_back:
            self._reader_back.wait_for(lambda: self._reading == 0, timeout=FORK_WAIT_SECONDS)
        if not self._is_memory:
            self._drop_connections()
        self._readers_mutex.acquire()

    def after_fork_in_parent(self) -> None:
        """The next use opens the file again."""
        if self._forking:
            self._forking = False
            self._readers_mutex.release()
            self._mutex.release()

    def after_fork(self) -> None:
        """In a child: what the parent still had open may neither be used nor closed; the next use opens anew."""
        if self._is_memory:
            self._start_empty()
            self._closed = True
            return
        for connection in (*self._readers, self._connection):
            if connection is not None:
                never_collect(connection)
        if self._lock:
            self._lock.close()
        closed = self._closed
        self._start_empty()
        self._pid = os.getpid()
        self._closed = closed


class _Writing:
    """`SqliteStore.transaction`, as a class because it is on the way of every operation."""

    __slots__ = ("_flush", "_store", "_wait")

    def __init__(self, store: SqliteStore, flush: bool, wait: bool) -> None:
        self._store = store
        self._flush = flush
        self._wait = wait

    def __enter__(self) -> Transaction:
        if not self._store._mutex.acquire(self._wait):
            raise MustWait
        try:
            return self._store._begin(self._flush, self._wait)
        except BaseException as error:
            self._store._mutex.release()
            if isinstance(error, apsw.Error):
                raise ours(error, self._store.path) from error
            raise

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        try:
            self._store._end(commit=error is None)
        except apsw.Error as failure:
            raise ours(failure, self._store.path) from failure
        finally:
            self._store._mutex.release()
        if error is None:
            return
        # Also when an operation has met it and said so: it is everybody's failure.
        for met in (error, error.__cause__):
            if isinstance(met, apsw.Error):
                raise ours(met, self._store.path) from met


__all__ = ["MEMORY", "SqliteStore", "schema"]

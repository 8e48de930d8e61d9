"""The project's own engines against the kit that it gives to others."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.postgres.kit import empty
from tests.postgres.server import Server

from clearance.store.conformance import Failure, Spec, run
from clearance.store.conformance.for_pytest import parametrized
from clearance.store.interface import Changes, Store
from clearance.store.postgres import PostgresStore
from clearance.store.sqlite import MEMORY, SqliteStore


class MemoryLedger:
    def open(self) -> Store:
        return SqliteStore(MEMORY)

    def close(self) -> None:
        pass


class FileLedger:
    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="clearance-conformance-"))

    def open(self) -> Store:
        return SqliteStore(self.folder / "ledger.db")

    def close(self) -> None:
        shutil.rmtree(self.folder)


class PostgresLedger:
    def __init__(self, url: str) -> None:
        self.url = url
        empty(url)

    def open(self) -> Store:
        return PostgresStore(self.url)

    def close(self) -> None:
        pass


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    server = Server()
    url = server.new_database()
    PostgresStore(url).close()
    yield url
    server.stop()


@parametrized(shared=False)
def test_memory_conforms(spec: Spec) -> None:
    spec.run(MemoryLedger)


@parametrized()
def test_file_conforms(spec: Spec) -> None:
    spec.run(FileLedger)


@parametrized()
def test_postgres_conforms(spec: Spec, url: str) -> None:
    spec.run(lambda: PostgresLedger(url))


class ForgetfulStore(SqliteStore):
    """Loses every second account."""

    def transaction(self, *, flush: bool, wait: bool = True):  # type: ignore[no-untyped-def]
        writing = super().transaction(flush=flush, wait=wait)
        enter = type(writing).__enter__

        class Forgetful:
            def __enter__(self):  # type: ignore[no-untyped-def]
                tx = enter(writing)
                write = type(tx).write
                return _Losing(tx, write)

            def __exit__(self, *error):  # type: ignore[no-untyped-def]
                return writing.__exit__(*error)

        return Forgetful()


class _Losing:
    def __init__(self, tx, write):  # type: ignore[no-untyped-def]
        self._tx, self._write = tx, write

    def __getattr__(self, name: str):  # type: ignore[no-untyped-def]
        return getattr(self._tx, name)

    def write(self, changes: Changes, now_ms: int) -> int:
        changes.accounts = list(changes.accounts)[::2]
        return int(self._write(self._tx, changes, now_ms))


def test_the_kit_tells_what_a_bad_store_does_wrong() -> None:
    class Bad(MemoryLedger):
        def open(self) -> Store:
            return ForgetfulStore(MEMORY)

    failures = run(Bad, shared=False)
    assert Failure in {type(failure) for failure in failures}
    told = next(str(it) for it in failures if it.spec.startswith("accounts are listed"))
    assert "expected" in told
    assert "got" in told

"""Nothing stays in a session: behind a transaction-mode pooler every transaction may get another one."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest
from psycopg.pq import TransactionStatus
from tests.authority.kit import AGENT, BOT, TENANT, balance, budget, hold, run
from tests.postgres.kit import open_authority

from clearance.model.amount import tokens
from clearance.store.postgres import PostgresStore
from clearance.store.postgres.connection import Link
from clearance.store.postgres.wire import Wire


def _pooled(monkeypatch: pytest.MonkeyPatch) -> list[psycopg.Connection[Any]]:
    """Every transaction of a link goes to the next of three sessions, as a pooler does it."""
    sessions: list[psycopg.Connection[Any]] = []
    meet = Link._meet

    def met(self: Link, connection: psycopg.Connection[Any]) -> None:
        with monkeypatch.context() as patch:
            # A pooler's cancel key names no backend.
            patch.setattr(psycopg.ConnectionInfo, "backend_pid", property(lambda _: -1))
            meet(self, connection)

    def turned(self: Link) -> psycopg.Connection[Any]:
        pool = self.__dict__.setdefault("pool", [])
        if self._connection is None or (
            not self._connection.closed and self._connection.info.transaction_status == TransactionStatus.IDLE
        ):
            if len(pool) < 3:
                pool.append(self._connect())
                sessions.append(pool[-1])
            pool.append(pool.pop(0))
            self._connection = pool[0]
            self._wire = Wire(self._connection, prepares=self.is_direct)
        return self._connection

    monkeypatch.setattr(Link, "_meet", met)
    monkeypatch.setattr(Link, "connection", property(turned))
    return sessions


def test_the_ledger_works_on_sessions_that_change(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    PostgresStore(url).close()
    sessions = _pooled(monkeypatch)
    authority = open_authority(url)
    assert authority._store.describe()["is_pooled"] is True
    budget(authority)
    budget(authority, AGENT, 500)
    outer = run(authority, 200, BOT)
    for n in range(8):
        held = hold(authority, 10, BOT, run_id=outer if n % 2 else None, idempotency_key=f"k{n}")
        assert held == hold(authority, 10, BOT, run_id=outer if n % 2 else None, idempotency_key=f"k{n}")
        authority.commit(held, tokens(12))
    authority.kill(TENANT, reason="a drill")
    authority.resume(TENANT, reason="over")
    authority.end_run(outer)
    assert balance(authority).spent == 8 * 12
    assert authority.check() == []
    assert len(sessions) >= 4
    for session in sessions:
        _is_as_new(session)
        session.close()
    authority._batch.close()


def _is_as_new(session: psycopg.Connection[Any]) -> None:
    def one(query: str) -> Any:
        row = session.execute(query.encode()).fetchone()
        assert row is not None
        return row[0]

    assert session.info.transaction_status == TransactionStatus.IDLE
    assert one("SELECT count(*) FROM pg_prepared_statements") == 0
    assert one("SELECT count(*) FROM pg_cursors") == 0
    assert one("SELECT count(*) FROM pg_listening_channels()") == 0
    assert one("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()") == 0
    changed = "SELECT string_agg(name, ', ') FROM pg_settings WHERE source = 'session'"
    assert one(changed) in (None, "client_encoding", "application_name")
    assert one("SELECT current_setting('lock_timeout')") == "0"
    assert one("SELECT current_setting('synchronous_commit')") == "on"
    temporary = "SELECT count(*) FROM pg_class WHERE relpersistence = 't' AND relnamespace = pg_my_temp_schema()"
    assert one(temporary) == 0


def test_plans_are_kept_only_in_a_session_of_our_own(url: str) -> None:
    authority = open_authority(url)
    budget(authority)
    hold(authority, 1)
    store = authority._store
    assert isinstance(store, PostgresStore)
    assert store._writer.is_direct
    kept = store._writer.connection.execute("SELECT count(*) FROM pg_prepared_statements").fetchone()
    assert kept is not None
    assert kept[0] > 3
    authority.close()

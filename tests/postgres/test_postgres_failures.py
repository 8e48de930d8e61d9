"""What a caller sees when the database goes away, is full of other people's locks, or is not what it should be."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator

import psycopg
import pytest
from tests.authority.kit import BOT, CALL, TENANT, balance, budget, hold
from tests.postgres.kit import open_authority, with_budget
from tests.postgres.proxy import Proxy
from tests.postgres.server import Server

from clearance.authority.embedded import EmbeddedAuthority
from clearance.errors import AuthorityUnavailable, InvalidRequest, StoreError, StoreReadOnly, StoreVersion
from clearance.model.amount import tokens
from clearance.store.interface import Changes, Needs
from clearance.store.postgres import PostgresStore, engine, migrations
from clearance.store.postgres.connection import place_of


@pytest.fixture
def line(server: Server) -> Iterator[Proxy]:
    proxy = Proxy(server.port)
    yield proxy
    proxy.close()


@pytest.fixture
def authority(url: str, server: Server, line: Proxy) -> Iterator[EmbeddedAuthority]:
    """On a line that can be cut."""
    authority = with_budget(url.replace(str(server.port), str(line.port)), 1000)
    hold(authority, 1)
    yield authority
    authority.close()


@pytest.mark.parametrize("forwards", [True, False], ids=["answer lost", "request lost"])
def test_a_line_cut_at_the_commit_leaves_the_outcome_unknown_and_the_key_tells_it(
    authority: EmbeddedAuthority, line: Proxy, forwards: bool
) -> None:
    before = balance(authority).reserved
    line.cut(2, forwards=forwards)
    with pytest.raises(AuthorityUnavailable, match=r"outcome is unknown.*same idempotency key"):
        hold(authority, 10, idempotency_key="k")
    first = hold(authority, 10, idempotency_key="k")
    assert first == hold(authority, 10, idempotency_key="k")
    assert balance(authority).reserved == before + 10
    assert authority.check() == []


def test_a_line_cut_before_anything_was_decided_is_nobodys_trouble(authority: EmbeddedAuthority, line: Proxy) -> None:
    for forwards in (True, False):
        line.cut(1, forwards=forwards)
        hold(authority, 10)
    assert balance(authority).reserved == 21


def test_a_line_that_hangs_is_given_up(
    authority: EmbeddedAuthority, line: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half-open: nobody closes, nobody answers. Nothing was decided, so another line does what was asked."""
    monkeypatch.setattr("clearance.store.postgres.wire.ANSWER_SECONDS", 0.5)
    line.hang()
    began = time.monotonic()
    hold(authority, 10)
    assert 0.4 < time.monotonic() - began < 5
    assert balance(authority).reserved == 11


def test_a_connection_that_was_ended_while_idle_is_opened_anew(url: str) -> None:
    authority = with_budget(url, 1000)
    balance(authority)
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
    assert balance(authority).reserved == 0
    hold(authority, 10)
    assert balance(authority).reserved == 10
    authority.close()


def test_no_server_is_an_outage_that_names_the_place_and_no_password() -> None:
    with pytest.raises(AuthorityUnavailable) as caught:
        PostgresStore("postgresql://ann:sesame@127.0.0.1:1/ledger")
    assert "postgresql://127.0.0.1:1/ledger" in str(caught.value)
    assert "sesame" not in str(caught.value)
    with pytest.raises(InvalidRequest):
        PostgresStore("postgresql://[what")
    assert place_of("postgresql://u:secret@db.example:6432/x") == "postgresql://db.example:6432/x"


def test_a_writer_that_hangs_is_waited_for_only_so_long(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("clearance.store.postgres.statements.LIMITS", "SET lock_timeout = 200")
    authority = with_budget(url, 1000)
    with psycopg.connect(url) as other:
        other.execute("SELECT 1 FROM clearance.accounts FOR UPDATE")
        began = time.monotonic()
        with pytest.raises(StoreError, match="another process holds"):
            hold(authority, 10)
        assert time.monotonic() - began < 5
    hold(authority, 10)
    authority.close()


def test_a_lock_that_is_needed_late_is_not_waited_for(url: str) -> None:
    """Rule 1 of the locks: so no two batches can ever wait for each other."""
    one, two = PostgresStore(url), PostgresStore(url)
    authority = with_budget(url, 10)
    budget(authority, "tenant:b", 10)
    keys = [("acme", TENANT, "TOKENS"), ("b", "tenant:b", "TOKENS")]
    began = time.monotonic()

    def want_what_the_other_has() -> None:
        with one.transaction(flush=False) as first, two.transaction(flush=False) as second:
            first.prefetch([Needs([("acme", (TENANT,), ("TOKENS",))])])
            second.prefetch([Needs([("b", ("tenant:b",), ("TOKENS",))])])
            first.account(*keys[1])

    with pytest.raises(StoreError) as caught:
        want_what_the_other_has()
    assert caught.value.retry_after_ms == 0
    assert time.monotonic() - began < 1
    # The next try takes both at once.
    with one.transaction(flush=False) as first:
        first.prefetch([Needs([("acme", (TENANT,), ("TOKENS",))])])
        assert {key for key in keys if key in first._stored} == set(keys)  # type: ignore[attr-defined]
    for store in (one, two):
        store.close()
    authority.close()


def test_a_refused_constraint_undoes_the_batch(url: str) -> None:
    authority = with_budget(url, 10)
    store = authority._store

    def spoil() -> None:
        with store.transaction(flush=False) as tx:
            account = tx.account("acme", TENANT, "TOKENS")
            assert account is not None
            tx.write(Changes(accounts=[account._replace(reserved=-1)]), 0)

    with pytest.raises(StoreError, match="constraint"):
        spoil()
    assert balance(authority).reserved == 0
    hold(authority, 10)
    authority.close()


def test_check_finds_books_that_do_not_balance(url: str) -> None:
    authority = with_budget(url, 100)
    held = hold(authority, 10)
    assert authority.check() == []
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("UPDATE clearance.accounts SET reserved = 11")
    assert authority.check() == [f"{TENANT} in TOKENS has 11 reserved, its open reservations hold 10"]
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("UPDATE clearance.accounts SET reserved = 10")
        connection.execute("UPDATE clearance.reservations SET status = 'RELEASED', due_at_ms = NULL")
        connection.execute("DELETE FROM clearance.events WHERE reservation_id IS NOT NULL")
    assert any(held in problem for problem in authority.check())
    authority.close()


def test_the_ledger_of_a_newer_clearance_is_not_touched(own_url: str) -> None:
    with psycopg.connect(own_url, autocommit=True) as connection:
        connection.execute("INSERT INTO clearance.migrations (number, name) VALUES (99, '0099_future')")
    for migrate in (True, False):
        with pytest.raises(StoreVersion):
            PostgresStore(own_url, migrate=migrate)


def test_a_store_that_may_not_migrate_says_what_to_do(server: Server) -> None:
    empty = server.new_database()
    with pytest.raises(StoreVersion, match="clearance db migrate"):
        PostgresStore(empty, migrate=False)
    PostgresStore(empty).close()
    PostgresStore(empty, migrate=False).close()


def test_many_processes_make_the_schema_once(server: Server) -> None:
    url, errors = server.new_database(), []

    def open_it() -> None:
        try:
            PostgresStore(url).close()
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=open_it) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    with psycopg.connect(url) as connection:
        assert connection.execute("SELECT count(*) FROM clearance.migrations").fetchone() == (len(migrations.schema()),)


def test_a_migration_runs_while_an_old_process_serves(own_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    old = with_budget(own_url, 1000)
    hold(old, 10)
    newer = [*migrations.schema(), ("0002_more", "ALTER TABLE clearance.accounts ADD COLUMN more TEXT")]
    monkeypatch.setattr(migrations, "schema", lambda: newer)
    new = open_authority(own_url)
    assert new._store.describe()["schema"] == 2
    for authority in (old, new, old):
        hold(authority, 10)
    assert balance(old).reserved == 40
    old.close()
    new.close()


def test_a_role_without_rights_is_told_so(server: Server, own_url: str) -> None:
    with psycopg.connect(own_url, autocommit=True) as connection:
        connection.execute("CREATE ROLE reporter LOGIN")
        connection.execute("GRANT USAGE ON SCHEMA clearance TO reporter")
        connection.execute("GRANT SELECT ON ALL TABLES IN SCHEMA clearance TO reporter")
    with_budget(own_url, 10).close()
    reader = open_authority(own_url.replace("postgres@", "reporter@"))
    assert balance(reader).allocated == 10
    with pytest.raises(StoreReadOnly):
        hold(reader, 1)
    reader.close()


def test_a_child_has_sessions_of_its_own(url: str) -> None:
    authority = with_budget(url, 1000)
    hold(authority, 1)
    balance(authority)
    child = os.fork()
    if child == 0:
        status = 1
        try:
            hold(authority, 10)
            status = 0 if balance(authority).reserved == 11 else 2
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    hold(authority, 100)
    assert balance(authority).reserved == 111
    authority.close()


def test_flush_decides_whether_the_commit_waits_for_the_disk(url: str) -> None:
    """By what the engine sends: what a power cut leaves is PostgreSQL's own promise for each setting."""
    store = PostgresStore(url)
    sent: list[str] = []
    run = store._writer.run

    def spy(statements, **options):  # type: ignore[no-untyped-def]
        sent.extend(text for text, _ in statements)
        return run(statements, **options)

    store._writer.run = spy  # type: ignore[method-assign]
    for flush in (True, False):
        with store.transaction(flush=flush) as tx:
            tx.account("acme", TENANT, "TOKENS")
    assert sum("synchronous_commit = off" in text for text in sent) == 1
    assert sent[-2] == "SET LOCAL synchronous_commit = off"
    store.close()


def test_a_closed_store_is_closed(url: str) -> None:
    store = PostgresStore(url)
    store.close()
    with pytest.raises(StoreError, match="closed"), store.read():
        pass
    assert engine.MAX_READERS == 4


def test_words_with_a_nul_spoil_nothing(url: str) -> None:
    authority = with_budget(url, 1000)
    held = hold(authority, 1, idempotency_key="a\0b")
    assert held == hold(authority, 1, idempotency_key="a\0b")
    assert held != hold(authority, 1, idempotency_key="ab")
    authority.reserve(BOT, CALL, tokens(1), metadata={"a": "\0"})
    for call in (lambda: authority.release("rsv\0"), lambda: authority.get("rsv\0")):
        with pytest.raises(LookupError):
            call()
    authority.kill(TENANT, reason="a\0b")
    authority.close()

"""Transactions of the SQLite engine: all or nothing, one after another, and reads beside them."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.authority.kit import ACME, CALL, TENANT, balance, budget, figures, hold, ledger

from clearance.authority.embedded import EmbeddedAuthority
from clearance.model.account import Account
from clearance.model.amount import tokens
from clearance.store.interface import Changes, NewEvent
from clearance.store.sqlite import SqliteStore

Open = Callable[[Path], EmbeddedAuthority]
ROW = Account("acme", TENANT, "TOKENS", allocated=5)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ledger.db"


def test_a_transaction_that_fails_leaves_nothing_behind(authority: EmbeddedAuthority) -> None:
    store = authority._store

    def fail() -> None:
        with store.transaction(flush=True) as tx:
            tx.write(Changes(accounts=[ROW], events=[NewEvent("x", "acme", None, None, {})]), 0)
            tx.flush()  # type: ignore[attr-defined]
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert ledger(authority) == ([], [])
    with store.transaction(flush=True) as tx:
        assert tx.account("acme", TENANT, "TOKENS") is None
        assert tx.write(Changes(events=[NewEvent("x", "acme", None, None, {})]), 0) == 1


def test_a_transaction_sees_what_it_has_written(authority: EmbeddedAuthority) -> None:
    with authority._store.transaction(flush=False) as tx:
        tx.write(Changes(accounts=[ROW]), 0)
        assert tx.account("acme", TENANT, "TOKENS") == ROW
        assert list(tx.accounts_of("acme", TENANT)) == [ROW]
        tx.write(Changes(accounts=[ROW._replace(spent=3)]), 0)
        assert list(tx.accounts_below("acme")) == [ROW._replace(spent=3)]
        tx.write(Changes(dropped_accounts=[ROW.key]), 0)
        assert tx.account("acme", TENANT, "TOKENS") is None
        assert list(tx.accounts_below("acme")) == []


def test_what_another_process_wrote_is_seen_by_the_next_transaction(path: Path, open_ledger: Open) -> None:
    first, second = open_ledger(path), open_ledger(path)
    budget(first)
    for number in range(1, 6):
        hold(first, 10)
        hold(second, 10)
        first.event(ACME, CALL, tokens(1))
        assert figures(second) == figures(first) == (1000 - 21 * number, 20 * number, number, 0)
    held = hold(first, 10)
    second.commit(held, tokens(10))
    with pytest.raises(Exception, match="committed before"):
        first.commit(held, tokens(10))
    budget(second, TENANT, 2000)
    assert first.reserve(ACME, CALL, tokens(1500)).balances[0].allocated == 2000
    assert [event.seq for event in first.events(limit=1000)] == list(range(1, len(first.events(limit=1000)) + 1))


def test_reads_do_not_wait_for_a_writer_and_see_only_what_was_committed(path: Path, open_ledger: Open) -> None:
    authority = open_ledger(path)
    budget(authority)
    held = hold(authority, 10)
    entered, go = threading.Event(), threading.Event()

    def write() -> None:
        with authority._store.transaction(flush=False) as tx:
            tx.write(Changes(accounts=[ROW]), 0)
            tx.flush()  # type: ignore[attr-defined]
            entered.set()
            assert go.wait(20)

    writer = threading.Thread(target=write)
    writer.start()
    assert entered.wait(20)
    try:
        found: list[object] = []

        def read() -> None:
            found.extend([balance(authority).allocated, authority.get(held).estimate, authority.stopped([held])])
            found.append(len(authority.events()))

        reader = threading.Thread(target=read)
        reader.start()
        reader.join(10)
        assert found == [1000, 10, {}, 2]
    finally:
        go.set()
        writer.join(20)
    assert balance(authority).allocated == 5


def test_a_long_log_is_folded_back_and_nothing_is_lost(
    path: Path, open_ledger: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("clearance.store.sqlite.engine.CHECKPOINT_BYTES", 1)
    authority = open_ledger(path)
    budget(authority)
    for _ in range(50):
        hold(authority, 1)
    assert Path(f"{path}-wal").stat().st_size > 0
    authority.tidy()
    for _ in range(50):
        hold(authority, 1)
    assert figures(authority) == (900, 100, 0, 0)
    assert authority.check() == []


def test_closing_folds_the_log_back_into_the_file(path: Path, open_ledger: Open) -> None:
    authority = open_ledger(path)
    budget(authority)
    authority.close()
    assert not Path(f"{path}-wal").exists()
    assert path.stat().st_size > 0


def test_many_threads_read_while_others_write(path: Path, open_ledger: Open) -> None:
    authority = open_ledger(path)
    budget(authority, TENANT, 100_000)
    problems: list[BaseException] = []

    def work(write: bool) -> None:
        try:
            for _ in range(25):
                if write:
                    authority.commit(hold(authority, 10), tokens(7))
                else:
                    figures(authority)
        except BaseException as error:
            problems.append(error)

    threads = [threading.Thread(target=work, args=(number % 2 == 0,)) for number in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert problems == []
    assert figures(authority) == (100_000 - 6 * 25 * 7, 0, 6 * 25 * 7, 0)


def test_a_store_is_closed_once_and_then_says_so(path: Path) -> None:
    store = SqliteStore(path)
    store.close()
    store.close()
    with pytest.raises(Exception, match="was closed"), store.transaction(flush=False):
        pass

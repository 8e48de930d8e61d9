"""A fork gives the child connections and a queue of its own, whatever the parent was doing."""

from __future__ import annotations

import os
import signal
import threading
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.authority.kit import budget, figures, hold

from clearance.authority.batch import Operation
from clearance.authority.embedded import EmbeddedAuthority
from clearance.errors import StoreError
from clearance.store.interface import Transaction
from clearance.store.sqlite import MEMORY


def in_child(work: Callable[[], None]) -> int:
    """The exit code of a forked child: 0 if the work went well."""
    with warnings.catch_warnings():
        # Forking with threads is what this is about.
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child == 0:
        code = 1
        signal.alarm(30)  # a child that waits for ever ends by it
        try:
            work()
            code = 0
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def test_parent_and_child_spend_one_budget(tmp_path: Path, open_ledger: Callable[[Path], EmbeddedAuthority]) -> None:
    authority = open_ledger(tmp_path / "ledger.db")
    budget(authority)
    hold(authority, 10)
    assert in_child(lambda: [hold(authority, 10) for _ in range(5)] and None) == 0
    hold(authority, 10)
    assert figures(authority) == (930, 70, 0, 0)
    assert list(authority.check()) == []


def test_a_child_that_closes_leaves_the_parents_ledger_open(
    tmp_path: Path, open_ledger: Callable[[Path], EmbeddedAuthority]
) -> None:
    authority = open_ledger(tmp_path / "ledger.db")
    budget(authority)

    def work() -> None:
        hold(authority, 10)
        authority.close()

    assert in_child(work) == 0
    hold(authority, 10)
    assert figures(authority) == (980, 20, 0, 0)


def test_a_fork_in_mid_transaction_waits_for_the_parent_and_sees_what_it_wrote(
    tmp_path: Path, open_ledger: Callable[[Path], EmbeddedAuthority]
) -> None:
    authority = open_ledger(tmp_path / "ledger.db")
    budget(authority)
    entered, go = threading.Event(), threading.Event()

    def slow(_: Transaction) -> None:
        entered.set()
        assert go.wait(20)

    parent = threading.Thread(target=authority._batch.run, args=(Operation(slow, True),))
    waiting = threading.Thread(target=hold, args=(authority, 100))
    parent.start()
    assert entered.wait(20)
    waiting.start()
    release = threading.Timer(0.05, go.set)
    release.start()
    # The child inherits a queue that somebody leads and a mutex that is held: it must not care.
    assert in_child(lambda: hold(authority, 10) and None) == 0
    for thread in (parent, waiting, release):
        thread.join(20)
    assert figures(authority) == (890, 110, 0, 0)


def test_a_ledger_in_memory_stays_with_the_parent(open_ledger: Callable[[str], EmbeddedAuthority]) -> None:
    authority = open_ledger(MEMORY)
    budget(authority)

    def work() -> None:
        with pytest.raises(StoreError):
            hold(authority, 10)

    assert in_child(work) == 0
    assert hold(authority, 10)
    assert figures(authority) == (990, 10, 0, 0)


def test_what_a_child_was_answered_is_kept_when_the_parent_closes_first(
    tmp_path: Path, open_ledger: Callable[[Path], EmbeddedAuthority]
) -> None:
    authority = open_ledger(tmp_path / "ledger.db")
    budget(authority)
    hold(authority, 10)
    (ready, is_ready), (closed, is_closed) = os.pipe(), os.pipe()

    def close_when_ready() -> None:
        os.read(ready, 1)
        authority.close()
        os.write(is_closed, b"x")

    def work() -> None:
        hold(authority, 10)
        os.write(is_ready, b"x")
        os.read(closed, 1)
        for _ in range(5):
            hold(authority, 10)
        assert figures(authority) == (930, 70, 0, 0)

    parent = threading.Thread(target=close_when_ready)
    parent.start()
    assert in_child(work) == 0
    parent.join(20)
    again = open_ledger(tmp_path / "ledger.db")
    assert figures(again) == (930, 70, 0, 0)
    assert again.check() == []


def test_a_fork_waits_for_a_read_and_nothing_is_open_while_it_happens(
    tmp_path: Path, open_ledger: Callable[[Path], EmbeddedAuthority]
) -> None:
    authority = open_ledger(tmp_path / "ledger.db")
    budget(authority)
    store = authority._store
    reading, read_on = threading.Event(), threading.Event()

    def read() -> None:
        with store.read():
            reading.set()
            assert read_on.wait(20)

    reader = threading.Thread(target=read)
    reader.start()
    assert reading.wait(20)
    release = threading.Timer(0.05, read_on.set)
    release.start()

    def work() -> None:
        assert not any(os.path.realpath(f"/proc/self/fd/{fd}").startswith(str(tmp_path)) for fd in range(64))
        hold(authority, 10)

    assert in_child(work) == 0
    for thread in (reader, release):
        thread.join(20)
    assert figures(authority) == (990, 10, 0, 0)

"""Storage that fails under a running ledger: read-only places, a full disk, a process killed in the middle."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import textwrap
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from tests.authority.kit import budget, events, figures, hold

from clearance.authority.batch import Operation
from clearance.authority.embedded import EmbeddedAuthority
from clearance.errors import ClearanceError, StoreError, StoreFull
from clearance.store.sqlite import MEMORY

Open = Callable[[str | Path], EmbeddedAuthority]
NOBODY = 65_534
PRELUDE = """
import os, resource, sys
from clearance.authority.embedded import EmbeddedAuthority
from clearance.errors import ClearanceError
from clearance.store.sqlite import SqliteStore
from tests.authority.kit import budget, figures, hold
path = sys.argv[1]
"""


def python(code: str, path: Path, *, prepare: str = "") -> subprocess.CompletedProcess[str]:
    """Runs code in a process of its own; `prepare` runs after the imports."""
    text = PRELUDE + textwrap.dedent(prepare) + textwrap.dedent(code)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    return subprocess.run(
        [sys.executable, "-c", text, str(path)],
        capture_output=True,
        text=True,
        timeout=50,
        env=environment,
        check=False,
    )


# -- read-only ------------------------------------------------------------------------------------

# Root may write anywhere, so the process first becomes somebody who may not; where tests do not run as root, the rights
# of the folder alone are enough. What is loaded late is loaded before, because the interpreter and the package may lie
# where nobody can read.
BECOME_NOBODY = f"""
from pathlib import Path
from clearance.store.sqlite import engine, place
place.file_system(Path(path))
engine.schema = lambda found=engine.schema(): found
if os.getuid() == 0:
    os.setgroups([])
    os.setgid({NOBODY})
    os.setuid({NOBODY})
"""
SAY = """
try:
    EmbeddedAuthority(SqliteStore(path), background=False)
except ClearanceError as error:
    print(type(error).__name__, error)
"""


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that an unprivileged process can reach and, until its rights change, write."""
    with tempfile.TemporaryDirectory() as above:
        place = Path(above, "place")
        place.mkdir()
        for it in (above, place):
            os.chmod(it, 0o755)
            if os.getuid() == 0:
                os.chown(it, NOBODY, NOBODY)
        yield place


@pytest.fixture
def filled(folder: Path, open_ledger: Open) -> Path:
    path = folder / "ledger.db"
    authority = open_ledger(path)
    budget(authority)
    hold(authority, 10)
    authority.close()
    if os.getuid() == 0:
        for file in folder.iterdir():
            os.chown(file, NOBODY, NOBODY)
    return path


@pytest.mark.parametrize("what", ["folder", "new in folder", "file", "lock", "no folder above", "not to be entered"])
def test_a_place_that_cannot_be_written_is_refused_and_named(filled: Path, what: str) -> None:
    asked, locked = {
        "folder": (filled, filled.parent),
        "new in folder": (filled.with_name("new.db"), filled.parent),
        "file": (filled, filled),
        "lock": (filled, Path(f"{filled}.lock")),
        "no folder above": (filled.parent / "a" / "b" / "new.db", filled.parent),
        "not to be entered": (filled, filled.parent),
    }[what]
    mode = locked.stat().st_mode
    before = filled.read_bytes()
    locked.chmod(0o600 if what == "not to be entered" else 0o555 if locked.is_dir() else 0o444)
    try:
        said = python(SAY, asked, prepare=BECOME_NOBODY)
    finally:
        locked.chmod(mode)
    assert said.stdout.startswith("StoreReadOnly"), said
    assert str(filled.parent) in said.stdout
    assert said.stderr == ""
    assert filled.read_bytes() == before


def test_the_same_place_with_its_rights_back_opens(filled: Path) -> None:
    said = python(SAY + "print('opened')", filled, prepare=BECOME_NOBODY)
    assert (said.stdout, said.stderr) == ("opened\n", "")


# -- a full disk ----------------------------------------------------------------------------------


def fill(authority: EmbeddedAuthority) -> Callable[[], None]:
    """No page more can be had, as on a full disk; returns what makes room again."""
    connection = authority._store._connection
    pages = connection.execute("PRAGMA page_count").fetchall()[0][0]
    connection.execute(f"PRAGMA max_page_count = {pages}")
    return lambda: connection.execute("PRAGMA max_page_count = 1000000").fetchall() and None


def until_full(authority: EmbeddedAuthority) -> int:
    for number in range(10_000):
        try:
            hold(authority, 1, metadata={"text": "x" * 500})
        except StoreFull:
            return number
    raise AssertionError("the disk never was full")


def test_a_full_disk_refuses_and_keeps_nothing_of_what_it_refused(authority: EmbeddedAuthority) -> None:
    budget(authority, amount=100_000)
    held = hold(authority, 10)
    make_room = fill(authority)
    granted = until_full(authority)
    assert figures(authority) == (99_990 - granted, 10 + granted, 0, 0)
    assert len(events(authority, "reservation.created")) == granted + 1
    with pytest.raises(StoreFull, match="rolled back"):
        hold(authority, 1, metadata={"text": "x" * 5000})
    assert figures(authority) == (99_990 - granted, 10 + granted, 0, 0)
    make_room()
    assert hold(authority, 1)
    assert authority.get(held).is_open
    assert authority.check() == []


def test_a_disk_that_is_full_in_mid_batch_answers_everybody_and_keeps_nothing(open_ledger: Open) -> None:
    """An operation that searches brings its neighbours' rows to the tables, and meets the full disk for them."""
    authority = open_ledger(MEMORY)
    budget(authority, amount=100_000)
    make_room = fill(authority)
    until_full(authority)
    before = figures(authority), len(authority.events(limit=1000))
    entered, go = threading.Event(), threading.Event()
    group = authority._batch
    calls = [
        *(lambda: hold(authority, 1, metadata={"text": "x" * 5000}) for _ in range(3)),
        lambda: authority.kill("tenant:other", reason="r", actor="a"),
        *(lambda: hold(authority, 1) for _ in range(3)),
    ]
    with ThreadPoolExecutor(10) as pool:
        leader = pool.submit(group.run, Operation(lambda _: entered.set() or go.wait(20), False))
        assert entered.wait(20)
        asked = []
        for call in calls:
            waiting = len(group._queue)
            asked.append(pool.submit(call))
            while len(group._queue) == waiting:
                threading.Event().wait(0.001)
        go.set()
        leader.result(20)
        assert {type(it.exception(20)) for it in asked} == {StoreFull}
    assert (figures(authority), len(authority.events(limit=1000))) == before
    assert authority.stops() == []
    make_room()
    assert hold(authority, 1)
    assert authority.check() == []


def test_a_file_that_may_not_grow_refuses_and_opens_again(tmp_path: Path, open_ledger: Open) -> None:
    path = tmp_path / "ledger.db"
    code = """
    authority = EmbeddedAuthority(SqliteStore(path), background=False)
    budget(authority, amount=100_000)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
    granted = 0
    try:
        while granted < 10_000:
            hold(authority, 1, metadata={"text": "x" * 500})
            granted += 1
    except ClearanceError as error:
        print(type(error).__name__, granted, figures(authority)[1], flush=True)
    os._exit(0)
    """
    said = python(code, path)
    assert said.stderr == ""
    kind, granted, reserved = said.stdout.split()
    assert kind in ("StoreFull", "StoreError")
    assert int(granted) == int(reserved) > 0
    assert figures(open_ledger(path)) == (100_000 - int(granted), int(granted), 0, 0)


# -- a killed process -----------------------------------------------------------------------------


@pytest.mark.parametrize("moment", ["in mid-transaction", "after its rows were written", "before it was ever used"])
def test_a_ledger_whose_process_was_killed_opens_with_all_that_was_answered(
    tmp_path: Path, open_ledger: Open, moment: str
) -> None:
    path = tmp_path / "ledger.db"
    code = {
        "in mid-transaction": """
            hold(authority, 20)
            with authority._store.transaction(flush=True):
                os.kill(os.getpid(), 9)
            """,
        "after its rows were written": """
            from clearance.store.interface import Changes
            with authority._store.transaction(flush=True) as tx:
                account = tx.account("acme", "tenant:acme", "TOKENS")
                tx.write(Changes(accounts=[account._replace(allocated=5)]), 0)
                tx.flush()
                os.kill(os.getpid(), 9)
            """,
        "before it was ever used": "os.kill(os.getpid(), 9)",
    }[moment]
    opened = """
    authority = EmbeddedAuthority(SqliteStore(path), background=False)
    """
    if moment != "before it was ever used":
        opened += "budget(authority)\n    hold(authority, 10)\n"
    said = python(textwrap.dedent(opened) + textwrap.dedent(code), path)
    assert (said.returncode, said.stderr) == (-signal.SIGKILL, "")
    authority = open_ledger(path)
    if moment == "before it was ever used":
        budget(authority)
    expected = {"in mid-transaction": 30, "after its rows were written": 10, "before it was ever used": 0}[moment]
    assert figures(authority) == (1000 - expected, expected, 0, 0)
    assert authority.check() == []
    assert hold(authority, 1)


def test_a_killed_process_lets_go_of_the_lock_and_the_others_go_on(tmp_path: Path, open_ledger: Open) -> None:
    path = tmp_path / "ledger.db"
    authority = open_ledger(path)
    budget(authority)
    code = """
    authority = EmbeddedAuthority(SqliteStore(path), background=False)
    hold(authority, 5)
    with authority._store.transaction(flush=False):
        os.kill(os.getpid(), 9)
    """
    assert python(code, path).returncode == -signal.SIGKILL
    assert hold(authority, 10)
    assert figures(authority) == (985, 15, 0, 0)


def test_an_error_of_the_store_is_no_denial(authority: EmbeddedAuthority) -> None:
    budget(authority)
    authority.close()
    with pytest.raises(StoreError) as outage:
        hold(authority, 1)
    assert not isinstance(outage.value, PermissionError)
    assert isinstance(outage.value, ClearanceError)

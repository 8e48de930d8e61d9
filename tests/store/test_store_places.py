"""Where a ledger may live, and what is refused before anything is opened or overwritten."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import apsw
import pytest
from tests.authority.kit import TENANT, budget, figures, hold

from clearance.authority.embedded import EmbeddedAuthority
from clearance.errors import StoreCorrupt, StoreError, StoreUnsafe, StoreVersion
from clearance.store.sqlite import SqliteStore, place
from clearance.store.sqlite.engine import schema

Open = Callable[[Path], EmbeddedAuthority]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ledger.db"


@pytest.fixture
def real(path: Path, open_ledger: Open) -> Path:
    """A ledger with something in it, closed."""
    authority = open_ledger(path)
    budget(authority)
    for _ in range(300):
        hold(authority, 1, metadata={"text": "x" * 200})
    authority.close()
    return path


def refused(path: Path, error: type[StoreError], says: str) -> None:
    """Opening is refused with these words, and the file and its folder are as they were."""
    before = contents(path)
    with pytest.raises(error, match=says) as caught:
        SqliteStore(path)
    assert str(path) in str(caught.value)
    assert contents(path) == before


def contents(path: Path) -> dict[str, bytes]:
    """Every file in the folder, but for locks and logs without a byte in them, which hold nothing."""
    files = (it for it in path.parent.iterdir() if it.is_file() and not it.name.endswith(("-shm", ".lock")))
    return {it.name: content for it in files if (content := it.read_bytes())}


def test_a_new_ledger_makes_its_folder_and_is_there_again(tmp_path: Path, open_ledger: Open) -> None:
    path = tmp_path / "a" / "b c" / "ledger.db"
    authority = open_ledger(path)
    budget(authority)
    hold(authority, 10)
    authority.close()
    again = open_ledger(path)
    assert figures(again) == (990, 10, 0, 0)
    assert again.describe()["schema"] == len(schema())
    assert again.check() == []


def test_a_file_without_a_byte_is_a_new_ledger(path: Path, open_ledger: Open) -> None:
    path.touch()
    budget(open_ledger(path))


@pytest.mark.parametrize(
    "content", [b"x", b"hello world" * 100, b"\x00" * 4096, b"SQLite format 3\x00", b"SQLite format 3\x00" + b"x" * 20]
)
def test_a_file_that_is_no_database_is_refused(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    refused(path, StoreCorrupt, "not a Clearance ledger.*Restore the last backup")


def test_a_header_with_garbage_behind_it_is_refused(path: Path, real: Path) -> None:
    path.write_bytes(real.read_bytes()[:100] + b"\xff" * 8092)
    refused(path, StoreCorrupt, "nothing was (changed|overwritten)")


def test_a_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StoreCorrupt, match="is a folder"):
        SqliteStore(tmp_path)


@pytest.fixture(params=["closed", "in use", "in use with a log"])
def foreign(request: pytest.FixtureRequest, path: Path) -> Iterator[Path]:
    """The database of another program."""
    with closing(sqlite3.connect(path)) as other:
        if request.param == "in use with a log":
            other.execute("PRAGMA journal_mode = WAL")
        other.execute("CREATE TABLE accounts (name TEXT)")
        other.execute("INSERT INTO accounts VALUES ('theirs')")
        other.commit()
        if request.param == "closed":
            other.close()
        yield path


def test_another_programs_database_is_refused_and_left_alone(foreign: Path) -> None:
    refused(foreign, StoreCorrupt, "another program")


def test_another_programs_log_that_a_crash_left_behind_is_left_alone(path: Path) -> None:
    with closing(sqlite3.connect(path)) as other:
        other.execute("PRAGMA journal_mode = WAL")
        other.execute("CREATE TABLE accounts (name TEXT)")
        other.commit()
        crashed = contents(path)
    for name, content in crashed.items():
        (path.parent / name).write_bytes(content)
    assert f"{path.name}-wal" in crashed
    refused(path, StoreCorrupt, "another program")


def test_another_id_in_the_header_is_another_program(path: Path) -> None:
    with closing(sqlite3.connect(path)) as other:
        other.execute("PRAGMA application_id = 77")
        other.execute("CREATE TABLE t (x)")
        other.commit()
    refused(path, StoreCorrupt, "another program")


@pytest.mark.parametrize("keep", [0.2, 0.5, 0.9])
def test_a_ledger_that_was_cut_off_is_refused(real: Path, keep: float) -> None:
    content = real.read_bytes()
    real.write_bytes(content[: int(len(content) * keep)])
    refused(real, StoreCorrupt, "Restore the last backup")


@pytest.mark.parametrize("at", [0.3, 0.6])
def test_a_ledger_with_flipped_bytes_in_its_middle_is_refused(real: Path, at: float) -> None:
    content = bytearray(real.read_bytes())
    page = int(len(content) * at) // 4096 * 4096
    content[page : page + 4096] = bytes(byte ^ 0xFF for byte in content[page : page + 4096])
    real.write_bytes(bytes(content))
    refused(real, StoreCorrupt, "Restore the last backup")


def test_a_ledger_of_a_newer_clearance_is_refused(real: Path) -> None:
    with closing(apsw.Connection(str(real))) as newer:
        newer.execute(f"PRAGMA user_version = {len(schema()) + 1}")
    refused(real, StoreVersion, "Use a newer Clearance")


@pytest.mark.parametrize("reopened", [1, 3])
def test_opening_again_migrates_nothing_twice(real: Path, open_ledger: Open, reopened: int) -> None:
    for _ in range(reopened):
        authority = open_ledger(real)
        assert figures(authority) == (700, 300, 0, 0)
        authority.close()


def test_migrations_are_numbered_and_run_in_one_transaction_each(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = schema()
    monkeypatch.setattr(
        "clearance.store.sqlite.engine.schema", lambda: [*real, "CREATE TABLE more (x); SELECT nonsense"]
    )
    with pytest.raises(StoreError):
        SqliteStore(path)
    with closing(apsw.Connection(str(path))) as found:
        assert found.execute("PRAGMA user_version").fetchall() == [(len(real),)]
        assert found.execute("SELECT count(*) FROM sqlite_master WHERE name = 'more'").fetchall() == [(0,)]


MOUNTS = "/dev/sda / ext4 rw 0 0\nserver:/x {folder} {kind} rw 0 0\n/dev/sdb {folder}/local xfs rw 0 0\n"


@pytest.fixture
def mounted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, Path], None]:
    """Lets a folder look mounted from that kind of file system."""
    original = Path.read_text

    def mount(kind: str, folder: Path) -> None:
        text = MOUNTS.format(kind=kind, folder=str(folder).replace(" ", "\\040"))

        def read_text(self: Path, *args: object, **options: object) -> str:
            return text if str(self) == "/proc/self/mounts" else original(self, *args, **options)  # type: ignore[arg-type]

        monkeypatch.setattr(Path, "read_text", read_text)

    return mount


@pytest.mark.parametrize("kind", ["nfs", "nfs4", "cifs", "smb3", "fuse.sshfs", "9p"])
def test_a_network_file_system_is_refused(tmp_path: Path, mounted: Callable[[str, Path], None], kind: str) -> None:
    folder = tmp_path / "the share"
    folder.mkdir()
    mounted(kind, folder)
    refused(folder / "ledger.db", StoreUnsafe, f"network file system .{kind}.*use a local disk")
    (folder / "new").mkdir()
    refused(folder / "new" / "ledger.db", StoreUnsafe, "network file system")


def test_a_local_disk_below_or_beside_a_share_is_fine(tmp_path: Path, mounted: Callable[[str, Path], None]) -> None:
    folder = tmp_path / "share"
    (folder / "local").mkdir(parents=True)
    (tmp_path / "share2").mkdir()
    mounted("nfs4", folder)
    for path in (folder / "local" / "ledger.db", tmp_path / "share2" / "ledger.db"):
        SqliteStore(path).close()


def test_a_link_to_a_share_is_seen_through(tmp_path: Path, mounted: Callable[[str, Path], None]) -> None:
    folder = tmp_path / "share"
    folder.mkdir()
    (tmp_path / "link").symlink_to(folder)
    mounted("nfs4", folder)
    with pytest.raises(StoreUnsafe):
        SqliteStore(tmp_path / "link" / "ledger.db")


@pytest.mark.parametrize("version", ["3.7.0", "3.51.2"])
def test_a_sqlite_that_can_lose_data_is_refused(path: Path, monkeypatch: pytest.MonkeyPatch, version: str) -> None:
    monkeypatch.setattr(place.apsw, "sqlite_lib_version", lambda: version)
    with pytest.raises(StoreUnsafe, match=f"SQLite {version}.*3.51.3"):
        SqliteStore(path)
    assert not path.exists()


def test_a_damaged_ledger_says_so_when_it_is_looked_at(real: Path, open_ledger: Open) -> None:
    authority = open_ledger(real)
    with closing(apsw.Connection(str(real))) as vandal:
        vandal.execute("PRAGMA ignore_check_constraints = ON")
        vandal.execute("UPDATE accounts SET reserved = -1 WHERE scope = ?", (TENANT,))
    assert any("CHECK" in problem for problem in authority.check())

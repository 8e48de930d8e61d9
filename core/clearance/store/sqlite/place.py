"""Where a ledger may live: refuses what cannot keep money safely, before anything is opened."""

from __future__ import annotations

import os
from pathlib import Path

import apsw

from clearance.errors import StoreCorrupt, StoreReadOnly, StoreUnsafe

APPLICATION_ID = 0x436C6561
"""`Clea` in the file header says that the database is ours."""

MIN_SQLITE = (3, 51, 3)
"""The first release without the WAL-reset bug (sqlite.org/wal.html#walresetbug)."""

NETWORK_FILE_SYSTEMS = frozenset(
    {
        "nfs",
        "nfs4",
        "cifs",
        "smb3",
        "smbfs",
        "afs",
        "9p",
        "ceph",
        "glusterfs",
        "lustre",
        "fuse.sshfs",
        "fuse.s3fs",
        "fuse.rclone",
    }
)

_MAGIC = b"SQLite format 3\x00"
RESTORE = "Restore the last backup, or move the file away to begin a new ledger; `clearance doctor` says more"


def prepare(path: Path) -> None:
    """Refuse an unsafe place; make the folder. Raises StoreUnsafe, StoreCorrupt, StoreReadOnly."""
    _require_sqlite()
    _require_local(path)
    try:
        is_folder = path.is_dir()
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreReadOnly(f"cannot enter or make the folder {path.parent}: {error.strerror}") from None
    if is_folder:
        raise StoreCorrupt(f"{path} is a folder, not a ledger file; give the path of a file in it")
    _require_writable(path)
    if path.exists() and path.stat().st_size:
        _require_ours(path)


def _require_sqlite() -> None:
    found = tuple(int(part) for part in apsw.sqlite_lib_version().split("."))
    if found < MIN_SQLITE:
        wanted = ".".join(map(str, MIN_SQLITE))
        raise StoreUnsafe(
            f"SQLite {apsw.sqlite_lib_version()} can lose data in WAL mode; an apsw with SQLite {wanted} is needed"
        )


def _require_local(path: Path) -> None:
    kind = file_system(path)
    if kind in NETWORK_FILE_SYSTEMS:
        raise StoreUnsafe(
            f"{path} is on a network file system ({kind}), where SQLite's locks do not hold; use a local disk"
        )


def _require_writable(path: Path) -> None:
    for place in (path, path.parent):
        if place.exists() and not os.access(place, os.W_OK):
            raise StoreReadOnly(f"{place} cannot be written by this user; the ledger needs the file and its folder")


def _require_ours(path: Path) -> None:
    try:
        with path.open("rb") as file:
            header = file.read(100)
    except OSError as error:
        raise StoreReadOnly(f"cannot read {path}: {error.strerror}") from None
    if not header.startswith(_MAGIC) or len(header) < 100:
        raise StoreCorrupt(f"{path} is not a Clearance ledger (no SQLite header); nothing was changed. {RESTORE}")
    owner = int.from_bytes(header[68:72], "big")
    if owner != APPLICATION_ID and not (owner == 0 and _unborn(path)):
        raise StoreCorrupt(f"{path} is a database of another program; nothing was changed. Choose another path")


def _unborn(path: Path) -> bool:
    """A ledger whose first process died before its schema was in the main file has the id in the WAL only.

    Another program's database with a log beside it looks the same in its header, so the log is read, and only read.
    """
    if not Path(f"{path}-wal").exists():
        return False
    try:
        connection = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY)
        try:
            owner = connection.execute("PRAGMA application_id").fetchall()[0][0]
            tables = connection.execute("SELECT count(*) FROM sqlite_master").fetchall()[0][0]
        finally:
            connection.close()
    except apsw.Error:
        return False
    return bool(owner == APPLICATION_ID or (owner == 0 and tables == 0))


def file_system(path: Path) -> str:
    """The type of the file system that holds `path`, as Linux names it; empty where that cannot be told."""
    try:
        lines = Path("/proc/self/mounts").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    real = os.path.realpath(path)
    best, kind = "", ""
    for line in lines:
        _, mount, this_kind, *_ = line.split(" ")
        mount = mount.encode().decode("unicode_escape")
        if len(mount) >= len(best) and (real == mount or real.startswith(mount.rstrip("/") + "/")):
            best, kind = mount, this_kind
    return kind

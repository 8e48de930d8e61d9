"""What SQLite's errors mean for the ledger, and what to do about them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import apsw

from clearance.errors import StoreCorrupt, StoreError, StoreFull, StoreReadOnly
from clearance.store.sqlite.place import RESTORE


@contextlib.contextmanager
def translated(path: str) -> Iterator[None]:
    """apsw's errors as ours."""
    try:
        yield
    except apsw.Error as error:
        raise ours(error, path) from error


def ours(error: BaseException, path: str) -> BaseException:
    """What is wrong with the storage and what to do, or the error itself if it is not the storage's."""
    match error:
        case apsw.NotADBError() | apsw.CorruptError():
            return StoreCorrupt(f"{path} is damaged or not a ledger ({error}); nothing was overwritten. {RESTORE}")
        case apsw.FullError():
            return StoreFull(
                f"the disk of {path} is full; the operation was rolled back. Free some space and try again"
            )
        case apsw.ReadOnlyError() | apsw.CantOpenError() | apsw.PermissionsError():
            return StoreReadOnly(f"{path} cannot be written ({error}); the ledger needs the file and its folder")
        case apsw.BusyError() | apsw.LockedError():
            return StoreError(f"{path} is locked by another program ({error}); try again")
        case apsw.Error():
            return StoreError(f"{path}: {type(error).__name__}: {error}")
    return error

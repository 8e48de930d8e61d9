"""psycopg's errors as ours."""

from __future__ import annotations

import psycopg
from psycopg import errors

from clearance.errors import StoreCorrupt, StoreError, StoreFull, StoreReadOnly, StoreVersion

AT_ONCE_MS = 0
"""`retry_after_ms` of an error after which the same batch can be run again at once: nothing of it was written."""

_CONTENDED = (
    errors.SerializationFailure,
    errors.DeadlockDetected,
    errors.LockNotAvailable,
    errors.UniqueViolation,
)
_ENDED = (errors.AdminShutdown, errors.CrashShutdown, errors.CannotConnectNow, errors.IdleInTransactionSessionTimeout)


class Lost(StoreError):
    """The connection is gone. Nothing was written, unless the message says otherwise."""


def contended(place: str, why: object) -> StoreError:
    return StoreError(
        f"{place}: another process was at the same rows ({why}); nothing was written, try again",
        retry_after_ms=AT_ONCE_MS,
    )


def is_contended(error: BaseException) -> bool:
    return isinstance(error, StoreError) and error.retry_after_ms == AT_ONCE_MS


def unknown_outcome(place: str, why: object) -> StoreError:
    return Lost(
        f"{place}: the connection was lost while committing ({why}), so the outcome is unknown: it happened or it did "
        "not. Ask again with the same idempotency key to learn which, without doing it twice"
    )


def ours(error: BaseException, place: str) -> BaseException:
    """What is wrong and what to do, or the error itself if it is not the database's."""
    why = str(error).strip().partition("\n")[0]
    if isinstance(error, _CONTENDED):
        return contended(place, why)
    if isinstance(error, _ENDED) or (isinstance(error, psycopg.OperationalError) and error.sqlstate is None):
        return Lost(f"{place} is not reachable or ended the connection ({why}); nothing was written")
    match error:
        case errors.DiskFull():
            return StoreFull(f"the disk of {place} is full; nothing was written. Free some space and try again")
        case errors.ReadOnlySqlTransaction() | errors.InsufficientPrivilege():
            return StoreReadOnly(f"{place} cannot be written ({why}); is it a standby, or does the role lack rights?")
        case errors.DataCorrupted() | errors.IndexCorrupted():
            return StoreCorrupt(f"{place} is damaged ({why}); restore a backup or fail over")
        case errors.UndefinedTable() | errors.InvalidSchemaName() | errors.UndefinedColumn():
            return StoreVersion(f"{place} has another schema than this Clearance needs ({why}): `clearance db migrate`")
        case errors.IntegrityError():
            return StoreError(f"{place}: a constraint refused the change ({why}); nothing was written")
        case psycopg.Error():
            return StoreError(f"{place}: {type(error).__name__}: {why}")
    return error

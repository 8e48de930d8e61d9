"""What the tests of the PostgreSQL engine share, also with the processes they start."""

from __future__ import annotations

from typing import Any

import psycopg
from tests.authority.kit import TENANT, budget

from clearance.authority.batch import GroupCommit, _Waiting
from clearance.authority.embedded import EmbeddedAuthority
from clearance.errors import StoreError
from clearance.store.postgres import PostgresStore

MAX_TRIES = 12
TABLES = (
    "accounts",
    "reservations",
    "answers",
    "stops",
    "gates",
    "tenants",
    "records",
    "events",
)


class RerunningCommit(GroupCommit):
    """Runs a batch again whose rows changed under it, until the queue does so itself."""

    def _execute(self, batch: list[_Waiting], tries: int = 1) -> None:
        super()._execute(batch)
        if tries < MAX_TRIES and any(_moved(waiting.error) for waiting in batch):
            again = [waiting for waiting in batch if _moved(waiting.error)]
            for waiting in again:
                waiting.done = False
            self._execute(again, tries + 1)


def _moved(error: BaseException | None) -> bool:
    return isinstance(error, StoreError) and error.retry_after_ms == 0


def open_authority(url: str, **options: Any) -> EmbeddedAuthority:
    authority = EmbeddedAuthority(PostgresStore(url), **{"background": False, **options})
    authority._batch = RerunningCommit(authority._store)
    return authority


def with_budget(url: str, allocated: int, **options: Any) -> EmbeddedAuthority:
    authority = open_authority(url, **options)
    budget(authority, TENANT, allocated)
    return authority


def empty(url: str) -> None:
    """A ledger as new, without the time that a new database takes."""
    with psycopg.connect(url, autocommit=True) as connection:
        for table in TABLES:
            connection.execute(f"DELETE FROM clearance.{table}".encode())

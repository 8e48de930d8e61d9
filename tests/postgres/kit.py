"""What the tests of the PostgreSQL engine share, also with the processes they start."""

from __future__ import annotations

from typing import Any

import psycopg
from tests.authority.kit import TENANT, budget

from clearance.authority.embedded import EmbeddedAuthority
from clearance.store.postgres import PostgresStore

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


def open_authority(url: str, **options: Any) -> EmbeddedAuthority:
    return EmbeddedAuthority(PostgresStore(url), **{"background": False, **options})


def with_budget(url: str, allocated: int, **options: Any) -> EmbeddedAuthority:
    authority = open_authority(url, **options)
    budget(authority, TENANT, allocated)
    return authority


def empty(url: str) -> None:
    """A ledger as new, without the time that a new database takes."""
    with psycopg.connect(url, autocommit=True) as connection:
        for table in TABLES:
            connection.execute(f"DELETE FROM clearance.{table}".encode())

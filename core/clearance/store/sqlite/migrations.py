"""Brings a ledger's file to the present schema."""

from __future__ import annotations

from importlib import resources
from typing import Any

import apsw

from clearance.errors import StoreVersion


def schema() -> list[str]:
    """The migrations, oldest first; number n brings a ledger to version n."""
    folder = resources.files("clearance.store.schema").joinpath("sqlite")
    files = sorted((entry for entry in folder.iterdir() if entry.name.endswith(".sql")), key=lambda entry: entry.name)
    return [entry.read_text(encoding="utf-8") for entry in files]


def migrate(connection: apsw.Connection, path: str, known: list[str]) -> None:
    """Apply what is missing of `known`, each whole or not at all. Raises StoreVersion for a newer schema."""
    row: tuple[Any, ...] = connection.execute("PRAGMA user_version").fetchall()[0]
    found = int(row[0])
    if found > len(known):
        raise StoreVersion(
            f"{path} has schema {found}, this Clearance knows {len(known)}; nothing was changed. Use a newer Clearance"
        )
    for number, text in list(enumerate(known, start=1))[found:]:
        with connection:
            connection.execute(text)
            connection.execute(f"PRAGMA user_version = {number}")

"""The SQLite engine."""

from clearance.store.sqlite.engine import MEMORY, SqliteStore

__all__ = ["MEMORY", "SqliteStore"]

"""The PostgreSQL engine."""

from clearance.store.postgres.engine import PostgresStore

__all__ = ["PostgresStore"]

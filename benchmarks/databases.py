"""A PostgreSQL of the benchmark's own: the server that the tests bring along, with a durable configuration."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from tests.postgres.server import Server

DURABLE = {"fsync": "on", "full_page_writes": "on", "synchronous_commit": "on", "shared_buffers": "256MB"}


@contextmanager
def database(**settings: str) -> Iterator[Server]:
    """Every answered commit is on the disk, as in earnest."""
    server = Server(**{**DURABLE, "max_connections": "200", **settings})
    try:
        yield server
    finally:
        server.stop()

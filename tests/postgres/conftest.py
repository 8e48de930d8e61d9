"""One PostgreSQL server for the session, and ledgers on it in place of the usual ones."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.postgres.kit import empty, open_authority
from tests.postgres.server import Server

from clearance.authority.clock import ManualClock
from clearance.authority.embedded import EmbeddedAuthority
from clearance.store.postgres import PostgresStore


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    server = Server()
    yield server
    server.stop()


@pytest.fixture(scope="session")
def template(server: Server) -> str:
    """The name of a database with an empty ledger, to copy from."""
    url = server.new_database()
    PostgresStore(url).close()
    return url.rpartition("/")[2]


@pytest.fixture
def url(server: Server, template: str) -> Iterator[str]:
    """An empty ledger. The test may not change its schema, for another test gets it next."""
    url = server.spare.pop() if server.spare else server.new_database(template)
    yield url
    server.end_sessions(url)
    empty(url)
    server.spare.append(url)


@pytest.fixture
def own_url(server: Server, template: str) -> str:
    """An empty ledger for this test alone."""
    return server.new_database(template)


@pytest.fixture(scope="session")
def common_url(server: Server, template: str) -> str:
    return server.new_database(template)


@pytest.fixture
def open_ledger(
    server: Server, template: str, common_url: str, clock: ManualClock
) -> Iterator[Callable[[str | Path], EmbeddedAuthority]]:
    """As the fixture of the same name for SQLite: a path is a name, and the same one is the same ledger."""
    opened: list[EmbeddedAuthority] = []
    urls: dict[str, str] = {}

    def open_at(path: str | Path) -> EmbeddedAuthority:
        if not urls:
            empty(common_url)
            urls[str(path)] = common_url
        url = urls.setdefault(str(path), "") or server.new_database(template)
        urls[str(path)] = url
        opened.append(open_authority(url, clock=clock))
        return opened[-1]

    yield open_at
    for authority in opened:
        authority.close()


@pytest.fixture
def authority(open_ledger: Callable[[str | Path], EmbeddedAuthority]) -> EmbeddedAuthority:
    return open_ledger("ledger")

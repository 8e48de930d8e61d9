"""One connection to the database: opened when needed, opened anew when it was lost, abandoned in a forked child."""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
from collections.abc import Sequence
from typing import Any

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.pq import TransactionStatus

from clearance.errors import InvalidRequest, StoreError, StoreVersion
from clearance.store.postgres import statements as sql
from clearance.store.postgres.problems import Lost, ours
from clearance.store.postgres.wire import Row, Statement, Wire

OLDEST_SERVER = 150_000

_RIGHT = (
    "postgresql://user:password@host:5432/database, where a user, password or database has %25 for %, %40 for @, "
    "%2F for /, %3A for :, %20 for a blank"
)
_ESCAPED = re.compile(r"(?:[^%\s\0]|%(?!00)[0-9a-fA-F]{2})*")
_HOST = re.compile(r"(?:\[[^\[\]]+\]|(?:[^\[\]:%\s\0]|%(?!00)[0-9a-fA-F]{2})*)(?::\d*)?")
_PLACE = re.compile(r"([^/?]*)(?:/([^?]*))?(?:\?(.*))?", re.DOTALL)

_DEFAULTS = {
    "application_name": "clearance",
    "connect_timeout": "5",
    # A peer that vanished without a word is noticed after about 20 s.
    "keepalives_idle": "10",
    "keepalives_interval": "3",
    "keepalives_count": "3",
    "tcp_user_timeout": "20000",
}


def conninfo_of(url: str) -> str:
    """The URL with our defaults for what it leaves open. Raises InvalidRequest, which never quotes the URL."""
    return make_conninfo("", **{**_DEFAULTS, **_facts(url)})


def place_of(url: str) -> str:
    """How messages name the database: never with a password."""
    facts = _facts(url)
    host, port = facts.get("host") or "local socket", facts.get("port") or "5432"
    return f"postgresql://{host}:{port}/{facts.get('dbname') or facts.get('user') or ''}"


def _facts(url: str) -> dict[str, Any]:
    """What libpq reads, unless it would take a part of an unescaped password for another part of the URL."""
    if "@" in _login_and_place(url)[1].partition("?")[0]:
        raise _unreadable("has an @ or a / too many before the host, perhaps in the password")
    try:
        facts = conninfo_to_dict(url)
    except (psycopg.Error, ValueError):
        # libpq's own words quote what it could not read, often the password. No cause either: logs print it.
        raise _unreadable(f"is no PostgreSQL URL: {_bad_part(url)} cannot be read") from None
    if not all(_is_port(port) for port in str(facts.get("port", "")).split(",")):
        raise _unreadable("is no PostgreSQL URL: the port is no number from 1 to 65535")
    return facts


def _unreadable(problem: str) -> InvalidRequest:
    return InvalidRequest("url", problem, _RIGHT)


def _login_and_place(url: str) -> tuple[str, str]:
    """As libpq does: a login ends at the first @, and there is none if a / comes first. Nothing for what is no URL."""
    scheme, _, rest = url.partition("://")
    if scheme not in ("postgresql", "postgres"):
        return "", ""
    login, at, place = rest.partition("@")
    return (login, place) if at and "/" not in login else ("", rest)


def _bad_part(url: str) -> str:
    login, place = _login_and_place(url)
    if not place:
        return "the connection string"
    user, _, password = login.partition(":")
    hosts, path, query = _PLACE.fullmatch(place).groups("")  # type: ignore[union-attr]
    parts = {"the password": password, "the user": user, "the database's name": path}
    found = [name for name, text in parts.items() if not _ESCAPED.fullmatch(text)]
    found += [] if all(map(_HOST.fullmatch, hosts.split(","))) else ["the host"]
    return found[0] if found else "what follows the ?" if query else "a part of it"


def _is_port(text: str) -> bool:
    return not text or (text.isascii() and text.isdigit() and len(text) <= 5 and 0 < int(text) <= 65_535)


class Link:
    """Not thread-safe."""

    def __init__(self, conninfo: str, place: str, *, writes: bool = False) -> None:
        self._conninfo = conninfo
        self._place = place
        self._writes = writes
        self._connection: psycopg.Connection[Row] | None = None
        self._wire: Wire | None = None
        self.is_direct = False
        """Do we talk to one backend, or to a pooler that may give every transaction another one?"""
        self.flushes = True
        """Does a commit wait for the disk unless told otherwise?"""

    @property
    def connection(self) -> psycopg.Connection[Row]:
        if self._connection is None or self._connection.closed:
            self._connection = self._connect()
            # Plans stay with a session, which behind a pooler is anybody's.
            self._wire = Wire(self._connection, prepares=self.is_direct)
        return self._connection

    @property
    def is_open(self) -> bool:
        return self._connection is not None and not self._connection.closed

    def _connect(self) -> psycopg.Connection[Row]:
        try:
            connection = psycopg.connect(self._conninfo, autocommit=True, prepare_threshold=None)
        except psycopg.Error as error:
            raise Lost(f"{self._place} cannot be reached ({_first_line(error)})") from error
        try:
            self._meet(connection)
        except BaseException as error:
            connection.close()
            raise ours(error, self._place) from error
        return connection

    def _meet(self, connection: psycopg.Connection[Row]) -> None:
        if connection.info.server_version < OLDEST_SERVER:
            raise StoreVersion(f"{self._place} is PostgreSQL {connection.info.server_version // 10_000}; 15 is needed")
        row = connection.execute("SELECT pg_backend_pid(), current_setting('synchronous_commit')").fetchone()
        assert row is not None
        # A pooler hands out a cancel key of its own making, so the backend that answers is not the one that it names.
        self.is_direct = row[0] == connection.info.backend_pid
        self.flushes = row[1] != "off"
        if self.is_direct:
            connection.execute(sql.LIMITS)
            if self._writes:
                connection.execute(sql.PLANS)

    def run(self, statements: Sequence[Statement], *, keep: bool = True) -> list[list[Row]]:
        """The rows of each, all in one round trip. If one fails, those after it are not run."""
        _ = self.connection
        assert self._wire is not None
        try:
            return self._wire.run(statements, keep=keep)
        except psycopg.Error as error:
            raise ours(error, self._place) from error

    def end_transaction(self) -> None:
        """Roll back, or give up a connection that cannot."""
        if not self.is_open:
            return
        assert self._connection is not None
        status = self._connection.info.transaction_status
        if status == TransactionStatus.IDLE:
            return
        if status in (TransactionStatus.INTRANS, TransactionStatus.INERROR):
            with contextlib.suppress(StoreError):
                self.run([(sql.ROLLBACK, ())])
                return
        self.close()

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def abandon(self) -> None:
        """In a child: the session is the parent's. Only our copy of its socket is closed, without a word to the server.

        Without that the server would keep a dead parent's session, and its locks, as long as the child lives.
        """
        connection, self._connection = self._connection, None
        if connection is None or connection.closed:
            return
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(connection))
        with contextlib.suppress(OSError, psycopg.Error):
            os.close(connection.fileno())


def _first_line(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0]

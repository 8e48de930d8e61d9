"""Many statements in one round trip, on libpq's pipeline mode.

psycopg has a pipeline of its own; sending and reading each statement apart and adapting arrays in Python make it cost
the client several times what the server needs. Here all are sent at once, and values go as text.
"""

from __future__ import annotations

import select
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import psycopg
from psycopg import pq
from psycopg.errors import error_from_result

Row = tuple[Any, ...]
Statement = tuple[str, Sequence[Any]]
"""SQL with %s for each value, and the values: int, str, bool, bytes, None, and lists of these."""

_SYNC, _ABORTED, _FATAL = pq.ExecStatus.PIPELINE_SYNC, pq.ExecStatus.PIPELINE_ABORTED, pq.ExecStatus.FATAL_ERROR
_TUPLES = pq.ExecStatus.TUPLES_OK
_BROKEN = pq.ConnStatus.BAD
ANSWER_SECONDS = 30.0
"""A server that says nothing for so long is taken for lost: a peer may be gone, or a line hang, without a word. Longer
than any lock is waited for."""
_BETWEEN = "\x1f"
"""Hardly ever in a text of ours; where it is, members are written one by one."""


class Wire:
    """Sends statements over a connection of psycopg's. `prepares`: keep each statement's plan in the session."""

    def __init__(self, connection: psycopg.Connection[Row], *, prepares: bool) -> None:
        self._pgconn = connection.pgconn
        self._prepares = prepares
        self._names: dict[str, bytes] = {}
        self._made = 0

    def run(self, statements: Sequence[Statement], *, keep: bool) -> list[list[Row]]:
        """The rows of each. If one fails, those after it are not run and its error is raised.

        `keep=False` for statements that will hardly come again.
        """
        pgconn = self._pgconn
        pgconn.enter_pipeline_mode()
        try:
            prepared = [self._send(text, values, keep) for text, values in statements]
            pgconn.pipeline_sync()
            results = self._receive()
        except BaseException:
            # What was not read would be taken for the answer of the next statement.
            pgconn.finish()
            raise
        if pgconn.status == _BROKEN:
            raise _failure(results) or psycopg.OperationalError("the connection was closed")
        pgconn.exit_pipeline_mode()
        error = _failure(results)
        if error is not None:
            # Which of the new plans exist is not worth finding out: names are never used twice.
            for text in prepared:
                if text is not None:
                    self._names.pop(text, None)
            raise error
        answers = iter(results)
        rows = []
        for text in prepared:
            if text is not None:
                next(answers)
            rows.append(_rows(next(answers)))
        return rows

    def _send(self, text: str, values: Sequence[Any], keep: bool) -> str | None:
        """Returns the text if it is prepared along the way, which has an answer of its own."""
        query, dumped = _numbered(text), [_dump(value) for value in values]
        if not (keep and self._prepares):
            self._pgconn.send_query_params(query, dumped)
            return None
        name = self._names.get(text)
        if name is not None:
            self._pgconn.send_query_prepared(name, dumped)
            return None
        self._made += 1
        made = self._names[text] = b"clearance_%d" % self._made
        self._pgconn.send_prepare(made, query)
        self._pgconn.send_query_prepared(made, dumped)
        return text

    def _receive(self) -> list[pq.abc.PGresult]:
        pgconn = self._pgconn
        results: list[pq.abc.PGresult] = []
        poller = select.poll()
        while True:
            unsent = pgconn.flush()
            poller.register(pgconn.socket, select.POLLIN | (select.POLLOUT if unsent else 0))
            if not poller.poll(ANSWER_SECONDS * 1_000):
                raise psycopg.OperationalError(f"no answer within {ANSWER_SECONDS:g} s")
            pgconn.consume_input()
            while not pgconn.is_busy():
                result = pgconn.get_result()
                if result is None:
                    if pgconn.status == _BROKEN:
                        return results
                    continue
                if result.status == _SYNC:
                    return results
                results.append(result)


def _failure(results: Sequence[pq.abc.PGresult]) -> psycopg.Error | None:
    failed = next((result for result in results if result.status == _FATAL), None)
    return error_from_result(failed, "utf-8") if failed else None


@lru_cache(maxsize=512)
def _numbered(text: str) -> bytes:
    """%s as $1, $2, ..."""
    first, *rest = text.split("%s")
    return (first + "".join(f"${n}{part}" for n, part in enumerate(rest, start=1))).encode()


# -- values as text, and back -------------------------------------------------------------------------


def _dump(value: Any) -> bytes | None:
    if isinstance(value, list):
        return _array(value)
    return None if value is None else _plain(value).encode()


def _plain(value: Any) -> str:
    if value is True or value is False:
        return "t" if value else "f"
    return "\\x" + value.hex() if isinstance(value, bytes) else str(value)


def _array(values: list[Any]) -> bytes:
    """Most columns are of one type, and then a few calls do for all of their members."""
    kinds = set(map(type, values))
    if kinds == {int}:
        return ("{" + ",".join(map(str, values)) + "}").encode()
    if kinds == {str}:
        joined = _BETWEEN.join(values)
        if joined.count(_BETWEEN) == len(values) - 1:
            if "\\" in joined:
                joined = joined.replace("\\", "\\\\")
            return ('{"' + joined.replace('"', '\\"').replace(_BETWEEN, '","') + '"}').encode()
    if kinds == {bytes}:
        return ('{"\\\\x' + '","\\\\x'.join([value.hex() for value in values]) + '"}').encode()
    return ("{" + ",".join([_member(value) for value in values]) + "}").encode()


def _member(value: Any) -> str:
    if value is None:
        return "NULL"
    if type(value) is int:
        return str(value)
    text = value if type(value) is str else _plain(value)
    if "\\" in text:
        text = text.replace("\\", "\\\\")
    return '"' + text.replace('"', '\\"') + '"'


def _bytes(text: bytes) -> bytes:
    return bytes.fromhex(text[2:].decode())


def _text(text: bytes) -> str:
    return text.decode()


def _bool(text: bytes) -> bool:
    return text == b"t"


_LOADERS: dict[int, Callable[[bytes], Any]] = {16: _bool, 17: _bytes, 20: int, 23: int, 26: int, 1700: int}
"""By the type's oid; all others are text."""


def _rows(result: pq.abc.PGresult) -> list[Row]:
    if result.status != _TUPLES:
        return []
    loaders = [_LOADERS.get(result.ftype(n), _text) for n in range(result.nfields)]
    get = result.get_value
    return [
        tuple([None if (value := get(row, n)) is None else load(value) for n, load in enumerate(loaders)])
        for row in range(result.ntuples)
    ]

"""The lines of an export, read with suspicion: what is none is refused with its number, before the engine sees it."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from clearance.errors import InvalidRequest
from clearance.store.move.tables import TABLES, RowRefused, Shelf

FORMAT = "clearance ledger 1"
CHUNK = 1_000
UNCHANGED = "nothing was changed"

Line = tuple[int, Any]


class Lines:
    """`name` is what messages call the file."""

    def __init__(self, lines: Iterable[str], name: str) -> None:
        self._lines = iter(lines)
        self._name = name

    def load(self, shelf: Shelf) -> dict[str, Any]:
        """Fill the tables; returns what the last line says. Raises InvalidRequest."""
        lines = self._parsed()
        self._require_head(lines)
        for table, group in itertools.groupby(lines, key=self._table):
            if table is None:
                return self._last(group, lines)
            while chunk := list(itertools.islice(group, CHUNK)):
                self._load(shelf, table, chunk)
        raise InvalidRequest(
            "export", f"{self._name} ends in the middle; {UNCHANGED}", "a whole export, with its last line"
        )

    def _parsed(self) -> Iterator[Line]:
        for number in itertools.count(1):
            try:
                line = next(self._lines, None)
                if line is None:
                    return
                value = json.loads(line)
            except UnicodeDecodeError:
                raise self._refused(number, "or one soon after it is not UTF-8") from None
            except (ValueError, RecursionError):
                raise self._refused(number, "it is not JSON") from None
            yield number, value

    def _require_head(self, lines: Iterator[Line]) -> None:
        number, head = next(lines, (1, None))
        if not isinstance(head, dict) or head.get("format") != FORMAT:
            raise self._refused(number, f'the first line is {{"format": "{FORMAT}"}}')

    def _table(self, line: Line) -> str | None:
        """The table of a row that is one, None for the totals."""
        number, value = line
        if isinstance(value, dict) and value.keys() == {"totals"}:
            return None
        if not isinstance(value, list) or not value:
            raise self._refused(number, "it is neither a row nor the totals")
        table, *row = value
        if not isinstance(table, str) or table not in TABLES:
            raise self._refused(number, f"it is of no table; there are {', '.join(TABLES)}")
        if len(row) != len(TABLES[table]):
            raise self._refused(number, f"a row of {table} has {len(TABLES[table])} columns, this one has {len(row)}")
        for column, found in zip(TABLES[table], row, strict=True):
            if found is not None and (problem := _CHECKS[column](found)):
                raise self._refused(number, f"{column} of {table} {problem}")
        return table

    def _last(self, group: Iterator[Line], others: Iterator[Line]) -> dict[str, Any]:
        number, value = next(group)
        totals = value["totals"]
        if not isinstance(totals, dict) or not all(isinstance(it, dict) for it in totals.values()):
            raise self._refused(number, "its totals are none")
        for further, _ in others:
            raise self._refused(further, f"it comes after the totals in line {number}, which are the end")
        return totals

    def _load(self, shelf: Shelf, table: str, chunk: list[Line]) -> None:
        try:
            shelf.load(table, [value[1:] for _, value in chunk])
        except RowRefused as error:
            where = chunk[error.index][0] if error.index is not None else f"{chunk[0][0]} or one up to {chunk[-1][0]}"
            raise self._refused(where, f"{table}: {error.why}") from None

    def _refused(self, number: int | str, why: str) -> InvalidRequest:
        return InvalidRequest(
            "export",
            f"line {number} of {self._name} is not part of an export ({why}); {UNCHANGED}",
            "an export, as it was",
        )


def _number(value: Any) -> str | None:
    return None if isinstance(value, int) and -(2**63) <= value < 2**63 else "is no whole number of 64 bits"


def _words(value: Any) -> str | None:
    if not isinstance(value, str):
        return "is no text"
    try:
        value.encode()
    except UnicodeEncodeError:
        return "is no text in UTF-8"
    return "has a NUL" if "\0" in value else None


def _hash(value: Any) -> str | None:
    try:
        return None if bytes.fromhex(value).hex() == value else "is not in lower-case hex"
    except (TypeError, ValueError):
        return "is not in hex"


def _facts(value: Any) -> str | None:
    try:
        held_on = json.loads(value)["held_on"]
    except (TypeError, ValueError, LookupError, RecursionError):
        return "is no JSON with held_on"
    is_right = isinstance(held_on, list) and not any(not isinstance(it, str) or _words(it) for it in held_on)
    return _words(value) if is_right else "has no list of scopes in held_on"


_NUMBERS = {"allocated", "reserved", "spent", "debt", "over_limit", "overdraft_limit", "estimate", "charged", "actual"}
_NUMBERS |= {"extension_count", "seq", "max_extensions"}
_CHECKS: dict[str, Callable[[Any], str | None]] = {
    column: _number if column.endswith("_ms") or column in _NUMBERS else _words
    for columns in TABLES.values()
    for column in columns
} | {"key": _hash, "payload": _hash, "facts": _facts}

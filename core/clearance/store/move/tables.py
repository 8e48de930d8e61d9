"""The tables of a ledger in the words that all engines share."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, Protocol

from clearance.store.sqlite.statements import ACCOUNT_COLUMNS, EVENT_COLUMNS, RECORD_COLUMNS, RESERVATION_COLUMNS

TABLES: dict[str, tuple[str, ...]] = {
    "accounts": tuple(ACCOUNT_COLUMNS.split(", ")),
    "reservations": tuple(RESERVATION_COLUMNS.split(", ")),
    "answers": ("key", "payload", "seq"),
    "stops": ("tenant", "scope", "state", "reason", "actor", "at_ms"),
    "tenants": ("tenant", "status", "overage_policy", "max_extensions"),
    "records": tuple(RECORD_COLUMNS.split(", ")),
    "events": tuple(EVENT_COLUMNS.split(", ")),
}
_UNIT, _SUMS = 2, slice(3, 7)
Values = Sequence[Any]


def plain(value: Any) -> Any:
    """A column as JSON has it, the same from every engine: bytes as hex, truth as 0 and 1, no NUL in words."""
    if isinstance(value, bool):
        return int(value)
    if isinstance(value, bytes | memoryview):
        return bytes(value).hex()
    return value.replace("\0", "\N{SYMBOL FOR NULL}") if isinstance(value, str) and "\0" in value else value


@dataclass
class Totals:
    """Per table the number of rows and a digest that does not depend on their order; per unit the sums of balances."""

    rows: dict[str, int] = field(default_factory=lambda: dict.fromkeys(TABLES, 0))
    digests: dict[str, int] = field(default_factory=lambda: dict.fromkeys(TABLES, 0))
    balances: dict[str, list[int]] = field(default_factory=dict)
    """unit: allocated, reserved, spent, debt"""

    def add(self, table: str, row: Values) -> None:
        digest = hashlib.blake2b(json.dumps([table, *row], ensure_ascii=False).encode(), digest_size=16).digest()
        self.rows[table] += 1
        self.digests[table] = (self.digests[table] + int.from_bytes(digest, "big")) % 2**128
        if table == "accounts":
            sums = self.balances.setdefault(row[_UNIT], [0, 0, 0, 0])
            self.balances[row[_UNIT]] = [old + new for old, new in zip(sums, row[_SUMS], strict=True)]

    def as_dict(self) -> dict[str, Any]:
        digests = {table: f"{digest:032x}" for table, digest in self.digests.items()}
        return {"rows": self.rows, "digests": digests, "balances": dict(sorted(self.balances.items()))}

    @classmethod
    def from_dict(cls, facts: dict[str, Any]) -> Totals:
        return cls(facts["rows"], {table: int(text, 16) for table, text in facts["digests"].items()}, facts["balances"])


class RowRefused(Exception):
    """The engine does not take one of the rows; `index` is its place among those given, None if unknown."""

    def __init__(self, index: int | None, why: str) -> None:
        super().__init__(why)
        self.index = index
        self.why = why


class Shelf(Protocol):
    """A ledger's tables, open for one long look or one big change."""

    def reading(self) -> AbstractContextManager[Shelf]: ...
    def writing(self) -> AbstractContextManager[Shelf]:
        """One transaction: an exception undoes it."""
        ...

    def rows(self, table: str) -> Iterable[Values]: ...
    def load(self, table: str, rows: Sequence[Values]) -> None:
        """Raises RowRefused; then the transaction can only be undone."""
        ...

    def finish(self) -> None:
        """What has to follow the last row."""
        ...

"""Which idempotency keys were used. Nearly every key is new, and asking the table each time is what costs."""

from __future__ import annotations

from collections.abc import Sequence

import apsw

from clearance.store.interface import Answered
from clearance.store.sqlite import statements as sql
from clearance.store.sqlite.rows import Row

MAX_RECENT = 10_000
"""Of `written`; then it is time to forget, between two transactions."""
MAX_GAPS = 4


class Answers:
    """Remembers what it has seen of the table, for as long as nobody else writes to it.

    A search tells of a gap: from the key that is not there to the next that is. What lies in it later can only be our
    own. Keys that rise with time, as most do, nearly all lie in the gap behind the newest that the table had when it
    was first asked.
    """

    def __init__(self, connection: apsw.Connection) -> None:
        self._connection = connection
        self.forget()

    def forget(self) -> None:
        """Somebody else may have written, or ours was rolled back."""
        self.written: dict[bytes, Answered] = {}
        """Ours since then; whoever writes adds to it."""
        self._looked_up: dict[bytes, Answered | None] = {}
        self._gaps: list[tuple[bytes, bytes | None]] = []

    def find(self, key: bytes) -> Answered | None:
        found = self.written.get(key) or self._looked_up.get(key)
        if found is not None or self._in_gap(key) or key in self._looked_up:
            return found
        rows: list[Row] = self._connection.execute(sql.GET_ANSWER_OR_NEXT, (key,)).fetchall()
        following, payload, seq = rows[0] if rows else (None, b"", 0)
        if following == key:
            return Answered(payload, seq)
        self._add_gap(key, following)
        return None

    def look_up(self, keys: Sequence[bytes]) -> None:
        """Those of a batch. Keys in no order are searched for at once, which gives up the interpreter's lock once."""
        unknown = self._unknown(keys)
        if unknown:
            self.find(min(unknown))
            unknown = self._unknown(unknown)
        self._looked_up = dict.fromkeys(unknown)
        if unknown:
            marks = ", ".join("?" * len(unknown))
            for key, payload, seq in self._connection.execute(sql.GET_ANSWERS.format(marks), unknown):
                self._looked_up[key] = Answered(payload, seq)

    def _unknown(self, keys: Sequence[bytes]) -> list[bytes]:
        return [key for key in keys if key not in self.written and not self._in_gap(key)]

    def _in_gap(self, key: bytes) -> bool:
        for place, (first, end) in enumerate(self._gaps):
            if first <= key and (end is None or key < end):
                if place:
                    self._gaps.insert(0, self._gaps.pop(place))
                return True
        return False

    def _add_gap(self, key: bytes, end: bytes | None) -> None:
        for place, (first, far_end) in enumerate(self._gaps):
            if key < first and (end is None or first <= end):
                # Keys of one millisecond are in no order: the gap begins earlier than was known.
                self._gaps[place] = (key, far_end)
                return
        self._gaps.insert(0, (key, end))
        del self._gaps[MAX_GAPS:]

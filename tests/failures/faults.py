"""A store that fails on command, as disks and networks do: before the commit, or after it with the answer lost."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from clearance.errors import StoreError
from clearance.store.interface import Transaction
from clearance.store.sqlite import SqliteStore


class FaultyStore:
    """`lose` the next n transactions, or `answer_lost` for the next n that were committed all the same."""

    def __init__(self, path: str | Path) -> None:
        self._store = SqliteStore(path)
        self.lose = 0
        self.answer_lost = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    @contextmanager
    def transaction(self, *, flush: bool, wait: bool = True) -> Iterator[Transaction]:
        with self._store.transaction(flush=flush, wait=wait) as transaction:
            yield transaction
            if self.lose:
                self.lose -= 1
                raise StoreError("a fault of the test: the write failed")
        if self.answer_lost:
            self.answer_lost -= 1
            raise StoreError("a fault of the test: written, but nobody was told")

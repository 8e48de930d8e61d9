"""A small bounded cache that makes each value once, whatever the number of threads that ask."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class Cache(Generic[K, V]):
    """The oldest entry goes when it is full. Errors are not kept."""

    def __init__(self, max_entries: int) -> None:
        self._max_entries = max_entries
        self._entries: dict[K, V] = {}
        self._lock = threading.Lock()

    def get(self, key: K, make: Callable[[], V]) -> V:
        # A hit takes no lock, so no one waits for another's slow miss.
        if (value := self._entries.get(key)) is not None:
            return value
        with self._lock:
            if (value := self._entries.get(key)) is not None:
                return value
            value = make()
            while len(self._entries) >= self._max_entries:
                del self._entries[next(iter(self._entries))]
            self._entries[key] = value
            return value

    def __len__(self) -> int:
        return len(self._entries)

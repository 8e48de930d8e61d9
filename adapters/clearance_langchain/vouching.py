"""Which calls a guarded object answers for, so that a handler does not count them again."""

from __future__ import annotations

import secrets
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from threading import Lock
from typing import Any
from uuid import UUID
from weakref import WeakKeyDictionary

from clearance.authority.interface import Authority

VOUCHER = "clearance_voucher"
"""The entry in the metadata of a guarded model's call. A word in an object's own metadata could be copied to another
object; this one is made for each call, and good for the prompts of that call only."""

MAX_VOUCHERS = 1_000
"""Remembered; a handler looks at a voucher as soon as it is made."""


@dataclass(slots=True)
class _Voucher:
    size: int = 0
    runs: set[UUID] = field(default_factory=set)


class Vouchers:
    """Of one authority: another authority's guard does not count for ours. Thread-safe."""

    def __init__(self) -> None:
        self._calls: OrderedDict[str, _Voucher] = OrderedDict()
        self._runs: set[UUID] = set()
        self._lock = Lock()

    def issue(self) -> str:
        """For one call of a guarded model that is about to be told to the handlers."""
        name = secrets.token_hex(8)
        with self._lock:
            self._calls[name] = _Voucher()
            if len(self._calls) > MAX_VOUCHERS:
                self._calls.popitem(last=False)
        return name

    def add_run(self, run_id: UUID) -> None:
        """A guarded tool has taken this run on itself, until `remove_run`."""
        self._runs.add(run_id)

    def remove_run(self, run_id: UUID) -> None:
        self._runs.discard(run_id)

    def cover(self, run_id: UUID, metadata: Mapping[str, Any] | None, size: int) -> bool:
        """True if a guard answers for this run, one of `size` that begin together."""
        if run_id in self._runs:
            return True
        name = None if metadata is None else metadata.get(VOUCHER)
        if not isinstance(name, str):
            return False
        with self._lock:
            voucher = self._calls.get(name)
            if voucher is None:
                return False
            voucher.size = voucher.size or size
            if run_id not in voucher.runs and len(voucher.runs) >= voucher.size:
                return False
            voucher.runs.add(run_id)
            return True


_kept: WeakKeyDictionary[Authority, Vouchers] = WeakKeyDictionary()
_lock = Lock()


def vouchers_of(authority: Authority) -> Vouchers:
    found = _kept.get(authority)
    if found is None:
        with _lock:
            found = _kept.setdefault(authority, Vouchers())
    return found

"""The authority inside this process, over a Store. Sync and async on one object."""

from __future__ import annotations

import os
import weakref

from clearance.authority import lifecycle
from clearance.authority.administration import Administration
from clearance.authority.background import Ticker
from clearance.authority.batch import Operation
from clearance.authority.clock import Clock, SystemClock
from clearance.authority.deciding import Deciding
from clearance.authority.ids import NewId, new_id
from clearance.authority.operating import DURABILITY, SWEEP_EVERY_MS
from clearance.authority.queries import Queries
from clearance.authority.records import RecordKeeping
from clearance.authority.settling import Settling
from clearance.store.interface import Store, Transaction

_authorities: weakref.WeakSet[EmbeddedAuthority] = weakref.WeakSet()

__all__ = ["DURABILITY", "EmbeddedAuthority"]


class EmbeddedAuthority(Deciding, Settling, Administration, RecordKeeping, Queries):
    """Decides and keeps the account in a store of its own.

    Durability says which answers survive a power cut: `power` all of them; `settlements` (default) everything but new
    holds and lease extensions, which survive the death of the process; `process` none for sure.
    """

    def __init__(
        self,
        store: Store,
        *,
        durability: str = "settlements",
        clock: Clock | None = None,
        ids: NewId = new_id,
        background: bool = True,
    ) -> None:
        super().__init__(store, durability, clock or SystemClock(), ids)
        self._ticker = Ticker(self, SWEEP_EVERY_MS) if background else None
        _authorities.add(self)
        self._used()

    def sweep(self) -> int:
        """Expire what is past its lease and grace; returns how many. Use and the background tick do it too."""

        def apply(tx: Transaction) -> int:
            return lifecycle.sweep(tx, self._clock.now_ms())

        return self._batch.run(Operation(apply, False))

    def tidy(self) -> None:
        self._store.tidy()

    def close(self) -> None:
        """Answer what was asked, stop the background tick, close the store. May be called again."""
        if self._ticker:
            self._ticker.stop()
        self._batch.close()
        self._store.close()

    def after_fork(self) -> None:
        self._batch.after_fork()
        self._awake = False
        if self._ticker:
            self._ticker.after_fork()

    def _used(self) -> None:
        super()._used()
        if self._ticker:
            self._ticker.start()


def _after_fork_in_child() -> None:
    for authority in list(_authorities):
        authority.after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)

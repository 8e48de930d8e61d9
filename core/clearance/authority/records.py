"""Named documents beside the ledger: API keys, tenants, webhooks.

They serve a process that answers for others: a document changes in one transaction with the ledger rows it belongs to.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from clearance.authority.batch import Operation
from clearance.authority.operating import Operating
from clearance.model.account import Account
from clearance.model.results import Event
from clearance.model.subject import covers
from clearance.store.interface import AccountKey, Place, Record, Tenant, Transaction

R = TypeVar("R")
PAGE = 200


class RecordKeeping(Operating):
    """What a server needs of an authority besides the verbs."""

    def new_id(self, now_ms: int) -> str:
        return self._new_id(now_ms)

    def replayed(self, tx: Transaction, place: Place | None) -> Event | None:
        """What this key was answered before, None for a new one. Raises IdempotencyMismatch."""
        return self._replayed(tx, place)

    def now_ms(self) -> int:
        return self._clock.now_ms()

    def keep(self, change: Callable[[Transaction, int], R]) -> R:
        """Run `change(transaction, now_ms)` in one transaction; what it raises before writing undoes nothing else."""
        return self._batch.run(self._kept_change(change))

    async def akeep(self, change: Callable[[Transaction, int], R]) -> R:
        return await self._batch.arun(self._kept_change(change))

    def _kept_change(self, change: Callable[[Transaction, int], R]) -> Operation[R]:
        return Operation(lambda tx: change(tx, self._clock.now_ms()), self._flush_settlements)

    def record(self, kind: str, record_id: str) -> Record | None:
        with self._store.read() as reader:
            return reader.record(kind, record_id)

    def records(self, kind: str, *, tenant: str | None = None, after: str = "", limit: int = PAGE) -> Sequence[Record]:
        """Part of the documents of a kind, by id."""
        with self._store.read() as reader:
            return reader.records(kind, tenant, after, limit)

    def tenants(self) -> list[Tenant]:
        with self._store.read() as reader:
            return reader.tenants()

    def accounts(
        self,
        tenant: str | None,
        *,
        segments: Sequence[str] = (),
        prefix: str | None = None,
        unit: str | None = None,
        status: str | None = None,
        limit: int = PAGE,
        after: AccountKey | None = None,
    ) -> list[Account]:
        """Accounts in the order of their keys whose scope has every one of `segments` and lies at or below `prefix`."""
        found: list[Account] = []
        with self._store.read() as reader:
            while len(found) < limit:
                rows = reader.accounts(tenant, PAGE, after)
                found += [
                    row
                    for row in rows
                    if unit in (None, row.unit)
                    and status in (None, row.status)
                    and (prefix is None or covers(prefix, row.scope))
                    and all(f"/{segment}/" in f"/{row.scope}/" for segment in segments)
                ]
                if len(rows) < PAGE:
                    break
                after = rows[-1].key
        return found[:limit]

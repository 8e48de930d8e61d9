"""Who an operation was asked by: in a process that answers for others, every event carries its request."""

from __future__ import annotations

from contextvars import ContextVar
from typing import Any, TypeVar, cast

from clearance.authority.batch import GroupCommit, Operation
from clearance.store.interface import Changes, Transaction

R = TypeVar("R")

ORIGIN: ContextVar[list[Any] | None] = ContextVar("clearance_origin", default=None)
"""What is kept in `data["origin"]` of every event that the present request causes."""

_SYSTEM_EVENTS = frozenset({"reservation.expired", "budget.renewed"})
"""Time causes these, whoever's request happened to notice it."""


class Attributing(GroupCommit):
    """A group commit whose operations remember the request they came from."""

    def run(self, operation: Operation[R]) -> R:
        origin = ORIGIN.get()
        return super().run(operation if origin is None else _attributed(operation, origin))

    async def arun(self, operation: Operation[R]) -> R:
        origin = ORIGIN.get()
        return await super().arun(operation if origin is None else _attributed(operation, origin))


def _attributed(operation: Operation[R], origin: list[Any]) -> Operation[R]:
    apply = operation.apply
    return Operation(lambda tx: apply(cast(Transaction, _Attributed(tx, origin))), operation.flush, operation.needs)


class _Attributed:
    """A transaction that adds the origin to what it writes."""

    __slots__ = ("_origin", "_tx")

    def __init__(self, tx: Transaction, origin: list[Any]) -> None:
        self._tx = tx
        self._origin = origin

    def __getattr__(self, name: str) -> Any:
        return getattr(self._tx, name)

    @property
    def writes(self) -> int:
        return self._tx.writes

    @writes.setter
    def writes(self, count: int) -> None:
        self._tx.writes = count

    def write(self, changes: Changes, now_ms: int) -> int:
        for event in changes.events:
            if event.type not in _SYSTEM_EVENTS:
                event.data["origin"] = self._origin
        return self._tx.write(changes, now_ms)

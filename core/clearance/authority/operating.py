"""What every verb of an embedded authority stands on: its store, its clock, and how one operation is run."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from clearance.authority import answers, lifecycle
from clearance.authority.attributing import Attributing
from clearance.authority.batch import Operation
from clearance.authority.clock import Clock
from clearance.authority.ids import NewId
from clearance.errors import IdempotencyMismatch, InvalidRequest
from clearance.model.results import Event
from clearance.store.interface import Changes, Needs, Place, Store, Transaction

R = TypeVar("R")

DURABILITY = ("power", "settlements", "process")
SWEEP_EVERY_MS = 1_000


class Operating:
    """Runs operations in the store's transactions, each with one time and after what is due has expired."""

    def __init__(self, store: Store, durability: str, clock: Clock, ids: NewId) -> None:
        if durability not in DURABILITY:
            raise InvalidRequest("durability", f"{durability!r} is unknown", ", ".join(DURABILITY))
        self._store = store
        self._clock = clock
        self._new_id = ids
        self._flush_holds = durability == "power"
        self._flush_settlements = durability != "process"
        self._batch = Attributing(store)
        self._next_sweep_ms = 0
        self._awake = False
        self.durability = durability

    def _operation(self, apply: Callable[[Transaction, int], R | Exception], flush: bool, needs: Needs) -> Operation[R]:
        """With the time of the transaction, and expiry by use: at most once a second, before what comes next."""
        if not self._awake:
            self._used()

        def timed(tx: Transaction) -> R | Exception:
            now_ms = self._clock.now_ms()
            if now_ms >= self._next_sweep_ms:
                self._next_sweep_ms = now_ms + SWEEP_EVERY_MS
                before = tx.writes
                lifecycle.sweep(tx, now_ms)
                # Complete by itself: what comes next may fail without undoing it.
                tx.writes = before
            return apply(tx, now_ms)

        return Operation(timed, flush, needs)

    @staticmethod
    def _replayed(tx: Transaction, place: Place | None) -> Event | None:
        if place is None:
            return None
        found = tx.answered(place.key)
        if found is None:
            return None
        if found.payload != place.payload:
            raise IdempotencyMismatch("this idempotency key was used with other arguments; use a new key")
        event = tx.event(found.seq)
        if event is None:
            raise answers.gone(found.seq)
        return event

    def _used(self) -> None:
        """Told of the first use, and of the first in a forked child."""
        self._awake = True


def write(tx: Transaction, place: Place | None, now_ms: int, answer: R, changes: Changes) -> R:
    changes.place = place
    tx.write(changes, now_ms)
    return answer


def needs(place: Place | None, reservation_id: str | None) -> Needs:
    return Needs(
        reservations=(reservation_id,) if reservation_id else (),
        answers=(place.key,) if place else (),
    )

"""What this process remembers of the reservations that it opened, for the settlement that follows."""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import NamedTuple

from clearance.remote.records import Origin

MAX_OPEN = 100_000
"""Past it the oldest are forgotten: they can still be settled, but not as an event once they have expired."""


class Opened(NamedTuple):
    """`expires_at_ms` is by the server's clock, `lease_end` in monotonic seconds here."""

    origin: Origin
    expires_at_ms: int | None
    lease_end: float


class OpenReservations:
    """Thread-safe."""

    def __init__(self, most: int = MAX_OPEN) -> None:
        self._most = most
        self.renew()

    def renew(self) -> None:
        self._lock = threading.Lock()
        self._open: OrderedDict[str, Opened] = OrderedDict()

    def put(self, reservation_id: str, opened: Opened) -> None:
        with self._lock:
            self._open[reservation_id] = opened
            if len(self._open) > self._most:
                self._open.popitem(last=False)

    def get(self, reservation_id: str) -> Opened | None:
        return self._open.get(reservation_id)

    def drop(self, reservation_id: str) -> None:
        with self._lock:
            self._open.pop(reservation_id, None)

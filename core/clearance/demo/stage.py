"""Running what a scenario shows: an agent on a thread of its own, its figures read until it ends."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TypeVar

from clearance.authority.queries import MAX_LIMIT
from clearance.connecting import LocalAuthority
from clearance.errors import NotFound
from clearance.model.balance import Balance
from clearance.model.reservation import Reservation
from clearance.model.results import Event
from clearance.store.interface import EventQuery, ReservationQuery

LOOK_EVERY_S = 0.1
QUIET_S = 0.5
"""How long to listen after a denial for a request that must not come."""
_END_S = 5.0

E = TypeVar("E", bound=Exception)


class Acting:
    """An agent at work on a thread. `ended_by` is what it raised, if anything."""

    def __init__(self, work: Callable[[], object]) -> None:
        self._work = work
        # Not a daemon: the interpreter must not end under an agent that is still busy in C code.
        self._thread = threading.Thread(target=self._run, name="demo-agent")
        self.ended_by: Exception | None = None
        self.seconds = 0.0

    def _run(self) -> None:
        began = time.monotonic()
        try:
            self._work()
        except Exception as error:
            self.ended_by = error
        finally:
            self.seconds = time.monotonic() - began

    def watch(self, look: Callable[[], None], halt: threading.Event) -> None:
        """Look at it several times a second until it ends. When interrupted, `halt` is set for the agent to see."""
        try:
            self._thread.start()
            while self._thread.is_alive():
                look()
                self._thread.join(LOOK_EVERY_S)
            look()
        finally:
            halt.set()
            if self._thread.ident is not None:
                self._thread.join(_END_S)

    def must_have_ended_by(self, kind: type[E]) -> E:
        if isinstance(self.ended_by, kind):
            return self.ended_by
        raise self.ended_by or RuntimeError(f"the agent ended by itself; {kind.__name__} was to end it")


def balance_or_none(authority: LocalAuthority, scope: str, unit: str = "USD_MICROCENTS") -> Balance | None:
    """A budget that may not have been made yet."""
    try:
        return authority.balance(scope, unit)
    except NotFound:
        return None


def denials(authority: LocalAuthority) -> list[Event]:
    return authority.events(EventQuery(types=("reservation.denied",)))


def settled_calls(authority: LocalAuthority, kind: str = "llm.completion") -> list[Reservation]:
    """All single calls of this kind that were committed, whoever made them."""
    found: list[Reservation] = []
    cursor: str | None = None
    while True:
        page = authority.reservations(ReservationQuery(status="COMMITTED", kind="call"), limit=MAX_LIMIT, cursor=cursor)
        found += [it for it in page.items if it.action["kind"] == kind]
        cursor = page.next_cursor
        if cursor is None:
            return found

"""Tells a process that a stop was set or lifted: by notification, and by a look once a second where none comes.

Only for wake-ups: what a stop means is always read from the tables. One connection a process, because every listener
costs every notifying transaction.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

import psycopg

from clearance.errors import StoreError
from clearance.store.postgres import statements as sql
from clearance.store.postgres.connection import Link

log = logging.getLogger("clearance.store")

POLL_SECONDS = 1.0
"""How long a lost notification may stay unnoticed. Behind a pooler that does not pass them on, all are."""


class Listener:
    """A daemon thread that calls `changed` after every change of the stops, until `close`."""

    def __init__(self, link: Link, changed: Callable[[], None]) -> None:
        self._link = link
        self._changed = changed
        self._closing = threading.Event()
        self._version: int | None = None
        self._thread = threading.Thread(target=self._work, name="clearance-stops", daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._closing.set()
        if threading.current_thread() is not self._thread:
            self._thread.join(timeout=2 * POLL_SECONDS)

    def abandon(self) -> None:
        """In a forked child, which has no such thread."""
        self._closing.set()
        self._link.abandon()

    def _work(self) -> None:
        while not self._closing.is_set():
            try:
                self._link.run([(f"LISTEN {sql.CHANNEL}", ())], keep=False)
                self._look()
                self._listen()
            except (StoreError, psycopg.Error) as error:
                log.debug("cannot listen for stops (%s); trying again", error)
                self._link.close()
                self._closing.wait(POLL_SECONDS)
        self._link.close()

    def _listen(self) -> None:
        while not self._closing.is_set():
            for _ in self._link.connection.notifies(timeout=POLL_SECONDS, stop_after=1):
                pass
            self._look()

    def _look(self) -> None:
        rows = self._link.run([(sql.GET_STOPS_VERSION, ())])[0]
        before, self._version = self._version, int(rows[0][0]) if rows else None
        if before is None or self._version == before:
            return
        try:
            self._changed()
        except Exception:
            log.exception("telling of a changed stop failed")

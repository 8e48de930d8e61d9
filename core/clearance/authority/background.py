"""The background tick of an embedded authority: expiry and housekeeping while nobody calls."""

from __future__ import annotations

import logging
import threading
import weakref
from typing import Protocol

from clearance.errors import ClearanceError

log = logging.getLogger("clearance.authority")


class Ticked(Protocol):
    def sweep(self) -> int: ...
    def tidy(self) -> None: ...


class Ticker:
    """One daemon thread, started at the first use; ends with its owner."""

    def __init__(self, owner: Ticked, every_ms: int) -> None:
        self._owner = weakref.ref(owner)
        self._every_ms = every_ms
        self.after_fork()

    def after_fork(self) -> None:
        self._mutex = threading.Lock()
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        if self._thread is not None:
            return
        with self._mutex:
            if self._thread is None and not self._stopping.is_set():
                self._thread = threading.Thread(
                    target=_work, args=(self._owner, self._stopping, self._every_ms), name="clearance-tick", daemon=True
                )
                self._thread.start()

    def stop(self) -> None:
        with self._mutex:
            self._stopping.set()
            thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join(timeout=5)


def _work(owner: weakref.ref[Ticked], stopping: threading.Event, every_ms: int) -> None:
    while not stopping.wait(every_ms / 1000):
        authority = owner()
        if authority is None:
            return
        try:
            authority.sweep()
            authority.tidy()
        except ClearanceError as error:
            # The next use or tick tries again; a caller that is affected gets the error itself.
            if not stopping.is_set():
                log.warning("background tick: %s", error)
        del authority

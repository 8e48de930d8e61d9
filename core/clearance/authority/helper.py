"""The thread that waits for a ledger in the place of event loops."""

from __future__ import annotations

import threading
from collections.abc import Callable
from queue import SimpleQueue


class Helper:
    """A daemon thread that leads batches for callers which must not block: event loops."""

    def __init__(self, lead: Callable[[], None]) -> None:
        self._lead = lead
        self._turns: SimpleQueue[bool] = SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="clearance-ledger", daemon=True)
        self._thread.start()

    def lead(self) -> None:
        self._turns.put(True)

    def _work(self) -> None:
        while self._turns.get():
            self._lead()

    def stop(self) -> None:
        """After the turns that were asked for before."""
        self._turns.put(False)
        if threading.current_thread() is not self._thread:
            self._thread.join(timeout=5)

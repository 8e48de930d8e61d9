"""A fair lock between processes, on a file beside the ledger.

SQLite's own busy handler sleeps and retries, which starves writers for seconds; the kernel's file lock wakes them in
turn.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time

if sys.platform == "win32":  # pragma: no cover - not run in CI
    import msvcrt
else:
    import fcntl


class FileLock:
    """Exclusive between processes; the owner sees to it that only one thread uses it at a time."""

    def __init__(self, path: str) -> None:
        # The umask decides, as it does for the ledger: who may write the one must be able to lock the other.
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), 0o666)

    def acquire(self) -> None:
        if sys.platform == "win32":  # pragma: no cover - not run in CI
            while not self.try_acquire():
                time.sleep(0.001)
        else:
            fcntl.flock(self._fd, fcntl.LOCK_EX)

    def try_acquire(self) -> bool:
        try:
            if sys.platform == "win32":  # pragma: no cover - not run in CI
                msvcrt.locking(self._fd, msvcrt.LK_NBLCK, 1)
            else:
                fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
        return True

    def release(self) -> None:
        if sys.platform == "win32":  # pragma: no cover - not run in CI
            os.lseek(self._fd, 0, os.SEEK_SET)
            msvcrt.locking(self._fd, msvcrt.LK_UNLCK, 1)
        else:
            fcntl.flock(self._fd, fcntl.LOCK_UN)

    def close(self) -> None:
        """Also right in a forked child: closing a copy of the descriptor does not unlock the parent's."""
        with contextlib.suppress(OSError):
            os.close(self._fd)

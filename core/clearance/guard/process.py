"""What belongs to one operating-system process: its id and a stream of unique keys."""

from __future__ import annotations

import os
import secrets
import time
from itertools import count


class _Process:
    """Re-made in a forked child, so that a child neither settles nor repeats what is its parent's."""

    def __init__(self) -> None:
        self.renew()

    def renew(self) -> None:
        self.pid = os.getpid()
        self.prefix = secrets.token_hex(8)
        self.numbers = count(1)


_process = _Process()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_process.renew)


def current_pid() -> int:
    """The id of this process, without a system call."""
    return _process.pid


def new_key() -> str:
    """An idempotency key that nobody else has used: cheaper than a UUID, as unique, and in the order of time."""
    return f"{time.time_ns() // 1_000_000:012x}-{_process.prefix}-{next(_process.numbers)}"

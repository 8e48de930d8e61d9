"""Identifiers that rise with time: random enough to be unguessable, ordered enough for an index."""

from __future__ import annotations

import os
from collections.abc import Callable

NewId = Callable[[int], str]
"""(now_ms) -> a new id"""


def new_id(now_ms: int) -> str:
    """32 hex digits: 12 of milliseconds, 20 random."""
    return f"{now_ms:012x}{os.urandom(10).hex()}"

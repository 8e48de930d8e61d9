"""The three identities of a request (protocol section 2.3). A malformed header counts as absent, never as an error."""

from __future__ import annotations

import os
import random
import re
from typing import NamedTuple

_TRACEPARENT = re.compile(r"00-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})")
_TRACE_ID = re.compile(r"[0-9a-f]{32}")
_NO_TRACE, _NO_SPAN = "0" * 32, "0" * 16


class Trace(NamedTuple):
    """`flags` are those of a valid inbound traceparent, else None."""

    trace_id: str
    request_id: str
    flags: str | None = None


def trace_of(headers: dict[bytes, bytes]) -> Trace:
    """A valid traceparent, else a valid X-Cycles-Trace-Id, else a new trace."""
    request_id = new_trace_id()
    parent = headers.get(b"traceparent")
    if parent is not None:
        found = _TRACEPARENT.fullmatch(parent.decode("latin-1").strip().lower())
        if found and found[1] != _NO_TRACE and found[2] != _NO_SPAN:
            return Trace(found[1], request_id, found[3])
    given = headers.get(b"x-cycles-trace-id")
    if given is not None:
        text = given.decode("latin-1").strip().lower()
        if _TRACE_ID.fullmatch(text) and text != _NO_TRACE:
            return Trace(text, request_id)
    return Trace(new_trace_id(), request_id)


_random = random.Random(os.urandom(32))
"""Names only have to differ, not to be secret; a system call for each would cost a busy server its turn."""


def new_trace_id() -> str:
    return f"{_random.getrandbits(128) or 1:032x}"


def traceparent(trace_id: str, flags: str | None) -> str:
    """For what we send on, with a span of our own."""
    return f"00-{trace_id}-{_random.getrandbits(64) or 1:016x}-{flags or '01'}"

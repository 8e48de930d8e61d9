"""Limits of a connection before there is a request: how long a head may take and how long it may be."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from clearance.server.errors import Headers

_TOO_LONG = b"HTTP/1.1 431 Request Header Fields Too Large\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
_TOO_SLOW = b"HTTP/1.1 408 Request Timeout\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"


RECEIVED, WHOLE, ANSWER = "clearance.received", "clearance.whole", "clearance.answer"
"""In the scope of a request, where this protocol brings it: the bytes that came up to the end of its head (and maybe
more), whether its body is here, and how to answer it at once."""


def _answer(cycle: RequestResponseCycle, status: int, headers: Headers, body: bytes) -> bool:
    """Head and body in one write, without the checks that an answer of our own does not need. False where the usual
    way is needed: the client is slow, or gone. `headers` must have the length and must not end the connection."""
    if cycle.disconnected or cycle.response_started or cycle.flow.write_paused:
        return False
    parts = [STATUS_LINE[status]]
    for name, value in (*cycle.default_headers, *headers):
        parts += (name, b": ", value, b"\r\n")
    if not cycle.keep_alive:
        parts.append(b"connection: close\r\n")
    parts += (b"\r\n", body)
    cycle.response_started = cycle.response_complete = True
    cycle.waiting_for_100_continue = False
    cycle.transport.write(b"".join(parts))
    cycle.message_event.set()
    if not cycle.keep_alive:
        cycle.transport.close()
    cycle.on_response()
    return True


def bounded_protocol(max_header_bytes: int, read_seconds: float) -> type[HttpToolsProtocol]:
    """The protocol class of a server with these limits. A head that trickles in forever holds a connection otherwise,
    and one without an end holds memory.
    """

    # The application answers heads a little too long with a body; only what goes far beyond ends here.
    most = 4 * max_header_bytes

    class BoundedProtocol(HttpToolsProtocol):
        _in_message = False
        _at_start = False
        _counted = False
        _head_bytes = 0
        _head_timer: asyncio.TimerHandle | None = None

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            self._await_head()

        def connection_lost(self, exc: Exception | None) -> None:
            self._stop_waiting()
            super().connection_lost(exc)

        def data_received(self, data: bytes) -> None:
            self._at_start = not self._in_message and not self._head_bytes
            if not self._in_message:
                self._head_bytes += len(data)
            super().data_received(data)
            # Heads mostly arrive whole; only one that has not needs a timer.
            if self._head_bytes > most:
                self._end_with(_TOO_LONG)
            elif self._head_bytes and self._head_timer is None:
                self._await_head()

        def on_message_begin(self) -> None:
            # What begins behind something else in the same packet was not counted from its beginning.
            self._counted, self._at_start = self._at_start, False
            super().on_message_begin()

        def on_headers_complete(self) -> None:
            self._in_message = True
            scope: Any = self.scope
            if self._counted:
                scope[RECEIVED] = self._head_bytes
            self._head_bytes = 0
            self._stop_waiting()
            super().on_headers_complete()
            scope[ANSWER] = partial(_answer, self.cycle)

        def on_message_complete(self) -> None:
            self._in_message = False
            scope: Any = self.scope
            scope[WHOLE] = True
            super().on_message_complete()

        def _await_head(self) -> None:
            self._head_timer = self.loop.call_later(read_seconds, self._end_with, _TOO_SLOW)

        def _stop_waiting(self) -> None:
            if self._head_timer is not None:
                self._head_timer.cancel()
                self._head_timer = None

        def _end_with(self, answer: bytes) -> None:
            self._head_timer = None
            if not self.transport.is_closing():
                self.transport.write(answer)
                self.transport.close()

    return BoundedProtocol

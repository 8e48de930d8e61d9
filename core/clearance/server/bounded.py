"""Limits of a connection before there is a request: how long a head may take and how long it may be."""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

_TOO_LONG = b"HTTP/1.1 431 Request Header Fields Too Large\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
_TOO_SLOW = b"HTTP/1.1 408 Request Timeout\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"


def bounded_protocol(max_header_bytes: int, read_seconds: float) -> type[HttpToolsProtocol]:
    """The protocol class of a server with these limits. A head that trickles in forever holds a connection otherwise,
    and one without an end holds memory.
    """

    # The application answers heads a little too long with a body; only what goes far beyond ends here.
    most = 4 * max_header_bytes

    class BoundedProtocol(HttpToolsProtocol):
        _in_message = False
        _head_bytes = 0
        _head_timer: asyncio.TimerHandle | None = None

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            self._await_head()

        def connection_lost(self, exc: Exception | None) -> None:
            self._stop_waiting()
            super().connection_lost(exc)

        def data_received(self, data: bytes) -> None:
            if not self._in_message:
                if self._head_timer is None:
                    self._await_head()
                self._head_bytes += len(data)
            super().data_received(data)
            if self._head_bytes > most:
                self._end_with(_TOO_LONG)

        def on_headers_complete(self) -> None:
            self._in_message = True
            self._head_bytes = 0
            self._stop_waiting()
            super().on_headers_complete()

        def on_message_complete(self) -> None:
            self._in_message = False
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

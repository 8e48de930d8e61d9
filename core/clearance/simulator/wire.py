"""One HTTP exchange: waits, sends, notices that the client left, and drops the connection when told to."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping
from typing import Any, Self

from starlette.types import Receive, Scope, Send

TRANSPORT = "clearance.simulator.transport"
"""Where the server leaves the connection's transport in the scope's state."""

_FLUSH_SECONDS = 1.0


class Wire:
    """Use it as an async context manager, once the request's body has been read."""

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._receive = receive
        self._send = send
        self._transport: asyncio.Transport = scope["state"][TRANSPORT]
        self._gone = asyncio.Event()

    async def __aenter__(self) -> Self:
        self._watch = asyncio.ensure_future(self._watch_client())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._watch.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._watch

    async def _watch_client(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self._gone.set()

    async def pause(self, milliseconds: int) -> bool:
        """Waits, at least until others had their turn; False as soon as the client is gone."""
        if milliseconds <= 0:
            await asyncio.sleep(0)
        else:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._gone.wait(), milliseconds / 1000)
        return not self._gone.is_set()

    async def start(self, status: int, headers: Mapping[str, str]) -> None:
        raw = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]
        await self._send({"type": "http.response.start", "status": status, "headers": raw})

    async def write(self, data: bytes, *, more: bool) -> None:
        message: dict[str, Any] = {"type": "http.response.body", "body": data, "more_body": more}
        await self._send(message)

    async def cut(self) -> None:
        """Drops the connection; what was written before still arrives."""
        self._transport.close()
        try:
            await asyncio.wait_for(self._gone.wait(), _FLUSH_SECONDS)
        except TimeoutError:
            self._transport.abort()
            await self._gone.wait()

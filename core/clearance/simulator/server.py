"""Runs the HTTP app in a thread of its own, and ends it at once when told to."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Callable
from typing import Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from clearance.simulator.wire import TRANSPORT

_KEEP_ALIVE_SECONDS = 300  # longer than clients keep idle connections, so that none dies in their hands
_STOP_SECONDS = 10.0


class _CuttableProtocol(H11Protocol):
    """Hands the transport to the app: ASGI itself has no way to drop a connection without a reply."""

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        # asyncio sets it only on sockets made with an explicit protocol; without it every answer waits 40 ms.
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.app_state = {**self.app_state, TRANSPORT: transport}


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, on_ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._on_ready = on_ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets=sockets)
        self._on_ready()


class ServerThread:
    """Serves `app` on a listening socket, which it owns from then on."""

    def __init__(self, app: Any, listener: socket.socket) -> None:
        self._app = app
        self._listener = listener
        self._ready = threading.Event()
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="clearance-simulator", daemon=True)

    def start(self) -> None:
        self._thread.start()
        self._ready.wait()
        if self._failure is not None:
            raise RuntimeError("the simulator could not start") from self._failure

    def stop(self) -> None:
        """Drops all connections, also those that still wait for an answer."""
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._stop.set)
            self._thread.join(_STOP_SECONDS)

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        except BaseException as error:
            self._failure = error
        finally:
            self._listener.close()
            self._ready.set()

    async def _serve(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        config = uvicorn.Config(
            self._app,
            http=_CuttableProtocol,
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_keep_alive=_KEEP_ALIVE_SECONDS,
        )
        server = _Server(config, self._ready.set)
        serving = asyncio.ensure_future(server.serve(sockets=[self._listener]))
        stopping = asyncio.ensure_future(self._stop.wait())
        await asyncio.wait({serving, stopping}, return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        await _end(server, serving)


async def _end(server: uvicorn.Server, serving: asyncio.Future[None]) -> None:
    """uvicorn's own shutdown waits for slow answers; a test that is over does not."""
    serving.cancel()
    await asyncio.wait({serving})
    for listener in getattr(server, "servers", ()):
        listener.close()
    for connection in list(server.server_state.connections):
        transport: Any = getattr(connection, "transport", None)
        if transport is not None:
            transport.abort()
    tasks = list(server.server_state.tasks)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    if not serving.cancelled():
        serving.result()

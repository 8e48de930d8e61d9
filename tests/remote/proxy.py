"""A proxy between a client and a real server that fails as networks do. It understands just enough HTTP to fail at the
right moment, and counts what it did.

    delay    the request waits before it goes on
    refuse   the connection is cut, the server never sees the request
    lost     the server answers, the connection is cut before the answer
    half     the server answers, the connection is cut in the middle of the answer
    hang     the server answers, the answer never comes and the connection stays open
    garbage  200 with something that is not JSON, and the server never sees the request
"""

from __future__ import annotations

import asyncio
import random
import threading
from collections import Counter

GARBAGE = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 15\r\n\r\n<p>it works</p>"
KINDS = ("delay", "refuse", "lost", "half", "hang", "garbage")
HANG_S = 3.0


class FaultyProxy:
    """Listens on `port`; `rate` is the share of requests that something happens to, seeded."""

    def __init__(self, server_port: int, rate: float, seed: int = 0) -> None:
        self.server_port = server_port
        self.rate = rate
        self.port = 0
        self.did: Counter[str] = Counter()
        self._rng = random.Random(seed)
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), daemon=True)
        self._thread.start()
        assert self._ready.wait(10)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._stopping.set)
        self._thread.join(10)

    async def _serve(self) -> None:
        self._loop, self._stopping = asyncio.get_running_loop(), asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        self._ready.set()
        await self._stopping.wait()
        server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        server: asyncio.StreamWriter | None = None
        try:
            upstream, server = await asyncio.open_connection("127.0.0.1", self.server_port)
            while await self._request(reader, writer, upstream, server):
                pass
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass  # one side is gone, so the other goes too
        finally:
            self._tasks.discard(task)
            for side in (writer, server):
                if side is not None:
                    side.transport.abort()

    async def _request(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        upstream: asyncio.StreamReader,
        server: asyncio.StreamWriter,
    ) -> bool:
        request = await _message(reader)
        fault = self._rng.choice(KINDS) if self._rng.random() < self.rate else "none"
        self.did[fault] += 1
        if fault == "refuse":
            return False
        if fault == "garbage":
            writer.write(GARBAGE)
            return True
        if fault == "delay":
            await asyncio.sleep(self._rng.random() * 0.2)
        server.write(request)
        answer = await _message(upstream)
        if fault == "lost":
            return False
        if fault == "hang":
            await asyncio.sleep(HANG_S)
            return False
        if fault == "half":
            writer.write(answer[: len(answer) // 2])
            await writer.drain()
            return False
        writer.write(answer)
        await writer.drain()
        return True


async def _message(reader: asyncio.StreamReader) -> bytes:
    """A head and as much body as it announces."""
    head = await reader.readuntil(b"\r\n\r\n")
    length = int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0] or 0)
    return head + await reader.readexactly(length)

"""A line to PostgreSQL that fails: `fault_proxy.py SERVER_PORT SEED`. Tells its port, then a line for every fault.

Every so often one connection is cut after its statement reached the server, cut after the server's answer which is
swallowed, left half-open (nothing passes, nothing is closed) or delayed.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import sys

HALF_OPEN_SECONDS = 6.0
DELAY_SECONDS = 0.3
FAULTS = ("cut after the statement", "cut before the reply", "half-open", "delay")


class Line:
    """One connection of a client and the server's end of it."""

    def __init__(self, client: asyncio.StreamWriter, server: asyncio.StreamWriter) -> None:
        self.ends = (client, server)
        self.fault = ""

    def cut(self) -> None:
        for end in self.ends:
            end.transport.abort()

    async def request(self, data: bytes) -> None:
        if await self._waits():
            return
        self.ends[1].write(data)
        await self.ends[1].drain()
        if self.fault == FAULTS[0]:
            self.cut()

    async def answer(self, data: bytes) -> None:
        if self.fault == FAULTS[1]:
            self.cut()
        elif not await self._waits():
            self.ends[0].write(data)
            await self.ends[0].drain()

    async def _waits(self) -> bool:
        """True if what came is lost."""
        if self.fault == FAULTS[2]:
            await asyncio.sleep(HALF_OPEN_SECONDS)
            self.cut()
            return True
        if self.fault == FAULTS[3]:
            self.fault = ""
            await asyncio.sleep(DELAY_SECONDS)
        return False


class Proxy:
    def __init__(self, port: int, rng: random.Random) -> None:
        self._port = port
        self._rng = rng
        self._lines: set[Line] = set()

    async def serve(self) -> None:
        server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        tell(str(server.sockets[0].getsockname()[1]))
        while True:
            await asyncio.sleep(self._rng.uniform(0.2, 1.6))
            sound = sorted((line for line in self._lines if not line.fault), key=id)
            if sound:
                line = self._rng.choice(sound)
                line.fault = self._rng.choice(FAULTS)
                tell(line.fault)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            from_server, to_server = await asyncio.open_connection("127.0.0.1", self._port)
        except OSError:
            writer.transport.abort()
            return
        line = Line(writer, to_server)
        self._lines.add(line)
        try:
            await asyncio.gather(pump(reader, line.request), pump(from_server, line.answer))
        finally:
            self._lines.discard(line)
            line.cut()


async def pump(reader: asyncio.StreamReader, send) -> None:  # type: ignore[no-untyped-def]
    with contextlib.suppress(OSError):
        while data := await reader.read(1 << 18):
            await send(data)
    raise ConnectionResetError


def tell(words: str) -> None:
    sys.stdout.write(words + "\n")
    sys.stdout.flush()


async def main(port: int, seed: int) -> None:
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: None)
    await Proxy(port, random.Random(seed)).serve()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), int(sys.argv[2])))

"""An HTTP server that decides nothing: one answer for reservations, another for commits."""

from __future__ import annotations

import asyncio
import multiprocessing
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection

PATIENCE = 30.0


@contextmanager
def serving(reserved: str, committed: str) -> Iterator[int]:
    """Its port. In a process of its own, so that it takes no turn of the client's interpreter."""
    fresh = multiprocessing.get_context("spawn")
    receiver, out = fresh.Pipe(duplex=False)
    process = fresh.Process(target=_serve, args=(reserved, committed, out), daemon=True)
    process.start()
    try:
        if not receiver.poll(PATIENCE):
            raise TimeoutError("the constant server did not start")
        yield receiver.recv()
    finally:
        process.kill()
        process.join()


def _serve(reserved: str, committed: str, out: Connection) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).lower()
                length = int(head.partition(b"content-length:")[2].partition(b"\r\n")[0] or 0)
                await reader.readexactly(length)
                commits = b"/commit " in head.partition(b"\r\n")[0]
                writer.write(_response(committed if commits else reserved))
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    async def main() -> None:
        server = await asyncio.start_server(answer, "127.0.0.1", 0)
        out.send(server.sockets[0].getsockname()[1])
        await server.serve_forever()

    asyncio.run(main())


def _response(text: str) -> bytes:
    body = text.encode()
    head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body

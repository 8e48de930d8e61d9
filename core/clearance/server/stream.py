"""The live stream: the event log as server-sent events, from where a client left off."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from pydantic_core import to_json

from clearance.authority.embedded import EmbeddedAuthority
from clearance.errors import ClearanceError, InvalidRequest
from clearance.model.results import Event
from clearance.server.context import Server
from clearance.server.errors import Refused
from clearance.server.eventtypes import TENANT_CATEGORIES, kind_of, written
from clearance.server.http import Call, Stream
from clearance.store.interface import EventQuery

BATCH = 200
PING_SECONDS = 15.0
_HEADERS = [(b"content-type", b"text/event-stream"), (b"cache-control", b"no-store"), (b"x-accel-buffering", b"no")]


class LogWatch:
    """Tells who waits that the log has grown; looks only while somebody waits. Other processes write to it as well."""

    def __init__(self, authority: EmbeddedAuthority, seconds: float) -> None:
        self._authority = authority
        self._seconds = seconds
        self._waiting: list[asyncio.Future[None]] = []
        self._task: asyncio.Task[None] | None = None
        self._seen = -1
        self.closing = asyncio.Event()
        self.open_streams = 0

    def last_seq(self) -> int:
        newest = self._authority.events(EventQuery(descending=True), limit=1)
        return newest[0].seq if newest else 0

    async def grown(self, after: int, seconds: float) -> bool:
        """Wait for an event later than `after`; False when none came in time or the server closes."""
        if self.closing.is_set() or self._seen > after:
            return not self.closing.is_set()
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(future)
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._look())
        try:
            async with asyncio.timeout(seconds):
                await future
        except TimeoutError:
            return False
        finally:
            if future in self._waiting:
                self._waiting.remove(future)
        return not self.closing.is_set()

    async def _look(self) -> None:
        while self._waiting and not self.closing.is_set():
            try:
                last = self.last_seq()
            except ClearanceError:
                last = self._seen
            if last > self._seen:
                self._seen = last
                self._wake()
            await asyncio.sleep(self._seconds)

    def _wake(self) -> None:
        waiting, self._waiting = self._waiting, []
        for future in waiting:
            if not future.done():
                future.set_result(None)

    def close(self) -> None:
        self.closing.set()
        self._wake()


async def stream(server: Server, call: Call) -> Stream:
    watch = server.watch
    tenant = call.query.get("tenant_id") or None if call.principal.is_admin else call.principal.tenant
    after = _resume(call)
    if watch.open_streams >= server.settings.max_streams:
        raise Refused(
            429,
            "LIMIT_EXCEEDED",
            f"{server.settings.max_streams} streams are open",
            headers=[(b"retry-after", b"5")],
        )
    start = watch.last_seq() if after is None else after
    everything = call.principal.is_admin
    return Stream(_events(server, tenant, start, everything), _HEADERS)


def _resume(call: Call) -> int | None:
    text = call.header(b"last-event-id") or call.query.get("after")
    if not text:
        return None
    if not (text.isascii() and text.isdigit()) or len(text) > 18:
        raise InvalidRequest("Last-Event-ID", "is not one of ours", "the id of an event of this stream")
    return int(text)


async def _events(server: Server, tenant: str | None, after: int, everything: bool) -> AsyncIterator[bytes]:
    watch = server.watch
    watch.open_streams += 1
    try:
        yield b": connected\n\n"
        while not watch.closing.is_set():
            # Read before the rows, so that what comes between is noticed.
            newest = watch.last_seq()
            rows = server.authority.events(EventQuery(after=after, tenant=tenant), limit=BATCH)
            if rows:
                after = rows[-1].seq
                text = b"".join(_written(event) for event in rows if everything or _is_visible(event))
                if text:
                    yield text
            if len(rows) < BATCH and not await watch.grown(newest, PING_SECONDS):
                yield b": still here\n\n"
    finally:
        watch.open_streams -= 1


def _is_visible(event: Event) -> bool:
    return kind_of(event).category in TENANT_CATEGORIES


def _written(event: Event) -> bytes:
    kind = kind_of(event).type.encode()
    return b"id: %d\nevent: %s\ndata: %s\n\n" % (event.seq, kind, to_json(written(event)))

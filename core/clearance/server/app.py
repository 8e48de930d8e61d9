"""The ASGI application: one request from its headers to its answer."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from time import perf_counter
from typing import Any

from clearance.authority.attributing import ORIGIN
from clearance.authority.embedded import EmbeddedAuthority
from clearance.errors import AuthorityUnavailable
from clearance.server.auth import Principal
from clearance.server.bounded import ANSWER, RECEIVED
from clearance.server.context import Server
from clearance.server.delivery import Dispatcher
from clearance.server.errors import Headers, Refused, told
from clearance.server.http import JSON, Call, Disconnected, Receive, Reply, Scope, Send, Stream, error_body
from clearance.server.limits import UNLIMITED
from clearance.server.routes import Routing
from clearance.server.settings import Settings
from clearance.server.stream import LogWatch
from clearance.server.tracing import Trace, trace_of

log = logging.getLogger("clearance.server")
_NO_STORE = (b"cache-control", b"no-store")
_USUAL = (200, 201)
"""Answers with these have no header that ends the connection."""


def create_app(authority: EmbeddedAuthority, settings: Settings | None = None) -> App:
    """An ASGI application over an authority, which stays the caller's to close."""
    return App(authority, settings or Settings())


class App:
    def __init__(self, authority: EmbeddedAuthority, settings: Settings) -> None:
        self.watch = LogWatch(authority, settings.poll_seconds)
        self.server = Server(authority, settings, self.watch)
        self.dispatcher = Dispatcher(authority, settings, self.watch)
        self._routing = Routing()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await self._http(scope, receive, send)
        elif scope["type"] == "lifespan":
            await self._lifespan(receive, send)
        else:
            await send({"type": "websocket.close", "code": 1000})

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        await receive()
        self.dispatcher.start()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        self.watch.close()
        await self.dispatcher.stop()
        await self.server.off_loop(self.server.close)
        await send({"type": "lifespan.shutdown.complete"})

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        began = perf_counter()
        headers = dict(scope["headers"])
        trace = trace_of(headers)
        common = [
            (b"x-request-id", trace.request_id.encode()),
            (b"x-cycles-trace-id", trace.trace_id.encode()),
        ]
        call = Call(scope, receive, headers, trace)
        try:
            reply = await self._answer(call, common)
        except Disconnected:
            return
        except Exception as error:
            reply = _refusal(call, error, common)
            self.server.metrics.refused(error)
        self.server.metrics.answered(call, reply, perf_counter() - began)
        if isinstance(reply, Stream):
            await _send_stream(reply, common, receive, send)
            return
        all_headers = [*reply.headers, (b"content-length", b"%d" % len(reply.body)), *common]
        at_once = scope.get(ANSWER) if reply.status in _USUAL else None
        if at_once is not None and at_once(reply.status, all_headers, reply.body):
            return
        await send({"type": "http.response.start", "status": reply.status, "headers": all_headers})
        await send({"type": "http.response.body", "body": reply.body})

    async def _answer(self, call: Call, common: Headers) -> Reply | Stream:
        self._require_small(call)
        route = self._routing.find(call)
        call.route = route.path
        principal = call.principal = self.server.gate.enter(call, route.access, route.permission)
        if principal.tenant:
            common.append((b"x-cycles-tenant", principal.tenant.encode()))
        if principal.tenant and route.access != "public":
            common += self.server.limit.take(principal.key_id)
        elif call.path.startswith("/v1/"):
            common += UNLIMITED
        if call.method != "GET":
            ORIGIN.set(_origin(call.trace, principal, route.access))
        if route.access != "public":
            common.append(_NO_STORE)
        return await route.handler(self.server, call)

    def _require_small(self, call: Call) -> None:
        most = self.server.settings.max_header_bytes
        if call.scope.get(RECEIVED, most + 1) <= most:
            return
        if sum(len(name) + len(value) for name, value in call.headers.items()) > most:
            raise Refused(431, "INVALID_REQUEST", f"the headers have more than {most:,} bytes")


def _origin(trace: Trace, principal: Principal, access: str) -> list[Any]:
    actor = "api_key"
    if principal.is_admin:
        # On a route that is a tenant's own, the operator acts for that tenant.
        actor = "admin_on_behalf_of" if access == "either" else "admin"
    return [trace.trace_id, trace.request_id, trace.flags, actor, None if principal.is_admin else principal.key_id]


def _refusal(call: Call, error: Exception, common: Headers) -> Reply:
    answer = told(error)
    if answer.status >= 500:
        known = isinstance(error, Refused | AuthorityUnavailable)
        # The path only: a query or a body may hold what a log must not.
        what = f": {type(error).__name__}: {error}" if known else ""
        log.error(
            "%s %s failed (request %s)%s", call.method, call.path, call.trace.request_id, what, exc_info=not known
        )
    given = {name for name, _ in answer.headers}
    common[:] = [pair for pair in common if pair[0] not in given]
    return Reply(error_body(answer, call.trace), answer.status, [JSON, *answer.headers])


async def _send_stream(reply: Stream, common: Headers, receive: Receive, send: Send) -> None:
    """Until the server closes or the client goes away."""
    await send({"type": "http.response.start", "status": 200, "headers": [*reply.headers, *common]})
    sending = asyncio.create_task(_send_chunks(reply, send))
    leaving = asyncio.create_task(_gone(receive))
    try:
        await asyncio.wait((sending, leaving), return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in (sending, leaving):
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task


async def _send_chunks(reply: Stream, send: Send) -> None:
    chunks = reply.chunks
    try:
        async for chunk in chunks:
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
        await send({"type": "http.response.body", "body": b""})
    except Exception:
        log.exception("an event stream broke")
    finally:
        await chunks.aclose()  # type: ignore[attr-defined]


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass

"""The two shells: a request in, a response out, within a deadline. Everything that touches a socket is here.

Each connection is used by one request at a time, and the one used last is taken first. There is no shared pool to
search, so the cost of a request does not grow with the number of callers. httpcore is the engine of httpx, used without
the layers that an API client does not need (cookies, redirects, proxies from the environment).
"""

from __future__ import annotations

import asyncio
import os
import ssl
import threading
import time
import weakref
from collections.abc import Iterable
from typing import Any

import httpcore
import httpx

from clearance.errors import InvalidRequest
from clearance.remote.wire import NoAnswer, Request, Response

MAX_CONNECTIONS = 32
MAX_BODY_BYTES = 8 * 1024 * 1024
IDLE_S = 30.0

_JSON = (b"content-type", b"application/json")
_FAILURES = (httpcore.NetworkError, httpcore.ProtocolError, httpcore.TimeoutException, OSError)
_UNSENT = (httpcore.ConnectError, httpcore.ConnectTimeout)


class Address:
    """Where the server is. Raises InvalidRequest for a URL that is not http(s)://host[:port][/prefix]."""

    def __init__(self, url: str) -> None:
        try:
            parsed = httpx.URL(url.strip())
        except (httpx.InvalidURL, AttributeError):
            raise InvalidRequest("url", "cannot be read", "http://host:port") from None
        if parsed.scheme not in ("http", "https") or not parsed.host:
            raise InvalidRequest("url", "names no server", "http://host:port or https://host")
        if parsed.userinfo or parsed.query or parsed.fragment:
            raise InvalidRequest("url", "has more than host and path", "credentials in api_key=, no query")
        self.port = parsed.port or (443 if parsed.scheme == "https" else 80)
        self.origin = httpcore.Origin(parsed.scheme.encode(), parsed.raw_host, self.port)
        self.host_header = parsed.netloc
        self.prefix = parsed.path.rstrip("/")
        self.name = f"{parsed.scheme}://{parsed.host}:{self.port}{self.prefix}"


class Sockets(httpcore.NetworkBackend):
    """Blocking sockets whose every wait ends at `ends_at`, so that no trickle of bytes can outlast a deadline."""

    def __init__(self) -> None:
        self._inner = httpcore.SyncBackend()
        self.ends_at = 0.0

    def left(self) -> float:
        left_s = self.ends_at - time.monotonic()
        if left_s <= 0:
            raise httpcore.ReadTimeout("the deadline has passed")
        return left_s

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.NetworkStream:
        stream = self._inner.connect_tcp(host, port, self.left(), local_address, socket_options)
        return _Stream(stream, self)


class _Stream(httpcore.NetworkStream):
    def __init__(self, inner: httpcore.NetworkStream, sockets: Sockets) -> None:
        self._inner = inner
        self._sockets = sockets

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._inner.read(max_bytes, self._sockets.left())

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._inner.write(buffer, self._sockets.left())

    def close(self) -> None:
        self._inner.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        return _Stream(self._inner.start_tls(ssl_context, server_hostname, self._sockets.left()), self._sockets)

    def get_extra_info(self, info: str) -> Any:
        return self._inner.get_extra_info(info)


class Transport:
    """Both shells over one server, for any number of threads and event loops. A forked child starts with none."""

    def __init__(
        self,
        url: str,
        headers: dict[bytes, bytes],
        admin_headers: dict[bytes, bytes],
        connections: int = MAX_CONNECTIONS,
    ) -> None:
        self.address = Address(url)
        self._connections = connections
        host = [(b"host", self.address.host_header), _JSON]
        self._headers = host + list(headers.items())
        self._admin_headers = host + list(admin_headers.items())
        self._ssl = httpx.create_ssl_context() if self.address.origin.scheme == b"https" else None
        self.renew()
        _transports.add(self)

    def renew(self) -> None:
        """After a fork the parent's sockets stay the parent's: they are let go, not closed by a request of ours."""
        self._free: list[tuple[httpcore.HTTPConnection, Sockets]] = []
        self._turns = threading.Semaphore(self._connections)
        self._loops: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, _Lines] = weakref.WeakKeyDictionary()

    def close(self) -> None:
        while self._free:
            self._free.pop()[0].close()

    async def aclose(self) -> None:
        """Close the connections of this event loop, and those of sync code."""
        lines = self._loops.pop(asyncio.get_running_loop(), None)
        if lines is not None:
            while lines.free:
                await lines.free.pop().aclose()
        self.close()

    def _made(self, request: Request) -> httpcore.Request:
        target = (self.address.prefix + request.path).encode("ascii")
        origin = self.address.origin
        headers = [*(self._admin_headers if request.as_admin else self._headers), *request.headers]
        if request.body is not None:
            headers.append((b"content-length", str(len(request.body)).encode()))
        url = httpcore.URL(scheme=origin.scheme, host=origin.host, port=origin.port, target=target)
        return httpcore.Request(request.method, url, headers=headers, content=request.body)

    # -- sync

    def send(self, request: Request, timeout_s: float) -> Response:
        ends_at = time.monotonic() + timeout_s
        made = self._made(request)
        turns = self._turns
        if not turns.acquire(timeout=timeout_s):
            raise NoAnswer(f"all {self._connections} connections are busy", sent=False)
        try:
            return self._send(made, ends_at)
        except _FAILURES as error:
            raise _no_answer(error) from None
        finally:
            turns.release()

    def _send(self, made: httpcore.Request, ends_at: float) -> Response:
        connection, sockets = self._connection()
        sockets.ends_at = ends_at
        done = False
        try:
            response = connection.handle_request(made)
            try:
                body = b"".join(_bounded(response.iter_stream()))
            finally:
                response.close()
            done = True
            return _response(response, body)
        finally:
            if done and connection.is_available():
                self._free.append((connection, sockets))
            else:
                connection.close()

    def _connection(self) -> tuple[httpcore.HTTPConnection, Sockets]:
        while True:
            try:
                connection, sockets = self._free.pop()  # atomic: lists are safe between threads
            except IndexError:
                sockets = Sockets()
                connection = httpcore.HTTPConnection(
                    self.address.origin, self._ssl, keepalive_expiry=IDLE_S, network_backend=sockets
                )
                return connection, sockets
            if not connection.has_expired():
                return connection, sockets
            connection.close()

    # -- async

    async def asend(self, request: Request, timeout_s: float) -> Response:
        made = self._made(request)
        loop = asyncio.get_running_loop()
        lines = self._loops.get(loop)
        if lines is None:
            lines = self._loops[loop] = _Lines(self._connections)
        sent = False
        try:
            async with asyncio.timeout(timeout_s):
                async with lines.turns:
                    sent = True
                    return await self._asend(lines, made)
        except TimeoutError:
            raise NoAnswer("the deadline has passed", sent) from None
        except _FAILURES as error:
            raise _no_answer(error) from None

    async def _asend(self, lines: _Lines, made: httpcore.Request) -> Response:
        connection = await self._aconnection(lines)
        done = False
        try:
            response = await connection.handle_async_request(made)
            try:
                total, chunks = 0, []
                async for chunk in response.aiter_stream():
                    total += len(chunk)
                    _check_size(total)
                    chunks.append(chunk)
            finally:
                await response.aclose()
            done = True
            return _response(response, b"".join(chunks))
        finally:
            if done and connection.is_available():
                lines.free.append(connection)
            else:
                await connection.aclose()

    async def _aconnection(self, lines: _Lines) -> httpcore.AsyncHTTPConnection:
        while lines.free:
            connection = lines.free.pop()
            if not connection.has_expired():
                return connection
            await connection.aclose()
        return httpcore.AsyncHTTPConnection(self.address.origin, self._ssl, keepalive_expiry=IDLE_S)


class _Lines:
    """The connections of one event loop."""

    def __init__(self, connections: int) -> None:
        self.free: list[httpcore.AsyncHTTPConnection] = []
        self.turns = asyncio.Semaphore(connections)


def _bounded(chunks: Iterable[bytes]) -> Iterable[bytes]:
    total = 0
    for chunk in chunks:
        total += len(chunk)
        _check_size(total)
        yield chunk


def _check_size(total: int) -> None:
    if total > MAX_BODY_BYTES:
        raise httpcore.RemoteProtocolError("the answer is too long")


def _response(response: httpcore.Response, body: bytes) -> Response:
    headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in response.headers}
    return Response(response.status, headers, body)


def _no_answer(error: BaseException) -> NoAnswer:
    return NoAnswer(type(error).__name__, not isinstance(error, _UNSENT))


_transports: weakref.WeakSet[Transport] = weakref.WeakSet()


def _after_fork_in_child() -> None:
    for transport in list(_transports):
        transport.renew()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)

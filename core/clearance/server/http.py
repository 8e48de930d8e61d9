"""One request and its answer: reading within limits, strict JSON, the headers of every response. No framework here,
because this is most of the time that a reservation takes.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import parse_qsl

from pydantic import BaseModel, ValidationError
from pydantic_core import to_json

from clearance.errors import InvalidRequest
from clearance.model.base import invalid
from clearance.server.bounded import WHOLE
from clearance.server.errors import Headers, Refused, Told
from clearance.server.tracing import Trace

if TYPE_CHECKING:
    from clearance.server.auth import Principal
    from clearance.server.settings import Settings

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
M = TypeVar("M", bound=BaseModel)

_JSON_TYPE = b"application/json"
JSON = (b"content-type", _JSON_TYPE)
_CLOSE = (b"connection", b"close")
"""The rest of the body would otherwise be taken for the next request, or waited for."""


class Reply:
    __slots__ = ("body", "headers", "status")

    def __init__(self, content: Any, status: int = 200, headers: Headers | None = None) -> None:
        self.status = status
        self.body = content if isinstance(content, bytes) else to_json(content)
        self.headers = headers or [JSON]


class Stream:
    """A reply without an end."""

    __slots__ = ("chunks", "headers")

    def __init__(self, chunks: AsyncIterator[bytes], headers: Headers) -> None:
        self.chunks = chunks
        self.headers = headers


class Call:
    """One request."""

    __slots__ = ("_query", "_receive", "headers", "method", "params", "path", "principal", "route", "scope", "trace")

    principal: Principal

    def __init__(self, scope: Scope, receive: Receive, headers: dict[bytes, bytes], trace: Trace) -> None:
        self.scope = scope
        self.method: str = scope["method"]
        self.path: str = scope["path"]
        self.headers = headers
        self.trace = trace
        self.route = ""
        self.params: dict[str, str] = {}
        self._receive = receive
        self._query: dict[str, str] | None = None

    @property
    def query(self) -> dict[str, str]:
        if self._query is None:
            text = self.scope["query_string"].decode("latin-1")
            try:
                self._query = dict(parse_qsl(text, keep_blank_values=True, max_num_fields=64, errors="strict"))
            except ValueError:
                raise InvalidRequest("query", "cannot be read", "at most 64 parameters in UTF-8") from None
        return self._query

    def header(self, name: bytes) -> str | None:
        value = self.headers.get(name)
        return None if value is None else value.decode("latin-1").strip()

    async def body(self, model: type[M], settings: Settings, *, optional: bool = False) -> M:
        kind = self.headers.get(b"content-type")
        if kind is not None and kind != _JSON_TYPE and kind.partition(b";")[0].strip().lower() != b"application/json":
            raise Refused(415, "INVALID_REQUEST", "the body must be application/json")
        raw = await self._read(settings)
        if optional and not raw:
            raw = b"{}"
        try:
            return model.model_validate_json(raw)
        except ValidationError as error:
            raise _problem(error, raw) from None

    async def _read(self, settings: Settings) -> bytes:
        length = self.headers.get(b"content-length")
        if length is not None and length.isdigit():
            _require_short(int(length), settings)
        message = await self._receive_within(settings.read_seconds)
        body: bytes = message.get("body", b"")
        if not message.get("more_body", False):
            _require_short(len(body), settings)
            return body
        chunks, total = [body], len(body)
        while message.get("more_body", False):
            message = await self._receive_within(settings.read_seconds)
            chunks.append(message.get("body", b""))
            total += len(chunks[-1])
            _require_short(total, settings)
        return b"".join(chunks)

    async def _receive_within(self, seconds: float) -> MutableMapping[str, Any]:
        try:
            if self.scope.get(WHOLE):  # it is here, so there is nothing to wait for
                message = await self._receive()
            else:
                async with asyncio.timeout(seconds):
                    message = await self._receive()
        except TimeoutError:
            raise Refused(408, "INVALID_REQUEST", "the body did not arrive in time", headers=[_CLOSE]) from None
        if message["type"] == "http.disconnect":
            raise Disconnected
        return message


def _require_short(length: int, settings: Settings) -> None:
    if length > settings.max_body_bytes:
        message = f"the body has more than {settings.max_body_bytes:,} bytes"
        raise Refused(413, "INVALID_REQUEST", message, headers=[_CLOSE])


class Disconnected(Exception):
    """The client went away before it had asked anything."""


def _problem(error: ValidationError, raw: bytes) -> InvalidRequest:
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    if first["type"] == "json_invalid":
        return InvalidRequest("body", "is missing" if not raw else f"is not JSON ({first['msg']})", "a JSON object")
    return invalid(error, "the body")


def error_body(error: Told, trace: Trace) -> bytes:
    content: dict[str, Any] = {
        "error": error.code,
        "message": error.message,
        "request_id": trace.request_id,
        "trace_id": trace.trace_id,
    }
    if error.details:
        content["details"] = error.details
    return to_json(content)

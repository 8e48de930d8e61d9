"""The HTTP side: routes, and acting on plans."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Callable
from functools import partial

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from clearance.simulator import chat, embeddings, responses
from clearance.simulator.answer import Endpoint
from clearance.simulator.engine import Engine, Plan
from clearance.simulator.errors import ApiError
from clearance.simulator.prices import Price, cost_of
from clearance.simulator.records import Outcome, Records, RequestRecord
from clearance.simulator.wire import Wire

MODELS = ("gpt-4o", "gpt-4o-mini", "gpt-4.1", "gpt-4.1-mini", "o4-mini", "text-embedding-3-small")
"""What `/v1/models` lists; any other name is answered as well."""

_CREATED = 1_767_225_600  # the snapshot date of all simulated models, 2026-01-01
_ENDPOINTS = {
    "/v1/chat/completions": chat.ENDPOINT,
    "/v1/responses": responses.ENDPOINT,
    "/v1/embeddings": embeddings.ENDPOINT,
}


def build(engine: Engine, records: Records, price: Price | None, reset: Callable[[], None]) -> Starlette:
    model_routes = [
        Route(path, ModelEndpoint(endpoint, engine, records, price), methods=["POST"])
        for path, endpoint in _ENDPOINTS.items()
    ]

    async def stats(request: Request) -> JSONResponse:
        return JSONResponse(records.stats())

    async def start_again(request: Request) -> JSONResponse:
        reset()
        return JSONResponse(records.stats())

    return Starlette(
        routes=[
            *model_routes,
            Route("/v1/models", _models),
            Route("/v1/models/{model:path}", _model),
            Route("/simulator/stats", stats),
            Route("/simulator/reset", start_again, methods=["POST"]),
        ],
        exception_handlers={HTTPException: _http_error},
    )


def _model_card(name: str) -> dict[str, object]:
    return {"id": name, "object": "model", "created": _CREATED, "owned_by": "clearance-simulator"}


async def _models(request: Request) -> JSONResponse:
    return JSONResponse({"object": "list", "data": [_model_card(name) for name in MODELS]})


async def _model(request: Request) -> JSONResponse:
    return JSONResponse(_model_card(request.path_params["model"]))


async def _http_error(request: Request, error: Exception) -> JSONResponse:
    status = error.status_code if isinstance(error, HTTPException) else 500
    shown = ApiError(status, f"Invalid URL ({request.method} {request.url.path})", code="unknown_url")
    return JSONResponse(shown.payload, status)


class ModelEndpoint:
    """An ASGI app for one endpoint: every request becomes a plan, is played, and leaves one record."""

    def __init__(self, endpoint: Endpoint, engine: Engine, records: Records, price: Price | None) -> None:
        self._endpoint = endpoint
        self._engine = engine
        self._records = records
        self._price = price

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        at = time.time()
        try:
            raw = await Request(scope, receive).body()
            entry = _Entry(self._endpoint.name, self._records, self._price, at, raw)
            with entry:
                async with Wire(scope, receive, send) as wire:
                    entry.plan = await self._engine.plan(self._endpoint, raw, entry.number)
                    await _play(entry.plan, wire, entry)
        except (ClientDisconnect, asyncio.CancelledError):
            return  # the client left, or the server is going down: nobody waits for an answer


class _Entry:
    """The record in the making. It is settled before the last byte is sent: who has the answer finds it counted."""

    def __init__(self, endpoint: str, records: Records, price: Price | None, at: float, raw: bytes) -> None:
        self.number = 0
        self.plan = Plan(model="", billed_model="", stream=False, body={})
        self._endpoint = endpoint
        self._records = records
        self._price = price
        self._at = at
        self._raw = raw
        self._settled = False

    def __enter__(self) -> None:
        self.number = self._records.begin()

    def __exit__(self, *_: object) -> None:
        if not self._settled:
            self.settle("abandoned", 0)

    def settle(self, outcome: Outcome, status: int, sent: int = 0) -> None:
        plan, usage = self.plan, self.plan.usage_after(sent)
        self._settled = True
        self._records.end(
            RequestRecord(
                number=self.number,
                at=self._at,
                duration_ms=max(0.0, (time.time() - self._at) * 1000),
                endpoint=self._endpoint,
                model=plan.model,
                stream=plan.stream,
                status=status,
                outcome=outcome,
                usage=usage,
                cost=cost_of(self._price, plan.billed_model, usage),
                body=plan.body,
                body_bytes=len(self._raw),
                body_sha256=hashlib.sha256(self._raw).hexdigest(),
            )
        )


async def _play(plan: Plan, wire: Wire, entry: _Entry) -> None:
    if not await wire.pause(plan.delay_ms):
        entry.settle("abandoned", 0)
    elif plan.cut_at == 0:
        entry.settle("cut", 0)
        await wire.cut()
    elif plan.chunks:
        await _play_stream(plan, wire, entry)
    else:
        entry.settle("answered" if plan.answer else "error", plan.status)
        length = {"content-length": str(len(plan.payload))}
        await wire.start(plan.status, {**_headers(entry, "application/json"), **length, **plan.headers})
        await wire.write(plan.payload, more=False)


async def _play_stream(plan: Plan, wire: Wire, entry: _Entry) -> None:
    await wire.start(plan.status, {**_headers(entry, "text/event-stream; charset=utf-8"), "cache-control": "no-cache"})
    end = partial(entry.settle, status=plan.status)
    sent = 0
    for index, chunk in enumerate(plan.chunks):
        if not await wire.pause(plan.chunk_delay_ms if index else 0):
            return end("abandoned", sent=sent)
        if index == plan.cut_at:
            end("cut", sent=sent)
            return await wire.cut()
        last = index == len(plan.chunks) - 1
        if last:
            end("answered", sent=chunk.generated)
        await wire.write(chunk.data, more=not last)
        sent = chunk.generated
    return None


def _headers(entry: _Entry, content_type: str) -> dict[str, str]:
    return {"content-type": content_type, "x-request-id": f"req_sim{entry.number:08d}"}

"""Decides what to answer to one request. Reads and writes nothing; `app.py` acts on the plan."""

from __future__ import annotations

import inspect
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from clearance.simulator import reading
from clearance.simulator.answer import Answer, Chunk, Endpoint, compose, served_name
from clearance.simulator.errors import ApiError, script_failed, simulated
from clearance.simulator.faults import FaultDesk, Faults, parse_model
from clearance.simulator.records import SimulatedUsage
from clearance.simulator.script import Reply, Script, ScriptedRequest


@dataclass(frozen=True, slots=True)
class Plan:
    """What to send, and when.

    Attributes:
        billed_model: the name that the price is looked up with.
        answer: None where an error is sent.
        payload: the whole body where nothing is streamed.
        cut_at: the chunk in whose place the connection dies; 0 is before any reply.
    """

    model: str
    billed_model: str
    stream: bool
    body: Mapping[str, Any]
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    answer: Answer | None = None
    payload: bytes = b""
    chunks: tuple[Chunk, ...] = ()
    delay_ms: int = 0
    chunk_delay_ms: int = 0
    cut_at: int | None = None

    def usage_after(self, sent: int) -> SimulatedUsage:
        """What is charged when the connection ends after `sent` tokens; an answer in one piece is charged whole."""
        if self.answer is None:
            return SimulatedUsage()
        return self.answer.usage_after(sent) if self.chunks else self.answer.usage


class Engine:
    def __init__(self, script: Script, faults: FaultDesk, *, dated: bool) -> None:
        self._script = script
        self._faults = faults
        self._dated = dated

    async def plan(self, endpoint: Endpoint, raw: bytes, number: int) -> Plan:
        plan = Plan(model="", billed_model="", stream=False, body={})
        try:
            body = reading.parse(raw)
            plan = replace(plan, body=body, stream=body.get("stream") is True)
            name = reading.model_name(body)
            model, asked = parse_model(name)
            plan = replace(plan, model=model, billed_model=model)
            request = replace(endpoint.read(body, model), number=number)
            faults = self._faults.settle(name, model, asked)
            plan = replace(plan, delay_ms=faults.delay_ms, chunk_delay_ms=faults.chunk_delay_ms)
            if faults.status is not None:
                raise simulated(faults.status, faults.retry_after_ms)
            reply = await self._reply(request) if endpoint.scripted else Reply()
            plan = replace(
                plan,
                delay_ms=plan.delay_ms + reply.delay_ms,
                chunk_delay_ms=plan.chunk_delay_ms + reply.chunk_delay_ms,
            )
            if reply.status != 200:
                raise simulated(reply.status, reply.retry_after_ms)
            return self._answered(plan, endpoint, request, reply, faults)
        except ApiError as error:
            return replace(plan, status=error.status, headers=error.headers, payload=_encode(error.payload))

    async def _reply(self, request: ScriptedRequest) -> Reply:
        try:
            given = self._script(request)
            reply = await given if inspect.isawaitable(given) else given
        except Exception as error:
            raise script_failed(error) from error
        if not isinstance(reply, Reply):
            raise script_failed(TypeError(f"it gave {type(reply).__name__}, not a Reply"))
        return reply

    def _answered(self, plan: Plan, endpoint: Endpoint, request: ScriptedRequest, reply: Reply, faults: Faults) -> Plan:
        answer = compose(
            request,
            reply,
            created=int(time.time()),
            model=reply.model or served_name(plan.model, dated=self._dated and endpoint.scripted),
            cached=faults.cached_tokens,
            reasoning=faults.reasoning_tokens if endpoint.scripted else 0,
        )
        answer = replace(answer, tells_usage=not faults.no_usage)
        cut = reply.cut_after_chunks if faults.cut_after_chunks is None else faults.cut_after_chunks
        plan = replace(plan, answer=answer, billed_model=reply.model or plan.model)
        if request.stream and endpoint.stream is not None:
            chunks = tuple(endpoint.stream(answer))
            return replace(plan, chunks=chunks, cut_at=None if cut is None else _cut_at(chunks, cut))
        return replace(plan, payload=_encode(endpoint.whole(answer)), cut_at=None if cut is None else 0)


def _cut_at(chunks: tuple[Chunk, ...], wanted: int) -> int:
    """A cut stream never tells how the answer ended."""
    return min(wanted, next(index for index, chunk in enumerate(chunks) if chunk.ends))


def _encode(payload: Mapping[str, Any]) -> bytes:
    return json.dumps(payload, separators=(",", ":")).encode()

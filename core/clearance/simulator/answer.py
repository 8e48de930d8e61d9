"""Makes the answer to one request: its tokens, why it ended, and what it used. Plain data."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from clearance.simulator import tokens
from clearance.simulator.records import SimulatedUsage
from clearance.simulator.script import Reply, ScriptedRequest

_DATE = "2026-01-01"
_DATED = re.compile(r".*-\d{4}-\d{2}-\d{2}")


@dataclass(frozen=True, slots=True)
class AnsweredCall:
    """A tool call; `pieces` are its arguments, a token each. Its name is one token more."""

    id: str
    name: str
    pieces: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Answer:
    """`pieces` are the text, a token each; None for no text. `choices` times the same."""

    id: str
    created: int
    request: ScriptedRequest
    model: str
    pieces: tuple[str, ...] | None
    calls: tuple[AnsweredCall, ...]
    truncated: bool
    usage: SimulatedUsage
    tells_usage: bool = True

    @property
    def text(self) -> str:
        return "".join(self.pieces or ())

    @property
    def size(self) -> int:
        """Tokens of one choice, without reasoning."""
        return len(self.pieces or ()) + sum(1 + len(call.pieces) for call in self.calls)

    def usage_after(self, sent: int) -> SimulatedUsage:
        """Usage when only `sent` tokens of all choices together had been generated. Reasoning came first."""
        full, every = self.usage, self.size * self.request.choices
        if sent >= every:
            return full
        visible = full.output_tokens - full.reasoning_tokens
        output = full.reasoning_tokens + -(-visible * sent // every)
        return SimulatedUsage(full.input_tokens, full.cached_input_tokens, output, full.reasoning_tokens)


@dataclass(frozen=True, slots=True)
class Chunk:
    """One part of a stream: its bytes, and how many tokens exist once it is sent. `ends` names the outcome."""

    data: bytes
    generated: int
    ends: bool = False


@dataclass(frozen=True, slots=True)
class Endpoint:
    """How one endpoint reads requests and shows answers; `scripted` is False where no model speaks."""

    name: str
    read: Callable[[dict[str, Any], str], ScriptedRequest]
    whole: Callable[[Answer], dict[str, Any]]
    stream: Callable[[Answer], list[Chunk]] | None
    scripted: bool = True


def compose(
    request: ScriptedRequest, reply: Reply, *, created: int, model: str, cached: int = 0, reasoning: int = 0
) -> Answer:
    """The reply as tokens, cut off where the request's cap is reached."""
    cap = request.max_output_tokens
    thought = reasoning if cap is None else min(reasoning, cap)
    room = None if cap is None else cap - thought
    text = tokens.split(reply.text) if reply.text is not None else None
    pieces = text if text is None or room is None else text[:room]
    left = None if room is None else room - len(pieces or ())
    calls, whole_calls = _calls(request, reply, left)
    visible = len(pieces or ()) + sum(1 + len(call.pieces) for call in calls)
    counted = SimulatedUsage(
        request.input_tokens,
        min(cached, request.input_tokens),
        (visible + thought) * request.choices,
        thought * request.choices,
    )
    return Answer(
        id=f"sim{request.number:08d}",
        created=created,
        request=request,
        model=model,
        pieces=pieces,
        calls=calls,
        truncated=pieces != text or not whole_calls,
        usage=reply.usage or counted,
    )


def _calls(request: ScriptedRequest, reply: Reply, room: int | None) -> tuple[tuple[AnsweredCall, ...], bool]:
    """The calls that fit into `room` tokens, and whether that is all of them."""
    calls: list[AnsweredCall] = []
    for index, call in enumerate(reply.tool_calls):
        if room is not None and room < 1:
            return tuple(calls), False
        pieces = tokens.split(call.arguments_json)
        kept = pieces if room is None else pieces[: room - 1]
        calls.append(AnsweredCall(call.id or f"call_sim{request.number:08d}_{index}", call.name, kept))
        if kept != pieces:
            return tuple(calls), False
        room = None if room is None else room - 1 - len(kept)
    return tuple(calls), True


def served_name(model: str, *, dated: bool) -> str:
    """The name that a provider reports: with the date of its snapshot, unless it was asked for with one."""
    return f"{model}-{_DATE}" if dated and not _DATED.fullmatch(model) else model


def sse(payload: Mapping[str, Any], event: str | None = None) -> bytes:
    head = f"event: {event}\n" if event else ""
    return f"{head}data: {json.dumps(payload, separators=(',', ':'))}\n\n".encode()

"""What the simulator answers: a script is a callable from a request to a reply."""

from __future__ import annotations

import json
import threading
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from clearance.errors import InvalidRequest
from clearance.simulator.example import example
from clearance.simulator.records import SimulatedUsage

_QUOTED_WORDS = 12


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A call of a tool. `arguments` is a JSON object, or raw text to simulate broken JSON. `id` is made if None."""

    name: str
    arguments: Mapping[str, Any] | str = field(default_factory=dict)
    id: str | None = None

    @property
    def arguments_json(self) -> str:
        return self.arguments if isinstance(self.arguments, str) else json.dumps(dict(self.arguments))


@dataclass(frozen=True, slots=True)
class Tool:
    """A function that the model may call; `parameters` is its JSON schema."""

    name: str
    parameters: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of the prompt. `role` is `system`, `developer`, `user`, `assistant` or `tool`."""

    role: str
    text: str = ""
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str | None = None


@dataclass(frozen=True, slots=True)
class ScriptedRequest:
    """One request, in the same shape for every endpoint.

    Attributes:
        number: 1 for the first request since the start or the last reset.
        endpoint: `chat.completions` or `responses`.
        model: without fault suffixes.
        tools: the functions it may call.
        tool_choice: `auto`, `none`, `required`, or the name of the tool that it must call.
        output_schema: the JSON schema that the text must fit, or None; `{}` for any JSON.
        max_output_tokens: the cap for each choice, or None.
        choices: how many answers (`n`).
        include_usage: whether the answer tells its usage.
        body: the request's JSON as it came.
    """

    endpoint: str
    model: str
    messages: tuple[Message, ...]
    input_tokens: int
    body: Mapping[str, Any]
    number: int = 0
    stream: bool = False
    tools: tuple[Tool, ...] = ()
    tool_choice: str = "auto"
    output_schema: Mapping[str, Any] | None = None
    max_output_tokens: int | None = None
    choices: int = 1
    include_usage: bool = True

    @property
    def user_text(self) -> str:
        """The last thing that the user said."""
        return next((m.text for m in reversed(self.messages) if m.role == "user"), "")

    @property
    def tool_results(self) -> tuple[str, ...]:
        """Results of the tools called since the user last spoke."""
        results: list[str] = []
        for message in reversed(self.messages):
            if message.role == "user":
                break
            if message.role == "tool":
                results.append(message.text)
        return tuple(reversed(results))


@dataclass(frozen=True, slots=True)
class Reply:
    """What to answer.

    Attributes:
        text: the answer; may come together with tool calls.
        tool_calls: tools to call.
        usage: tokens to report instead of those counted from the text.
        delay_ms: wait before anything is sent.
        chunk_delay_ms: wait between the chunks of a stream.
        status: 400 to 599 answers an error instead.
        retry_after_ms: says in an error when to come again.
        cut_after_chunks: the connection dies after so many chunks of a stream, in any case before its finish
            reason; 0, and any number without streaming, is before any reply.
        model: the exact name reported as the one that served, when it is another than the one asked for.
    """

    text: str | None = None
    tool_calls: tuple[ToolCall, ...] | list[ToolCall] = ()
    usage: SimulatedUsage | None = None
    delay_ms: int = 0
    chunk_delay_ms: int = 0
    status: int = 200
    retry_after_ms: int | None = None
    cut_after_chunks: int | None = None
    model: str | None = None

    def __post_init__(self) -> None:
        if self.status != 200:
            check_error_status(self.status)
        for name in ("delay_ms", "chunk_delay_ms", "retry_after_ms", "cut_after_chunks"):
            check_not_negative(name, getattr(self, name))


def check_error_status(status: int) -> None:
    if not 400 <= status <= 599:
        raise InvalidRequest("status", f"{status} is not an error", "400 to 599")


def check_not_negative(name: str, value: int | None) -> None:
    if value is not None and value < 0:
        raise InvalidRequest(name, f"{value} is negative", "0 or more")


Script = Callable[[ScriptedRequest], Reply | Awaitable[Reply]]
"""A plain script runs on the server's event loop and must not block; an `async` one may wait."""


def always(text: str) -> Script:
    """The same text every time."""
    return lambda request: Reply(text=text)


def calls_tool_forever(name: str, arguments: Mapping[str, Any] | str | None = None) -> Script:
    """A runaway agent: every answer calls the tool again."""
    call = ToolCall(name, {} if arguments is None else arguments)
    return lambda request: Reply(tool_calls=(call,))


class sequence:
    """The given replies in their order; after the last one `then`, or an error that fails the test.

    A text or a ToolCall stands for a reply with it. `Simulator.reset` starts again at the first.
    """

    def __init__(self, replies: Iterable[Reply | ToolCall | str], then: Reply | ToolCall | str | None = None) -> None:
        self._replies = tuple(_reply(r) for r in replies)
        self._then = None if then is None else _reply(then)
        self._lock = threading.Lock()
        self._next = 0

    def __call__(self, request: ScriptedRequest) -> Reply:
        with self._lock:
            place, self._next = self._next, self._next + 1
        if place < len(self._replies):
            return self._replies[place]
        if self._then is None:
            raise LookupError(f"the sequence has {len(self._replies)} replies, this is request {place + 1}")
        return self._then

    def reset(self) -> None:
        with self._lock:
            self._next = 0


def default_script(request: ScriptedRequest) -> Reply:
    """Calls the first tool once and answers in text when its result is there; obeys tool_choice and schemas."""
    tool = _tool_to_call(request)
    if tool is not None:
        return Reply(tool_calls=(ToolCall(tool.name, example({"type": "object", **tool.parameters})),))
    if request.output_schema is not None:
        return Reply(text=json.dumps(example(request.output_schema or {"type": "object"})))
    if request.tool_results:
        return Reply(text=f"The tool said: {_start_of(request.tool_results[-1])}")
    return Reply(text=f"This is a simulated answer to: {_start_of(request.user_text)}")


def _tool_to_call(request: ScriptedRequest) -> Tool | None:
    choice = request.tool_choice
    if choice == "none" or not request.tools:
        return None
    if choice == "auto":
        return None if request.tool_results else request.tools[0]
    if choice == "required":
        return request.tools[0]
    return next(tool for tool in request.tools if tool.name == choice)


def _start_of(text: str) -> str:
    return " ".join(text[:2000].split()[:_QUOTED_WORDS])


def _reply(given: Reply | ToolCall | str) -> Reply:
    if isinstance(given, Reply):
        return given
    return Reply(tool_calls=(given,)) if isinstance(given, ToolCall) else Reply(text=given)

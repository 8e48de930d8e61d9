"""`/v1/chat/completions`: reads its requests, builds its answers and streams."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from clearance.simulator import reading, tokens
from clearance.simulator.answer import Answer, AnsweredCall, Chunk, Endpoint, sse
from clearance.simulator.errors import bad_request
from clearance.simulator.records import SimulatedUsage
from clearance.simulator.script import Message, ScriptedRequest

_MAX_CHOICES = 128
_ROLES = frozenset({"system", "developer", "user", "assistant", "tool", "function"})


def read(body: dict[str, Any], model: str) -> ScriptedRequest:
    messages = [_message(m, i) for i, m in enumerate(reading.items(body, "messages"))]
    if not messages:
        raise bad_request("messages", "Invalid 'messages': expected at least one message.")
    _check_tool_turns(messages)
    tools = reading.items(body, "tools")
    functions = tuple(
        reading.tool(t.get("function"), f"tools[{i}].function")
        for i, t in enumerate(tools)
        if t.get("type", "function") == "function"
    )
    choice, functions = reading.tool_choice(body, functions)
    stream = reading.flag(body, "stream")
    if body.get("stream_options") is not None and not stream:
        raise bad_request("stream_options", "The 'stream_options' parameter is only allowed when 'stream' is enabled.")
    return ScriptedRequest(
        endpoint="chat.completions",
        model=model,
        messages=tuple(messages),
        input_tokens=tokens.count_input(reading.prompt_texts(messages), tools),
        body=body,
        stream=stream,
        tools=functions,
        tool_choice=choice,
        output_schema=reading.output_schema(body.get("response_format")),
        max_output_tokens=_cap(body),
        choices=reading.whole_number(body, "n", most=_MAX_CHOICES) or 1,
        include_usage=not stream or _wants_usage(body),
    )


def _cap(body: Mapping[str, Any]) -> int | None:
    old = reading.whole_number(body, "max_tokens")
    new = reading.whole_number(body, "max_completion_tokens")
    if old is not None and new is not None:
        raise bad_request(
            "max_tokens", "Setting 'max_tokens' and 'max_completion_tokens' at the same time is not supported."
        )
    return new if new is not None else old


def _wants_usage(body: Mapping[str, Any]) -> bool:
    options = body.get("stream_options")
    return isinstance(options, dict) and reading.flag(options, "include_usage")


def _message(message: Mapping[str, Any], index: int) -> Message:
    role, param = message.get("role"), f"messages[{index}]"
    if not isinstance(role, str) or role not in _ROLES:
        raise bad_request(f"{param}.role", f"Invalid value: {role!r}. Supported: {', '.join(sorted(_ROLES))}.")
    calls = tuple(
        reading.call(c.get("function"), c.get("id"), f"{param}.tool_calls[{i}]")
        for i, c in enumerate(reading.items(message, "tool_calls"))
        if c.get("type", "function") == "function"
    )
    call_id = message.get("tool_call_id")
    if role == "tool" and not isinstance(call_id, str):
        raise bad_request(f"{param}.tool_call_id", f"Missing parameter '{param}.tool_call_id'.")
    return Message(role, reading.text_of(message.get("content")), calls, call_id)


def _check_tool_turns(messages: list[Message]) -> None:
    """Every tool call is answered right after it, and nothing else is: the provider refuses all other histories."""
    open_calls: set[str | None] = set()
    for index, message in enumerate(messages):
        if message.role == "tool":
            if message.tool_call_id not in open_calls:
                raise bad_request(
                    f"messages[{index}].role",
                    "messages with role 'tool' must be a response to a preceeding message with 'tool_calls'.",
                )
            open_calls.discard(message.tool_call_id)
            continue
        _check_answered(open_calls, index)
        open_calls = {call.id for call in message.tool_calls}
    _check_answered(open_calls, len(messages))


def _check_answered(open_calls: set[str | None], index: int) -> None:
    if open_calls:
        missing = ", ".join(sorted(str(call) for call in open_calls))
        raise bad_request(
            f"messages[{index - 1}].tool_calls",
            "An assistant message with 'tool_calls' must be followed by tool messages responding to each"
            f" 'tool_call_id'. The following tool_call_ids did not have response messages: {missing}",
        )


def whole(answer: Answer) -> dict[str, Any]:
    choices = [_choice(answer, index) for index in range(answer.request.choices)]
    payload = _frame(answer, "chat.completion", choices)
    if answer.tells_usage:
        payload["usage"] = _usage(answer.usage)
    return payload


def _frame(answer: Answer, kind: str, choices: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "id": f"chatcmpl-{answer.id}",
        "object": kind,
        "created": answer.created,
        "model": answer.model,
        "system_fingerprint": "fp_simulator",
        "service_tier": "default",
        "choices": choices,
    }


def _choice(answer: Answer, index: int) -> dict[str, Any]:
    text = None if answer.pieces is None else answer.text
    message: dict[str, Any] = {"role": "assistant", "content": text, "refusal": None}
    if answer.calls:
        message["tool_calls"] = [
            {"id": _call_id(c, index), "type": "function", "function": _function(c)} for c in answer.calls
        ]
    return {"index": index, "message": message, "logprobs": None, "finish_reason": _finish(answer)}


def _function(call: AnsweredCall) -> dict[str, str]:
    return {"name": call.name, "arguments": "".join(call.pieces)}


def _call_id(call: AnsweredCall, choice: int) -> str:
    return call.id if choice == 0 else f"{call.id}_{choice}"


def _finish(answer: Answer) -> str:
    if answer.truncated:
        return "length"
    return "tool_calls" if answer.calls else "stop"


def _usage(usage: SimulatedUsage) -> dict[str, Any]:
    return {
        "prompt_tokens": usage.input_tokens,
        "completion_tokens": usage.output_tokens,
        "total_tokens": usage.total_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.cached_input_tokens, "audio_tokens": 0},
        "completion_tokens_details": {
            "reasoning_tokens": usage.reasoning_tokens,
            "audio_tokens": 0,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        },
    }


def stream(answer: Answer) -> list[Chunk]:
    """The choices take turns, token by token; then their finish reasons; then the usage if it was asked for."""
    wants_usage = answer.request.include_usage
    turns = range(answer.request.choices)
    chunks: list[Chunk] = []
    generated = 0

    def add(delta: dict[str, Any], index: int, finish: str | None = None) -> None:
        choice = {"index": index, "delta": delta, "logprobs": None, "finish_reason": finish}
        payload = _frame(answer, "chat.completion.chunk", [choice])
        if wants_usage:
            payload["usage"] = None
        chunks.append(Chunk(sse(payload), generated, finish is not None))

    for index in turns:
        add({"role": "assistant", "content": None if answer.pieces is None else "", "refusal": None}, index)
    for piece in answer.pieces or ():
        for index in turns:
            generated += 1
            add({"content": piece}, index)
    for number, call in enumerate(answer.calls):
        for index in turns:
            for delta in _call_deltas(call, _call_id(call, index), number):
                generated += 1
                add({"tool_calls": [delta]}, index)
    for index in turns:
        add({}, index, _finish(answer))
    if wants_usage and answer.tells_usage:
        payload = {**_frame(answer, "chat.completion.chunk", []), "usage": _usage(answer.usage)}
        chunks.append(Chunk(sse(payload), generated, True))
    last = chunks.pop()
    # The end mark travels with the last chunk, so that a client that read all of it never looks gone.
    return [*chunks, Chunk(last.data + b"data: [DONE]\n\n", generated, True)]


def _call_deltas(call: AnsweredCall, call_id: str, number: int) -> Iterator[dict[str, Any]]:
    yield {"index": number, "id": call_id, "type": "function", "function": {"name": call.name, "arguments": ""}}
    for piece in call.pieces:
        yield {"index": number, "function": {"arguments": piece}}


ENDPOINT = Endpoint("chat.completions", read, whole, stream)

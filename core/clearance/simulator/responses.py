"""`/v1/responses`: reads its requests, builds its answers and streams."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from clearance.simulator import reading, tokens
from clearance.simulator.answer import Answer, Chunk, Endpoint, sse
from clearance.simulator.errors import bad_request
from clearance.simulator.records import SimulatedUsage
from clearance.simulator.script import Message, ScriptedRequest


def read(body: dict[str, Any], model: str) -> ScriptedRequest:
    messages = _messages(body)
    tools = reading.items(body, "tools")
    functions = tuple(reading.tool(t, f"tools[{i}]") for i, t in enumerate(tools) if t.get("type") == "function")
    choice, functions = reading.tool_choice(body, functions)
    text = body.get("text")
    return ScriptedRequest(
        endpoint="responses",
        model=model,
        messages=tuple(messages),
        input_tokens=tokens.count_input(reading.prompt_texts(messages), tools),
        body=body,
        stream=reading.flag(body, "stream"),
        tools=functions,
        tool_choice=choice,
        output_schema=reading.output_schema(text.get("format")) if isinstance(text, dict) else None,
        max_output_tokens=reading.whole_number(body, "max_output_tokens"),
    )


def _messages(body: Mapping[str, Any]) -> list[Message]:
    given = body.get("input")
    if isinstance(given, str):
        messages = [Message("user", given)]
    else:
        found = (_message(item, index) for index, item in enumerate(reading.items(body, "input")))
        messages = [message for message in found if message is not None]
    if not messages:
        raise bad_request("input", "Missing required parameter: 'input'.", code="missing_required_parameter")
    if not body.get("previous_response_id") and not body.get("conversation"):
        _check_tool_turns(messages)
    instructions = body.get("instructions")
    return [Message("system", instructions), *messages] if isinstance(instructions, str) else messages


def _message(item: Mapping[str, Any], index: int) -> Message | None:
    """One item of the input; reasoning and other items of the provider's own are not read."""
    kind, param = item.get("type", "message"), f"input[{index}]"
    if kind == "message":
        role = item.get("role")
        if not isinstance(role, str):
            raise bad_request(f"{param}.role", f"Missing required parameter: '{param}.role'.")
        return Message(role, reading.text_of(item.get("content")))
    if kind == "function_call":
        return Message("assistant", tool_calls=(reading.call(item, item.get("call_id"), param),))
    if kind == "function_call_output":
        call_id = item.get("call_id")
        if not isinstance(call_id, str):
            raise bad_request(f"{param}.call_id", f"Missing required parameter: '{param}.call_id'.")
        return Message("tool", reading.text_of(item.get("output")), tool_call_id=call_id)
    return None


def _check_tool_turns(messages: list[Message]) -> None:
    """Every call has its output and every output its call: the provider refuses all other histories."""
    called = {call.id for message in messages for call in message.tool_calls}
    answered = {message.tool_call_id for message in messages if message.role == "tool"}
    for call in sorted(map(str, called - answered)):
        raise bad_request("input", f"No tool output found for function call {call}.")
    for call in sorted(map(str, answered - called)):
        raise bad_request("input", f"No tool call found for function call output with call_id {call}.")


def whole(answer: Answer) -> dict[str, Any]:
    status = "incomplete" if answer.truncated else "completed"
    usage = _usage(answer.usage) if answer.tells_usage else None
    return _frame(answer, status, _output(answer), usage)


def _frame(
    answer: Answer, status: str, output: list[dict[str, Any]], usage: dict[str, Any] | None = None
) -> dict[str, Any]:
    body = answer.request.body
    return {
        "id": f"resp_{answer.id}",
        "object": "response",
        "created_at": answer.created,
        "status": status,
        "error": None,
        "incomplete_details": {"reason": "max_output_tokens"} if status == "incomplete" else None,
        "instructions": body.get("instructions"),
        "max_output_tokens": body.get("max_output_tokens"),
        "metadata": body.get("metadata") or {},
        "model": answer.model,
        "output": output,
        "parallel_tool_calls": body.get("parallel_tool_calls", True),
        "previous_response_id": body.get("previous_response_id"),
        "temperature": body.get("temperature", 1.0),
        "text": body.get("text") or {"format": {"type": "text"}},
        "tool_choice": body.get("tool_choice") or "auto",
        "tools": body.get("tools") or [],
        "top_p": body.get("top_p", 1.0),
        "usage": usage,
    }


def _output(answer: Answer) -> list[dict[str, Any]]:
    """All items, finished: the message if there is text, then the calls. Only the last can be incomplete."""
    count = (answer.pieces is not None) + len(answer.calls)
    states = ["completed"] * (count - 1) + ["incomplete" if answer.truncated else "completed"]
    items = []
    if answer.pieces is not None:
        items.append(_message_item(answer, [_part(answer.text)], states[0]))
    for index, call in enumerate(answer.calls):
        items.append(_call_item(answer, index, "".join(call.pieces), states[len(items)]))
    return items


def _message_item(answer: Answer, content: list[dict[str, Any]], status: str) -> dict[str, Any]:
    return {"id": f"msg_{answer.id}", "type": "message", "role": "assistant", "status": status, "content": content}


def _part(text: str) -> dict[str, Any]:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}


def _call_item(answer: Answer, index: int, arguments: str, status: str) -> dict[str, Any]:
    call = answer.calls[index]
    return {
        "id": f"fc_{answer.id}_{index}",
        "type": "function_call",
        "call_id": call.id,
        "name": call.name,
        "arguments": arguments,
        "status": status,
    }


def _usage(usage: SimulatedUsage) -> dict[str, Any]:
    return {
        "input_tokens": usage.input_tokens,
        "input_tokens_details": {"cached_tokens": usage.cached_input_tokens, "cache_write_tokens": 0},
        "output_tokens": usage.output_tokens,
        "output_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
        "total_tokens": usage.total_tokens,
    }


class _Events:
    """Collects the events of one stream and numbers them."""

    def __init__(self) -> None:
        self.chunks: list[Chunk] = []
        self.generated = 0

    def add(self, kind: str, *, ends: bool = False, tokens: int = 0, **facts: Any) -> None:
        self.generated += tokens
        payload = {"type": kind, "sequence_number": len(self.chunks), **facts}
        self.chunks.append(Chunk(sse(payload, kind), self.generated, ends))


def stream(answer: Answer) -> list[Chunk]:
    events, items = _Events(), _output(answer)
    events.add("response.created", response=_frame(answer, "in_progress", []))
    events.add("response.in_progress", response=_frame(answer, "in_progress", []))
    for place, item in enumerate(items):
        emit: Callable[..., None] = _text_events if item["type"] == "message" else _call_events
        emit(events, answer, place, item)
        events.add("response.output_item.done", output_index=place, item=item)
    final = whole(answer)
    events.add(f"response.{final['status']}", ends=True, response=final)
    return events.chunks


def _text_events(events: _Events, answer: Answer, place: int, item: dict[str, Any]) -> None:
    at = {"item_id": item["id"], "output_index": place, "content_index": 0}
    events.add("response.output_item.added", output_index=place, item=_message_item(answer, [], "in_progress"))
    events.add("response.content_part.added", **at, part=_part(""))
    for piece in answer.pieces or ():
        events.add("response.output_text.delta", tokens=1, **at, delta=piece, logprobs=[])
    events.add("response.output_text.done", **at, text=answer.text, logprobs=[])
    events.add("response.content_part.done", **at, part=_part(answer.text))


def _call_events(events: _Events, answer: Answer, place: int, item: dict[str, Any]) -> None:
    index = place - (answer.pieces is not None)
    at = {"item_id": item["id"], "output_index": place}
    started = _call_item(answer, index, "", "in_progress")
    events.add("response.output_item.added", tokens=1, output_index=place, item=started)
    for piece in answer.calls[index].pieces:
        events.add("response.function_call_arguments.delta", tokens=1, **at, delta=piece)
    events.add("response.function_call_arguments.done", **at, name=item["name"], arguments=item["arguments"])


ENDPOINT = Endpoint("responses", read, whole, stream)

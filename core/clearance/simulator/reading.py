"""Reads the fields of a request's body, and says what is wrong with them as OpenAI would."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from clearance.simulator.errors import bad_request
from clearance.simulator.script import Message, Tool, ToolCall


def parse(raw: bytes) -> dict[str, Any]:
    try:
        body = json.loads(raw)
    except (ValueError, RecursionError):
        raise bad_request(None, "We could not parse the JSON body of your request.") from None
    if not isinstance(body, dict):
        raise bad_request(None, "The JSON body of your request must be an object.")
    return body


def model_name(body: Mapping[str, Any]) -> str:
    model = body.get("model")
    if not isinstance(model, str) or not model:
        raise bad_request("model", "you must provide a model parameter")
    return model


def flag(body: Mapping[str, Any], name: str) -> bool:
    value = body.get(name)
    if value is not None and not isinstance(value, bool):
        raise bad_request(name, f"Invalid type for '{name}': expected a boolean.", code="invalid_type")
    return bool(value)


def whole_number(body: Mapping[str, Any], name: str, *, most: int = 2**31) -> int | None:
    """A number from 1 up, or None where the body has none."""
    value = body.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int):
        raise bad_request(name, f"Invalid type for '{name}': expected an integer.", code="invalid_type")
    if not 1 <= value <= most:
        raise bad_request(name, f"Invalid '{name}': expected 1 to {most}, got {value}.", code="integer_out_of_range")
    return value


def items(body: Mapping[str, Any], name: str) -> list[Mapping[str, Any]]:
    """A list of objects; empty where the body has none."""
    value = body.get(name)
    if value is None:
        return []
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise bad_request(name, f"Invalid type for '{name}': expected an array of objects.", code="invalid_type")
    return value


def text_of(content: Any) -> str:
    """The text of a message's content: itself, or of all its parts; images and sound count as nothing."""
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        return ""
    parts = (part.get("text", part.get("refusal")) for part in content if isinstance(part, dict))
    return "".join(part for part in parts if isinstance(part, str))


def prompt_texts(messages: list[Message]) -> list[str]:
    """All that the model reads: what was said, and the tool calls made before."""
    texts = [message.text for message in messages]
    for message in messages:
        for call in message.tool_calls:
            texts += [call.name, call.arguments_json]
    return texts


def tool(function: Any, param: str) -> Tool:
    name = function.get("name") if isinstance(function, dict) else None
    if not isinstance(name, str) or not name:
        raise bad_request(param, f"Missing required parameter: '{param}.name'.", code="missing_required_parameter")
    parameters = function.get("parameters")
    return Tool(name, parameters if isinstance(parameters, dict) else {})


def call(function: Any, call_id: Any, param: str) -> ToolCall:
    """A tool call that an earlier answer made."""
    found = function if isinstance(function, dict) else {}
    name, arguments = found.get("name"), found.get("arguments")
    if not isinstance(name, str) or not isinstance(arguments, str) or not isinstance(call_id, str):
        raise bad_request(param, f"Invalid '{param}': a call needs an id, a name and its arguments as text.")
    return ToolCall(name, arguments, call_id)


def tool_choice(body: Mapping[str, Any], tools: tuple[Tool, ...]) -> tuple[str, tuple[Tool, ...]]:
    """`auto`, `none`, `required` or a tool's name; and the tools that are left to choose from."""
    choice = body.get("tool_choice")
    if choice is None:
        return "auto", tools
    if isinstance(choice, dict):
        if choice.get("type") == "allowed_tools":
            return _allowed(choice.get("allowed_tools", choice), tools)
        name = _name_of(choice) or _name_of(choice.get("function"))
        if name is None and choice.get("type") not in (None, "function"):
            return "auto", tools  # a tool of the provider's own, which is not simulated
        if name not in {t.name for t in tools}:
            raise bad_request("tool_choice", f"Tool choice '{name}' not found in 'tools' parameter.")
        return str(name), tools
    if choice not in ("auto", "none", "required"):
        raise bad_request("tool_choice", f"Invalid value: {choice!r}. Supported: 'none', 'auto' and 'required'.")
    if choice == "required" and not body.get("tools"):
        raise bad_request("tool_choice", "'tool_choice' is only allowed when 'tools' are specified.")
    return choice, tools


def _allowed(choice: Any, tools: tuple[Tool, ...]) -> tuple[str, tuple[Tool, ...]]:
    listed = choice.get("tools") if isinstance(choice, dict) else None
    if not isinstance(listed, list):
        raise bad_request("tool_choice", "Missing required parameter: 'tool_choice.tools'.")
    names = {_name_of(entry) or _name_of(_field(entry, "function")) for entry in listed}
    mode = "required" if choice.get("mode") == "required" else "auto"
    return mode, tuple(t for t in tools if t.name in names)


def _field(value: Any, name: str) -> Any:
    return value.get(name) if isinstance(value, dict) else None


def _name_of(value: Any) -> str | None:
    name = _field(value, "name")
    return name if isinstance(name, str) else None


def output_schema(format_: Any) -> Mapping[str, Any] | None:
    """The schema that a response format asks for; `{}` for any JSON object; None for plain text."""
    if not isinstance(format_, dict):
        return None
    if format_.get("type") == "json_object":
        return {}
    if format_.get("type") != "json_schema":
        return None
    inner = format_.get("json_schema", format_)
    schema = _field(inner, "schema")
    if not isinstance(schema, dict):
        raise bad_request("response_format", "Missing required parameter: 'schema'.", code="missing_required_parameter")
    return schema

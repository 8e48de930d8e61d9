"""Bad input gets the answer that OpenAI would give; and what scripts and schemas make of good input."""

from __future__ import annotations

import httpx
import openai
import pytest

from clearance.simulator import Reply, ToolCall, calls_tool_forever, default_script, sequence
from clearance.simulator.example import example

MODEL = "gpt-4o-mini"
HELLO = [{"role": "user", "content": "hello there"}]
CALL = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
CALLING = {"role": "assistant", "content": None, "tool_calls": [CALL]}


def refusal(sim, path, **request):
    answer = httpx.post(f"{sim.base_url}/{path}", **request)
    assert answer.status_code == 400, answer.text
    error = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["type"] == "invalid_request_error"
    return error


@pytest.mark.parametrize("raw", [b"", b"{", b"[]", b"nonsense", b"\xff", b"[" * 100_000])
def test_what_is_not_a_json_object_is_refused(sim, raw):
    refusal(sim, "chat/completions", content=raw)
    record = sim.requests[-1]
    assert (record.status, record.outcome, record.model, record.body) == (400, "error", "", {})


@pytest.mark.parametrize("path", ["chat/completions", "responses", "embeddings"])
def test_a_missing_model_is_refused(sim, path):
    assert refusal(sim, path, json={"messages": HELLO, "input": "x"})["param"] == "model"


@pytest.mark.parametrize(
    ("wrong", "param"),
    [
        ({"messages": []}, "messages"),
        ({"messages": "hello"}, "messages"),
        ({"messages": [{"role": "robot", "content": "x"}]}, "messages[0].role"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages[0].tool_call_id"),
        ({"n": 0}, "n"),
        ({"n": 129}, "n"),
        ({"max_tokens": "many"}, "max_tokens"),
        ({"max_completion_tokens": 0}, "max_completion_tokens"),
        ({"max_tokens": 1, "max_completion_tokens": 1}, "max_tokens"),
        ({"stream": "yes"}, "stream"),
        ({"tools": [{"type": "function"}]}, "tools[0].function"),
        ({"tool_choice": "sometimes"}, "tool_choice"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"tool_choice": {"type": "function", "function": {"name": "absent"}}}, "tool_choice"),
        ({"response_format": {"type": "json_schema"}}, "response_format"),
        ({"stream_options": {"include_usage": True}}, "stream_options"),
    ],
)
def test_a_bad_chat_field_is_named(sim, wrong, param):
    assert refusal(sim, "chat/completions", json={"model": MODEL, "messages": HELLO, **wrong})["param"] == param


@pytest.mark.parametrize(
    ("wrong", "param"),
    [
        ({"input": None}, "input"),
        ({"input": [{"content": "x"}]}, "input[0].role"),
        ({"input": [{"type": "function_call_output", "output": "x"}]}, "input[0].call_id"),
        ({"input": [{"type": "function_call_output", "call_id": "c", "output": "x"}]}, "input"),
        ({"input": [{"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"}]}, "input"),
        ({"max_output_tokens": -1}, "max_output_tokens"),
    ],
)
def test_a_bad_responses_field_is_named(sim, wrong, param):
    assert refusal(sim, "responses", json={"model": MODEL, "input": "x", **wrong})["param"] == param


@pytest.mark.parametrize("wrong", [{"input": ""}, {"input": []}, {"input": {}}, {"input": "x", "dimensions": 0}])
def test_bad_embeddings_are_refused(sim, wrong):
    refusal(sim, "embeddings", json={"model": "e", **wrong})


@pytest.mark.parametrize(
    "turns",
    [
        [CALLING],
        [CALLING, {"role": "user", "content": "well?"}],
        [CALLING, {"role": "tool", "tool_call_id": "other", "content": "x"}],
        [{"role": "tool", "tool_call_id": "c1", "content": "x"}],
    ],
)
def test_a_history_with_unanswered_tool_calls_is_refused(sim, turns):
    error = refusal(sim, "chat/completions", json={"model": MODEL, "messages": [*HELLO, *turns]})
    assert "tool" in error["message"]


def test_unknown_paths_and_methods_are_errors_too(sim):
    assert httpx.post(f"{sim.base_url}/audio/speech").json()["error"]["code"] == "unknown_url"
    assert httpx.get(f"{sim.base_url}/chat/completions").status_code == 405
    assert sim.stats()["requests"] == 0


def test_a_script_sees_one_shape_for_both_endpoints(start, client_for):
    seen = []

    def script(request):
        seen.append(request)
        return Reply(text="ok")

    client = client_for(start(script=script))
    client.chat.completions.create(model=MODEL, messages=HELLO, max_completion_tokens=9)
    client.responses.create(model=MODEL, input="hello there", max_output_tokens=9)
    assert [r.endpoint for r in seen] == ["chat.completions", "responses"]
    assert seen[0].messages == seen[1].messages
    assert [(r.number, r.model, r.user_text, r.max_output_tokens) for r in seen] == [
        (1, MODEL, "hello there", 9),
        (2, MODEL, "hello there", 9),
    ]


def test_an_async_script_may_wait_without_holding_up_others(start, client_for):
    async def script(request):
        return Reply(text="waited")

    client = client_for(start(script=script))
    assert client.responses.create(model=MODEL, input="x").output_text == "waited"


def test_a_runaway_script_calls_its_tool_every_time(start, client_for):
    client = client_for(start(script=calls_tool_forever("search", {"q": "again"})))
    for _ in range(3):
        answer = client.chat.completions.create(model=MODEL, messages=HELLO)
        assert answer.choices[0].message.tool_calls[0].function.arguments == '{"q": "again"}'


def test_a_sequence_gives_its_replies_and_then_fails_the_test(start, client_for):
    client = client_for(start(script=sequence(["one", ToolCall("f"), Reply(text="three")])), max_retries=2)
    first, second, third = (client.responses.create(model=MODEL, input="x") for _ in range(3))
    assert (first.output_text, second.output[0].name, third.output_text) == ("one", "f", "three")
    with pytest.raises(openai.InternalServerError, match="this is request 4"):
        client.responses.create(model=MODEL, input="x")


def test_a_sequence_may_go_on(start, client_for):
    client = client_for(start(script=sequence(["one"], then="more")))
    assert [client.responses.create(model=MODEL, input="x").output_text for _ in range(3)] == ["one", "more", "more"]


def test_a_script_that_raises_is_told_once_and_not_retried(start, client_for):
    def script(request):
        assert request.user_text == "something else"

    sim = start(script=script)
    with pytest.raises(openai.InternalServerError, match="AssertionError"):
        client_for(sim, max_retries=3).responses.create(model=MODEL, input="x")
    assert sim.stats()["requests"] == 1


def test_a_script_must_give_a_reply(start, client_for):
    sim = start(script=lambda request: "text")
    with pytest.raises(openai.InternalServerError, match="not a Reply"):
        client_for(sim).responses.create(model=MODEL, input="x")


def test_a_script_can_build_on_the_default_one(start, client_for):
    sim = start(script=lambda request: Reply(text="odd") if request.number % 2 else default_script(request))
    client = client_for(sim)
    texts = [client.responses.create(model=MODEL, input="x").output_text for _ in range(2)]
    assert texts == ["odd", "This is a simulated answer to: x"]


def test_text_and_tool_calls_may_come_together(start, client_for):
    client = client_for(start(script=lambda request: Reply("thinking", [ToolCall("f"), ToolCall("g")])))
    message = client.chat.completions.create(model=MODEL, messages=HELLO).choices[0].message
    assert (message.content, [call.function.name for call in message.tool_calls]) == ("thinking", ["f", "g"])
    with client.responses.stream(model=MODEL, input="x") as stream:
        final = stream.get_final_response()
    assert [item.type for item in final.output] == ["message", "function_call", "function_call"]


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        ({"type": "string"}, "sample"),
        ({"type": "string", "enum": ["a", "b"]}, "a"),
        ({"const": 7}, 7),
        ({"type": "string", "format": "date"}, "2026-01-01"),
        ({"type": "string", "minLength": 8, "maxLength": 8}, "samplexx"),
        ({"type": "integer", "minimum": 5}, 5),
        ({"type": "integer", "maximum": -5}, -5),
        ({"type": "integer", "exclusiveMinimum": 5}, 6),
        ({"type": "integer", "multipleOf": 10}, 10),
        ({"type": "number", "maximum": 0.5}, 0.5),
        ({"type": ["null", "boolean"]}, True),
        ({"type": "null"}, None),
        ({"type": "array", "items": {"type": "integer"}}, [1]),
        ({"type": "array", "items": {"type": "integer"}, "minItems": 2}, [1, 1]),
        ({"anyOf": [{"type": "null"}, {"type": "integer"}]}, 1),
        ({"type": "object", "properties": {"a": {}, "b": {}}, "required": ["b"]}, {"b": "sample"}),
        ({"$ref": "#/$defs/x", "$defs": {"x": {"type": "boolean"}}}, True),
        ({"allOf": [{"properties": {"a": {"const": 1}}, "required": ["a"]}]}, {"a": 1}),
        ({"$ref": "#/nowhere"}, None),
    ],
)
def test_the_sample_for_a_schema_is_the_simplest_that_fits(schema, value):
    assert example(schema) == value


def test_a_schema_that_refers_to_itself_comes_to_an_end():
    node = {
        "type": "object",
        "properties": {"next": {"anyOf": [{"$ref": "#"}, {"type": "null"}]}},
        "required": ["next"],
    }
    value = example(node)
    while value is not None:
        value = value["next"]

"""The Responses API and embeddings, as the real openai client sees them."""

from __future__ import annotations

import json
import math

import pytest

from clearance.simulator import SimulatedUsage

MODEL = "gpt-4o-mini"
TOOL = {
    "type": "function",
    "name": "weather",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}


def ask(client, **options):
    return client.responses.create(**{"model": MODEL, "input": "hello there", **options})


def test_an_answer_has_text_usage_and_a_dated_model(sim, client):
    answer = ask(client, instructions="be kind")
    assert answer.output_text == "This is a simulated answer to: hello there"
    assert (answer.status, answer.model) == ("completed", "gpt-4o-mini-2026-01-01")
    assert (answer.usage.input_tokens, answer.usage.output_tokens, answer.usage.total_tokens) == (5, 8, 13)
    assert answer.usage.input_tokens_details.cached_tokens == 0
    assert sim.requests[-1].endpoint == "responses"
    assert sim.requests[-1].usage == SimulatedUsage(5, 0, 8, 0)


def test_reasoning_and_cached_tokens_are_told(client):
    usage = ask(client, model="o4-mini+reasoning-5+cached-2").usage
    assert (usage.output_tokens, usage.output_tokens_details.reasoning_tokens) == (13, 5)
    assert usage.input_tokens_details.cached_tokens == 2


def test_a_cap_makes_the_answer_incomplete(client):
    answer = ask(client, max_output_tokens=3)
    assert (answer.status, answer.incomplete_details.reason) == ("incomplete", "max_output_tokens")
    assert (answer.output_text, answer.usage.output_tokens) == ("This is a", 3)


def test_a_stream_carries_its_usage_without_being_asked(client):
    events = list(ask(client, stream=True))
    assert [event.type for event in events[:2]] == ["response.created", "response.in_progress"]
    assert events[-1].type == "response.completed"
    assert events[-1].response.usage.output_tokens == 8
    assert [event.sequence_number for event in events] == list(range(len(events)))
    deltas = "".join(event.delta for event in events if event.type == "response.output_text.delta")
    assert deltas == events[-1].response.output_text


def test_a_capped_stream_ends_incomplete(client):
    assert list(ask(client, stream=True, max_output_tokens=2))[-1].type == "response.incomplete"


def test_the_clients_own_stream_reader_accepts_text_and_tools(client):
    with client.responses.stream(model=MODEL, input="hello there") as stream:
        assert stream.get_final_response().output_text == "This is a simulated answer to: hello there"
    with client.responses.stream(model=MODEL, input="hello there", tools=[TOOL]) as stream:
        call = stream.get_final_response().output[0]
    assert (call.name, json.loads(call.arguments)) == ("weather", {"city": "sample"})


def test_a_tool_result_ends_the_loop(client):
    call = ask(client, tools=[TOOL]).output[0]
    assert call.type == "function_call"
    turns = [
        {"role": "user", "content": "hello there"},
        call.to_dict(),
        {"type": "function_call_output", "call_id": call.call_id, "output": "it rains"},
    ]
    assert ask(client, tools=[TOOL], input=turns).output_text == "The tool said: it rains"


def test_a_tool_result_may_refer_to_the_previous_response(client):
    first = ask(client, tools=[TOOL])
    result = {"type": "function_call_output", "call_id": first.output[0].call_id, "output": "it rains"}
    answer = ask(client, tools=[TOOL], input=[result], previous_response_id=first.id)
    assert answer.output_text == "The tool said: it rains"


def test_a_named_tool_choice_calls_that_tool(client):
    other = {**TOOL, "name": "other"}
    answer = ask(client, tools=[TOOL, other], tool_choice={"type": "function", "name": "other"})
    assert answer.output[0].name == "other"


def test_structured_output_fits_its_schema(client):
    schema = {"type": "object", "properties": {"ok": {"type": "boolean"}}, "required": ["ok"]}
    answer = ask(client, text={"format": {"type": "json_schema", "name": "check", "schema": schema}})
    assert json.loads(answer.output_text) == {"ok": True}


def test_nousage_hides_the_usage(client):
    assert ask(client, model=f"{MODEL}+nousage").usage is None


def test_an_embedding_is_a_vector_of_length_one_and_the_same_every_time(sim, client):
    first = client.embeddings.create(model="text-embedding-3-small", input=["one", "two"])
    again = client.embeddings.create(model="text-embedding-3-small", input="one")
    assert first.data[0].embedding == again.data[0].embedding != first.data[1].embedding
    assert len(again.data[0].embedding) == 1536
    assert math.hypot(*again.data[0].embedding) == pytest.approx(1, abs=1e-4)
    assert (first.usage.prompt_tokens, sim.requests[0].endpoint) == (2, "embeddings")


def test_embeddings_take_tokens_dimensions_and_floats(client):
    answer = client.embeddings.create(model="e", input=[[1, 2, 3], [4]], dimensions=8, encoding_format="float")
    assert (len(answer.data), len(answer.data[0].embedding), answer.usage.prompt_tokens) == (2, 8, 4)


def test_models_are_listed_and_any_name_is_found(client):
    assert MODEL in {model.id for model in client.models.list()}
    assert client.models.retrieve("anything").id == "anything"

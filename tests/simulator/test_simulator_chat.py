"""Chat completions, as the real openai client sees them."""

from __future__ import annotations

import asyncio
import json

import openai
import pytest

from clearance.simulator import Reply, SimulatedUsage, ToolCall, always

MODEL = "gpt-4o-mini"
HELLO = [{"role": "user", "content": "hello there"}]
WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}, "days": {"type": "integer", "minimum": 3}},
            "required": ["city", "days"],
        },
    },
}


def ask(client, **options):
    return client.chat.completions.create(**{"model": MODEL, "messages": HELLO, **options})


def test_an_answer_has_text_usage_and_a_dated_model(client):
    answer = ask(client)
    assert answer.choices[0].message.content == "This is a simulated answer to: hello there"
    assert answer.choices[0].finish_reason == "stop"
    assert answer.model == "gpt-4o-mini-2026-01-01"
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens, answer.usage.total_tokens) == (3, 8, 11)
    assert answer.usage.prompt_tokens_details.cached_tokens == 0
    assert answer.usage.completion_tokens_details.reasoning_tokens == 0


def test_the_same_question_gets_the_same_answer(client):
    assert ask(client).choices[0].message.content == ask(client).choices[0].message.content


def test_a_dated_model_keeps_its_date(client):
    assert ask(client, model="gpt-4o-2024-08-06").model == "gpt-4o-2024-08-06"


def test_undated_simulators_report_the_name_that_was_asked(start, client_for):
    assert ask(client_for(start(dated=False))).model == MODEL


def test_the_record_holds_what_was_asked_and_used(sim, client):
    ask(client, max_completion_tokens=50)
    record = sim.requests[-1]
    assert (record.number, record.endpoint, record.model, record.stream) == (1, "chat.completions", MODEL, False)
    assert (record.status, record.outcome) == (200, "answered")
    assert record.usage == SimulatedUsage(input_tokens=3, output_tokens=8)
    assert record.body["max_completion_tokens"] == 50
    assert record.body_bytes > 0
    assert len(record.body_sha256) == 64


@pytest.mark.parametrize("cap", ["max_tokens", "max_completion_tokens"])
def test_a_cap_cuts_the_text_and_says_so(sim, client, cap):
    answer = ask(client, **{cap: 3})
    assert answer.choices[0].message.content == "This is a"
    assert answer.choices[0].finish_reason == "length"
    assert answer.usage.completion_tokens == 3
    assert sim.requests[-1].usage.output_tokens == 3


def test_a_cap_cuts_tool_arguments_too(start, client_for):
    sim = start(script=lambda request: Reply(tool_calls=[ToolCall("write", {"text": "one two three four"})]))
    answer = ask(client_for(sim), max_completion_tokens=3)
    assert answer.choices[0].finish_reason == "length"
    assert answer.usage.completion_tokens == 3
    with pytest.raises(json.JSONDecodeError):
        json.loads(answer.choices[0].message.tool_calls[0].function.arguments)


def test_reasoning_counts_against_the_cap(client):
    answer = ask(client, model="o4-mini+reasoning-5", max_completion_tokens=7)
    assert answer.choices[0].message.content == "This is"
    assert answer.usage.completion_tokens == 7
    assert answer.usage.completion_tokens_details.reasoning_tokens == 5


def test_cached_tokens_are_part_of_the_input(client):
    usage = ask(client, model=f"{MODEL}+cached-2").usage
    assert (usage.prompt_tokens, usage.prompt_tokens_details.cached_tokens) == (3, 2)


def test_several_choices_are_all_paid(sim, client):
    answer = ask(client, n=3)
    assert [choice.index for choice in answer.choices] == [0, 1, 2]
    assert answer.usage.completion_tokens == 3 * 8
    assert sim.requests[-1].usage.output_tokens == 24


def test_several_choices_stream_side_by_side(client):
    texts = {0: "", 1: ""}
    for chunk in ask(client, n=2, stream=True):
        for choice in chunk.choices:
            texts[choice.index] += choice.delta.content or ""
    assert texts[0] == texts[1] == "This is a simulated answer to: hello there"


def test_a_stream_tells_no_usage_unless_asked(client):
    chunks = list(ask(client, stream=True))
    assert all(chunk.usage is None for chunk in chunks)
    assert all(chunk.choices for chunk in chunks)
    assert chunks[-1].choices[0].finish_reason == "stop"


def test_a_stream_tells_its_usage_last_when_asked(sim, client):
    chunks = list(ask(client, stream=True, stream_options={"include_usage": True}))
    assert [chunk.usage for chunk in chunks[:-1]] == [None] * (len(chunks) - 1)
    assert chunks[-1].choices == []
    assert chunks[-1].usage.completion_tokens == 8
    assert sim.requests[-1].usage == SimulatedUsage(3, 0, 8, 0)


def test_a_stream_says_the_same_as_the_whole_answer(client):
    streamed = "".join(chunk.choices[0].delta.content or "" for chunk in ask(client, stream=True))
    assert streamed == ask(client).choices[0].message.content


def test_the_async_client_streams(sim):
    async def read() -> str:
        async with openai.AsyncOpenAI(base_url=sim.base_url, api_key="sim") as client:
            stream = await client.chat.completions.create(model=MODEL, messages=HELLO, stream=True)
            return "".join([chunk.choices[0].delta.content or "" async for chunk in stream])

    assert asyncio.run(read()) == "This is a simulated answer to: hello there"


def test_many_requests_at_once_are_all_counted(sim):
    async def flood() -> None:
        async with openai.AsyncOpenAI(base_url=sim.base_url, api_key="sim") as client:
            await asyncio.gather(
                *(client.chat.completions.create(model=MODEL, messages=HELLO) for _ in range(100)),
            )

    asyncio.run(flood())
    stats = sim.stats()
    assert (stats["answered"], stats["tokens"]["output"], stats["in_flight"]) == (100, 800, 0)
    assert sorted(record.number for record in sim.requests) == list(range(1, 101))


def test_the_first_tool_is_called_with_arguments_that_fit_its_schema(client):
    answer = ask(client, tools=[WEATHER])
    call = answer.choices[0].message.tool_calls[0]
    assert (answer.choices[0].finish_reason, call.function.name) == ("tool_calls", "weather")
    assert json.loads(call.function.arguments) == {"city": "sample", "days": 3}
    assert answer.choices[0].message.content is None


def test_a_tool_call_streams_to_the_same_call(client):
    name, arguments, finish = "", "", None
    for chunk in ask(client, tools=[WEATHER], stream=True):
        for call in chunk.choices[0].delta.tool_calls or []:
            name += call.function.name or ""
            arguments += call.function.arguments or ""
        finish = chunk.choices[0].finish_reason or finish
    assert (name, json.loads(arguments), finish) == ("weather", {"city": "sample", "days": 3}, "tool_calls")


def test_a_tool_result_ends_the_loop(client):
    first = ask(client, tools=[WEATHER]).choices[0].message
    result = {"role": "tool", "tool_call_id": first.tool_calls[0].id, "content": "it rains"}
    answer = ask(client, tools=[WEATHER], messages=[*HELLO, first, result])
    assert answer.choices[0].message.content == "The tool said: it rains"


def test_tool_choice_none_gives_text(client):
    assert ask(client, tools=[WEATHER], tool_choice="none").choices[0].message.tool_calls is None


def test_tool_choice_required_calls_again_after_a_result(client):
    first = ask(client, tools=[WEATHER]).choices[0].message
    result = {"role": "tool", "tool_call_id": first.tool_calls[0].id, "content": "it rains"}
    answer = ask(client, tools=[WEATHER], tool_choice="required", messages=[*HELLO, first, result])
    assert answer.choices[0].message.tool_calls


def test_a_named_tool_choice_calls_that_tool(client):
    other = {"type": "function", "function": {"name": "other", "parameters": {}}}
    chosen = {"type": "function", "function": {"name": "other"}}
    answer = ask(client, tools=[WEATHER, other], tool_choice=chosen)
    function = answer.choices[0].message.tool_calls[0].function
    assert (function.name, function.arguments) == ("other", "{}")


def test_allowed_tools_narrow_the_choice(client):
    other = {"type": "function", "function": {"name": "other", "parameters": {}}}
    allowed = {"mode": "required", "tools": [{"type": "function", "function": {"name": "other"}}]}
    answer = ask(client, tools=[WEATHER, other], tool_choice={"type": "allowed_tools", "allowed_tools": allowed})
    assert answer.choices[0].message.tool_calls[0].function.name == "other"


def test_structured_output_fits_its_schema(client):
    schema = {"type": "object", "properties": {"age": {"type": "integer"}}, "required": ["age"]}
    form = {"type": "json_schema", "json_schema": {"name": "person", "schema": schema, "strict": True}}
    assert json.loads(ask(client, response_format=form).choices[0].message.content) == {"age": 1}


def test_json_mode_gives_an_object(client):
    assert json.loads(ask(client, response_format={"type": "json_object"}).choices[0].message.content) == {}


def test_nousage_hides_the_usage_but_counts_it(sim, client):
    assert ask(client, model=f"{MODEL}+nousage").usage is None
    assert sim.requests[-1].usage.output_tokens == 8
    chunks = list(ask(client, model=f"{MODEL}+nousage", stream=True, stream_options={"include_usage": True}))
    assert all(chunk.usage is None for chunk in chunks)


@pytest.mark.parametrize("text", ["", "a", "  two  words \n", "x" * 95, "日本語のテキスト", "🦆 " * 50])
def test_any_text_survives_whole_and_streamed(start, client_for, text):
    client = client_for(start(script=always(text)))
    assert ask(client).choices[0].message.content == text
    streamed = "".join(chunk.choices[0].delta.content or "" for chunk in ask(client, stream=True))
    assert streamed == text


@pytest.mark.parametrize("text", ["", "a", "hello there", "日本語" * 40, "long " * 1000])
def test_input_tokens_never_exceed_the_bytes_of_the_prompt(client, text):
    messages = [{"role": "system", "content": text}, {"role": "user", "content": [{"type": "text", "text": text}]}]
    used = ask(client, messages=messages).usage.prompt_tokens
    assert 1 <= used <= 2 * len(text.encode()) + 4 * 2 + 3
    assert used == max(1, -(-2 * len(text.encode()) // 4))


def test_tools_are_part_of_the_input(client):
    size = len(b"hello there") + len(json.dumps([WEATHER], separators=(",", ":")))
    assert ask(client, tools=[WEATHER]).usage.prompt_tokens == -(-size // 4)

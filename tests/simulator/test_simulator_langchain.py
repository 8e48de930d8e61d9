"""A real ChatOpenAI against the simulator."""

from __future__ import annotations

import asyncio

import pytest
from langchain_core.messages import HumanMessage, ToolMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from pydantic import BaseModel

from clearance.simulator import calls_tool_forever


@tool
def weather(city: str) -> str:
    """The weather of a city."""
    return f"sunny in {city}"


class Person(BaseModel):
    name: str
    age: int


@pytest.fixture(params=[False, True], ids=["chat", "responses"])
def llm_for(request):
    def make(sim, **options):
        settings = {"model": "gpt-4o-mini", "use_responses_api": request.param, "max_retries": 0, **options}
        return ChatOpenAI(base_url=sim.base_url, api_key="sim", **settings)

    return make


def test_invoke_gives_text_and_usage(sim, llm_for):
    answer = llm_for(sim).invoke("hello there")
    assert answer.text == "This is a simulated answer to: hello there"
    assert answer.usage_metadata["input_tokens"] == 3
    assert answer.usage_metadata["output_tokens"] == 8
    assert answer.response_metadata["model_name"] == "gpt-4o-mini-2026-01-01"
    assert len(sim.requests) == 1


def test_stream_gives_the_same_text_and_usage(sim, llm_for):
    whole = None
    for chunk in llm_for(sim, stream_usage=True).stream("hello there"):
        whole = chunk if whole is None else whole + chunk
    assert whole.text == "This is a simulated answer to: hello there"
    assert (whole.usage_metadata["input_tokens"], whole.usage_metadata["output_tokens"]) == (3, 8)
    assert [record.outcome for record in sim.requests] == ["answered"]


def test_a_chat_stream_without_usage_has_none(sim):
    llm = ChatOpenAI(base_url=sim.base_url, api_key="sim", model="gpt-4o-mini", stream_usage=False)
    assert all(chunk.usage_metadata is None for chunk in llm.stream("hello there"))
    assert sim.requests[-1].usage.output_tokens == 8


def test_a_cap_reaches_the_provider(sim, llm_for):
    answer = llm_for(sim, max_tokens=4).invoke("hello there")
    assert answer.usage_metadata["output_tokens"] == 4
    body = sim.requests[-1].body
    assert body.get("max_completion_tokens", body.get("max_output_tokens")) == 4


def test_a_tool_loop_calls_once_and_ends(sim, llm_for):
    llm = llm_for(sim).bind_tools([weather])
    messages = [HumanMessage("what is the weather?")]
    while messages[-1].type != "ai" or messages[-1].tool_calls:
        answer = llm.invoke(messages)
        results = [ToolMessage(weather.invoke(call["args"]), tool_call_id=call["id"]) for call in answer.tool_calls]
        messages += [answer, *results]
    assert messages[-1].text == "The tool said: sunny in sample"
    assert len(sim.requests) == 2


def test_a_streamed_tool_call_is_put_together(sim, llm_for):
    whole = None
    for chunk in llm_for(sim).bind_tools([weather]).stream("what is the weather?"):
        whole = chunk if whole is None else whole + chunk
    assert [(call["name"], call["args"]) for call in whole.tool_calls] == [("weather", {"city": "sample"})]


def test_a_runaway_never_stops_by_itself(start, llm_for):
    sim = start(script=calls_tool_forever("weather", {"city": "Oslo"}))
    llm, messages = llm_for(sim).bind_tools([weather]), [HumanMessage("what is the weather?")]
    for _ in range(5):
        answer = llm.invoke(messages)
        messages += [answer, ToolMessage("rain", tool_call_id=answer.tool_calls[0]["id"])]
    assert sim.stats()["answered"] == 5
    inputs = [record.usage.input_tokens for record in sim.requests]
    assert inputs == sorted(set(inputs))


@pytest.mark.parametrize("method", ["json_schema", "function_calling"])
def test_structured_output_becomes_the_class(sim, llm_for, method):
    assert llm_for(sim).with_structured_output(Person, method=method).invoke("who?") == Person(name="sample", age=1)


def test_async_calls_run_side_by_side(sim, llm_for):
    async def run() -> list[str]:
        llm = llm_for(sim)
        return [answer.text for answer in await asyncio.gather(*(llm.ainvoke(f"n {i}") for i in range(10)))]

    assert asyncio.run(run()) == [f"This is a simulated answer to: n {i}" for i in range(10)]
    assert sim.stats()["answered"] == 10


def test_retries_are_requests_of_their_own(sim, llm_for):
    llm_for(sim, model="gpt-4o-mini+429-5+flaky-2", max_retries=2).invoke("hello there")
    assert [record.status for record in sim.requests] == [429, 429, 200]

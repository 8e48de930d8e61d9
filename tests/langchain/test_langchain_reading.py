"""Requests and answers, read from LangChain's objects."""

from __future__ import annotations

from typing import Any

import pytest
from langchain_core.messages import AIMessage, AIMessageChunk, HumanMessage
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, LLMResult

from clearance.pricing import PriceBook
from clearance_langchain.usage import Reported, Streamed, asked, reported

BOOK = PriceBook({"fake": {"input": "1.00", "cached_input": "0.10", "output": "10.00"}})
PER_TOKEN = 100  # microcents at 1 USD a million


def test_an_image_counts_as_tokens_not_as_bytes() -> None:
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 1_000_000}}
    call = asked([HumanMessage([image])], {"model": "m"})
    assert 48_169 < call.prompt_bytes < 60_000


def test_sound_is_marked() -> None:
    sound = {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}}
    assert asked([HumanMessage([sound])], {"model": "m"}).audio
    assert asked(["hi"], {"model": "m", "modalities": ["text", "audio"]}).audio


@pytest.mark.parametrize(
    ("params", "most"),
    [
        ({}, None),
        ({"max_tokens": 5}, 5),
        ({"max_tokens": 5, "max_completion_tokens": 50}, 50),
        ({"max_tokens": 5, "extra_body": {"max_output_tokens": 60}}, 60),
        ({"max_tokens": -1}, None),
    ],
)
def test_of_several_output_limits_the_highest_counts(params: dict[str, Any], most: int | None) -> None:
    assert asked(["hi"], {"model": "m", **params}).max_output_tokens == most


def test_earlier_turns_kept_by_the_provider_are_counted() -> None:
    plain, later = (asked(["hi"], {"model": "m", **more}) for more in ({}, {"previous_response_id": "resp_1"}))
    assert later.prompt_bytes >= plain.prompt_bytes + 100_000


def test_the_model_of_the_call_goes_before_that_of_the_constructor() -> None:
    assert asked(["hi"], {"model": "bound", "model_name": "constructed"}, "ls").model == "bound"
    assert asked(["hi"], {"model_name": "constructed"}, "ls").model == "ls"


def test_a_service_tier_is_part_of_the_question() -> None:
    assert asked(["hi"], {"model": "m", "service_tier": "flex"}).service_tier == "flex"
    assert asked(["hi"], {"model": "m", "service_tier": "auto"}).service_tier == ""


# --- answers, read


def test_cache_reads_are_not_priced_twice() -> None:
    usage = {"input_tokens": 100, "output_tokens": 1, "total_tokens": 101, "input_token_details": {"cache_read": 90}}
    cost = Reported(usage).cost("fake", BOOK)
    assert cost is not None
    assert cost.amount == 10 * PER_TOKEN + 90 * PER_TOKEN // 10 + 10 * PER_TOKEN


def test_the_usage_of_chunks_is_summed() -> None:
    seen = Streamed()
    seen.add(_chunk({"input_tokens": 10, "output_tokens": 0, "total_tokens": 10}))
    assert seen.reported().facts is None, "a stream cut after its first chunk has told its input only"
    assert seen.add(_chunk({"input_tokens": 0, "output_tokens": 4, "total_tokens": 4}, finish_reason="stop"))
    cost = seen.reported().cost("fake", BOOK)
    assert cost is not None
    assert cost.amount == 10 * PER_TOKEN + 40 * PER_TOKEN


def _chunk(usage: Any, **info: Any) -> ChatGenerationChunk:
    return ChatGenerationChunk(message=AIMessageChunk("x", usage_metadata=usage), generation_info=info or None)


def test_usage_is_copied_before_the_cache_changes_it() -> None:
    message = AIMessage("x", usage_metadata={"input_tokens": 1, "output_tokens": 1, "total_tokens": 2})
    said = reported(LLMResult(generations=[[ChatGeneration(message=message)]]))
    message.usage_metadata["total_cost"] = 0  # type: ignore[index,typeddict-unknown-key]
    cost = said.cost("fake", BOOK)
    assert cost is not None
    assert cost.amount > 0

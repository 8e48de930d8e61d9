"""Usage: what providers report becomes counts that can be priced."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from clearance.errors import InvalidRequest
from clearance.pricing import Usage


def test_chat_completions_usage_keeps_totals_and_parts() -> None:
    usage = Usage.from_openai(
        {
            "prompt_tokens": 1000,
            "completion_tokens": 300,
            "total_tokens": 1300,
            "prompt_tokens_details": {"cached_tokens": 400, "audio_tokens": 50, "cache_write_tokens": 100},
            "completion_tokens_details": {"reasoning_tokens": 120, "audio_tokens": 30, "rejected_prediction_tokens": 9},
        },
        service_tier="default",
    )
    assert usage == Usage(
        input_tokens=1000,
        cached_input_tokens=400,
        cache_write_tokens=100,
        output_tokens=300,
        reasoning_tokens=120,
        audio_input_tokens=50,
        audio_output_tokens=30,
        service_tier="default",
    )


def test_responses_usage() -> None:
    usage = Usage.from_openai(
        {
            "input_tokens": 75,
            "input_tokens_details": {"cached_tokens": 64},
            "output_tokens": 1186,
            "output_tokens_details": {"reasoning_tokens": 1024},
            "total_tokens": 1261,
        }
    )
    assert usage == Usage(input_tokens=75, cached_input_tokens=64, output_tokens=1186, reasoning_tokens=1024)


@pytest.mark.parametrize(
    "reported",
    [
        {"prompt_tokens": 7, "total_tokens": 7},
        {"prompt_tokens": 7, "completion_tokens": None, "prompt_tokens_details": None},
        {"prompt_tokens": 7, "completion_tokens": 0, "prompt_tokens_details": {"cached_tokens": None}},
    ],
)
def test_missing_and_null_details_count_nothing(reported: dict[str, Any]) -> None:
    assert Usage.from_openai(reported) == Usage(input_tokens=7)


def test_tokens_that_only_the_total_knows_are_output() -> None:
    # Some providers leave reasoning out of completion_tokens: 100 in, 10 shown, 300 thought.
    usage = Usage.from_openai(
        {
            "prompt_tokens": 100,
            "completion_tokens": 10,
            "total_tokens": 410,
            "completion_tokens_details": {"reasoning_tokens": 300},
        }
    )
    assert (usage.output_tokens, usage.reasoning_tokens) == (310, 300)


@pytest.mark.parametrize("empty", [{}, {"total_tokens": None}, {"prompt_tokens_details": {"cached_tokens": 3}}])
def test_usage_without_totals_is_unknown_not_free(empty: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest, match="has no totals"):
        Usage.from_openai(empty)
    with pytest.raises(InvalidRequest, match="has no totals"):
        Usage.from_langchain(empty)


def test_langchain_usage_metadata() -> None:
    usage = Usage.from_langchain(
        {
            "input_tokens": 350,
            "output_tokens": 240,
            "total_tokens": 590,
            "input_token_details": {"audio": 10, "cache_creation": 200, "cache_read": 100},
            "output_token_details": {"audio": 10, "reasoning": 200},
        }
    )
    assert usage == Usage(
        input_tokens=350,
        cached_input_tokens=100,
        cache_write_tokens=200,
        output_tokens=240,
        reasoning_tokens=200,
        audio_input_tokens=10,
        audio_output_tokens=10,
    )


@pytest.mark.parametrize("tier", ["priority", "flex"])
def test_langchain_service_tier_keys(tier: str) -> None:
    usage = Usage.from_langchain(
        {
            "input_tokens": 100,
            "output_tokens": 50,
            "total_tokens": 150,
            "input_token_details": {f"{tier}_cache_read": 30, f"{tier}_cache_creation": 5, tier: 70},
            "output_token_details": {f"{tier}_reasoning": 20, tier: 30},
        }
    )
    assert usage == Usage(
        input_tokens=100,
        cached_input_tokens=30,
        cache_write_tokens=5,
        output_tokens=50,
        reasoning_tokens=20,
        service_tier=tier,
    )


def test_chunks_of_two_tiers_are_summed_and_count_as_the_dear_one() -> None:
    details = {"cache_read": 10, "flex_cache_read": 20, "priority_cache_read": 30}
    usage = Usage.from_langchain({"input_tokens": 100, "output_tokens": 1, "input_token_details": details})
    assert (usage.cached_input_tokens, usage.service_tier) == (60, "priority")


@pytest.mark.parametrize("generic", [0, 70])
def test_cache_writes_by_lifetime_are_not_added_to_the_generic_count(generic: int) -> None:
    details = {"cache_creation": generic, "ephemeral_5m_input_tokens": 50, "ephemeral_1h_input_tokens": 20}
    usage = Usage.from_langchain({"input_tokens": 100, "output_tokens": 1, "input_token_details": details})
    assert (usage.cache_write_tokens, usage.cache_write_1h_tokens) == (70, 20)


def test_parts_above_the_total_were_counted_outside_it() -> None:
    # 10 plain and 50 from the cache, as some providers say it: 60 tokens, not 50 and not 10.
    assert Usage(input_tokens=10, cached_input_tokens=50).input_tokens == 60
    assert Usage(output_tokens=5, reasoning_tokens=8).output_tokens == 13
    assert Usage(cache_write_1h_tokens=3).cache_write_tokens == 3


def test_parts_up_to_the_total_leave_it_alone() -> None:
    usage = Usage(input_tokens=60, cached_input_tokens=30, cache_write_tokens=20, audio_input_tokens=10)
    assert usage.input_tokens == 60
    assert dataclasses.replace(usage) == usage


@pytest.mark.parametrize("bad", [-1, 1.0, "5", True, None])
@pytest.mark.parametrize("field", ["input_tokens", "reasoning_tokens"])
def test_counts_are_whole_numbers(field: str, bad: Any) -> None:
    with pytest.raises(InvalidRequest, match=f"^{field}: "):
        Usage(**{field: bad})


@pytest.mark.parametrize("bad", [-1, 2.5, "5", True])
def test_bad_counts_name_their_key(bad: Any) -> None:
    with pytest.raises(InvalidRequest, match=r"^cached_tokens: "):
        Usage.from_openai({"prompt_tokens": 9, "prompt_tokens_details": {"cached_tokens": bad}})


@pytest.mark.parametrize("bad", [None, 5, "usage", [1]])
def test_usage_is_a_mapping(bad: Any) -> None:
    with pytest.raises(InvalidRequest):
        Usage.from_openai(bad)
    with pytest.raises(InvalidRequest):
        Usage.from_langchain(bad)
    if bad is not None:
        with pytest.raises(InvalidRequest, match="input_token_details"):
            Usage.from_langchain({"input_tokens": 1, "input_token_details": bad})


def test_usage_is_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Usage().input_tokens = 1  # type: ignore[misc]

"""The price list as Rates: checked against the package's own arithmetic, for every model that it has."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from datetime import UTC, date, datetime, time, timedelta
from decimal import ROUND_CEILING, Decimal
from functools import cache
from typing import Any

import pytest
from genai_prices import types
from genai_prices.data_snapshot import get_snapshot

from clearance.errors import PriceUnknown
from clearance.pricing import PriceBook, Usage, genai, price
from clearance.pricing.listed import list_price
from clearance.pricing.rates import PER_TOKEN

DAY = date(2026, 11, 20)
NOON = datetime.combine(DAY, time(12), UTC)
CALLS = (
    Usage(input_tokens=1_000, cached_input_tokens=300, cache_write_tokens=100, output_tokens=500, reasoning_tokens=90),
    Usage(
        input_tokens=300_001, cached_input_tokens=7, cache_write_tokens=11, cache_write_1h_tokens=5, output_tokens=13
    ),
)


def theirs(model: Any, provider: Any, usage: Usage, at: datetime = NOON, context: dict[str, str] | None = None) -> int:
    """What the package says, in microcents, rounded up."""
    counts = {
        "input_tokens": usage.input_tokens,
        "cache_read_tokens": usage.cached_input_tokens,
        "cache_write_tokens": usage.cache_write_tokens,
        "cache_write_1h_tokens": usage.cache_write_1h_tokens,
        "output_tokens": usage.output_tokens,
        "output_reasoning_tokens": usage.reasoning_tokens,
        "input_audio_tokens": usage.audio_input_tokens,
        "output_audio_tokens": usage.audio_output_tokens,
    }
    told = model.calc_price(types.Usage(**counts), provider, genai_request_timestamp=at, price_context=context)
    return int((told.total_price * 100_000_000).to_integral_value(ROUND_CEILING))


@cache
def priced() -> list[tuple[Any, Any, genai.Found]]:
    """Every provider and model of the list that has a price by tokens, and what we make of it."""
    found = []
    for provider in get_snapshot().providers:
        for model in provider.models:
            with suppress(genai.Unpriced):
                found.append((provider, model, genai._found(model, provider, DAY)))
    return found


def test_every_listed_model_costs_what_the_package_says_or_more() -> None:
    exact = 0
    for provider, model, found in priced():
        for usage in CALLS:
            ours, told = price(usage, found.rates).amount, theirs(model, provider, usage)
            assert ours >= told, (provider.id, model.id, usage)
            if not found.notes:
                # A price finer than a microcent is rounded up in the rate: less than 1 per million tokens.
                assert ours - told <= 1, (provider.id, model.id, usage)
                exact += 1
    assert len(priced()) > 2_000
    assert exact > 1.8 * len(priced())


def test_no_listed_model_gets_cheaper_with_more_input() -> None:
    for rates in genai.chat_models(DAY):
        for table in (rates, *(table for _, table in rates.service_tiers)):
            steps = [table, *(tier.rates for tier in table.tiers)]
            for kind in PER_TOKEN:
                each = [getattr(step, kind) for step in steps]
                assert each == sorted(each)


def test_the_dearest_hour_of_the_day_is_taken() -> None:
    provider = next(provider for provider in get_snapshot().providers if provider.id == "deepseek")
    model = provider.find_model("deepseek-chat")
    assert model is not None
    found = genai._found(model, provider, DAY)
    told = [theirs(model, provider, CALLS[0], NOON.replace(hour=0) + timedelta(minutes=10 * n)) for n in range(144)]
    assert len(set(told)) == 2
    assert price(CALLS[0], found.rates).amount == max(told)
    assert "the dearest price of the day" in found.notes


def test_audio_costs_what_the_package_says() -> None:
    # gpt-audio: 2.5 in, 32 audio in, 10 out, 64 audio out.
    # 60 x 2.5 + 40 x 32 + 30 x 10 + 20 x 64 = 3,010 USD per million.
    usage = Usage(input_tokens=100, audio_input_tokens=40, output_tokens=50, audio_output_tokens=20)
    found = genai.find("gpt-audio", "openai", DAY)
    assert found is not None
    assert price(usage, found.rates).amount == 301_000


def test_a_price_for_each_request() -> None:
    # sonar-pro: 14 USD per 1,000 requests; 1,000 x 3 + 100 x 15 = 4,500 USD per million.
    found = genai.find("sonar-pro", "perplexity", DAY)
    assert found is not None
    assert price(Usage(input_tokens=1_000, output_tokens=100), found.rates).amount == 1_400_000 + 450_000


def test_input_size_tiers() -> None:
    # claude-sonnet-4-5: 3 in and 15 out, above 200,000 tokens 6 and 22.5.
    found = genai.find("claude-sonnet-4-5", None, DAY)
    assert found is not None
    assert price(Usage(input_tokens=200_000, output_tokens=1_000), found.rates).amount == 61_500_000
    assert price(Usage(input_tokens=200_001, output_tokens=1_000), found.rates).amount == 122_250_600


def test_an_hour_in_the_cache_costs_more() -> None:
    # claude-opus-4-5: 6.25 written for five minutes, 10 for an hour.
    found = genai.find("claude-opus-4-5", None, DAY)
    assert found is not None
    usage = Usage(input_tokens=1_000, cache_write_tokens=1_000, cache_write_1h_tokens=400)
    assert price(usage, found.rates).amount == 600 * 625 + 400 * 1_000


def table(**prices: Any) -> types.ModelPrice:
    return types.ModelPrice(
        **{key: Decimal(value) if isinstance(value, str) else value for key, value in prices.items()}
    )


def test_kinds_that_we_do_not_count_are_priced_at_the_dearer_rate_and_noted() -> None:
    listed = list_price(
        table(input_mtok="1", input_image_mtok="3", output_mtok="2", output_video_mtok="9", cache_image_read_mtok="0.5")
    )
    assert (listed.rates.input, listed.rates.output) == (300_000_000, 900_000_000)
    assert len(listed.notes) == 3
    assert not listed.unpriced


def test_other_charges_are_not_dropped() -> None:
    listed = list_price(table(input_mtok="1", output_mtok="2", audio_hours="3", web_searches_kcount="10"))
    assert listed.unpriced == ("audio_hours",)
    assert listed.surcharges == (("web_searches", 1_000_000_000),)
    assert list_price(table(input_mtok="1", output_mtok="2", something_new="1")).unpriced == ("something_new",)


def test_only_an_input_price_makes_output_as_dear() -> None:
    listed = list_price(table(input_mtok="0.02"))
    assert listed.rates.output == listed.rates.input == 2_000_000
    assert listed.notes


def test_tiers_of_different_starts_are_merged() -> None:
    def tiered(base: str, **starts: str) -> types.TieredPrices:
        tiers = [types.Tier(start=int(start[1:]), price=Decimal(usd)) for start, usd in starts.items()]
        return types.TieredPrices(base=Decimal(base), tiers=tiers)

    rates = list_price(table(input_mtok=tiered("1", _100="2"), output_mtok=tiered("5", _200="6"))).rates
    assert [tier.above_input_tokens for tier in rates.tiers] == [100, 200]
    assert [(rates.at(size).input, rates.at(size).output) for size in (100, 101, 200, 201)] == [
        (100_000_000, 500_000_000),
        (200_000_000, 500_000_000),
        (200_000_000, 500_000_000),
        (200_000_000, 600_000_000),
    ]


def test_cached_audio_is_never_too_cheap() -> None:
    # Cached audio dearer than cached text: 20 cached and audio at once, out of 100.
    prices = table(
        input_mtok="4", cache_read_mtok="0.4", output_mtok="1", input_audio_mtok="5", cache_audio_read_mtok="4.5"
    )
    usage = Usage(input_tokens=100, cached_input_tokens=20, audio_input_tokens=20)
    truth = 80 * 400 + 20 * 450
    assert price(usage, list_price(prices).rates).amount >= truth


@pytest.mark.parametrize("model", ["gpt-4o-audio-preview", "whisper-1", "tts-1"])
def test_listed_without_a_price_by_tokens(model: str) -> None:
    with pytest.raises(genai.Unpriced) as error:
        genai.find(model, "openai", DAY)
    assert error.value.code == "PRICE_UNKNOWN"


@pytest.mark.parametrize(
    ("model", "input_usd"),
    [("text-embedding-3-small", "0.02"), ("text-embedding-3-large", "0.13"), ("text-embedding-ada-002", "0.10")],
)
def test_a_model_that_its_makers_pattern_misses_is_found_by_its_exact_name(model: str, input_usd: str) -> None:
    explained = PriceBook().explain(model)
    assert (explained["provider"], explained["rates"]["input"]) == ("openai", input_usd)
    with pytest.raises(PriceUnknown):
        PriceBook().rates(model + "-next")


def test_service_tiers_cost_what_the_package_says() -> None:
    compared = 0
    for provider, model, found in priced():
        for variant in model.price_variants or ():
            (key, tier), *more = variant.when.items()
            if more or key not in ("service_tier", "speed", "processing"):
                continue
            for usage in CALLS:
                ours = price(replace(usage, service_tier=tier), found.rates).amount
                told = theirs(model, provider, usage, context=variant.when)
                assert ours >= told, (provider.id, model.id, variant.when)
                assert found.notes or ours - told <= 1, (provider.id, model.id, variant.when)
                compared += 1
    assert compared > 200


def test_free_in_the_list_is_not_free_for_us() -> None:
    with pytest.raises(genai.Unpriced, match="free, or not published"):
        genai.find("gpt-4o", "github-copilot", DAY)

"""Tokens times rates, by hand, and what must hold for all of them."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clearance.errors import InvalidRequest, PriceUnknown
from clearance.model.amount import INT64_MAX, Unit
from clearance.pricing import Rates, Tier, Usage, bound, price
from clearance.pricing.rates import PER_TOKEN

USD = 100_000_000  # microcents
# USD per million: 2 in, 0.5 cached, 2.5 written, 4 written for an hour, 8 out, 16 reasoning, 32 and 64 for audio.
RATES = Rates(
    input=2 * USD,
    cached_input=USD // 2,
    cache_write=5 * USD // 2,
    cache_write_1h=4 * USD,
    output=8 * USD,
    reasoning=16 * USD,
    audio_input=32 * USD,
    audio_output=64 * USD,
)


def cost(usage: Usage, rates: Rates = RATES) -> int:
    amount = price(usage, rates)
    assert amount.unit is Unit.USD_MICROCENTS
    return amount.amount


@pytest.mark.parametrize(
    ("usage", "microcents"),
    [
        # One kind at a time, 1,000 tokens: USD per million x 1,000 / 1,000,000 x 100,000,000.
        (Usage(input_tokens=1000), 200_000),
        (Usage(input_tokens=1000, cached_input_tokens=1000), 50_000),
        (Usage(input_tokens=1000, cache_write_tokens=1000), 250_000),
        (Usage(input_tokens=1000, cache_write_tokens=1000, cache_write_1h_tokens=1000), 400_000),
        (Usage(output_tokens=1000), 800_000),
        (Usage(output_tokens=1000, reasoning_tokens=1000), 1_600_000),
        (Usage(input_tokens=1000, audio_input_tokens=1000), 3_200_000),
        (Usage(output_tokens=1000, audio_output_tokens=1000), 6_400_000),
        # 600 plain 120,000 + 300 cached 15,000 + 100 written 25,000 + 700 out 560,000 + 300 reasoning 480,000.
        (
            Usage(
                input_tokens=1000,
                cached_input_tokens=300,
                cache_write_tokens=100,
                output_tokens=1000,
                reasoning_tokens=300,
            ),
            1_200_000,
        ),
        (Usage(), 0),
    ],
)
def test_each_kind_is_priced_once_at_its_rate(usage: Usage, microcents: int) -> None:
    assert cost(usage) == microcents


def test_a_real_call_by_hand() -> None:
    # gpt-4o-mini: 0.15 in, 0.075 cached, 0.60 out. 1,200 in, 1,024 of them cached, 350 out:
    # 176 x 0.15 + 1,024 x 0.075 + 350 x 0.60 = 26.4 + 76.8 + 210 = 313.2 USD per million = 0.0003132 USD.
    rates = Rates(input=15_000_000, cached_input=7_500_000, output=60_000_000)
    assert cost(Usage(input_tokens=1200, cached_input_tokens=1024, output_tokens=350), rates) == 31_320


def test_rounds_up_once_for_the_whole_call() -> None:
    # A third of a microcent for one token of each of three kinds: 1 together, 3 if each were rounded.
    third = Rates(input=333_333, cached_input=333_333, output=333_333)
    assert cost(Usage(input_tokens=2, cached_input_tokens=1, output_tokens=1), third) == 1
    assert cost(Usage(input_tokens=1), Rates(input=1, output=0)) == 1
    assert cost(Usage(input_tokens=1_000_000), Rates(input=1, output=0)) == 1
    assert cost(Usage(input_tokens=1_000_001), Rates(input=1, output=0)) == 2


def test_kinds_without_a_rate_cost_as_the_plain_ones() -> None:
    rates = Rates(input=1, output=2)
    assert (rates.cached_input, rates.cache_write, rates.cache_write_1h, rates.audio_input) == (1, 1, 1, 1)
    assert (rates.reasoning, rates.audio_output) == (2, 2)
    assert Rates(input=1, output=2, cache_write=5).cache_write_1h == 5
    assert Rates(input=1, output=2, cached_input=0).cached_input == 0


def test_parts_beyond_the_total_never_lower_the_price() -> None:
    # 100 tokens reported plain, 400 cached beside them: 100 x 2 + 400 x 0.5 = 400 USD per million.
    assert cost(Usage(input_tokens=100, cached_input_tokens=400)) == 40_000
    # 10 x 8 + 300 x 16 = 4,880 USD per million.
    assert cost(Usage(output_tokens=10, reasoning_tokens=300)) == 488_000


def test_a_tier_prices_the_whole_call_above_its_start() -> None:
    tiered = dataclasses.replace(
        RATES,
        tiers=(Tier(200, Rates(input=4 * USD, output=12 * USD)), Tier(1000, Rates(input=5 * USD, output=13 * USD))),
    )
    assert cost(Usage(input_tokens=200, output_tokens=10), tiered) == 200 * 200 + 10 * 800
    assert cost(Usage(input_tokens=201, output_tokens=10), tiered) == 201 * 400 + 10 * 1200
    assert cost(Usage(input_tokens=1001, output_tokens=10), tiered) == 1001 * 500 + 10 * 1300
    # The bound looks at every tier that the prompt can reach.
    assert bound(tiered, 200, 10).amount == 200 * 400 + 10 * 1600  # written for an hour 4, reasoning 16
    assert bound(tiered, 2000, 10).amount == 2000 * 500 + 10 * 1300


def test_a_request_has_a_price_of_its_own() -> None:
    rates = Rates(input=100, output=100, per_request=1_200_000)
    assert cost(Usage(input_tokens=10_000), rates) == 1_200_001
    assert bound(rates, 10_000, 0, n=3).amount == 1_200_001


def test_service_tiers() -> None:
    rates = Rates(
        input=100 * USD, output=0, service_tiers=(("priority", Rates(input=300 * USD, output=0)),), all_tiers=False
    )

    def of(tier: str) -> int:
        return cost(Usage(input_tokens=1, service_tier=tier), rates)

    assert of("") == of("default") == of("auto") == 10_000
    assert of("priority") == 30_000
    assert of("flex") == 10_000  # a discount without a price: standard is not too low
    with pytest.raises(PriceUnknown, match="service tier 'fast'") as error:
        of("fast")
    assert error.value.details == {"service_tier": "fast", "known": ["priority"]}
    assert bound(rates, 1, 0, service_tier="priority").amount == 30_000
    assert cost(Usage(input_tokens=1, service_tier="fast"), Rates(input=USD, output=0)) == 100


def test_bound_by_hand() -> None:
    # 1,000 bytes x 4 (written for an hour) + 3 answers x 100 x 16 (reasoning), USD per million.
    assert bound(RATES, 1000, 100, n=3).amount == 400_000 + 480_000
    # With audio: 1,000 x 32 + 3 x 100 x 64.
    assert bound(RATES, 1000, 100, n=3, audio=True).amount == 3_200_000 + 1_920_000


def test_int64_edges() -> None:
    most = Rates(input=1_000_000, output=0)  # one microcent a token
    assert cost(Usage(input_tokens=INT64_MAX), most) == INT64_MAX
    with pytest.raises(InvalidRequest, match="do not fit"):
        price(Usage(input_tokens=INT64_MAX + 1), most)
    with pytest.raises(InvalidRequest, match="do not fit"):
        bound(most, INT64_MAX + 1, 0)
    assert cost(Usage(input_tokens=1), Rates(input=INT64_MAX, output=0)) == -(-INT64_MAX // 1_000_000)


@pytest.mark.parametrize("bad", [-2, 1.5, True, "1", INT64_MAX + 1])
def test_rates_are_whole_numbers(bad: Any) -> None:
    with pytest.raises(InvalidRequest, match=r"^rates\.input: "):
        Rates(input=bad, output=1)
    with pytest.raises(InvalidRequest, match=r"^rates\.max_output_tokens: "):
        Rates(input=1, output=1, max_output_tokens=bad)


def test_tiers_ascend() -> None:
    flat = Rates(input=1, output=1)
    for starts in ((5, 5), (9, 5)):
        with pytest.raises(InvalidRequest, match="not ascending"):
            Rates(input=1, output=1, tiers=tuple(Tier(start, flat) for start in starts))


rate = st.integers(0, 10**12)
count = st.integers(0, 300_000)


@st.composite
def rates_st(draw: st.DrawFn) -> Rates:
    def flat() -> Rates:
        rates: dict[str, Any] = {name: draw(rate) for name in (*PER_TOKEN, "per_request")}
        return Rates(**rates)

    starts = sorted(draw(st.sets(st.integers(0, 200_000), max_size=2)))
    return dataclasses.replace(flat(), tiers=tuple(Tier(start, flat()) for start in starts))


@st.composite
def usage_st(draw: st.DrawFn, *, audio: bool) -> Usage:
    """Consistent usage: parts within totals."""
    cached, written, hour, reasoning = draw(count), draw(count), draw(count), draw(count)
    sound_in, sound_out = (draw(count), draw(count)) if audio else (0, 0)
    return Usage(
        input_tokens=cached + written + hour + sound_in + draw(count),
        cached_input_tokens=cached,
        cache_write_tokens=written + hour,
        cache_write_1h_tokens=hour,
        output_tokens=reasoning + sound_out + draw(count),
        reasoning_tokens=reasoning,
        audio_input_tokens=sound_in,
        audio_output_tokens=sound_out,
    )


@settings(max_examples=300, deadline=None)
@given(rates_st(), st.data(), st.booleans(), st.integers(0, 1000), st.integers(0, 1000))
def test_the_bound_is_never_below_the_price(
    rates: Rates, data: st.DataObject, audio: bool, spare_in: int, spare_out: int
) -> None:
    usage = data.draw(usage_st(audio=audio))
    held = bound(rates, usage.input_tokens + spare_in, usage.output_tokens + spare_out, audio=audio)
    assert held.amount >= price(usage, rates).amount


@settings(max_examples=200, deadline=None)
@given(rates_st(), usage_st(audio=True), count, count)
def test_more_tokens_never_cost_less(rates: Rates, usage: Usage, more_in: int, more_out: int) -> None:
    flat = dataclasses.replace(rates, tiers=())
    more = dataclasses.replace(
        usage, input_tokens=usage.input_tokens + more_in, output_tokens=usage.output_tokens + more_out
    )
    assert price(more, flat).amount >= price(usage, flat).amount
    assert bound(rates, usage.input_tokens + more_in, 1).amount >= bound(rates, usage.input_tokens, 1).amount


@settings(max_examples=200, deadline=None)
@given(rates_st(), count, count, count, count)
def test_inconsistent_usage_costs_at_least_each_reading_of_it(
    rates: Rates, total: int, cached: int, out: int, reasoning: int
) -> None:
    flat = dataclasses.replace(rates, tiers=())
    paid = price(
        Usage(input_tokens=total, cached_input_tokens=cached, output_tokens=out, reasoning_tokens=reasoning), flat
    ).amount
    parts_only = price(
        Usage(input_tokens=cached, cached_input_tokens=cached, output_tokens=reasoning, reasoning_tokens=reasoning),
        flat,
    )
    assert paid >= parts_only.amount
    if cached > total and reasoning > out:
        assert paid >= price(Usage(input_tokens=total, output_tokens=out), flat).amount

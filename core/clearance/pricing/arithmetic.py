"""Tokens times rates. Pure, in whole numbers, rounded up once at the end of a call."""

from __future__ import annotations

from clearance.errors import InvalidRequest
from clearance.model.amount import INT64_MAX, Amount, Unit
from clearance.pricing.rates import Rates
from clearance.pricing.usage import Usage

MILLION = 1_000_000
DEFAULT_MAX_OUTPUT_TOKENS = 128_000
"""Output assumed of a model without any known limit when the request sets none: what most large models publish (2026).

A model that can write more exceeds it; `max_output_tokens` in the request or in the price of the model closes the gap.
"""


def price(usage: Usage, rates: Rates) -> Amount:
    """What `usage` cost, in USD_MICROCENTS. Every token is priced once, as the most special kind reported.

    The sum is kept in millionths of a microcent and rounded up once. Raises PriceUnknown for a premium service tier
    that `rates` does not know, InvalidRequest for a price beyond int64.
    """
    at = rates.for_service_tier(usage.service_tier).at(usage.input_tokens)
    special_in = usage.cached_input_tokens + usage.cache_write_tokens + usage.audio_input_tokens
    special_out = usage.reasoning_tokens + usage.audio_output_tokens
    return _rounded_up(
        (usage.input_tokens - special_in) * at.input
        + usage.cached_input_tokens * at.cached_input
        + (usage.cache_write_tokens - usage.cache_write_1h_tokens) * at.cache_write
        + usage.cache_write_1h_tokens * at.cache_write_1h
        + usage.audio_input_tokens * at.audio_input
        + (usage.output_tokens - special_out) * at.output
        + usage.reasoning_tokens * at.reasoning
        + usage.audio_output_tokens * at.audio_output
        + at.per_request * MILLION
    )


def bound(
    rates: Rates, input_tokens: int, output_tokens: int, *, n: int = 1, audio: bool = False, service_tier: str = ""
) -> Amount:
    """The most that a call can cost with at most these tokens in and at most `output_tokens` for each of `n` answers.

    The prompt is charged once, as providers do for several answers. Audio rates count only when `audio` is set.
    Raises as `price`.
    """
    reachable = rates.for_service_tier(service_tier).within(input_tokens)
    return _rounded_up(
        max(
            input_tokens * _dearest_in(at, audio)
            + n * output_tokens * _dearest_out(at, audio)
            + at.per_request * MILLION
            for at in reachable
        )
    )


def output_limit(rates: Rates, requested_tokens: int | None) -> int:
    """Tokens that one answer can have: the lowest of what was asked for and what the model can."""
    limits = (requested_tokens, rates.max_output_tokens, rates.context_window)
    return min((limit for limit in limits if limit is not None), default=DEFAULT_MAX_OUTPUT_TOKENS)


def _dearest_in(at: Rates, audio: bool) -> int:
    # Cached input too: a few price lists have it above plain input.
    return max(at.input, at.cached_input, at.cache_write, at.cache_write_1h, at.audio_input if audio else 0)


def _dearest_out(at: Rates, audio: bool) -> int:
    return max(at.output, at.reasoning, at.audio_output if audio else 0)


def _rounded_up(microcent_millionths: int) -> Amount:
    microcents = -(-microcent_millionths // MILLION)
    if microcents > INT64_MAX:
        raise InvalidRequest("price", f"{microcents} microcents do not fit", f"0 to {INT64_MAX}")
    return Amount(unit=Unit.USD_MICROCENTS, amount=microcents)

"""A model's price as plain data, for `clearance price MODEL`."""

from __future__ import annotations

from typing import Any

from clearance.model.amount import dollars
from clearance.pricing.arithmetic import bound, output_limit, price
from clearance.pricing.rates import PER_TOKEN, Rates
from clearance.pricing.resolved import Resolved
from clearance.pricing.usage import Usage

_EXAMPLE = Usage(input_tokens=1_000, cached_input_tokens=200, output_tokens=500, reasoning_tokens=100)
_EXAMPLE_BYTES = 4_000


def explanation(asked_for: str, found: Resolved) -> dict[str, Any]:
    """JSON-able. Money is text in USD without loss, `rates` per million tokens, limits in tokens."""
    rates = found.rates
    return {
        "asked_for": asked_for,
        "model": found.model,
        "provider": found.provider,
        "source": found.source,
        "unit": "USD per million tokens",
        "rates": _in_usd(rates),
        "per_request": dollars(rates.per_request),
        "above_input_tokens": _tiers(rates),
        "service_tiers": {
            name: {"rates": _in_usd(table), "above_input_tokens": _tiers(table)} for name, table in rates.service_tiers
        },
        "limits": {
            "context_window": rates.context_window,
            "max_output_tokens": rates.max_output_tokens,
            "output_bounded_by": found.limit_source,
        },
        "not_in_the_price": {name: f"{dollars(each)} USD per 1,000" for name, each in found.surcharges},
        "notes": list(found.notes),
        "example": _example(rates),
    }


def _in_usd(rates: Rates) -> dict[str, str]:
    return {name: dollars(getattr(rates, name)) for name in PER_TOKEN}


def _tiers(rates: Rates) -> dict[str, dict[str, str]]:
    return {str(tier.above_input_tokens): _in_usd(tier.rates) for tier in rates.tiers}


def _example(rates: Rates) -> dict[str, Any]:
    """What one call costs and what would have been held for it, step by step."""
    at = rates.at(_EXAMPLE.input_tokens)
    output_tokens = output_limit(rates, None)
    steps = (
        (_EXAMPLE.input_tokens - _EXAMPLE.cached_input_tokens, "input", at.input),
        (_EXAMPLE.cached_input_tokens, "cached_input", at.cached_input),
        (_EXAMPLE.output_tokens - _EXAMPLE.reasoning_tokens, "output", at.output),
        (_EXAMPLE.reasoning_tokens, "reasoning", at.reasoning),
    )
    request = [f"{dollars(at.per_request)} USD for the request"] if at.per_request else []
    return {
        "steps": [f"{count:,} {kind} x {dollars(rate)} USD per million" for count, kind, rate in steps] + request,
        "price": str(price(_EXAMPLE, rates)),
        "estimate": str(bound(rates, _EXAMPLE_BYTES, output_tokens)),
        "estimate_for": f"a prompt of {_EXAMPLE_BYTES:,} bytes and at most {output_tokens:,} tokens of output",
    }

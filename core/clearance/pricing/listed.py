"""One price table of the price list as Rates: dollars to microcents, kinds of tokens folded into ours, upward."""

from __future__ import annotations

from dataclasses import replace
from decimal import ROUND_CEILING, Decimal
from typing import Any, NamedTuple

from clearance.model.amount import MICROCENTS_PER_USD
from clearance.pricing.rates import Rates, Tier

_EXACT = {
    "input_mtok": "input",
    "cache_read_mtok": "cached_input",
    "cache_write_mtok": "cache_write",
    "cache_write_1h_mtok": "cache_write_1h",
    "output_mtok": "output",
    "output_reasoning_mtok": "reasoning",
    "input_audio_mtok": "audio_input",
    "output_audio_mtok": "audio_output",
}
_SURCHARGES = ("web_searches_kcount", "storage_searches_kcount")
_REQUESTS = "requests_kcount"
_CACHED_AUDIO = "cache_audio_read_mtok"


class Listed(NamedTuple):
    """A converted table.

    Attributes:
        notes: what was bounded upward, and why.
        surcharges: charges for a provider's own tools, in microcents per thousand uses. No usage tells how many.
        unpriced: what the model is charged by that tokens cannot tell; the rates are then no price.
        has_audio: audio has a price of its own.
    """

    rates: Rates
    notes: tuple[str, ...]
    surcharges: tuple[tuple[str, int], ...]
    unpriced: tuple[str, ...]
    has_audio: bool


def list_price(table: Any) -> Listed:
    """`table` is a `genai_prices.types.ModelPrice`: attributes by price key, Decimal USD or tiered, None when unset."""
    prices = {key: value for key, value in vars(table).items() if value is not None and not key.startswith("_")}
    folded = {key: into for key in prices if key not in _EXACT and (into := _folded_into(key))}
    countable = {*_EXACT, *folded, *_SURCHARGES, _REQUESTS}
    notes = [f"{key} is part of {into}, which has the dearer rate" for key, into in folded.items()]
    if "input_mtok" in prices and "output_mtok" not in prices:
        notes.append("only input has a price; output, if any, costs the same")
    starts = sorted({tier.start for value in prices.values() for tier in getattr(value, "tiers", ())})
    base = _rates_at(prices, folded, 0)
    return Listed(
        rates=replace(base, tiers=tuple(Tier(start, _rates_at(prices, folded, start + 1)) for start in starts)),
        notes=tuple(notes),
        surcharges=tuple(
            (key.removesuffix("_kcount"), _microcents(prices[key], 0)) for key in _SURCHARGES if key in prices
        ),
        unpriced=tuple(key for key in prices if key not in countable),
        has_audio="input_audio_mtok" in prices or "output_audio_mtok" in prices,
    )


def _folded_into(key: str) -> str | None:
    """Our kind for a kind of token that we do not count apart: images, video, text, citations."""
    if not key.endswith("_mtok"):
        return None
    if key.startswith("cache"):
        return "cached_input" if "read" in key else "cache_write" if "write" in key else None
    return "input" if key.startswith("input") else "output" if key.startswith("output") else None


def _rates_at(prices: dict[str, Any], folded: dict[str, str], input_tokens: int) -> Rates:
    found: dict[str, Any] = {}
    for key, value in prices.items():
        if (kind := _EXACT.get(key) or folded.get(key)) and key != _CACHED_AUDIO:
            found[kind] = max(found.get(kind, 0), _microcents(value, input_tokens))
    found.setdefault("input", found.get("output", 0))
    found.setdefault("output", found["input"])
    if _REQUESTS in prices:
        found["per_request"] = -(-_microcents(prices[_REQUESTS], input_tokens) // 1000)
    _cover_cached_audio(found, prices, input_tokens)
    return Rates(**found)


def _cover_cached_audio(found: dict[str, Any], prices: dict[str, Any], input_tokens: int) -> None:
    """We count a cached audio token as cached and as audio, and one plain token less: that must not be too cheap."""
    if _CACHED_AUDIO in prices:
        audio = found.get("audio_input", found["input"])
        needed = _microcents(prices[_CACHED_AUDIO], input_tokens) + found["input"] - audio
        found["cached_input"] = max(found.get("cached_input", found["input"]), needed)


def _microcents(price: Any, input_tokens: int) -> int:
    """Microcents for the Decimal dollars that hold at this input size; finer parts rounded up."""
    usd: Decimal = getattr(price, "base", price)
    for tier in getattr(price, "tiers", ()):
        if input_tokens > tier.start:
            usd = tier.price
    return int((usd * MICROCENTS_PER_USD).to_integral_value(ROUND_CEILING))

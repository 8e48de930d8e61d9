"""The prices of one model, in whole numbers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from clearance.errors import InvalidRequest, PriceUnknown
from clearance.model.amount import INT64_MAX
from clearance.pricing.usage import DISCOUNT_TIERS

SAME = -1
"""A rate that is left out: kinds of input then cost as `input`, kinds of output as `output`."""

# As providers name it; `scale` is bought in advance, so standard is not too low.
STANDARD_TIERS = ("", "default", "standard", "auto", "scale")
PER_TOKEN = (
    "input",
    "cached_input",
    "cache_write",
    "cache_write_1h",
    "output",
    "reasoning",
    "audio_input",
    "audio_output",
)
_FALLBACK = {
    "cached_input": "input",
    "cache_write": "input",
    "cache_write_1h": "cache_write",
    "reasoning": "output",
    "audio_input": "input",
    "audio_output": "output",
}


@dataclass(frozen=True, slots=True)
class Tier:
    """Other rates for the whole call once its input is above `above_input_tokens`."""

    above_input_tokens: int
    rates: Rates


@dataclass(frozen=True, slots=True)
class Rates:
    """Microcents per million tokens of each kind (1 USD is 100,000,000 microcents).

    Attributes:
        input, output: plain tokens in and out.
        cached_input, cache_write, cache_write_1h, reasoning, audio_input, audio_output: left out, as plain ones.
        per_request: microcents for the call itself.
        context_window, max_output_tokens: limits in tokens, None where unknown.
        tiers: rates above some input sizes, ascending. They price all tokens of the call, not just those above.
        service_tiers: rates of service tiers by name, e.g. `priority`.
        all_tiers: these rates hold for service tiers without rates of their own.

    Raises InvalidRequest for anything but whole numbers from 0 to 2**63 - 1.
    """

    input: int
    output: int
    cached_input: int = SAME
    cache_write: int = SAME
    cache_write_1h: int = SAME
    reasoning: int = SAME
    audio_input: int = SAME
    audio_output: int = SAME
    per_request: int = 0
    context_window: int | None = None
    max_output_tokens: int | None = None
    tiers: tuple[Tier, ...] = ()
    service_tiers: tuple[tuple[str, Rates], ...] = ()
    all_tiers: bool = True

    def __post_init__(self) -> None:
        for name, other in _FALLBACK.items():
            if getattr(self, name) == SAME:
                object.__setattr__(self, name, getattr(self, other))
        for name in (*PER_TOKEN, "per_request"):
            _whole(name, getattr(self, name))
        for name in ("context_window", "max_output_tokens"):
            if getattr(self, name) is not None:
                _whole(name, getattr(self, name))
        starts = [tier.above_input_tokens for tier in self.tiers]
        if starts != sorted(set(starts)):
            raise InvalidRequest(
                "tiers", f"{starts} are not ascending", "each above_input_tokens once, the lowest first"
            )

    def for_service_tier(self, name: str) -> Rates:
        """The rates of a service tier.

        A discount without a price of its own is charged as standard, which is never too low. A premium one without
        raises PriceUnknown.
        """
        if not name:
            return self
        for known, rates in self.service_tiers:
            if known == name:
                return rates
        if self.all_tiers or name in STANDARD_TIERS or name in DISCOUNT_TIERS:
            return self
        known_names = [known for known, _ in self.service_tiers]
        raise PriceUnknown(
            f"no price for service tier {name!r} of this model; known: {', '.join(known_names) or 'standard only'}. "
            "A price for the model in clearance.yaml under `prices:` holds for every tier.",
            details={"service_tier": name, "known": known_names},
        )

    def at(self, input_tokens: int) -> Rates:
        """The rates that hold for a call with so many input tokens."""
        for tier in reversed(self.tiers):
            if input_tokens > tier.above_input_tokens:
                return tier.rates
        return self

    def within(self, input_tokens: int) -> tuple[Rates, ...]:
        """All rates that a call with at most so many input tokens could meet."""
        return (self, *(tier.rates for tier in self.tiers if input_tokens > tier.above_input_tokens))


def dearest(several: Sequence[Rates]) -> Rates:
    """At every input size and service tier the highest of each rate. Limits are those of the first."""
    starts = sorted({tier.above_input_tokens for rates in several for tier in rates.tiers})
    names = sorted({name for rates in several for name, _ in rates.service_tiers})
    return replace(
        _highest(several),
        context_window=several[0].context_window,
        max_output_tokens=several[0].max_output_tokens,
        tiers=tuple(Tier(start, _highest([rates.at(start + 1) for rates in several])) for start in starts),
        service_tiers=tuple((name, dearest([_tier_or_self(rates, name) for rates in several])) for name in names),
        all_tiers=all(rates.all_tiers for rates in several),
    )


def ceiling(several: Iterable[Rates]) -> Rates | None:
    """One flat table that is nowhere below any of these, at any input size and service tier; None without any."""
    flat = [
        part
        for rates in several
        for table in (rates, *(tier for _, tier in rates.service_tiers))
        for part in (table, *(tier.rates for tier in table.tiers))
    ]
    return _highest(flat) if flat else None


def _tier_or_self(rates: Rates, name: str) -> Rates:
    return next((table for known, table in rates.service_tiers if known == name), rates)


def _highest(several: Sequence[Rates]) -> Rates:
    return Rates(**{name: max(getattr(rates, name) for rates in several) for name in (*PER_TOKEN, "per_request")})


def _whole(name: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= INT64_MAX:
        raise InvalidRequest(f"rates.{name}", f"{value!r} is not a rate or limit", "a whole number from 0 to 2**63 - 1")

"""One answer of the price book."""

from __future__ import annotations

from typing import NamedTuple

from clearance.pricing.rates import Rates


class Resolved(NamedTuple):
    """What the book knows of a model.

    Attributes:
        model, provider: the name under which the source has it, e.g. without a date.
        source: `override`, `genai-prices 0.2.3`, `most_expensive` or `flat`.
        limit_source: where `rates.max_output_tokens` is from, or what bounds output instead.
        notes: what was bounded upward. surcharges: charges that tokens cannot tell, in microcents per thousand.
    """

    model: str
    provider: str | None
    rates: Rates
    source: str
    limit_source: str
    notes: tuple[str, ...] = ()
    surcharges: tuple[tuple[str, int], ...] = ()

"""Prices that the user states, from the key `prices:` of clearance.yaml. They come before any list."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import ROUND_CEILING, Decimal, InvalidOperation
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, PlainSerializer, field_validator

from clearance.errors import InvalidRequest
from clearance.model.amount import INT64_MAX, MICROCENTS_PER_USD
from clearance.model.base import Model
from clearance.pricing.names import known_as
from clearance.pricing.rates import PER_TOKEN, SAME, Rates

_ALLOWED = 'USD as a quoted string such as "2.50", a Decimal or a whole number, 0 or more'
_MAX_USD = Decimal(INT64_MAX) / MICROCENTS_PER_USD


def _usd(value: Any) -> Decimal:
    """Exact dollars. A float is refused: 0.1 is not a tenth of a dollar."""
    exact = isinstance(value, str | Decimal | int) and not isinstance(value, bool)
    if not exact:
        raise ValueError(f"{value!r} is a {type(value).__name__}; allowed: {_ALLOWED}")
    try:
        parsed = Decimal(value)
    except InvalidOperation:
        raise ValueError(f"{value!r} is not a number; allowed: {_ALLOWED}") from None
    if not parsed.is_finite() or not 0 <= parsed <= _MAX_USD:
        raise ValueError(f"{value!r} is not a price; allowed: {_ALLOWED}")
    return parsed


Usd = Annotated[Decimal, BeforeValidator(_usd), PlainSerializer(str, return_type=str)]
Limit = Annotated[int, Field(gt=0, le=INT64_MAX, strict=True)]


class ModelPrice(Model):
    """What one model costs: USD per million tokens, `per_request` in USD a call. Kinds left out are as in `Rates`."""

    input: Usd
    output: Usd
    cached_input: Usd | None = None
    cache_write: Usd | None = None
    cache_write_1h: Usd | None = None
    reasoning: Usd | None = None
    audio_input: Usd | None = None
    audio_output: Usd | None = None
    per_request: Usd = Decimal(0)
    context_window: Limit | None = None
    max_output_tokens: Limit | None = None

    def rates(self) -> Rates:
        """In microcents; what is finer is rounded up."""
        per_token: dict[str, Any] = {name: _microcents(getattr(self, name)) for name in PER_TOKEN}
        return Rates(
            **per_token,
            per_request=_microcents(self.per_request),
            context_window=self.context_window,
            max_output_tokens=self.max_output_tokens,
        )


class Overrides(Model):
    """Prices by model name. A name covers its dated versions; `provider/model` covers that provider only."""

    prices: dict[str, ModelPrice] = Field(default_factory=dict)

    @field_validator("prices")
    @classmethod
    def _lower_case(cls, prices: dict[str, ModelPrice]) -> dict[str, ModelPrice]:
        return {_name(name): entry for name, entry in prices.items()}

    @classmethod
    def parse(cls, prices: Mapping[str, Any] | None) -> Overrides:
        """From what stands under `prices:`. Raises InvalidRequest, its field a path such as `prices.gpt-4o.input`."""
        if prices is None:
            return cls()
        if not isinstance(prices, Mapping):
            raise InvalidRequest("prices", f"is a {type(prices).__name__}", "a mapping from model name to its prices")
        parsed: dict[str, ModelPrice] = {}
        for name, entry in prices.items():
            key = _name(name)
            if key in parsed:
                raise InvalidRequest(f"prices.{name}", "is there twice, in other letter case", "each model once")
            parsed[key] = _entry(name, entry)
        return cls(prices=parsed)

    def find(self, model: str, provider: str | None = None) -> tuple[str, Rates] | None:
        """The entry that covers `model` and its rates, or None. One for the provider comes first."""
        for name in (f"{provider}/{model}", model) if provider else (model,):
            if known := known_as(name, self.prices):
                return known, self.prices[known].rates()
        return None


def _name(name: Any) -> str:
    if not isinstance(name, str) or not name.strip():
        raise InvalidRequest("prices", f"{name!r} is not a model name", "quoted text such as gpt-4o")
    return name.strip().lower()


def _entry(name: str, entry: Any) -> ModelPrice:
    path = f"prices.{name}"
    if isinstance(entry, ModelPrice):
        return entry
    if not isinstance(entry, Mapping) or not all(isinstance(key, str) for key in entry):
        raise InvalidRequest(
            path, f"is a {type(entry).__name__}", f"a mapping with {', '.join(ModelPrice.model_fields)}"
        )
    try:
        return ModelPrice(**entry)
    except InvalidRequest as error:
        known = "" if error.field in ModelPrice.model_fields else ", ".join(ModelPrice.model_fields)
        raise InvalidRequest(f"{path}.{error.field}", error.problem, error.allowed or known) from None


def _microcents(usd: Decimal | None) -> int:
    if usd is None:
        return SAME
    return int((usd * MICROCENTS_PER_USD).to_integral_value(ROUND_CEILING))

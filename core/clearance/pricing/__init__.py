"""Tokens to money, in whole microcents.

    book = PriceBook(overrides={"my-model": {"input": "2.50", "output": "10.00"}}, unknown="deny")
    held = book.estimate("gpt-4o-mini", prompt_bytes=1200, max_output_tokens=500)
    cost = book.price("gpt-4o-mini-2024-07-18", Usage.from_openai(response_usage))

Prices are those of the optional `genai-prices` package (`pip install 'clearance[prices]'`), the user's own come first.
"""

from clearance.pricing.arithmetic import DEFAULT_MAX_OUTPUT_TOKENS, bound, price
from clearance.pricing.book import PriceBook, Prices, Unknown
from clearance.pricing.overrides import ModelPrice, Overrides
from clearance.pricing.rates import Rates, Tier
from clearance.pricing.resolved import Resolved
from clearance.pricing.usage import Usage

__all__ = [
    "DEFAULT_MAX_OUTPUT_TOKENS",
    "ModelPrice",
    "Overrides",
    "PriceBook",
    "Prices",
    "Rates",
    "Resolved",
    "Tier",
    "Unknown",
    "Usage",
    "bound",
    "price",
]

"""What a request would have cost. The simulator only knows a callable."""

from __future__ import annotations

import importlib
import logging
from collections.abc import Callable
from dataclasses import fields
from functools import cache
from typing import Any

from clearance.errors import Denied
from clearance.simulator.records import SimulatedUsage

Price = Callable[[str, SimulatedUsage], int | None]
"""`price(model, usage)` gives whole microcents (1 USD is 100,000,000), or None for a model without a price."""

_log = logging.getLogger("clearance.simulator")
_FREE = SimulatedUsage()


def cost_of(price: Price | None, model: str, usage: SimulatedUsage) -> int | None:
    """The cost in microcents; None without a price, and when the price function fails (counting must go on)."""
    if usage == _FREE:
        return 0
    if price is None:
        return None
    try:
        return price(model, usage)
    except Exception:
        _log.warning("no cost for model %s: the price function failed", model, exc_info=True)
        return None


def list_price(model: str, usage: SimulatedUsage) -> int | None:
    """The price by Clearance's own list; None where the list is not installed or does not know the model."""
    listed = _price_list()
    if listed is None:
        return None
    book, usage_kind = listed
    known = {field.name: getattr(usage, field.name) for field in fields(usage)}
    try:
        return int(book.price(model, usage_kind(**known)).amount)
    except (LookupError, Denied):
        return None


@cache
def _price_list() -> tuple[Any, Any] | None:
    try:
        pricing = importlib.import_module("clearance.pricing")
        return pricing.PriceBook(), getattr(pricing, "Usage", SimulatedUsage)
    except (ImportError, AttributeError):
        return None

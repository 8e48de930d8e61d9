"""The price list: the `genai-prices` package, turned into our Rates. Works offline; its updater is never started.

The package prices in Decimal USD per million tokens, by date, by time of day, by input size ("tiers", which price the
whole call) and by service tier. What Rates cannot say is bounded upward and noted, or refused with PriceUnknown.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, date, datetime, time
from importlib.metadata import version
from typing import Any, NamedTuple

from clearance.errors import PriceUnknown
from clearance.pricing.listed import Listed, list_price
from clearance.pricing.names import bases
from clearance.pricing.rates import STANDARD_TIERS, Rates, dearest

INSTALL_HINT = "pip install 'clearance[prices]'"
_TIER_KEYS = ("service_tier", "speed", "processing")


class Found(NamedTuple):
    """A listed model: its name and provider there, its rates, and what was left out or bounded."""

    model: str
    provider: str
    rates: Rates
    notes: tuple[str, ...]
    surcharges: tuple[tuple[str, int], ...]


class Unpriced(PriceUnknown):
    """The model is listed, but not with a price by tokens."""


def source() -> str:
    return f"genai-prices {version('genai-prices')}"


def find(model: str, provider: str | None, day: date) -> Found | None:
    """The listed model that `model` names, prices as of `day` (UTC); None when it is not listed.

    Raises Unpriced when it is listed without a price by tokens, ImportError when the package is missing.
    """
    snapshot = _snapshot()
    for listed_by, name in _places(snapshot, model, provider):
        for base in bases(name):
            if entry := listed_by.find_model(base, all_providers=snapshot.providers):
                return _found(entry, listed_by, day)
    return None


def names(provider: str | None = None) -> list[str]:
    """All listed model names, those of one provider if it is known."""
    providers = _snapshot().providers
    chosen = _provider(provider) if provider else None
    return sorted({model.id for listed_by in ([chosen] if chosen else providers) for model in listed_by.models})


def chat_models(day: date) -> Iterator[Rates]:
    """The rates of every listed model that is priced by tokens in and out."""
    for listed_by in _snapshot().providers:
        for model in listed_by.models:
            try:
                found = _found(model, listed_by, day)
            except Unpriced:
                continue
            yield found.rates


def _snapshot() -> Any:
    # Imported at the first price, not before: it takes half a second.
    return importlib.import_module("genai_prices.data_snapshot").get_snapshot()


def _provider(provider: str) -> Any:
    module = importlib.import_module("genai_prices.data_snapshot")
    return module.find_provider_by_id(_snapshot().providers, provider)


def _places(snapshot: Any, model: str, provider: str | None) -> Iterator[tuple[Any, str]]:
    """Where to look: at the provider named, else at the one whose models are called so, or who alone lists one called
    exactly so, else at `provider/model`."""
    name = model.lower()
    if provider is not None:
        if listed_by := _provider(provider):
            yield listed_by, name
            yield listed_by, name.removeprefix(f"{listed_by.id}/")
        return
    makers = [listed_by for listed_by in snapshot.providers if listed_by.model_match is not None]
    for listed_by in makers:
        if listed_by.model_match.is_match(name):
            yield listed_by, name
            break
    else:
        # Their patterns miss some of their own models, such as OpenAI's embeddings. Resellers have no pattern.
        listing = [listed_by for listed_by in makers if any(it.id == name for it in listed_by.models)]
        if len(listing) == 1:
            yield listing[0], name
    prefix, slash, rest = name.partition("/")
    if slash and (named := _provider(prefix)):
        yield named, rest


def _found(entry: Any, listed_by: Any, day: date) -> Found:
    moments = _moments(entry, day)
    standard = [list_price(entry.get_prices(moment)) for moment in moments]
    where = f"{listed_by.id}/{entry.id}"
    for listed in standard:
        _check(where, entry.id, listed)
    notes = {note for listed in standard for note in listed.notes}
    tiers: dict[str, list[Rates]] = {}
    base = [listed.rates for listed in standard]
    for when in _variants(entry, listed_by):
        variant = [list_price(entry.get_prices(moment, when)).rates for moment in moments]
        key, value = next(iter(when.items()))
        if len(when) == 1 and key in _TIER_KEYS and value not in STANDARD_TIERS:
            tiers.setdefault(value, []).extend(variant)
        elif dearest(variant) != dearest([listed.rates for listed in standard]):
            base += variant
            notes.add(f"the dearest of the prices with and without {when}")
    if len(moments) > 1:
        notes.add("the dearest price of the day")
    rates = replace(
        dearest(base),
        context_window=entry.context_window,
        service_tiers=tuple((name, dearest(tables)) for name, tables in sorted(tiers.items())),
        all_tiers=False,
    )
    return Found(entry.id, listed_by.id, rates, tuple(sorted(notes)), standard[0].surcharges)


def _check(where: str, name: str, listed: Listed) -> None:
    problem = ""
    if listed.unpriced:
        problem = f"is charged by {', '.join(listed.unpriced)}, which usage in tokens does not tell"
    elif listed.rates.input == 0 and listed.rates.output == 0:
        problem = "has no price: free, or not published"
    elif "audio" in name and not listed.has_audio:
        problem = "has no price for its audio"
    if problem:
        raise Unpriced(f"The price list has {where}, but it {problem}", details={"model": where})


def _moments(entry: Any, day: date) -> list[datetime]:
    """Moments of the day between which no price changes: midnight, and where a time-of-day price starts or ends."""
    moments = {datetime.combine(day, time(), UTC)}
    for conditional in entry.prices if isinstance(entry.prices, list) else ():
        for edge in ("start_time", "end_time"):
            if (at := getattr(conditional.constraint, edge, None)) is not None:
                moment = datetime.combine(day, at if at.tzinfo else at.replace(tzinfo=UTC))
                moments.add(datetime.combine(day, moment.astimezone(UTC).time(), UTC))
    return sorted(moments)


def _variants(entry: Any, listed_by: Any) -> list[dict[str, str]]:
    """Conditions with prices of their own. Those of a model borrowed from another provider do not hold here."""
    if not any(entry is model for model in listed_by.models):
        return []
    return [dict(variant.when) for variant in getattr(entry, "price_variants", None) or ()]

"""The price book: from a model's name to money, with the user's prices first and an explicit policy for the unknown."""

from __future__ import annotations

import difflib
import logging
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, date, datetime
from typing import Any, Literal, Protocol

from clearance.errors import InvalidRequest, PriceUnknown
from clearance.model.amount import Amount, Unit
from clearance.pricing import arithmetic, genai
from clearance.pricing.cache import Cache
from clearance.pricing.explain import explanation
from clearance.pricing.limits import published_limit
from clearance.pricing.overrides import Overrides
from clearance.pricing.rates import Rates, ceiling
from clearance.pricing.resolved import Resolved
from clearance.pricing.usage import Usage

Unknown = Literal["deny", "most_expensive"] | Amount
"""What an unknown model costs: nothing may run, as the dearest model known, or a flat amount for each call."""

_MAX_CACHED = 1024
_MAX_NAME = 256
_log = logging.getLogger("clearance.pricing")


class Prices(Protocol):
    """What guards and settlements ask of a price book. Amounts are USD_MICROCENTS, never 0 for want of a price."""

    def rates(self, model: str, provider: str | None = None) -> Rates: ...

    def price(self, model: str, usage: Usage, provider: str | None = None) -> Amount: ...

    def estimate(
        self,
        model: str,
        prompt_bytes: int,
        max_output_tokens: int | None = None,
        provider: str | None = None,
        n: int = 1,
    ) -> Amount: ...


def utc_today() -> date:
    return datetime.now(UTC).date()


class PriceBook:
    """Prices from the user's `overrides`, then from the genai-prices package, then by the policy `unknown`.

    A model is looked up once a day (prices have start dates) and then kept. Safe to share between threads.

    Args:
        overrides: `Overrides`, or the mapping that stands under `prices:` in clearance.yaml.
        unknown: `deny` raises PriceUnknown; `most_expensive` takes, for every kind of token, the dearest rate of all
            models that the price list has with prices for input and output, of any provider and service tier, and of
            all overrides; an Amount is a flat price for each call. A model that the list has without a price by tokens
            (by the hour, or free) is unknown too, and denied also under `most_expensive`, which could be too low.

    Raises InvalidRequest for a bad override or policy.
    """

    def __init__(
        self,
        overrides: Overrides | Mapping[str, Any] | None = None,
        unknown: Unknown = "deny",
        *,
        today: Callable[[], date] = utc_today,
    ) -> None:
        self._overrides = overrides if isinstance(overrides, Overrides) else Overrides.parse(overrides)
        self._unknown = _policy(unknown)
        self._today = today
        self._resolved: Cache[tuple[str, str | None, date], Resolved] = Cache(_MAX_CACHED)
        self._ceilings: Cache[date, Rates] = Cache(2)

    def rates(self, model: str, provider: str | None = None) -> Rates:
        """The rates and limits of a model. Raises PriceUnknown, InvalidRequest for a name that is none."""
        return self.resolve(model, provider).rates

    def price(self, model: str, usage: Usage, provider: str | None = None) -> Amount:
        """What this usage cost, rounded up to a microcent.

        Raises PriceUnknown, also for a premium service tier without a price; such a call is settled by its estimate.
        """
        return arithmetic.price(usage, self.rates(model, provider))

    def estimate(
        self,
        model: str,
        prompt_bytes: int,
        max_output_tokens: int | None = None,
        provider: str | None = None,
        n: int = 1,
        *,
        audio: bool = False,
        service_tier: str = "",
    ) -> Amount:
        """The most that a call can cost, before it is made.

        A byte-level tokenizer never makes more tokens than bytes, so the prompt is at most `prompt_bytes` tokens, each
        at the dearest input rate. Output is at most the lowest of the requested maximum, the model's limit and its
        context window, for each of `n` answers, at the dearest output rate; without any of these limits,
        DEFAULT_MAX_OUTPUT_TOKENS.

        Args:
            prompt_bytes: UTF-8 bytes of the whole request: messages, tools, schemas. For what it only refers to (an
                image's URL, a stored file, an earlier response) add the tokens that it may become.
            max_output_tokens: give 0 for calls that generate nothing, such as embeddings.
            audio: the call carries or asks for sound.
            service_tier: the tier asked for; empty, `default` and `auto` are the standard one.

        Raises PriceUnknown, InvalidRequest.
        """
        _at_least(0, prompt_bytes, "prompt_bytes")
        _at_least(1, n, "n")
        if max_output_tokens is not None:
            _at_least(0, max_output_tokens, "max_output_tokens")
        rates = self.rates(model, provider)
        output_tokens = arithmetic.output_limit(rates, max_output_tokens)
        return arithmetic.bound(rates, prompt_bytes, output_tokens, n=n, audio=audio, service_tier=service_tier)

    def explain(self, model: str, provider: str | None = None) -> dict[str, Any]:
        """Plain data about a model's price for people: rates in USD, where they are from, limits and an example."""
        found = self.resolve(model, provider)
        return explanation(model, found)

    def resolve(self, model: str, provider: str | None = None) -> Resolved:
        """Where the price of `model` is from, and all that is known of it."""
        _name(model, "model")
        if provider is not None:
            _name(provider, "provider")
        day = self._today()
        return self._resolved.get((model, provider, day), lambda: self._look_up(model, provider, day))

    def _look_up(self, model: str, provider: str | None, day: date) -> Resolved:
        if override := self._overrides.find(model, provider):
            return _limited(Resolved(override[0], provider, override[1], "override", "override"), model)
        try:
            found = genai.find(model, provider, day)
        except ImportError as error:
            return self._without_list(model, provider, error)
        except genai.Unpriced as error:
            if isinstance(self._unknown, Amount):
                return self._flat(model, provider, self._unknown, error.message)
            raise _unknown_model(model, provider, error.message + ".", []) from error
        if found is None:
            return self._not_listed(model, provider, day)
        known = Resolved(found.model, found.provider, found.rates, genai.source(), "", found.notes, found.surcharges)
        return _limited(known, model)

    def _not_listed(self, model: str, provider: str | None, day: date) -> Resolved:
        if isinstance(self._unknown, Amount):
            return self._flat(model, provider, self._unknown, "the model is not in the price list")
        if self._unknown == "most_expensive":
            rates = self._ceilings.get(day, lambda: self._ceiling(day))
            return _limited(Resolved(model, provider, rates, "most_expensive", ""), model)
        names = [*self._overrides.prices, *genai.names(provider)]
        nearest = difflib.get_close_matches(model.lower(), dict.fromkeys(names), n=3)
        raise _unknown_model(model, provider, "It is not in the price list.", nearest)

    def _without_list(self, model: str, provider: str | None, error: ImportError) -> Resolved:
        why = f"the price list is missing ({error}): {genai.INSTALL_HINT}"
        if isinstance(self._unknown, Amount):
            _log.warning("flat price for %s: %s", model, why)
            return self._flat(model, provider, self._unknown, why)
        # Also under most_expensive: without the list nobody knows what is dear.
        raise _unknown_model(model, provider, f"{why[:1].upper()}{why[1:]}.", list(self._overrides.prices)) from error

    def _flat(self, model: str, provider: str | None, amount: Amount, why: str) -> Resolved:
        rates = Rates(input=0, output=0, per_request=amount.amount)
        return Resolved(model, provider, rates, "flat", "no tokens are counted", (why,))

    def _ceiling(self, day: date) -> Rates:
        stated = [entry.rates() for entry in self._overrides.prices.values()]
        rates = ceiling([*stated, *genai.chat_models(day)])
        if rates is None:
            raise PriceUnknown("the price list is empty, so no model is the most expensive")
        return rates


def _policy(unknown: Unknown) -> Unknown:
    allowed = '"deny", "most_expensive" or an Amount of USD_MICROCENTS above 0 for each call'
    if isinstance(unknown, Amount):
        if unknown.unit is not Unit.USD_MICROCENTS or unknown.amount == 0:
            raise InvalidRequest("unknown", f"{unknown} is no price for a call", allowed)
        return unknown
    if unknown not in ("deny", "most_expensive"):
        raise InvalidRequest("unknown", f"{unknown!r} is not a policy", allowed)
    return unknown


def _limited(found: Resolved, asked_for: str) -> Resolved:
    """`found` with the output limit of our table, unless it has one."""
    if found.rates.max_output_tokens is not None:
        return found
    limit = published_limit(found.model, asked_for)
    if limit is not None:
        return found._replace(rates=replace(found.rates, max_output_tokens=limit), limit_source="published limits")
    known = found.rates.context_window is not None
    return found._replace(limit_source="context window" if known else "default bound")


def _unknown_model(model: str, provider: str | None, why: str, nearest: list[str]) -> PriceUnknown:
    at = f" of provider {provider!r}" if provider else ""
    near = f" Nearest known names: {', '.join(nearest[:3])}." if nearest else ""
    return PriceUnknown(
        f"no price for model {model!r}{at}. {why}{near} To state one, add to clearance.yaml: "
        f'prices: {{"{model}": {{input: "2.50", output: "10.00"}}}} (USD per million tokens).',
        details={"model": model, "provider": provider, "nearest": nearest[:3]},
    )


def _name(value: object, field: str) -> None:
    if not isinstance(value, str) or not value.strip() or len(value) > _MAX_NAME:
        raise InvalidRequest(field, f"{repr(value)[:40]} is not a name", f"text of 1 to {_MAX_NAME} characters")


def _at_least(least: int, value: object, field: str) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise InvalidRequest(field, f"{repr(value)[:40]} is refused", f"a whole number >= {least}")

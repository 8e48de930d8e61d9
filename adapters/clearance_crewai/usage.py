"""What a model call asks for, and what it has used, read from CrewAI's events."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any, NamedTuple

from pydantic import BaseModel

from clearance.model.amount import Amount
from clearance.pricing import DEFAULT_MAX_OUTPUT_TOKENS, PriceBook, Prices, Usage

OUTPUT_CAPS = ("max_completion_tokens", "max_tokens", "max_output_tokens")
"""The names under which CrewAI's providers take the most tokens to generate."""

REFERRED_TOKENS = 50_000
"""Tokens assumed for an image: the dearest tiling makes 48,169 of one."""

_MESSAGE_BYTES = 32
"""What a provider's template may add around one message."""
_ORDINARY_TIERS = (None, "", "auto", "default", "standard", "standard_only")


class Asked(NamedTuple):
    """One model call before it is made; `max_output_tokens` is for each of `n` answers, None where nothing is set.

    `priced` is False for an embedder that nobody pays by the token.
    """

    model: str
    prompt_bytes: int
    max_output_tokens: int | None = None
    n: int = 1
    service_tier: str = ""
    embedding: bool = False
    priced: bool = True

    def estimate(self, prices: Prices) -> Amount:
        """The most that it can cost. Raises PriceUnknown, InvalidRequest."""
        if isinstance(prices, PriceBook):
            return prices.estimate(
                self.model, self.prompt_bytes, self.max_output_tokens, n=self.n, service_tier=self.service_tier
            )
        return prices.estimate(self.model, self.prompt_bytes, self.max_output_tokens, n=self.n)

    def of(self, model: str) -> Asked:
        """The same request to another model."""
        return self._replace(model=model)


def asked(llm: Any, messages: Any, tools: Any = None, *, settings: Any = None, schema: object = None) -> Asked:
    """Read a call from the LLM object and what it is given; `settings` is the event, whose values go before.

    Several names of the output cap may be set, and which one reaches the provider depends on the class: the highest
    counts. `schema` is what the answer must fit, if it goes over the wire.
    """
    extra = _entry(llm, "additional_params")
    extra = extra if isinstance(extra, Mapping) else {}
    size = _prompt(messages) + _size(tools) + _size(extra) + _size(_entry(llm, "response_format"))
    size += _size(schema) + _size(_entry(llm, "instructions"))
    if _earlier_turns(llm, extra):
        size += DEFAULT_MAX_OUTPUT_TOKENS
    sources = [settings, llm, extra]
    caps = [cap for source in sources for name in OUTPUT_CAPS if (cap := _whole(_entry(source, name))) is not None]
    many = [n for source in sources if (n := _whole(_entry(source, "n")))]
    tier = _entry(extra, "service_tier") or _entry(llm, "service_tier")
    return Asked(
        model=str(_entry(llm, "model") or "unnamed"),
        prompt_bytes=size,
        max_output_tokens=max(caps, default=None),
        n=max(many, default=1),
        service_tier="" if tier in _ORDINARY_TIERS else str(tier),
    )


def used(reported: Mapping[str, Any] | None) -> Usage | None:
    """Counts of any provider that CrewAI knows, or None: where it says nothing or zero, nobody knows what it cost."""
    from crewai.types.usage_metrics import UsageMetrics

    metrics = UsageMetrics.from_provider_dict(dict(reported)) if reported else None
    if reported is None or metrics is None:
        return None
    total = max(metrics.total_tokens, _whole(reported.get("total_tokens")) or 0)
    if not (metrics.prompt_tokens or metrics.completion_tokens or total):
        return None
    return Usage(
        input_tokens=metrics.prompt_tokens,
        cached_input_tokens=metrics.cached_prompt_tokens,
        cache_write_tokens=metrics.cache_creation_tokens,
        # What only the total knows is output, the dearer kind.
        output_tokens=max(metrics.completion_tokens, total - metrics.prompt_tokens),
        reasoning_tokens=metrics.reasoning_tokens,
    )


def _earlier_turns(llm: Any, extra: Mapping[str, Any]) -> bool:
    chained = bool(_entry(llm, "auto_chain") or _entry(llm, "previous_response_id"))
    return chained or bool(extra.get("previous_response_id") or extra.get("conversation"))


def _prompt(messages: Any) -> int:
    if messages is None:
        return 0
    if isinstance(messages, str):
        return _MESSAGE_BYTES + _size(messages)
    return sum(_MESSAGE_BYTES + _message(message) for message in messages)


def _message(message: Any) -> int:
    if not isinstance(message, Mapping):
        return _size(message)
    content = message.get("content")
    images = sum(1 for block in content if _is_image(block)) if isinstance(content, list) else 0
    size = images * REFERRED_TOKENS
    for name, value in message.items():
        # Texts, which are most of a growing history, need not be put into JSON to be measured.
        size += len(name) + (len(value) if isinstance(value, str) and value.isascii() else _size(value))
    return size


def _is_image(block: Any) -> bool:
    return isinstance(block, Mapping) and "image" in str(block.get("type", ""))


def _size(value: Any) -> int:
    if not value:
        return 0
    return _bytes(value if isinstance(value, str) else _as_json(value))


def _bytes(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))


def _schema(value: Any) -> Any:
    """A pydantic class among the settings goes over the wire as its JSON schema."""
    if isinstance(value, type) and issubclass(value, BaseModel):
        return value.model_json_schema()
    return list(value) if isinstance(value, Iterable) and not isinstance(value, bytes) else str(value)


_as_json = json.JSONEncoder(ensure_ascii=False, default=_schema).encode


def _entry(source: Any, name: str) -> Any:
    if isinstance(source, Mapping):
        return source.get(name)
    # pydantic raises, with words, for every name that an object lacks: slower than all else here.
    own = getattr(source, "__dict__", None)
    if own is not None and name in own:
        return own[name]
    extra = getattr(source, "__pydantic_extra__", None)
    if extra and name in extra:
        return extra[name]
    kind: type = type(source)
    return getattr(source, name, None) if _may_have(kind, name) else None


@lru_cache(maxsize=1024)
def _may_have(kind: type, name: str) -> bool:
    """False for a pydantic class that has no such attribute: then only the object's own entries can have it."""
    return (
        not issubclass(kind, BaseModel)
        or any(name in vars(base) for base in kind.__mro__)
        or (name in kind.__private_attributes__)
    )


def _whole(value: Any) -> int | None:
    """CrewAI types some caps as floats."""
    if isinstance(value, bool) or not isinstance(value, int | float) or value < 0:
        return None
    return int(value)

"""What a provider says a call used, as plain counts of tokens."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

from clearance.errors import InvalidRequest

PREMIUM_TIERS = ("priority", "fast")
DISCOUNT_TIERS = ("flex", "batch")
_TOTALS = 2
_COUNTS = (
    "input_tokens",
    "output_tokens",
    "cached_input_tokens",
    "cache_write_tokens",
    "reasoning_tokens",
    "audio_input_tokens",
    "audio_output_tokens",
    "cache_write_1h_tokens",
)
_counts = attrgetter(*_COUNTS)


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens of one call. Totals include their parts; parts of one total do not overlap.

    Where a provider's parts are more than its total, the parts were counted outside the total: some report cache or
    reasoning tokens apart. The total is then raised by them. A total cut or kept as reported would price too low.

    Attributes:
        input_tokens: all of the prompt, cached, written to cache and audio included.
        cached_input_tokens: read from the provider's cache.
        cache_write_tokens: written to the cache, whatever its lifetime.
        output_tokens: all that was generated, reasoning and audio included.
        reasoning_tokens: generated, but not shown.
        audio_input_tokens, audio_output_tokens: sound, as tokens.
        cache_write_1h_tokens: the part of `cache_write_tokens` kept for an hour, which some providers charge more.
        service_tier: `priority`, `flex`, ... as the provider named it; empty is the standard tier.

    Raises InvalidRequest for counts that are not whole numbers >= 0.
    """

    input_tokens: int = 0
    cached_input_tokens: int = 0
    cache_write_tokens: int = 0
    output_tokens: int = 0
    reasoning_tokens: int = 0
    audio_input_tokens: int = 0
    audio_output_tokens: int = 0
    cache_write_1h_tokens: int = 0
    service_tier: str = ""

    def __post_init__(self) -> None:
        counts = _counts(self)
        if set(map(type, counts)) != {int} or min(counts) < 0:
            for name, count in zip(_COUNTS, counts, strict=True):
                _checked(count, name)
        if not any(counts[_TOTALS:]):
            return
        written = max(self.cache_write_tokens, self.cache_write_1h_tokens)
        object.__setattr__(self, "cache_write_tokens", written)
        parts_in = self.cached_input_tokens + written + self.audio_input_tokens
        parts_out = self.reasoning_tokens + self.audio_output_tokens
        object.__setattr__(self, "input_tokens", _with_parts(self.input_tokens, parts_in))
        object.__setattr__(self, "output_tokens", _with_parts(self.output_tokens, parts_out))

    @classmethod
    def from_openai(cls, usage: Mapping[str, Any], service_tier: str | None = None) -> Usage:
        """From the `usage` of chat completions, the Responses API or embeddings; `service_tier` is on the response.

        Missing keys and nulls count 0. Raises InvalidRequest when there is no total at all: that is not a free call,
        it is a call whose usage is unknown and must be settled by its estimate.
        """
        _mapping(usage, "usage")
        inputs = _part(usage, "prompt_tokens_details", "input_tokens_details")
        outputs = _part(usage, "completion_tokens_details", "output_tokens_details")
        tokens_in, tokens_out = _totals(
            usage, ("prompt_tokens", "input_tokens"), ("completion_tokens", "output_tokens")
        )
        return cls(
            input_tokens=tokens_in,
            cached_input_tokens=_count(inputs, "cached_tokens"),
            cache_write_tokens=_count(inputs, "cache_write_tokens"),
            output_tokens=tokens_out,
            reasoning_tokens=_count(outputs, "reasoning_tokens"),
            audio_input_tokens=_count(inputs, "audio_tokens"),
            audio_output_tokens=_count(outputs, "audio_tokens"),
            service_tier=service_tier or "",
        )

    @classmethod
    def from_langchain(cls, usage: Mapping[str, Any]) -> Usage:
        """From a message's `usage_metadata`. Keys may carry the service tier: `priority_cache_read`, `flex_reasoning`.

        Says nothing of LangChain's own cache, which replays usage with `total_cost` 0: the caller must look there.
        Raises InvalidRequest when there is no total at all, as `from_openai`.
        """
        _mapping(usage, "usage_metadata")
        inputs, outputs = (_part(usage, "input_token_details"), _part(usage, "output_token_details"))
        tokens_in, tokens_out = _totals(usage, ("input_tokens",), ("output_tokens",))
        written_1h = _any_tier(inputs, "ephemeral_1h_input_tokens")
        # The generic count and those by lifetime are the same tokens, so never their sum.
        by_lifetime = written_1h + _any_tier(inputs, "ephemeral_5m_input_tokens")
        return cls(
            input_tokens=tokens_in,
            cached_input_tokens=_any_tier(inputs, "cache_read"),
            cache_write_tokens=max(_any_tier(inputs, "cache_creation"), by_lifetime),
            output_tokens=tokens_out,
            reasoning_tokens=_any_tier(outputs, "reasoning"),
            audio_input_tokens=_any_tier(inputs, "audio"),
            audio_output_tokens=_any_tier(outputs, "audio"),
            cache_write_1h_tokens=written_1h,
            service_tier=_tier_of((*inputs, *outputs)),
        )


def _checked(value: Any, field: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        shown = repr(value)[:40]
        raise InvalidRequest(field, f"{shown} is not a count of tokens", "a whole number >= 0")
    return value


def _with_parts(total: int, parts: int) -> int:
    return total + parts if parts > total else total


def _mapping(value: Any, field: str) -> None:
    if not isinstance(value, Mapping):
        raise InvalidRequest(field, f"{type(value).__name__} is not usage", "a mapping with counts of tokens")


def _part(usage: Mapping[str, Any], *names: str) -> Mapping[str, Any]:
    """The first of these nested mappings that is there, or an empty one."""
    for name in names:
        if usage.get(name) is not None:
            _mapping(usage[name], name)
            part: Mapping[str, Any] = usage[name]
            return part
    return {}


def _count(usage: Mapping[str, Any], key: str) -> int:
    value = usage.get(key)
    return 0 if value is None else _checked(value, key)


def _totals(usage: Mapping[str, Any], in_keys: tuple[str, ...], out_keys: tuple[str, ...]) -> tuple[int, int]:
    """Tokens in and out. What only `total_tokens` knows is output, the dearer kind: hidden reasoning, mostly."""
    known = [key for key in (*in_keys, *out_keys, "total_tokens") if usage.get(key) is not None]
    if not known:
        raise InvalidRequest("usage", "has no totals", " or ".join((*in_keys, *out_keys)))
    counts = {key: _checked(usage[key], key) for key in known}
    tokens_in = max([counts.get(key, 0) for key in in_keys])
    tokens_out = max([counts.get(key, 0) for key in out_keys])
    return tokens_in, max(tokens_out, counts.get("total_tokens", 0) - tokens_in)


def _any_tier(details: Mapping[str, Any], name: str) -> int:
    """The count under `name` and under `<tier>_name`; a sum, as chunks of one answer may differ."""
    if not details:
        return 0
    return sum(_count(details, key) for key in details if key == name or key.endswith(f"_{name}"))


def _tier_of(keys: tuple[str, ...]) -> str:
    """The service tier that the keys name; of several the dear one."""
    if not keys:
        return ""
    for tier in (*PREMIUM_TIERS, *DISCOUNT_TIERS):
        if any(key == tier or key.startswith(f"{tier}_") for key in keys):
            return tier
    return ""

"""What a model call asks for, and what it has used, read from LangChain's objects."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from langchain_core.messages import BaseMessage
from langchain_core.outputs import ChatGeneration, LLMResult

from clearance.errors import InvalidRequest, PriceUnknown
from clearance.model.amount import Amount, Unit
from clearance.pricing import DEFAULT_MAX_OUTPUT_TOKENS, PriceBook, Prices, Usage

OUTPUT_CAPS = ("max_completion_tokens", "max_tokens", "max_output_tokens", "num_predict", "max_tokens_to_sample")
"""The names under which providers take the most tokens to generate."""

REFERRED_TOKENS = 50_000
"""Tokens assumed for an image, and for what is only referred to: the dearest image tiling makes 48,169 of one image."""

_MESSAGE_BYTES = 32
"""What a provider's template may add around one message."""
_PROMPT_SETTINGS = ("tools", "functions", "response_format", "text", "tool_choice", "stop", "instructions")
_EARLIER_TURNS = ("previous_response_id", "conversation", "prompt")
_ORDINARY_TIERS = (None, "", "auto", "default", "standard", "standard_only")
_MEDIA = ("image", "image_url", "input_image", "file", "input_file", "document", "video")


@dataclass(frozen=True, slots=True)
class Asked:
    """One model call before it is made.

    `prompt_bytes` is UTF-8 bytes, with REFERRED_TOKENS for each thing that is only referred to; `max_output_tokens` is
    for each of `n` answers, None where the request sets none.
    """

    model: str
    prompt_bytes: int
    max_output_tokens: int | None = None
    n: int = 1
    audio: bool = False
    service_tier: str = ""

    def estimate(self, prices: Prices) -> Amount:
        """The most that it can cost. Raises PriceUnknown, InvalidRequest."""
        if isinstance(prices, PriceBook):
            return prices.estimate(
                self.model,
                self.prompt_bytes,
                self.max_output_tokens,
                n=self.n,
                audio=self.audio,
                service_tier=self.service_tier,
            )
        return prices.estimate(self.model, self.prompt_bytes, self.max_output_tokens, n=self.n)


def asked(
    prompt: Iterable[BaseMessage | str],
    params: Mapping[str, Any],
    ls_model: str | None = None,
    fallback_name: str = "",
) -> Asked:
    """Read a call from its prompt and its invocation parameters.

    Parameters can hold several names of the output cap, and which one reaches the provider depends on the model's
    class and API: the highest counts, so that the estimate is one.
    """
    extra = params.get("extra_body")
    settings = {**params, **extra} if isinstance(extra, Mapping) else dict(params)
    size, audio = 0, "audio" in (settings.get("modalities") or ())
    for message in prompt:
        added, sounds = (_size(message), False) if isinstance(message, str) else _message(message)
        size, audio = size + _MESSAGE_BYTES + added, audio or sounds
    size += sum(_size(settings[name]) for name in _PROMPT_SETTINGS if settings.get(name))
    if any(settings.get(name) for name in _EARLIER_TURNS):
        size += DEFAULT_MAX_OUTPUT_TOKENS
    tier = settings.get("service_tier")
    return Asked(
        model=_first_name(params.get("model"), ls_model, params.get("model_name"), fallback_name),
        prompt_bytes=size,
        max_output_tokens=_highest_cap(params, extra),
        n=_whole(settings.get("n")) or 1,
        audio=audio,
        service_tier="" if tier in _ORDINARY_TIERS else str(tier),
    )


def actual(result: LLMResult, model: str, prices: Prices, *, chat: bool) -> Amount | None:
    """What a finished call has cost, or None where the answer does not say; then the estimate stands.

    The price is that of the model that served, else of the one asked for. Answers from LangChain's own cache are free.
    """
    answer = result.generations[0][0] if result.generations and result.generations[0] else None
    message = answer.message if isinstance(answer, ChatGeneration) else None
    facts = _usage(result, message, chat)
    if facts is None:
        return None
    if facts.get("total_cost") == 0 or (not facts and not chat):
        return Amount(unit=Unit.USD_MICROCENTS, amount=0)
    try:
        usage = Usage.from_langchain(facts) if message is not None else Usage.from_openai(facts)
    except InvalidRequest:
        return None
    named = (message.response_metadata if message is not None else result.llm_output or {}).get("model_name")
    for name in (named, model):
        if isinstance(name, str) and name:
            try:
                return prices.price(name, usage)
            except (PriceUnknown, InvalidRequest):
                continue
    return None


def _usage(result: LLMResult, message: BaseMessage | None, chat: bool) -> Mapping[str, Any] | None:
    """Of several answers each repeats the usage of all: the first is taken, and never a sum.

    Of several completion prompts the first has the usage of all and the others an empty one, which costs nothing.
    """
    if chat:
        found = getattr(message, "usage_metadata", None)
        return found or None
    found = (result.llm_output or {}).get("token_usage")
    return found if isinstance(found, Mapping) else None


def _message(message: BaseMessage) -> tuple[int, bool]:
    """Its bytes, and whether it has sound."""
    size, audio = 0, False
    if isinstance(message.content, str):
        size += _size(message.content)
    else:
        for block in message.content:
            added, sounds = _block(block)
            size, audio = size + added, audio or sounds
    calls = getattr(message, "tool_calls", None)
    if calls:
        size += _size(calls)
    extra = message.additional_kwargs
    return size + (_size(extra) if extra else 0), audio


def _block(block: str | Mapping[str, Any]) -> tuple[int, bool]:
    if isinstance(block, str):
        return _size(block), False
    kind = str(block.get("type", ""))
    if kind in _MEDIA:
        return _media(block, kind), False
    return _size(block), "audio" in kind


def _media(block: Mapping[str, Any], kind: str) -> int:
    """An image has so many tokens at the most, however many bytes; a document has at most one for each byte."""
    size = _size(block)
    return REFERRED_TOKENS if "image" in kind else max(REFERRED_TOKENS, size)


def _size(value: Any) -> int:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=_schema)
    return len(text.encode("utf-8", "surrogatepass"))


def _schema(value: Any) -> Any:
    """A pydantic class among the settings goes over the wire as its JSON schema."""
    schema = getattr(value, "model_json_schema", None)
    return schema() if callable(schema) else str(value)


def _highest_cap(params: Mapping[str, Any], extra: Any) -> int | None:
    sources = [params, extra] if isinstance(extra, Mapping) else [params]
    found = [cap for source in sources for name in OUTPUT_CAPS if (cap := _whole(source.get(name))) is not None]
    return max(found, default=None)


def _whole(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


def _first_name(*names: Any) -> str:
    return next((name for name in names if isinstance(name, str) and name.strip()), "unnamed")

"""What a model call asks for, and what it has used, read from LangChain's objects."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from langchain_core.messages import BaseMessage
from langchain_core.messages.ai import UsageMetadata, add_usage
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, LLMResult

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
_FINISHES = ("finish_reason", "stop_reason", "status", "done_reason")
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


_REPLACING = ("model", "models", "messages", "input", "tools", "functions")
"""What goes over the wire last and in place of what was priced, estimated and held to the caps."""


def asked(
    prompt: Iterable[BaseMessage | str],
    params: Mapping[str, Any],
    ls_model: str | None = None,
    fallback_name: str = "",
) -> Asked:
    """Read a call from its prompt and its invocation parameters.

    Parameters can hold several names of the output cap, and which one reaches the provider depends on the model's
    class and API: the highest counts, so that the estimate is one. Raises InvalidRequest for an `extra_body` that makes
    it another request than this one.
    """
    extra = params.get("extra_body")
    if isinstance(extra, Mapping):
        _refuse_replacing(extra)
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


def _refuse_replacing(extra: Mapping[str, Any]) -> None:
    found = [name for name in _REPLACING if name in extra]
    if found:
        raise InvalidRequest(
            "extra_body",
            f"{', '.join(found)} in it would replace what was asked for",
            "the same as an argument of its own",
        )


@dataclass(frozen=True, slots=True)
class Reported:
    """What an answer says that it used: LangChain's or OpenAI's counts, and the model that served.

    `facts` is None where it does not say, and empty where another answer of the same request has said it for all.
    """

    facts: Mapping[str, Any] | None
    served: str | None = None
    shape: Literal["langchain", "openai"] = "langchain"

    @property
    def output_tokens(self) -> int:
        count = (self.facts or {}).get("output_tokens")
        return count if isinstance(count, int) else 0

    def cost(self, requested: str, prices: Prices) -> Amount | None:
        """None where it is not known; then the estimate stands. Answers from LangChain's own cache are free.

        The price is that of the model that served, else of the one asked for.
        """
        if self.facts is None:
            return None
        if not self.facts or self.facts.get("total_cost") == 0:
            return Amount(unit=Unit.USD_MICROCENTS, amount=0)
        read = Usage.from_langchain if self.shape == "langchain" else Usage.from_openai
        try:
            usage = read(self.facts)
        except InvalidRequest:
            return None
        for name in (self.served, requested):
            if name:
                try:
                    return prices.price(name, usage)
                except (PriceUnknown, InvalidRequest):
                    continue
        return None


def reported(result: LLMResult, *, chat: bool = True) -> Reported:
    """Of several answers each repeats the usage of all: the first is read, and never a sum.

    Of several completion prompts the first has the usage of all, and the others an empty one.
    """
    if not chat:
        said = result.llm_output or {}
        facts = said.get("token_usage")
        return Reported(facts if isinstance(facts, Mapping) else None, said.get("model_name"), "openai")
    answer = result.generations[0][0] if result.generations and result.generations[0] else None
    return answered(answer, result.llm_output)


def answered(answer: Any, llm_output: Mapping[str, Any] | None) -> Reported:
    """What one answer of a chat model says."""
    if not isinstance(answer, ChatGeneration):
        return Reported(None)
    found = getattr(answer.message, "usage_metadata", None)
    # LangChain gathers these on the message only after the provider's hook has returned.
    places = (answer.message.response_metadata, answer.generation_info or {}, llm_output or {})
    served = next((name for place in places if (name := place.get("model_name"))), None)
    # A copy: LangChain's cache changes the object in place when it replays it.
    return Reported(dict(found) if found else None, served)


class Streamed:
    """Gathers the usage of a stream from its chunks: providers split it, so the parts are summed."""

    def __init__(self) -> None:
        self._usage: UsageMetadata | None = None
        self._served: str | None = None
        self._finished = False

    def add(self, chunk: ChatGenerationChunk) -> bool:
        """True when the usage is complete: told, and the answer had its finish."""
        message = chunk.message
        facts = {**message.response_metadata, **(chunk.generation_info or {})}
        if facts:
            self._served = facts.get("model_name") or self._served
            self._finished = self._finished or any(facts.get(name) for name in _FINISHES)
        usage = getattr(message, "usage_metadata", None)
        if usage:
            self._usage = add_usage(self._usage, usage)
        return self._finished and bool(usage)

    def reported(self) -> Reported:
        """A stream that was cut may have told its input only: that is not what it cost."""
        usage = self._usage
        if usage is None or not (self._finished or usage.get("output_tokens")):
            return Reported(None)
        return Reported(dict(usage), self._served)


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

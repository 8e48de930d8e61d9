"""Published output limits of common models, for worst-case estimates. The price list has none.

Gathered on 2026-11-20 from copies of the pages named at each group. A name stands for its dated versions, not for other
variants. A limit too high only makes an estimate larger, one too low makes it wrong: what no source confirmed is left
out, and the context window bounds it.
"""

from __future__ import annotations

from types import MappingProxyType

from clearance.pricing.names import known_as

_OPENAI = {
    # developers.openai.com/api/docs/models/<name>, "max output tokens"
    "gpt-5.6-luna": 128_000,
    "gpt-5-nano": 128_000,
    "gpt-4": 8_192,
    # vercel.com/ai-gateway/models/<name>, "Maximum output tokens"
    "gpt-5.5-pro": 128_000,
    "gpt-5.4-mini": 128_000,
    "gpt-4o-mini": 16_384,
    # docs.rs/crate/llmr, models/openai.toml, read off the vendor's pages
    "gpt-5.6-sol": 128_000,
    # docs.oxen.ai/inference-api/reference/models/gpt-5-5-2026-04-23
    "gpt-5.5": 128_000,
    # developer.box.com, OpenAI GPT-5.4 model card
    "gpt-5.4": 128_000,
    # wavespeed.ai/llm/openai/gpt-5.4-nano
    "gpt-5.4-nano": 128_000,
    # github.com/withceleste/celeste-python/pull/67
    "gpt-5.2": 128_000,
    "gpt-5.2-pro": 128_000,
    # docs.uipath.com/autopilot, "Supported models and limits": the GPT-5 family, and GPT-4o
    "gpt-5.1": 128_000,
    "gpt-5": 128_000,
    "gpt-5-mini": 128_000,
    "gpt-4o": 16_384,
    # api.koog.ai, GPT5Pro, quoting the vendor's page
    "gpt-5-pro": 272_000,
    # contextwindows.dev/models/gpt-4-1 and LiteLLM's price list
    "gpt-4.1": 32_768,
    "gpt-4.1-mini": 32_768,
    # github.com/RooCodeInc/Roo-Code/pull/2691, quoting the vendor's pages
    "o3": 100_000,
    "o4-mini": 100_000,
}

_ANTHROPIC = {
    # platform.claude.com/docs/en/models, "Max output", at different dates
    "claude-fable-5-2": 128_000,
    "claude-fable-5-1": 128_000,
    "claude-fable-5": 128_000,
    "claude-opus-5-5": 128_000,
    "claude-opus-5": 128_000,
    "claude-sonnet-5-5": 128_000,
    "claude-sonnet-5": 128_000,
    "claude-haiku-5-5": 128_000,
    # platform.claude.com/docs/models/<name>/overview
    "claude-opus-4-5": 64_000,
    "claude-sonnet-4-5": 64_000,
    "claude-haiku-4-5": 64_000,
    # github.com/Effect-TS/effect, release ai-anthropic 4.0.0-beta.106
    "claude-opus-4-8": 128_000,
    "claude-opus-4-7": 128_000,
    "claude-opus-4-6": 128_000,
    "claude-sonnet-4-6": 128_000,
}

_GOOGLE = {
    # docs.oracle.com, "Google Gemini 2.5 Flash", and docs.uipath.com as above
    "gemini-2.5-flash": 65_536,
    "gemini-2.5-pro": 65_536,
    # github.com/simstudioai/sim/pull/4660
    "gemini-3.5-flash": 65_536,
}

MAX_OUTPUT_TOKENS = MappingProxyType(_OPENAI | _ANTHROPIC | _GOOGLE)


def published_limit(*names: str) -> int | None:
    """The limit in tokens of the first of these names that is in the table."""
    for name in names:
        if base := known_as(name, MAX_OUTPUT_TOKENS):
            return MAX_OUTPUT_TOKENS[base]
    return None

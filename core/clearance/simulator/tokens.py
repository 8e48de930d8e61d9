"""How the simulator counts tokens: simple, the same on every run, and never more than the bytes that were sent."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from typing import Any

# A word with the space before it, or 20 letters of a longer word: about what a real tokenizer gives.
_PIECE = re.compile(r"\s*\S{1,20}|\s+")
_BYTES_PER_INPUT_TOKEN = 4


def split(text: str) -> tuple[str, ...]:
    """The text as output tokens; joined again they are the text."""
    return tuple(_PIECE.findall(text))


def count_input(texts: Iterable[str], tools: Sequence[Any] = ()) -> int:
    """Input tokens of a prompt: its UTF-8 bytes plus those of the tools as compact JSON, by four, rounded up."""
    size = sum(len(text.encode("utf-8", "surrogatepass")) for text in texts)
    if tools:
        compact = json.dumps(tools, separators=(",", ":"), ensure_ascii=False)
        size += len(compact.encode("utf-8", "surrogatepass"))
    return max(1, -(-size // _BYTES_PER_INPUT_TOKEN))

"""`/v1/embeddings`: vectors that are the same for the same text on every run, and mean nothing."""

from __future__ import annotations

import base64
import hashlib
import json
import math
import random
import struct
from typing import Any

from clearance.simulator import reading, tokens
from clearance.simulator.answer import Answer, Endpoint
from clearance.simulator.errors import bad_request
from clearance.simulator.script import Message, ScriptedRequest

_DIMENSIONS = 1536
_MAX_DIMENSIONS = 8192


def read(body: dict[str, Any], model: str) -> ScriptedRequest:
    reading.whole_number(body, "dimensions", most=_MAX_DIMENSIONS)
    inputs = _inputs(body.get("input"))
    texts = [text for text in inputs if isinstance(text, str)]
    counted = sum(len(text) for text in inputs if isinstance(text, list))
    return ScriptedRequest(
        endpoint="embeddings",
        model=model,
        messages=tuple(Message("user", text) for text in texts),
        input_tokens=(tokens.count_input(texts) if texts else 0) + counted,
        body=body,
    )


def _inputs(given: Any) -> list[str | list[int]]:
    """What is to be embedded, each a text or a list of token numbers."""
    if isinstance(given, str) and given:
        return [given]
    if isinstance(given, list) and given:
        if all(type(token) is int for token in given):
            return [given]
        if all(isinstance(one, str | list) and one for one in given):
            return given
    raise bad_request("input", "Invalid 'input': expected a text, an array of texts or an array of tokens.")


def whole(answer: Answer) -> dict[str, Any]:
    body = answer.request.body
    size = body.get("dimensions") or _DIMENSIONS
    packed = body.get("encoding_format") == "base64"
    vectors = [_vector(text, size) for text in _inputs(body["input"])]
    data = [
        {"object": "embedding", "index": index, "embedding": _pack(vector) if packed else vector}
        for index, vector in enumerate(vectors)
    ]
    used = answer.usage.input_tokens
    payload: dict[str, Any] = {"object": "list", "data": data, "model": answer.model}
    if answer.tells_usage:
        payload["usage"] = {"prompt_tokens": used, "total_tokens": used}
    return payload


def _vector(text: str | list[int], size: int) -> list[float]:
    """A vector of length 1."""
    seed = hashlib.sha256(json.dumps(text).encode()).digest()
    numbers = random.Random(seed)
    raw = [numbers.uniform(-1, 1) for _ in range(size)]
    length = math.sqrt(sum(x * x for x in raw))
    return [x / length for x in raw]


def _pack(vector: list[float]) -> str:
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()


ENDPOINT = Endpoint("embeddings", read, whole, None, scripted=False)

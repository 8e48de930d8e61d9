"""What the simulator counted: one record a request, and counters that stay exact when old records are dropped."""

from __future__ import annotations

import threading
from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypedDict

Outcome = Literal["answered", "error", "cut", "abandoned"]


@dataclass(frozen=True, slots=True)
class SimulatedUsage:
    """Tokens of one request, as OpenAI counts: `input_tokens` includes the cached, `output_tokens` the reasoning."""

    input_tokens: int = 0
    cached_input_tokens: int = 0
    output_tokens: int = 0
    reasoning_tokens: int = 0

    @property
    def total_tokens(self) -> int:
        return self.input_tokens + self.output_tokens


@dataclass(frozen=True, slots=True)
class RequestRecord:
    """One request that came to its end.

    Attributes:
        number: 1 for the first request since the start or the last reset.
        at: when it came in, seconds since 1970.
        duration_ms: from then until it was settled.
        endpoint: `chat.completions`, `responses` or `embeddings`.
        model: as asked for, without fault suffixes; empty where the request named none.
        stream: whether a stream was asked for.
        status: the HTTP status sent; 0 where the connection was cut before any reply.
        outcome: `answered`; `error` (a status from 400 up); `cut` (the simulator dropped the connection);
            `abandoned` (the client left, or the simulator stopped, before the end).
        usage: tokens that a provider would charge. Zero for errors. Of a stream that ended early, what had been
            generated so far; an answer without streaming is charged in full although nobody received it.
        cost: microcents (1 USD is 100,000,000), or None without a price.
        body: the request's JSON.
        body_bytes, body_sha256: size and hash of the request's body as it came.
    """

    number: int
    at: float
    duration_ms: float
    endpoint: str
    model: str
    stream: bool
    status: int
    outcome: Outcome
    usage: SimulatedUsage
    cost: int | None
    body: Mapping[str, Any]
    body_bytes: int
    body_sha256: str


class Tokens(TypedDict):
    input: int
    cached_input: int
    output: int
    reasoning: int


class ModelStats(TypedDict):
    """Counts of finished requests; `cost` in microcents; `unpriced` requests used tokens that have no price."""

    requests: int
    answered: int
    error: int
    cut: int
    abandoned: int
    tokens: Tokens
    cost: int
    unpriced: int


class Stats(ModelStats):
    """All models together, and each: `statuses` counts by HTTP status, e.g. `{"200": 5, "429": 1}`."""

    in_flight: int
    statuses: dict[str, int]
    models: dict[str, ModelStats]


def _nothing() -> ModelStats:
    tokens: Tokens = {"input": 0, "cached_input": 0, "output": 0, "reasoning": 0}
    return {
        "requests": 0,
        "answered": 0,
        "error": 0,
        "cut": 0,
        "abandoned": 0,
        "tokens": tokens,
        "cost": 0,
        "unpriced": 0,
    }


def _add(stats: ModelStats, record: RequestRecord) -> None:
    usage, tokens = record.usage, stats["tokens"]
    stats["requests"] += 1
    stats[record.outcome] += 1
    tokens["input"] += usage.input_tokens
    tokens["cached_input"] += usage.cached_input_tokens
    tokens["output"] += usage.output_tokens
    tokens["reasoning"] += usage.reasoning_tokens
    stats["cost"] += record.cost or 0
    if record.cost is None and usage.total_tokens:
        stats["unpriced"] += 1


def _copy(stats: ModelStats) -> ModelStats:
    copy = stats.copy()
    copy["tokens"] = stats["tokens"].copy()
    return copy


class Records:
    """The counted requests. Any thread may call it."""

    def __init__(self, limit: int) -> None:
        self._changed = threading.Condition()
        self._limit = limit
        self._in_flight = 0
        self._empty()

    def _empty(self) -> None:
        self._number = 0
        self._history: deque[RequestRecord] = deque(maxlen=self._limit)
        self._all = _nothing()
        self._models: dict[str, ModelStats] = {}
        self._statuses: Counter[str] = Counter()

    def begin(self) -> int:
        """Counts a request in and gives its number."""
        with self._changed:
            self._in_flight += 1
            self._number += 1
            return self._number

    def end(self, record: RequestRecord) -> None:
        with self._changed:
            self._in_flight -= 1
            self._history.append(record)
            self._statuses[str(record.status)] += 1
            _add(self._all, record)
            _add(self._models.setdefault(record.model, _nothing()), record)
            self._changed.notify_all()

    def history(self) -> list[RequestRecord]:
        with self._changed:
            return list(self._history)

    def stats(self) -> Stats:
        with self._changed:
            return {
                **_copy(self._all),
                "in_flight": self._in_flight,
                "statuses": dict(self._statuses),
                "models": {model: _copy(stats) for model, stats in self._models.items()},
            }

    def wait_idle(self, timeout: float) -> bool:
        with self._changed:
            return self._changed.wait_for(lambda: self._in_flight == 0, timeout)

    def reset(self) -> None:
        """Forgets all finished requests; those in flight are counted when they end."""
        with self._changed:
            self._empty()

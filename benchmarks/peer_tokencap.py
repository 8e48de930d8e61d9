"""tokencap: token counters in SQLite around the call of a model."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Any

from benchmarks.samples import Measure, timed
from benchmarks.workload import SUBJECT

PLENTY = 10**15
ESTIMATED, USED = 800, 1_000


def measures(place: Path, stack: ExitStack) -> dict[str, Measure]:
    """Four dimensions, as our subject has four scopes; no telemetry, and no counting of tokens."""
    import tokencap
    from tokencap.backends.sqlite import SQLiteBackend
    from tokencap.core.types import TokenUsage
    from tokencap.interceptor.base import call

    class Provider:
        """In place of the one for OpenAI, which counts tokens (and would download its tables first)."""

        def estimate_tokens(self, request_kwargs: dict[str, Any]) -> int:
            return ESTIMATED

        def extract_usage(self, response: object) -> TokenUsage:
            return TokenUsage(input_tokens=USED, output_tokens=0)

        def get_model(self, request_kwargs: dict[str, Any]) -> str:
            return "gpt-4o"

    guard = tokencap.Guard(
        tokencap.Policy(dimensions={scope: tokencap.DimensionPolicy(limit=PLENTY) for scope in SUBJECT.scopes}),
        backend=SQLiteBackend(str(place / "tokencap.db")),
        otel_enabled=False,
        quiet=True,
    )
    stack.callback(guard.teardown)
    provider = Provider()
    return {"tokencap": lambda limit: timed(lambda _: call(_model, {"model": "gpt-4o"}, guard, provider), limit)}


def _model(**_: object) -> None:
    """Answers at once."""

"""Spans of OpenTelemetry around what an authority decides and settles, where its API package is installed.

Only the API (extra `otel`): what becomes of the spans is the program's to say with an SDK of its choice. Without the
package an authority is left as it is, so nothing is paid for. Spans carry ids, amounts and reasons; never subjects'
free dimensions, metadata, prompts or keys.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from time import monotonic
from typing import Any

from clearance.errors import Denied

SCOPE = "clearance"
LOOK_AGAIN_SECONDS = 0.1
VERBS = ("reserve", "commit", "release", "event", "start_run", "end_run")
_ATTRIBUTES = {
    "reservation_id": "clearance.reservation.id",
    "decision": "clearance.decision",
    "unit": "clearance.unit",
    "estimate": "clearance.estimate",
    "actual": "clearance.actual",
    "charged": "clearance.charged",
}


def traced(authority: Any) -> None:
    """Have this authority's verbs, sync and async, make a span `clearance.<verb>` each."""
    try:
        from opentelemetry import trace
    except ImportError:
        return

    is_wanted = _Wanted(lambda: not isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider))
    tracer = trace.get_tracer(SCOPE)
    for verb in VERBS:
        for name in (verb, f"a{verb}"):
            call = getattr(authority, name, None)
            if call is not None:
                setattr(authority, name, _around(tracer, is_wanted, f"clearance.{verb}", call))


class _Wanted:
    """Has the program said who takes spans? The question costs more than a decision's arithmetic, so it is asked anew
    every LOOK_AGAIN_SECONDS only."""

    def __init__(self, ask: Callable[[], bool]) -> None:
        self._ask = ask
        self._answer = False
        self._ask_at = 0.0

    def __call__(self) -> bool:
        if not self._answer and monotonic() >= self._ask_at:
            self._ask_at = monotonic() + LOOK_AGAIN_SECONDS
            self._answer = self._ask()
        return self._answer


def _around(tracer: Any, is_wanted: Callable[[], bool], span_name: str, call: Callable[..., Any]) -> Callable[..., Any]:
    """`call` with a span around it, once the program has said who takes spans."""

    def told(span: Any, answer: Any) -> Any:
        if span.is_recording():
            _describe(span, answer)
        return answer

    def refused(span: Any, error: BaseException) -> None:
        if isinstance(error, Denied):
            # A no is an answer, not a failure of the program.
            span.set_attribute("clearance.decision", "DENY")
            span.set_attribute("clearance.reason", error.code)
            span.set_attribute("clearance.scope", error.scope or "")
        else:
            span.record_exception(error)

    options = {"record_exception": False, "set_status_on_exception": False}
    if inspect.iscoroutinefunction(call):

        @functools.wraps(call)
        async def await_it(*args: Any, **kwargs: Any) -> Any:
            if not is_wanted():
                return await call(*args, **kwargs)
            with tracer.start_as_current_span(span_name, **options) as span:
                try:
                    return told(span, await call(*args, **kwargs))
                except BaseException as error:
                    refused(span, error)
                    raise

        return await_it

    @functools.wraps(call)
    def do_it(*args: Any, **kwargs: Any) -> Any:
        if not is_wanted():
            return call(*args, **kwargs)
        with tracer.start_as_current_span(span_name, **options) as span:
            try:
                return told(span, call(*args, **kwargs))
            except BaseException as error:
                refused(span, error)
                raise

    return do_it


def _describe(span: Any, answer: Any) -> None:
    for field, name in _ATTRIBUTES.items():
        value = getattr(answer, field, None)
        if value is not None:
            span.set_attribute(name, value if isinstance(value, int | str) else str(value))

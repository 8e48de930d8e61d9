"""Spans are made where a program wants them, and an authority is left alone where nobody does."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Iterator

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

import clearance
from clearance import BudgetSpec, Subject, action, connect, usd
from clearance.connecting import LocalAuthority

CALL = action("tool.call:search")
SUBJECT = Subject(tenant="acme", dimensions={"secret": "sesame"})


@pytest.fixture
def spans(monkeypatch: pytest.MonkeyPatch) -> Iterator[InMemorySpanExporter]:
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(trace, "get_tracer_provider", lambda: provider)
    monkeypatch.setattr(trace, "get_tracer", lambda name: provider.get_tracer(name))
    yield exporter
    provider.shutdown()


@pytest.fixture
def authority(spans: InMemorySpanExporter) -> Iterator[LocalAuthority]:
    opened = connect("memory://")
    assert isinstance(opened, LocalAuthority)
    opened.set_budget(BudgetSpec(scope="tenant:acme", allocated=usd(1)))
    yield opened
    opened.close()


def test_a_reserve_and_its_commit_are_spans(authority: LocalAuthority, spans: InMemorySpanExporter) -> None:
    held = authority.reserve(SUBJECT, CALL, usd("0.5"), metadata={"prompt": "sesame"})
    authority.commit(held.reservation_id or "", usd("0.25"))
    first, second = spans.get_finished_spans()
    assert (first.name, second.name) == ("clearance.reserve", "clearance.commit")
    assert first.attributes is not None
    assert second.attributes is not None
    assert first.attributes["clearance.decision"] == "ALLOW"
    assert first.attributes["clearance.reservation.id"] == held.reservation_id
    assert second.attributes["clearance.charged"] == usd("0.25").amount
    assert "sesame" not in first.to_json() + second.to_json()


def test_spans_lie_in_the_callers_trace_also_in_async_code(
    authority: LocalAuthority, spans: InMemorySpanExporter
) -> None:
    async def act() -> None:
        with trace.get_tracer("program").start_as_current_span("agent step"):
            held = await authority.areserve(SUBJECT, CALL, usd("0.5"))
            await authority.arelease(held.reservation_id or "")

    asyncio.run(act())
    inner, released, outer = spans.get_finished_spans()
    assert [inner.name, released.name, outer.name] == ["clearance.reserve", "clearance.release", "agent step"]
    assert inner.parent is not None
    assert outer.context is not None
    assert inner.parent.span_id == outer.context.span_id


def test_a_denial_is_an_answer_and_a_failure_is_an_exception(
    authority: LocalAuthority, spans: InMemorySpanExporter
) -> None:
    with pytest.raises(clearance.BudgetExceeded):
        authority.reserve(SUBJECT, CALL, usd(5))
    with pytest.raises(clearance.NotFound):
        authority.commit("rsv_nobody", usd(1))
    denied, failed = spans.get_finished_spans()
    assert denied.attributes is not None
    assert denied.attributes["clearance.decision"] == "DENY"
    assert denied.attributes["clearance.reason"] == "BUDGET_EXCEEDED"
    assert denied.events == ()
    assert [event.name for event in failed.events] == ["exception"]


def test_guards_make_the_same_spans(authority: LocalAuthority, spans: InMemorySpanExporter) -> None:
    with authority.guard(CALL, usd("0.1"), subject=SUBJECT):
        pass
    assert [span.name for span in spans.get_finished_spans()] == ["clearance.reserve", "clearance.commit"]


class Watch:
    """What `telemetry` takes for the monotonic clock, in seconds, and how often it has asked who takes spans."""

    now = 1_000.0
    questions = 0


@pytest.fixture
def watch(monkeypatch: pytest.MonkeyPatch) -> Watch:
    """A program that has not said yet who takes spans."""
    watch, ask = Watch(), trace.get_tracer_provider

    def asked() -> trace.TracerProvider:
        watch.questions += 1
        return ask()

    monkeypatch.delenv("OTEL_PYTHON_TRACER_PROVIDER", raising=False)
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", None)
    monkeypatch.setattr(trace, "get_tracer_provider", asked)
    monkeypatch.setattr("clearance.telemetry.monotonic", lambda: watch.now)
    return watch


@pytest.fixture
def early(watch: Watch) -> Iterator[LocalAuthority]:
    """Opened, and used, before anybody takes spans."""
    opened = connect("memory://")
    assert isinstance(opened, LocalAuthority)
    opened.set_budget(BudgetSpec(scope="tenant:acme", allocated=usd(1)))
    opened.event(SUBJECT, CALL, usd("0.01"))
    watch.questions = 0
    yield opened
    opened.close()


def named(monkeypatch: pytest.MonkeyPatch) -> InMemorySpanExporter:
    """What `trace.set_tracer_provider` does, so that it can be undone."""
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", provider)
    return exporter


@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
def test_a_provider_that_is_named_later_is_noticed_within_a_tenth_of_a_second(
    is_async: bool, early: LocalAuthority, watch: Watch, monkeypatch: pytest.MonkeyPatch
) -> None:
    def spend() -> None:
        if is_async:
            asyncio.run(early.aevent(SUBJECT, CALL, usd("0.01")))
        else:
            early.event(SUBJECT, CALL, usd("0.01"))

    exporter = named(monkeypatch)
    watch.now = 1_000.099
    spend()
    assert (watch.questions, exporter.get_finished_spans()) == (0, ())
    watch.now = 1_000.1
    spend()
    assert [span.name for span in exporter.get_finished_spans()] == ["clearance.event"]


def test_who_takes_spans_is_asked_ten_times_a_second_at_most_and_not_again_after_a_yes(
    early: LocalAuthority, watch: Watch, monkeypatch: pytest.MonkeyPatch
) -> None:
    def spend_for_a_second() -> None:
        for hundredth in range(1, 101):
            watch.now = began + hundredth / 100
            early.event(SUBJECT, CALL, usd("0.001"))

    began = watch.now
    spend_for_a_second()
    assert 9 <= watch.questions <= 10
    named(monkeypatch)
    began, watch.questions = watch.now + 1, 0
    spend_for_a_second()
    assert watch.questions == 1


def test_without_the_package_an_authority_is_as_it_was() -> None:
    script = (
        "import sys; sys.modules['opentelemetry'] = None\n"
        "import clearance\n"
        "authority = clearance.connect('memory://')\n"
        "assert 'reserve' not in vars(authority)\n"
        "authority.close()\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr

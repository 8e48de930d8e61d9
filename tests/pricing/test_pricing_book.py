"""The price book: names, policies for the unknown, estimates, threads, explanations."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from typing import Any

import pytest

from clearance.errors import InvalidRequest, PriceUnknown
from clearance.model.amount import Amount, Unit, tokens, usd
from clearance.pricing import DEFAULT_MAX_OUTPUT_TOKENS, PriceBook, Prices, Usage, genai
from clearance.pricing.names import bases, known_as

DAY = date(2026, 11, 20)
USAGE = Usage(input_tokens=1000, output_tokens=500)


def book(**kwargs: Any) -> PriceBook:
    return PriceBook(today=lambda: DAY, **kwargs)


@pytest.fixture
def no_list(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if genai-prices were not installed."""
    monkeypatch.setitem(sys.modules, "genai_prices.data_snapshot", None)


def test_a_book_is_prices() -> None:
    prices: Prices = book()
    assert prices.price("gpt-4o-mini", Usage()).amount == 0


def test_a_listed_model_by_hand() -> None:
    # 1,000 x 0.15 + 500 x 0.60 = 450 USD per million.
    assert book().price("gpt-4o-mini", USAGE) == usd("0.00045")


@pytest.mark.parametrize(
    ("asked", "listed"),
    [
        ("gpt-4o-mini", "gpt-4o-mini"),
        ("GPT-4o-Mini", "gpt-4o-mini"),
        ("gpt-4o-mini-2024-07-18", "gpt-4o-mini"),
        ("gpt-4o-mini-2026-01-01", "gpt-4o-mini"),
        ("gpt-4.1-mini-2026-01-01", "gpt-4.1-mini"),
        ("gpt-4.1-mini", "gpt-4.1-mini"),
        ("gpt-4.1", "gpt-4.1"),
        ("gpt-4-0613", "gpt-4"),
        ("gpt-4o-2024-05-13", "gpt-4o-2024-05-13"),  # dearer than gpt-4o, and listed apart
        ("openai/gpt-4o", "gpt-4o"),
        ("claude-opus-4-5-20251101", "claude-opus-4-5"),
        ("claude-sonnet-4-5@20250929", "claude-sonnet-4-5"),
        ("gemini-2.5-flash-2026-01-01", "gemini-2.5-flash"),
    ],
)
def test_served_names_resolve_to_their_model(asked: str, listed: str) -> None:
    assert book().resolve(asked).model == listed


@pytest.mark.parametrize(
    "name", ["gpt-4o-mini-foo", "gpt-4omni", "gpt-5-prodigy", "gpt-4-9", "my-gpt-4o", "claude-opus-99"]
)
def test_no_other_suffix_is_a_version(name: str) -> None:
    with pytest.raises(PriceUnknown):
        book().rates(name)


def test_known_as_takes_the_longest_name_on_a_boundary() -> None:
    known = {"gpt-4", "gpt-4-0613", "gpt-4.1", "gpt-4.1-mini"}
    assert known_as("gpt-4-0613-2024-01-01", known) == "gpt-4-0613"
    assert known_as("gpt-4-0314", known) == "gpt-4"
    assert known_as("gpt-4.1-mini-2025-04-14", known) == "gpt-4.1-mini"
    assert known_as("gpt-4.1-nano", known) is None
    assert known_as("gpt-40613", known) is None
    assert list(bases("m-2024-07-18-latest")) == ["m-2024-07-18-latest", "m-2024-07-18", "m"]


@pytest.mark.parametrize(
    ("provider", "listed_by"),
    [("openai", "openai"), ("google_genai", "google"), ("mistralai", "mistral"), ("xai", "x-ai"), ("azure", "azure")],
)
def test_providers_as_frameworks_call_them(provider: str, listed_by: str) -> None:
    model = {"google": "gemini-2.5-flash", "mistral": "mistral-large-latest", "x-ai": "grok-4"}.get(listed_by, "gpt-4o")
    assert book().resolve(model, provider).provider == listed_by


def test_unknown_is_denied_with_a_way_out() -> None:
    with pytest.raises(PriceUnknown) as error:
        book(overrides={"gpt-4o-tiny": {"input": 1, "output": 1}}).price("gpt-4o-mino", USAGE, "openai")
    assert error.value.details["model"] == "gpt-4o-mino"
    assert {"gpt-4o-mini", "gpt-4o-tiny"} <= {*error.value.details["nearest"]}
    assert "clearance.yaml" in str(error.value)
    assert 'prices: {"gpt-4o-mino": {input:' in str(error.value)
    json.dumps(error.value.details)


def test_an_unknown_provider_has_no_prices() -> None:
    with pytest.raises(PriceUnknown, match="provider 'my-gateway'"):
        book().rates("gpt-4o", "my-gateway")


def test_a_flat_price_for_each_call() -> None:
    flat = book(unknown=usd("0.05"))
    assert flat.price("gpt-99", USAGE) == usd("0.05")
    assert flat.price("gpt-99", Usage()) == usd("0.05")
    assert flat.estimate("gpt-99", 10_000, 500, n=4) == usd("0.05")
    assert flat.price("whisper-1", USAGE) == usd("0.05")  # listed, but by the hour
    assert flat.price("gpt-4o-mini", USAGE) == usd("0.00045")
    assert flat.explain("gpt-99")["source"] == "flat"


def test_most_expensive_is_above_every_chat_model_and_override() -> None:
    most = book(unknown="most_expensive", overrides={"gold": {"input": "1", "output": "1", "cached_input": "9999"}})
    rates = most.rates("gpt-99")
    for listed in genai.chat_models(DAY):
        for table in (listed, *(table for _, table in listed.service_tiers)):
            for at in (table, *(tier.rates for tier in table.tiers)):
                assert rates.input >= at.input
                assert rates.output >= at.output
                assert rates.reasoning >= at.reasoning
                assert rates.per_request >= at.per_request
    assert rates.cached_input == 999_900_000_000
    assert rates.for_service_tier("priority") == rates
    assert most.explain("gpt-99")["source"] == "most_expensive"
    with pytest.raises(PriceUnknown, match="audio_hours"):
        most.rates("whisper-1")


@pytest.mark.parametrize("bad", ["allow", "", None, 5, usd(0), tokens(5)])
def test_policies_are_few_and_never_free(bad: Any) -> None:
    with pytest.raises(InvalidRequest, match=r"^unknown: .*most_expensive"):
        PriceBook(unknown=bad)


def test_overrides_come_first() -> None:
    own = book(overrides={"gpt-4o-mini": {"input": "1", "output": "1"}})
    assert own.price("gpt-4o-mini-2024-07-18", USAGE) == usd("0.0015")
    assert own.resolve("gpt-4o-mini").source == "override"
    assert own.price("gpt-4o", USAGE) == book().price("gpt-4o", USAGE)
    free = book(overrides={"local": {"input": 0, "output": 0}})
    assert free.estimate("local", 1000).amount == 0


def test_an_override_holds_for_every_service_tier() -> None:
    own = book(overrides={"m": {"input": "1", "output": "1"}})
    assert own.price("m", Usage(input_tokens=1000, service_tier="priority")) == usd("0.001")


def test_priority_costs_more_than_standard() -> None:
    # gpt-4o-mini on priority since 2026-10-12: 0.25 in, 1.00 out. 1,000 x 0.25 + 500 x 1.00 = 750 USD per million.
    usage = Usage(input_tokens=1000, output_tokens=500, service_tier="priority")
    assert book().price("gpt-4o-mini", usage) == usd("0.00075")
    with pytest.raises(PriceUnknown, match="service tier 'priority'"):
        book().price("claude-opus-4-5", usage)


def test_estimate_by_hand() -> None:
    # 1,200 bytes x 0.15 + 2 x 500 x 0.60 = 780 USD per million.
    assert book().estimate("gpt-4o-mini", 1200, 500, n=2) == usd("0.00078")


@pytest.mark.parametrize(
    ("price", "requested", "output_tokens"),
    [
        ({}, 10, 10),
        ({}, 10**9, 10**9),
        ({}, None, DEFAULT_MAX_OUTPUT_TOKENS),
        ({"max_output_tokens": 50}, None, 50),
        ({"max_output_tokens": 50}, 10, 10),
        ({"max_output_tokens": 50}, 90, 50),
        ({"context_window": 70}, None, 70),
        ({"context_window": 70}, 90, 70),
        ({"context_window": 70, "max_output_tokens": 90}, None, 70),
        ({"max_output_tokens": 50}, 0, 0),
    ],
)
def test_output_is_bounded_by_the_lowest_limit(
    price: dict[str, int], requested: int | None, output_tokens: int
) -> None:
    own = book(overrides={"m": {"input": 0, "output": "1", **price}})
    assert own.estimate("m", 5, requested).amount == output_tokens * 100


@pytest.mark.parametrize(
    ("model", "limit"),
    [("gpt-4o-mini-2024-07-18", 16_384), ("gpt-4.1", 32_768), ("gpt-5-pro", 272_000), ("claude-opus-4-5", 64_000)],
)
def test_published_output_limits(model: str, limit: int) -> None:
    found = book().resolve(model)
    assert (found.rates.max_output_tokens, found.limit_source) == (limit, "published limits")


def test_without_an_output_limit_the_window_bounds() -> None:
    found = book().resolve("gpt-4-32k")
    assert (found.rates.max_output_tokens, found.limit_source) == (None, "context window")
    # 32,000 tokens x 120 USD per million.
    assert book().estimate("gpt-4-32k", 0) == usd("3.84")


@pytest.mark.parametrize(
    "kwargs", [{"prompt_bytes": -1}, {"prompt_bytes": 1.0}, {"prompt_bytes": True}, {"n": 0}, {"max_output_tokens": -1}]
)
def test_estimates_refuse_nonsense(kwargs: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest):
        book().estimate("gpt-4o", **{"prompt_bytes": 1, **kwargs})


@pytest.mark.parametrize("bad", ["", "  ", None, 5, "x" * 300])
def test_names_are_text(bad: Any) -> None:
    with pytest.raises(InvalidRequest, match=r"^model: "):
        book().rates(bad)
    with pytest.raises(InvalidRequest, match=r"^provider: "):
        book().rates("gpt-4o", 0 if bad is None else bad)  # type: ignore[arg-type]


@pytest.mark.usefixtures("no_list")
def test_overrides_work_without_the_price_list() -> None:
    own = book(overrides={"m": {"input": "1", "output": "1"}})
    assert own.price("m-2026-01-01", USAGE) == usd("0.0015")
    with pytest.raises(PriceUnknown, match=r"pip install 'clearance\[prices\]'"):
        own.price("gpt-4o", USAGE)


@pytest.mark.usefixtures("no_list")
def test_policies_without_the_price_list(caplog: pytest.LogCaptureFixture) -> None:
    assert book(unknown=usd("0.05")).price("gpt-4o", USAGE) == usd("0.05")
    assert "pip install" in caplog.text
    with pytest.raises(PriceUnknown, match="pip install"):
        book(unknown="most_expensive").price("gpt-4o", USAGE)


def test_the_price_list_is_imported_at_the_first_price_and_starts_no_thread() -> None:
    script = (
        "import sys, threading\n"
        "from clearance.pricing import PriceBook, Usage\n"
        "book = PriceBook({'m': {'input': 1, 'output': 1}})\n"
        "book.price('m', Usage(1))\n"
        "assert 'genai_prices' not in sys.modules\n"
        "book.price('gpt-4o', Usage(1))\n"
        "assert 'genai_prices' in sys.modules and threading.active_count() == 1\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr


def test_many_threads_resolve_a_model_once(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    find = genai.find

    def counting(model: str, provider: str | None, day: date) -> genai.Found | None:
        calls.append(model)
        return find(model, provider, day)

    monkeypatch.setattr(genai, "find", counting)
    shared, together = book(), threading.Barrier(16)

    def ask(number: int) -> Amount:
        together.wait(10)
        return shared.price(("gpt-4o", "gpt-4o-mini")[number % 2], USAGE)

    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(ask, range(16)))
    assert set(answers) == {usd("0.0075"), usd("0.00045")}
    assert sorted(calls) == ["gpt-4o", "gpt-4o-mini"]


def test_the_cache_is_bounded_and_keeps_no_errors() -> None:
    flat = book(unknown=usd(1))
    for number in range(1100):
        flat.rates(f"gpt-4o-mini-{number:08d}")
    assert len(flat._resolved) == 1024
    denying = book()
    for _ in range(2):
        with pytest.raises(PriceUnknown):
            denying.rates("nothing-like-it")
    assert len(denying._resolved) == 0


def test_prices_are_looked_up_anew_each_day() -> None:
    days = [date(2026, 10, 11)]
    dated = PriceBook(today=lambda: days[0])
    assert [name for name, _ in dated.rates("gpt-5.5").service_tiers if name == "priority"]
    before = dated.rates("gpt-5.5").for_service_tier("priority").input
    days[0] = DAY
    assert dated.rates("gpt-5.5").for_service_tier("priority").input > before


def test_explain_is_plain_data() -> None:
    told = book().explain("gpt-4o-mini-2024-07-18")
    assert json.loads(json.dumps(told)) == told
    assert told["model"] == "gpt-4o-mini"
    assert told["source"].startswith("genai-prices ")
    assert told["rates"]["input"] == "0.15"
    assert told["limits"] == {
        "context_window": 128_000,
        "max_output_tokens": 16_384,
        "output_bounded_by": "published limits",
    }
    assert told["not_in_the_price"]["web_searches"] == "10.00 USD per 1,000"
    # 800 x 0.15 + 200 x 0.075 + 500 x 0.60 = 435 USD per million; held 4,000 x 0.15 + 16,384 x 0.60 = 10,430.4.
    assert told["example"]["price"] == "0.000435 USD"
    assert told["example"]["estimate"] == "0.0104304 USD"


def test_explain_an_override() -> None:
    told = book(overrides={"m": {"input": "1", "output": "2", "per_request": "0.01"}}).explain("m")
    assert (told["source"], told["per_request"]) == ("override", "0.01")
    assert told["limits"]["output_bounded_by"] == "default bound"
    assert told["example"]["steps"][-1] == "0.01 USD for the request"
    assert all(amount == "2.00" for kind, amount in told["rates"].items() if kind in ("output", "reasoning"))


def test_amounts_are_in_microcents() -> None:
    assert book().estimate("gpt-4o", 1).unit is Unit.USD_MICROCENTS

"""Prices that users write into clearance.yaml."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from clearance.errors import InvalidRequest
from clearance.pricing import ModelPrice, Overrides, Rates


def test_dollars_per_million_become_microcents() -> None:
    found = Overrides.parse(
        {
            "my-model": {
                "input": "2.50",
                "output": 10,
                "cached_input": Decimal("0.25"),
                "per_request": "0.005",
                "max_output_tokens": 4096,
            }
        }
    ).find("my-model")
    assert found == (
        "my-model",
        Rates(
            input=250_000_000,
            output=1_000_000_000,
            cached_input=25_000_000,
            per_request=500_000,
            max_output_tokens=4096,
        ),
    )


def test_finer_than_a_microcent_is_rounded_up() -> None:
    found = Overrides.parse({"m": {"input": "0.000000001", "output": "0"}}).find("m")
    assert found is not None
    assert (found[1].input, found[1].output) == (1, 0)


def test_names_in_any_case_with_dates_and_for_one_provider() -> None:
    overrides = Overrides.parse(
        {
            "GPT-4o": {"input": 1, "output": 1},
            "gpt-4o-mini": {"input": 2, "output": 2},
            "azure/gpt-4o": {"input": 3, "output": 3},
        }
    )

    def name(model: str, provider: str | None = None) -> str | None:
        found = overrides.find(model, provider)
        return found and found[0]

    assert name("gpt-4o") == name("gpt-4O-2024-08-06") == name("gpt-4o", "openai") == "gpt-4o"
    assert name("gpt-4o-mini-2026-01-01") == "gpt-4o-mini"
    assert name("gpt-4o", "azure") == name("azure/gpt-4o") == "azure/gpt-4o"
    assert name("gpt-4o-max") is None
    assert name("gpt-4") is None


def test_empty_and_missing_mean_none() -> None:
    assert Overrides.parse(None) == Overrides.parse({}) == Overrides()


def test_built_directly_and_through_json() -> None:
    overrides = Overrides(prices={"M": ModelPrice(input="0.10", output=1)})
    assert overrides.find("m") is not None
    assert Overrides.model_validate_json(overrides.model_dump_json()) == overrides


@pytest.mark.parametrize(
    ("prices", "field", "problem"),
    [
        ([], "prices", "is a list"),
        ({1: {}}, "prices", "not a model name"),
        ({" ": {}}, "prices", "not a model name"),
        ({"m": "2.50"}, "prices.m", "is a str"),
        ({"m": {1: "2"}}, "prices.m", "is a dict"),
        ({"m": {"output": "1"}}, "prices.m.input", "is missing"),
        ({"m": {"input": 2.5, "output": "1"}}, "prices.m.input", "2.5 is a float"),
        ({"m": {"input": True, "output": "1"}}, "prices.m.input", "True is a bool"),
        ({"m": {"input": "two", "output": "1"}}, "prices.m.input", "not a number"),
        ({"m": {"input": "-1", "output": "1"}}, "prices.m.input", "not a price"),
        ({"m": {"input": "NaN", "output": "1"}}, "prices.m.input", "not a price"),
        ({"m": {"input": "Infinity", "output": "1"}}, "prices.m.input", "not a price"),
        ({"m": {"input": "1e30", "output": "1"}}, "prices.m.input", "not a price"),
        ({"m": {"input": "1", "output": None}}, "prices.m.output", "NoneType"),
        ({"m": {"input": "1", "output": "1", "cached": "1"}}, "prices.m.cached", "is not a field"),
        ({"m": {"input": "1", "output": "1", "max_output_tokens": "9"}}, "prices.m.max_output_tokens", "refused"),
        ({"m": {"input": "1", "output": "1", "max_output_tokens": 0}}, "prices.m.max_output_tokens", "refused"),
        ({"m": {"input": "1", "output": "1"}, "M": {"input": "1", "output": "1"}}, "prices.M", "twice"),
    ],
)
def test_bad_input_names_the_field_and_what_is_allowed(prices: Any, field: str, problem: str) -> None:
    with pytest.raises(InvalidRequest) as error:
        Overrides.parse(prices)
    assert error.value.field == field
    assert problem in str(error.value)


def test_a_wrong_key_is_answered_with_the_right_ones() -> None:
    with pytest.raises(InvalidRequest, match=r"cached_input, cache_write"):
        Overrides.parse({"m": {"input": "1", "output": "1", "cached": "1"}})

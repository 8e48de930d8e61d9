"""Money is whole numbers of one unit, and nothing else gets in."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from clearance.errors import InvalidRequest, UnitMismatch
from clearance.model.amount import (
    INT64_MAX,
    Amount,
    Unit,
    credits,
    dollars,
    parse_amount,
    parse_unit,
    risk_points,
    same_unit,
    to_amount,
    tokens,
    usd,
)


@pytest.mark.parametrize(
    ("value", "microcents"),
    [
        ("12.50", 1_250_000_000),
        ("0", 0),
        ("0.00000001", 1),
        ("1e-8", 1),
        (Decimal("0.001"), 100_000),
        (5, 500_000_000),
        ("92233720368.54775807", INT64_MAX),
        ("1.000000000000000000000000000000000", 100_000_000),
    ],
)
def test_dollars_become_exact_microcents(value: Any, microcents: int) -> None:
    assert usd(value) == Amount(unit=Unit.USD_MICROCENTS, amount=microcents)


@pytest.mark.parametrize(
    "value",
    [
        12.5,
        True,
        None,
        [],
        "",
        "abc",
        "nan",
        "inf",
        "-inf",
        Decimal("NaN"),
        Decimal("sNaN"),
        "-0.01",
        -1,
        "0.000000001",
        "12345678901.00000000000000000001",
        "92233720368.54775808",
        "1e5000",
        "9e999999",
        "1e-999999",
    ],
)
def test_dollars_that_are_not_money_are_refused(value: Any) -> None:
    with pytest.raises(InvalidRequest) as refused:
        usd(value)
    assert refused.value.field in ("usd", "amount")
    assert refused.value.allowed


@pytest.mark.parametrize(
    "value",
    [
        -1,
        1.0,
        1.5,
        float("nan"),
        float("inf"),
        True,
        "5",
        None,
        INT64_MAX + 1,
        pytest.param(10**5000, id="of 5001 digits"),
    ],
)
def test_an_amount_is_a_whole_number_of_int64(value: Any) -> None:
    with pytest.raises(InvalidRequest) as refused:
        Amount(unit=Unit.TOKENS, amount=value)
    assert refused.value.field == "amount"
    assert len(refused.value.message) < 300


@pytest.mark.parametrize("unit", ["EUR", "", None, 5, "tokens"])
def test_an_unknown_unit_is_refused_with_the_units_there_are(unit: Any) -> None:
    with pytest.raises(InvalidRequest, match="TOKENS") as refused:
        Amount(unit=unit, amount=1)
    assert refused.value.field == "unit"


@pytest.mark.parametrize(
    ("value", "amount"),
    [
        (tokens(3), tokens(3)),
        ("12.50", usd("12.50")),
        (Decimal("0.5"), usd("0.5")),
        (7, Amount(unit=Unit.USD_MICROCENTS, amount=7)),
    ],
)
def test_loose_money_is_an_amount(value: Any, amount: Amount) -> None:
    assert to_amount(value) == amount


@pytest.mark.parametrize("value", [1.5, True, None, [], b"1"])
def test_what_is_not_money_is_refused_with_the_field(value: Any) -> None:
    with pytest.raises(InvalidRequest) as refused:
        to_amount(value, "estimate")
    assert refused.value.field == "estimate"


@pytest.mark.parametrize(
    ("text", "unit"),
    [
        ("USD", Unit.USD_MICROCENTS),
        (" usd ", Unit.USD_MICROCENTS),
        ("tokens", Unit.TOKENS),
        ("RISK_POINTS", Unit.RISK_POINTS),
    ],
)
def test_a_unit_is_named_in_any_case(text: str, unit: Unit) -> None:
    assert parse_unit(text) is unit


def test_an_unknown_name_of_a_unit_is_refused_with_the_known_ones() -> None:
    with pytest.raises(InvalidRequest, match="TOKENS, CREDITS, RISK_POINTS"):
        parse_unit("EUR")


def test_text_is_dollars_for_usd_and_a_whole_number_for_the_rest() -> None:
    assert parse_amount("12.50", Unit.USD_MICROCENTS) == usd("12.50")
    assert parse_amount("12", Unit.TOKENS) == tokens(12)
    for bad in ("12.5", "x", ""):
        with pytest.raises(InvalidRequest):
            parse_amount(bad, Unit.TOKENS)


@pytest.mark.parametrize(
    ("microcents", "text"),
    [
        (0, "0.00"),
        (1, "0.00000001"),
        (1_250_000_000, "12.50"),
        (-150_000_000, "-1.50"),
        (123_456_789_012_345_678, "1,234,567,890.12345678"),
    ],
)
def test_microcents_are_shown_as_dollars_without_loss(microcents: int, text: str) -> None:
    assert dollars(microcents) == text


def test_amounts_show_their_unit() -> None:
    assert str(usd("1.5")) == "1.50 USD"
    assert str(tokens(1234)) == "1,234 tokens"
    assert str(credits(1)) == "1 credit"
    assert str(risk_points(1)) == "1 risk point"


def test_two_units_never_mix() -> None:
    same_unit(tokens(1), "TOKENS", "actual")
    with pytest.raises(UnitMismatch) as refused:
        same_unit(tokens(1), "CREDITS", "actual")
    assert (refused.value.field, refused.value.allowed) == ("actual", "CREDITS")


def test_an_amount_never_changes_and_has_no_other_fields() -> None:
    with pytest.raises(Exception, match="frozen"):
        tokens(1).amount = 2  # type: ignore[misc]
    with pytest.raises(InvalidRequest, match="not a field"):
        Amount(unit=Unit.TOKENS, amount=1, currency="EUR")  # type: ignore[call-arg]
    with pytest.raises(InvalidRequest, match="missing"):
        Amount(unit=Unit.TOKENS)  # type: ignore[call-arg]

"""Amounts: whole numbers in one unit. Never a float."""

from __future__ import annotations

from decimal import Context, Decimal, DecimalException, Inexact, InvalidOperation, Overflow
from enum import StrEnum
from typing import Annotated

from pydantic import Field

from clearance.errors import InvalidRequest, UnitMismatch
from clearance.model.base import Model

INT64_MAX = 2**63 - 1
MICROCENTS_PER_USD = 100_000_000
_EXACT = Context(prec=64, traps=[InvalidOperation, Inexact, Overflow])
"""Never rounds: a number that would need it is no amount of microcents anyway."""


class Unit(StrEnum):
    """What a budget is counted in (protocol `UnitEnum`)."""

    USD_MICROCENTS = "USD_MICROCENTS"
    TOKENS = "TOKENS"
    CREDITS = "CREDITS"
    RISK_POINTS = "RISK_POINTS"


Int64 = Annotated[int, Field(ge=0, le=INT64_MAX, strict=True)]


class Amount(Model):
    """A whole, non-negative number of one unit. 1 USD is 100,000,000 USD_MICROCENTS."""

    unit: Unit
    amount: Int64

    def __str__(self) -> str:
        if self.unit is Unit.USD_MICROCENTS:
            return f"{dollars(self.amount)} USD"
        name = self.unit.value.lower().replace("_", " ")
        return f"{self.amount:,} {name.removesuffix('s') if self.amount == 1 else name}"


AmountLike = Amount | str | Decimal | int
"""What a caller may give for money: an Amount, USD as "12.50" or Decimal, or an int of microcents."""


def usd(value: str | Decimal | int) -> Amount:
    """Dollars as an Amount: `usd("12.50")`, `usd(Decimal("0.001"))`, `usd(5)` (whole dollars).

    Raises InvalidRequest for floats, NaN, negatives and anything finer than a microcent.
    """
    if isinstance(value, bool | float):
        raise InvalidRequest(
            "usd", f"{value!r} is a {type(value).__name__}", 'a string such as "12.50", a Decimal or int'
        )
    try:
        given = Decimal(value)
    except (InvalidOperation, TypeError, ValueError):
        raise InvalidRequest("usd", f"{value!r} is not a number", 'a decimal number such as "12.50"') from None
    if not given.is_finite():
        raise InvalidRequest("usd", f"{value!r} is not finite", 'a decimal number such as "12.50"')
    if abs(given) > INT64_MAX // MICROCENTS_PER_USD + 1:
        raise InvalidRequest("usd", "is out of range", f"0 to {dollars(INT64_MAX)}")
    try:
        scaled = _EXACT.multiply(given, Decimal(MICROCENTS_PER_USD))
        fits = scaled == scaled.to_integral_value()
    except DecimalException:
        fits = False
    if not fits:
        raise InvalidRequest("usd", f"{value!r} is finer than a microcent", "at most 8 decimal places")
    return Amount(unit=Unit.USD_MICROCENTS, amount=int(scaled))


def tokens(count: int) -> Amount:
    return Amount(unit=Unit.TOKENS, amount=count)


def credits(count: int) -> Amount:
    return Amount(unit=Unit.CREDITS, amount=count)


def risk_points(count: int) -> Amount:
    return Amount(unit=Unit.RISK_POINTS, amount=count)


def to_amount(value: AmountLike, field: str = "amount") -> Amount:
    """The one place where loose money becomes an Amount; a bare int counts microcents."""
    if isinstance(value, Amount):
        return value
    if isinstance(value, bool | float):
        raise InvalidRequest(
            field, f"{value!r} is a {type(value).__name__}", 'an Amount, "12.50", a Decimal or int microcents'
        )
    if isinstance(value, int):
        return Amount(unit=Unit.USD_MICROCENTS, amount=value)
    if isinstance(value, str | Decimal):
        return usd(value)
    raise InvalidRequest(
        field, f"{type(value).__name__} is not money", 'an Amount, "12.50", a Decimal or int microcents'
    )


def parse_unit(text: str) -> Unit:
    """A unit by name, any case; USD is short for USD_MICROCENTS."""
    name = text.strip().upper() if isinstance(text, str) else ""
    if name == "USD":
        return Unit.USD_MICROCENTS
    try:
        return Unit(name)
    except ValueError:
        raise InvalidRequest("unit", f"{text!r} is unknown", "USD, " + ", ".join(u.value for u in Unit)) from None


def parse_amount(text: str | int, unit: Unit) -> Amount:
    """`"12.50"` in dollars for USD, a whole number for every other unit (what a command line gives)."""
    if unit is Unit.USD_MICROCENTS:
        return usd(text)
    try:
        return Amount(unit=unit, amount=int(text))
    except ValueError as error:
        if isinstance(error, InvalidRequest):
            raise
        raise InvalidRequest("amount", f"{text!r} is not a whole number", f"0 to {INT64_MAX} {unit.value}") from None


def same_unit(amount: Amount, unit: str, field: str) -> None:
    if amount.unit != unit:
        raise UnitMismatch(field, f"is in {amount.unit}", unit)


def dollars(microcents: int) -> str:
    """Microcents as dollars without loss and with at least two decimals: 1250000000 -> `12.50`."""
    sign, rest = ("-", -microcents) if microcents < 0 else ("", microcents)
    whole, part = divmod(rest, MICROCENTS_PER_USD)
    decimals = f"{part:08d}".rstrip("0").ljust(2, "0")
    return f"{sign}{whole:,}.{decimals}"

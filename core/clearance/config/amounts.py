"""Amounts as people write them, exactly."""

from __future__ import annotations

import re
from typing import Any

from clearance.config.problems import Unquoted, quoted, shown
from clearance.errors import InvalidRequest
from clearance.model.amount import INT64_MAX, Amount, Unit, dollars, parse_unit, usd

_USD = re.compile(r"[0-9]{1,20}(\.[0-9]+)?", re.ASCII)
_WHOLE = re.compile(r"[0-9]{1,20}", re.ASCII)
_MOST_USD = dollars(INT64_MAX).replace(",", "")


def parse_amount_of(value: Any, unit: str = "USD") -> Amount:
    """`"12.50"` with the unit USD (dollars), a whole number with any other unit, USD_MICROCENTS included.

    Raises InvalidRequest, its field `unit` or `amount`.
    """
    kind = parse_unit(unit)
    if isinstance(value, Unquoted):
        raise quoted(value)
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise InvalidRequest("amount", f"{shown(value)} is not an amount", _allowed(unit))
    text = str(value).strip()
    if text.startswith("-"):
        raise InvalidRequest("amount", f"{shown(value)} is negative", _allowed(unit))
    return _dollars(text) if unit.strip().upper() == "USD" else _whole(text, kind)


def _dollars(text: str) -> Amount:
    if not _USD.fullmatch(text):
        raise InvalidRequest("amount", f"{shown(text)} is not a plain decimal number", _allowed("USD"))
    whole, _, part = text.partition(".")
    if len(part.rstrip("0")) > 8:
        raise InvalidRequest("amount", f"{shown(text)} is finer than a microcent", "at most 8 decimal places")
    microcents = int(whole) * 100_000_000 + int((part.rstrip("0") or "0").ljust(8, "0"))
    if microcents > INT64_MAX:
        raise InvalidRequest("amount", f"{shown(text)} is more than the ledger can hold", _allowed("USD"))
    return usd(text[:40])


def _whole(text: str, unit: Unit) -> Amount:
    if not _WHOLE.fullmatch(text):
        raise InvalidRequest("amount", f"{shown(text)} is not a whole number", _allowed(unit))
    if int(text) > INT64_MAX:
        raise InvalidRequest("amount", f"{shown(text)} is more than the ledger can hold", _allowed(unit))
    return Amount(unit=unit, amount=int(text))


def _allowed(unit: str) -> str:
    if unit.strip().upper() == "USD":
        return f'dollars such as "12.50", 0 to {_MOST_USD}'
    return f"a whole number, 0 to {INT64_MAX}"

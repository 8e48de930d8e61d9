"""Query parameters. Unknown ones are ignored, wrong ones are named."""

from __future__ import annotations

import re
from datetime import datetime

from clearance.errors import InvalidRequest
from clearance.model.amount import Unit
from clearance.server.http import Call

_LOST_PLUS = re.compile(r" (\d\d:?\d\d)$")


def limit(call: Call, most: int, default: int = 50) -> int:
    text = call.query.get("limit")
    if text is None:
        return default
    if not (text.isascii() and text.isdigit()) or len(text) > 6 or not 1 <= int(text) <= most:
        raise InvalidRequest("limit", "is refused", f"a whole number from 1 to {most}")
    return int(text)


def count(call: Call, name: str) -> int:
    """A whole number, 0 when it is not given."""
    text = call.query.get(name) or "0"
    if not (text.isascii() and text.isdigit()) or len(text) > 18:
        raise InvalidRequest(name, "is refused", "a whole number, 0 or more")
    return int(text)


def moment(call: Call, name: str) -> int | None:
    """An ISO-8601 date-time with its offset, as epoch ms. Empty means not given."""
    text = call.query.get(name)
    if not text:
        return None
    # A plus sign that was not encoded arrives as a space.
    text = _LOST_PLUS.sub(r"+\1", text)
    try:
        at = datetime.fromisoformat(text)
        if at.tzinfo is None or "T" not in text.upper():
            raise ValueError
        return int(at.timestamp() * 1000)
    except (ValueError, OverflowError):
        raise InvalidRequest(name, "is not an ISO-8601 date-time", "2026-11-20T12:00:00Z") from None


def window(call: Call, start: str, end: str) -> tuple[int | None, int | None]:
    first, last = moment(call, start), moment(call, end)
    if first is not None and last is not None and first > last:
        raise InvalidRequest(start, f"is later than {end}", "a start before the end")
    return first, last


def flag(call: Call, name: str) -> bool:
    text = call.query.get(name, "false").lower()
    if text not in ("true", "false"):
        raise InvalidRequest(name, "is refused", "true or false")
    return text == "true"


def choice(call: Call, name: str, allowed: tuple[str, ...], *, lower: bool = False) -> str | None:
    text = call.query.get(name)
    if text is None:
        return None
    if lower:
        text = text.lower()
    if text not in allowed:
        raise InvalidRequest(name, "is unknown", ", ".join(allowed))
    return text


def unit(call: Call, *, required: bool = False) -> str | None:
    if required and "unit" not in call.query:
        raise InvalidRequest("unit", "is missing")
    return choice(call, "unit", tuple(member.value for member in Unit))


def required(call: Call, name: str) -> str:
    text = call.query.get(name)
    if not text:
        raise InvalidRequest(name, "is missing")
    return text

"""Places in a list, handed to clients as text they cannot read and give back unchanged."""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from typing import Any

from clearance.errors import InvalidRequest


def encoded(place: tuple[Any, ...], bound_to: str) -> str:
    """A cursor that belongs to the filters in `bound_to`."""
    text = json.dumps([_tag(bound_to), *place], separators=(",", ":"))
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def decoded(cursor: str, bound_to: str, kinds: tuple[type, ...]) -> tuple[Any, ...]:
    place = _parts(cursor)
    if place is None or len(place) != len(kinds) + 1:
        raise InvalidRequest("cursor", "is not one of ours", "a next_cursor, unchanged")
    if place[0] != _tag(bound_to):
        raise InvalidRequest("cursor", "belongs to other filters or another order", "the filters it came with")
    if any(type(part) is not kind for part, kind in zip(place[1:], kinds, strict=True)):
        raise InvalidRequest("cursor", "is not one of ours", "a next_cursor, unchanged")
    return tuple(place[1:])


def require_shape(cursor: str) -> None:
    """A cursor of the authority's own lists: a tag, a sort value and an id."""
    place = _parts(cursor)
    if place is None or len(place) != 3 or type(place[1]) not in (str, int) or type(place[2]) is not str:
        raise InvalidRequest("cursor", "is not one of ours", "a next_cursor, unchanged")


def _parts(cursor: str) -> list[Any] | None:
    try:
        place = json.loads(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
    except (ValueError, binascii.Error, RecursionError):
        return None
    if not isinstance(place, list) or any(type(part) is int and abs(part) >= 2**63 for part in place):
        return None
    return place


def _tag(bound_to: str) -> str:
    return hashlib.sha256(bound_to.encode()).hexdigest()[:16]

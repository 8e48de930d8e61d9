"""The base of the vocabulary: frozen, closed, and with our own errors."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from clearance.errors import InvalidRequest


class Model(BaseModel):
    """Frozen, refuses unknown fields, and raises InvalidRequest instead of pydantic's ValidationError."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    def __init__(self, **data: Any) -> None:
        try:
            super().__init__(**data)
        except ValidationError as error:
            raise invalid(error, type(self).__name__.lower()) from None


_MAX_SHOWN = 60


def _shown(value: object) -> str:
    try:
        text = repr(value)
    except ValueError:  # an int of thousands of digits
        return "a number that long"
    return text if len(text) <= _MAX_SHOWN else text[:_MAX_SHOWN] + "..."


def invalid(error: ValidationError, what: str) -> InvalidRequest:
    """The first problem that pydantic found, as field, problem and what is allowed; never the whole input."""
    first = error.errors(include_url=False, include_context=True)[0]
    field = ".".join(str(part) for part in first["loc"]) or what
    shown = _shown(first.get("input"))
    problem = first["msg"].removeprefix("Value error, ")
    if first["type"] == "extra_forbidden":
        return InvalidRequest(field, "is not a field of " + what)
    if first["type"] == "missing":
        return InvalidRequest(field, "is missing")
    if first["type"] == "value_error":
        return InvalidRequest(field, problem)
    return InvalidRequest(field, f"{shown} is refused", problem[:1].lower() + problem[1:])

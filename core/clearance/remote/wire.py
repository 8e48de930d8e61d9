"""The HTTP side of the protocol: requests, responses, and reading JSON that others wrote. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, NamedTuple, TypeVar
from urllib.parse import quote, urlencode

from pydantic_core import from_json, to_json

from clearance.errors import InvalidRequest
from clearance.model.amount import INT64_MAX, Amount, Unit
from clearance.model.caps import Caps
from clearance.model.results import Figures

T = TypeVar("T")
Json = dict[str, Any]

TENANT_KEY = b"x-cycles-api-key"
ADMIN_KEY = b"x-admin-api-key"
IDEMPOTENCY_KEY = b"x-idempotency-key"
RUN_ID = b"x-clearance-run-id"
"""The run that a call is made in; servers of the base protocol ignore it."""
EXTENSIONS = (b"x-clearance-extensions", b"1")
"""Says that we understand fields which the base protocol does not have."""

RESERVATIONS = "/v1/reservations"
EVENTS = "/v1/events"
DECIDE = "/v1/decide"
BALANCES = "/v1/balances"
VENDOR = "/v1/x-clearance"
RUNS = VENDOR + "/runs"
LOG = VENDOR + "/events"
STOPPED = VENDOR + "/stopped"


class Request(NamedTuple):
    """One HTTP request; the shell adds host and credentials. `path` is encoded and has the query."""

    method: str
    path: str
    body: bytes | None = None
    headers: tuple[tuple[bytes, bytes], ...] = ()
    as_admin: bool = False


class Response(NamedTuple):
    """`headers` have lower-case names."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class NoAnswer(Exception):
    """The transport failed. `sent` is False when the request certainly never left."""

    def __init__(self, what: str, sent: bool) -> None:
        super().__init__(what)
        self.what = what
        self.sent = sent


class Unreadable(Exception):
    """A body that does not have the shape it must have."""


@dataclass(frozen=True, slots=True)
class Call(Generic[T]):
    """One verb as one request, and how its success is read.

    `deciding`: a 404 or an unknown refusal means no. `repeatable`: it may be sent again although the first may have
    arrived, because the server knows its idempotency key or it changes nothing.
    """

    verb: str
    request: Request
    read: Callable[[Json], T]
    status: int = 200
    or_status: int | None = None
    deciding: bool = False
    repeatable: bool = True
    run_id: str | None = None


def post(path: str, body: Json, *headers: tuple[bytes, bytes], as_admin: bool = False) -> Request:
    return Request("POST", path, to_json(body), headers, as_admin)


def get(path: str, query: Mapping[str, object] | None = None, *, as_admin: bool = False) -> Request:
    given = {name: value for name, value in (query or {}).items() if value is not None}
    return Request("GET", f"{path}?{urlencode(given)}" if given else path, as_admin=as_admin)


def credential(field: str, key: str) -> bytes:
    """As a header value. The message never shows the key."""
    if not isinstance(key, str) or not key or not key.isascii() or not key.isprintable() or key != key.strip():
        raise InvalidRequest(field, "is missing or has characters that no header can carry", "an API key")
    return key.encode()


def reservation_path(reservation_id: str, verb: str = "") -> str:
    path = f"{RESERVATIONS}/{quote(reservation_id, safe='')}"
    return f"{path}/{verb}" if verb else path


# -- reading: unknown fields are ignored, null is the same as absent ------------------------------


def parsed(body: bytes) -> Json:
    try:
        found = from_json(body, allow_inf_nan=False)
    except ValueError:
        raise Unreadable("the body is not JSON") from None
    if not isinstance(found, dict):
        raise Unreadable("the body is not a JSON object")
    return found


def text(data: Json, name: str, most: int = 1024) -> str:
    value = data.get(name)
    if not isinstance(value, str) or not 1 <= len(value) <= most:
        raise Unreadable(f"{name} is missing or no text")
    return value


def optional_text(data: Json, name: str) -> str | None:
    value = data.get(name)
    return value if isinstance(value, str) else None


def whole(data: Json, name: str) -> int:
    value = data.get(name)
    if isinstance(value, bool) or not isinstance(value, int) or not -INT64_MAX - 1 <= value <= INT64_MAX:
        raise Unreadable(f"{name} is missing or no whole number")
    return value


def optional_whole(data: Json, name: str) -> int | None:
    return None if data.get(name) is None else whole(data, name)


def amount(data: Json, name: str, unit: Unit | None = None) -> Amount:
    value = data.get(name)
    if not isinstance(value, dict):
        raise Unreadable(f"{name} is missing or no amount")
    try:
        found = Amount(unit=Unit(str(value.get("unit"))), amount=value.get("amount"))
    except (InvalidRequest, ValueError):
        raise Unreadable(f"{name} is no amount") from None
    if unit is not None and found.unit is not unit:
        raise Unreadable(f"{name} is in {found.unit}, not {unit}")
    return found


def texts(data: Json, name: str) -> tuple[str, ...]:
    value = data.get(name)
    if value is None:
        return ()
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise Unreadable(f"{name} is no list of texts")
    return tuple(value)


def caps(data: Json) -> Caps | None:
    """A cap that we do not know is ignored; one that we know and cannot read is a bad answer, not no cap."""
    value = data.get("caps")
    if value is None:
        return None
    if not isinstance(value, dict):
        raise Unreadable("caps is no object")
    known = {name: found for name in Caps.model_fields if (found := value.get(name)) is not None}
    try:
        return Caps(**known)
    except InvalidRequest as error:
        raise Unreadable(f"caps.{error.field} cannot be read") from None


def figures(data: Json, unit: Unit) -> Figures:
    """The balances in this unit, by scope path. They inform, so one that cannot be read is left out."""
    found: dict[str, list[int]] = {}
    for item in data.get("balances") or ():
        if isinstance(item, dict) and (row := _figures(item, unit)) is not None:
            found[item.get("scope_path") or item["scope"]] = row
    return found


def _figures(item: Json, unit: Unit) -> list[int] | None:
    remaining = item.get("remaining")
    if not isinstance(remaining, dict) or remaining.get("unit") != unit or not isinstance(item.get("scope"), str):
        return None
    try:
        left = whole(remaining, "amount")
        reserved, spent, debt, limit = (
            whole(value, "amount") if isinstance(value := item.get(name), dict) else 0
            for name in ("reserved", "spent", "debt", "overdraft_limit")
        )
    except Unreadable:
        return None
    # remaining = allocated - spent - reserved - debt holds for every balance (protocol section 5).
    return [left + spent + reserved + debt, reserved, spent, debt, limit, int(item.get("is_over_limit") is True)]

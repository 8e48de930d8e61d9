"""Webhook subscriptions: what they select and the two rules that every stored one keeps (protocol section 18)."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import AwareDatetime, Field, field_validator

from clearance.errors import InvalidRequest
from clearance.server.adminbodies import Metadata, ShortText, TenantId, Text
from clearance.server.bodies import ABSENT, Body
from clearance.server.eventtypes import (
    CATEGORIES,
    INTERNAL_OF,
    NOT_EMITTED,
    SYSTEM,
    TENANT_CATEGORIES,
    Kind,
    category_of,
    known,
)
from clearance.server.wire import Wire, iso
from clearance.store.interface import Record

KIND = "webhook"
ACTIVE, PAUSED, DISABLED = "ACTIVE", "PAUSED", "DISABLED"

_HEADER_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,64}")
_OURS = re.compile(r"(x-cycles-.*|traceparent|content-type|content-length|host|connection|transfer-encoding)")


class RetryPolicy(Body):
    max_retries: Annotated[int, Field(ge=0, le=10)] = 5
    initial_delay_ms: Annotated[int, Field(ge=100, le=60_000)] = 1_000
    backoff_multiplier: Annotated[float, Field(ge=1, le=10)] = 2.0
    max_delay_ms: Annotated[int, Field(ge=1_000, le=3_600_000)] = 60_000


_CATEGORY: dict[str, Any] = {"items": {"enum": list(CATEGORIES)}}
_TYPE: dict[str, Any] = {"items": {"enum": sorted({*INTERNAL_OF, *NOT_EMITTED})}}


class SubscriptionFields(Body):
    name: ShortText = ABSENT
    description: Text = ABSENT
    event_categories: Annotated[list[str], Field(max_length=len(CATEGORIES), json_schema_extra=_CATEGORY)] = ABSENT
    scope_filter: Annotated[str, Field(min_length=1, max_length=1024)] = ABSENT
    headers: Annotated[
        dict[str, Annotated[str, Field(max_length=1024, json_schema_extra={"pattern": "^[ -~]*$"})]],
        Field(max_length=16, json_schema_extra={"propertyNames": {"pattern": f"^{_HEADER_NAME.pattern}$"}}),
    ] = ABSENT
    retry_policy: RetryPolicy = ABSENT
    disable_after_failures: Annotated[int, Field(ge=1, le=1000)] = ABSENT
    metadata: Metadata = ABSENT

    @field_validator("event_categories")
    @classmethod
    def _known_categories(cls, value: list[str]) -> list[str]:
        unknown = sorted(set(value) - set(CATEGORIES))
        if unknown:
            raise ValueError(f"{unknown[0][:64]!r} is no category; known: {', '.join(CATEGORIES)}")
        return value

    @field_validator("headers")
    @classmethod
    def _harmless_headers(cls, value: dict[str, str]) -> dict[str, str]:
        for name, text in value.items():
            if not _HEADER_NAME.fullmatch(name) or _OURS.fullmatch(name.lower()):
                raise ValueError(f"{name[:64]!r} cannot be set")
            if not text.isascii() or not text.isprintable():
                raise ValueError(f"{name[:64]!r} has a value that is not printable ASCII")
        return value


def _known_types(value: list[str]) -> list[str]:
    for name in value:
        if not known(name):
            raise ValueError(f"{name[:64]!r} is no event type")
    return value


Types = Annotated[list[str], Field(max_length=128, json_schema_extra=_TYPE)]


class NewSubscription(SubscriptionFields):
    tenant_id: TenantId | Literal["__system__"] = ABSENT
    url: Annotated[str, Field(min_length=1, max_length=2048)]
    event_types: Annotated[Types, Field(min_length=1)]
    signing_secret: Annotated[str, Field(min_length=16, max_length=256)] = ABSENT

    @field_validator("event_types")
    @classmethod
    def _types(cls, value: list[str]) -> list[str]:
        return _known_types(value)


class SubscriptionPatch(SubscriptionFields):
    url: Annotated[str, Field(min_length=1, max_length=2048)] = ABSENT
    event_types: Types = ABSENT
    signing_secret: Annotated[str, Field(min_length=16, max_length=256)] = ABSENT
    status: Literal["ACTIVE", "PAUSED"] = ABSENT

    @field_validator("event_types")
    @classmethod
    def _types(cls, value: list[str]) -> list[str]:
        return _known_types(value)


class ReplayBody(Body):
    start: Annotated[AwareDatetime, Field(alias="from")]
    end: Annotated[AwareDatetime, Field(alias="to")]
    event_types: Types = ABSENT
    max_events: Annotated[int, Field(ge=1, le=1000)] = 100


def check(tenant: str, body: Wire) -> None:
    """The two invariants, on the state that would be stored."""
    types, categories = body.get("event_types") or [], body.get("event_categories") or []
    if not types and not categories:
        raise InvalidRequest("event_types", "nothing is selected", "at least one event type or category")
    if tenant == SYSTEM:
        return
    for name in types:
        if category_of(name) not in TENANT_CATEGORIES:
            raise InvalidRequest("event_types", f"{name} is not a tenant's", "budget, reservation and tenant types")
    for name in categories:
        if name not in TENANT_CATEGORIES:
            raise InvalidRequest("event_categories", f"{name} is not a tenant's", "budget, reservation, tenant")


def selects(record: Record, tenant: str, kind: Kind, scope: str | None) -> bool:
    body = record.body
    if record.tenant != SYSTEM and record.tenant != tenant:
        return False
    if kind.type not in (body.get("event_types") or ()) and kind.category not in (body.get("event_categories") or ()):
        return False
    pattern = body.get("scope_filter")
    return pattern is None or (scope is not None and _matches(pattern, scope))


def _matches(pattern: str, scope: str) -> bool:
    if pattern == "*":
        return True
    if pattern.endswith("*"):
        prefix = pattern[:-1]
        return scope.startswith(prefix) and len(scope) > len(prefix)
    return scope == pattern


def shown(record: Record) -> Wire:
    """Without the secret and without the values of headers, which may be secrets too."""
    body = record.body
    hidden = {"signing_secret", "created_at_ms", "updated_at_ms", "after_seq", "headers"}
    wire: Wire = {"subscription_id": record.id, "tenant_id": record.tenant}
    wire |= {name: value for name, value in body.items() if name not in hidden and value is not None}
    if body.get("headers"):
        wire["headers"] = dict.fromkeys(body["headers"], "********")
    wire["created_at"], wire["updated_at"] = iso(body["created_at_ms"]), iso(body["updated_at_ms"])
    return wire


def retry_policy(body: Wire) -> RetryPolicy:
    return RetryPolicy.model_validate(body.get("retry_policy") or {})


def delay_ms(policy: RetryPolicy, attempts: int) -> int:
    """The wait after so many attempts: 1, 2, 4, 8, 16 s by default."""
    factor: Any = policy.backoff_multiplier ** (attempts - 1)
    return min(policy.max_delay_ms, int(policy.initial_delay_ms * factor))

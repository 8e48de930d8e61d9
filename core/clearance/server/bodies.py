"""The request bodies of the runtime, strict: no unknown field, no null, no number that only looks like one."""

from __future__ import annotations

from functools import lru_cache
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from clearance.authority.interface import (
    DEFAULT_GRACE_MS,
    MAX_EXTEND_MS,
    MAX_GRACE_MS,
    MAX_TTL_MS,
    MIN_TTL_MS,
)
from clearance.model.action import Action, named
from clearance.model.amount import INT64_MAX, Amount, Unit
from clearance.model.subject import LEVELS, MAX_DIMENSIONS, NAME_PATTERN, Subject

ABSENT: Any = None
"""The default of a field that may be left out but must not be null."""

NOT_BLANK: dict[str, Any] = {"pattern": r"[^\s\x1c-\x1f\x85]"}
SCOPE_NAME = "[a-zA-Z0-9_.-]{1,128}"
_BELOW = ["".join(f"(?:/{level}:{SCOPE_NAME})?" for level in LEVELS[at + 1 :]) for at in range(len(LEVELS))]
_SCOPES = "|".join(f"{level}:{SCOPE_NAME}{_BELOW[at]}" for at, level in enumerate(LEVELS))
SCOPE: dict[str, Any] = {"pattern": f"^(?:{_SCOPES})$", "examples": ["tenant:acme/agent:bot"]}
"""Only described: levels in their order, each at most once. `parse_scope` decides and takes capitals as well."""
TARGET: dict[str, Any] = {"pattern": rf"^(?:{_SCOPES}|run:\S+|\*)$"}

Key = Annotated[str, Field(min_length=1, max_length=256)]
Name = Annotated[str, Field(min_length=1, max_length=128, pattern=NAME_PATTERN)]
Count = Annotated[int, Field(ge=0, le=INT64_MAX)]
Policy = Literal["REJECT", "ALLOW_IF_AVAILABLE", "ALLOW_WITH_OVERDRAFT"]


class Body(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid")


class SubjectBody(Body):
    model_config = ConfigDict(json_schema_extra={"anyOf": [{"required": [level]} for level in LEVELS]})

    tenant: Name = ABSENT
    workspace: Name = ABSENT
    app: Name = ABSENT
    workflow: Name = ABSENT
    agent: Name = ABSENT
    toolset: Name = ABSENT
    dimensions: Annotated[
        dict[Annotated[str, Field(min_length=1, max_length=128)], Annotated[str, Field(max_length=256)]],
        Field(max_length=MAX_DIMENSIONS),
    ] = ABSENT

    @model_validator(mode="after")
    def _has_a_level(self) -> SubjectBody:
        if not (self.tenant or self.workspace or self.app or self.workflow or self.agent or self.toolset):
            raise ValueError("needs at least one of " + ", ".join(LEVELS))
        return self

    def of(self, tenant: str) -> Subject:
        """The subject, kept under the caller's tenant whether or not it names one (protocol A3)."""
        levels = (self.tenant, self.workspace, self.app, self.workflow, self.agent, self.toolset)
        if not self.dimensions:
            return _subject(tenant, levels)
        return _new_subject(tenant, levels, self.dimensions)


@lru_cache(maxsize=8192)
def _subject(tenant: str, levels: tuple[str | None, ...]) -> Subject:
    return _new_subject(tenant, levels, {})


def _new_subject(tenant: str, levels: tuple[str | None, ...], dimensions: dict[str, str]) -> Subject:
    named: dict[str, Any] = dict(zip(LEVELS, levels, strict=True))
    subject = Subject(**named, dimensions=dimensions)
    # A cached property, so this is what everybody reads from now on.
    vars(subject)["tenant_key"] = tenant
    return subject


class ActionBody(Body):
    kind: Annotated[str, Field(min_length=1, max_length=64, json_schema_extra=NOT_BLANK)]
    name: Annotated[str, Field(min_length=1, max_length=256, json_schema_extra=NOT_BLANK)]
    tags: Annotated[list[Annotated[str, Field(max_length=64)]], Field(max_length=10)] = ABSENT

    @field_validator("kind", "name")
    @classmethod
    def _not_blank(cls, value: str) -> str:
        if not value.strip():
            raise ValueError("is blank")
        return value

    def of(self) -> Action:
        return named(self.kind, self.name, tuple(self.tags) if self.tags else ())


class AmountBody(Body):
    unit: Unit
    amount: Count

    def of(self) -> Amount:
        return Amount(unit=self.unit, amount=self.amount)


class Metrics(Body):
    tokens_input: Count = ABSENT
    tokens_output: Count = ABSENT
    latency_ms: Count = ABSENT
    model_version: Annotated[str, Field(max_length=128)] = ABSENT
    custom: dict[str, Any] = ABSENT


class Keyed(Body):
    idempotency_key: Key


class DecideBody(Keyed):
    subject: SubjectBody
    action: ActionBody
    estimate: AmountBody
    metadata: dict[str, Any] = ABSENT


class ReserveBody(DecideBody):
    ttl_ms: Annotated[int, Field(ge=MIN_TTL_MS, le=MAX_TTL_MS)] = ABSENT
    grace_period_ms: Annotated[int, Field(ge=0, le=MAX_GRACE_MS)] = DEFAULT_GRACE_MS
    overage_policy: Policy = ABSENT
    dry_run: bool = False


class CommitBody(Keyed):
    actual: AmountBody
    metrics: Metrics = ABSENT
    metadata: dict[str, Any] = ABSENT


class ReleaseBody(Keyed):
    reason: Annotated[str, Field(max_length=256)] = ABSENT


class ExtendBody(Keyed):
    extend_by_ms: Annotated[int, Field(ge=1, le=MAX_EXTEND_MS)]
    metadata: dict[str, Any] = ABSENT


class EventBody(Keyed):
    subject: SubjectBody
    action: ActionBody
    actual: AmountBody
    overage_policy: Policy = ABSENT
    metrics: Metrics = ABSENT
    client_time_ms: Count = ABSENT
    metadata: dict[str, Any] = ABSENT


# -- our own routes -------------------------------------------------------------------------------


class RunBody(Body):
    idempotency_key: Key = ABSENT
    subject: SubjectBody
    budget: AmountBody = ABSENT
    name: Annotated[str, Field(min_length=1, max_length=256)] = "run"
    ttl_ms: Annotated[int, Field(ge=MIN_TTL_MS, le=MAX_TTL_MS)] = ABSENT
    overage_policy: Policy = ABSENT
    run_id: Annotated[str, Field(min_length=1, max_length=128)] = ABSENT
    metadata: dict[str, Any] = ABSENT


class EndRunBody(Body):
    metadata: dict[str, Any] = ABSENT


class StopBody(Body):
    scope: Annotated[str, Field(min_length=1, max_length=1024, json_schema_extra=TARGET)]
    reason: Annotated[str, Field(min_length=1, max_length=512, json_schema_extra=NOT_BLANK)]
    actor: Annotated[str, Field(min_length=1, max_length=128, json_schema_extra=NOT_BLANK)] = ABSENT


class StoppedBody(Body):
    reservation_ids: Annotated[list[Annotated[str, Field(min_length=1, max_length=128)]], Field(max_length=1000)]

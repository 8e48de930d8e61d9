"""The request bodies of provisioning, as strict as those of the runtime."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AwareDatetime, Field, field_validator

from clearance.authority.interface import MAX_TTL_MS, MIN_TTL_MS
from clearance.model.amount import Unit
from clearance.server.bodies import ABSENT, SCOPE, AmountBody, Body, Count, Policy
from clearance.server.permissions import PERMISSIONS

TenantId = Annotated[str, Field(min_length=3, max_length=64, pattern=r"^[a-z0-9-]+$")]
Text = Annotated[str, Field(max_length=1024)]
ShortText = Annotated[str, Field(min_length=1, max_length=256)]
Status = Literal["ACTIVE", "SUSPENDED", "CLOSED"]
ScopeText = Annotated[str, Field(min_length=1, max_length=1024, json_schema_extra=SCOPE)]
Permissions = Annotated[list[str], Field(max_length=64, json_schema_extra={"items": {"enum": sorted(PERMISSIONS)}})]
Metadata = Annotated[dict[str, Any], Field(max_length=32)]
Ttl = Annotated[int, Field(ge=MIN_TTL_MS, le=MAX_TTL_MS)]


class TenantSettings(Body):
    metadata: Metadata = ABSENT
    default_commit_overage_policy: Policy = ABSENT
    default_reservation_ttl_ms: Ttl = ABSENT
    max_reservation_ttl_ms: Ttl = ABSENT
    max_reservation_extensions: Annotated[int, Field(ge=0, le=1_000_000)] = ABSENT
    reservation_expiry_policy: Literal["AUTO_RELEASE"] = ABSENT


class NewTenant(TenantSettings):
    tenant_id: TenantId
    name: ShortText
    parent_tenant_id: TenantId = ABSENT
    status: Literal["ACTIVE"] = ABSENT


class TenantPatch(TenantSettings):
    name: ShortText = ABSENT
    status: Status = ABSENT


class NewKeyBody(Body):
    tenant_id: TenantId
    name: ShortText
    description: Text = ABSENT
    permissions: Permissions = ABSENT
    expires_at: AwareDatetime = ABSENT
    metadata: Metadata = ABSENT

    @field_validator("permissions")
    @classmethod
    def _known(cls, value: list[str]) -> list[str]:
        return _known_permissions(value)


class KeyPatch(Body):
    name: ShortText = ABSENT
    description: Text = ABSENT
    permissions: Permissions = ABSENT
    metadata: Metadata = ABSENT

    @field_validator("permissions")
    @classmethod
    def _known(cls, value: list[str]) -> list[str]:
        return _known_permissions(value)


def _known_permissions(value: list[str]) -> list[str]:
    unknown = sorted(set(value) - PERMISSIONS)
    if unknown:
        raise ValueError(f"{unknown[0][:64]!r} is no permission; known: {', '.join(sorted(PERMISSIONS))}")
    return sorted(set(value))


class RotateBody(Body):
    overlap_seconds: Annotated[int, Field(ge=0, le=30 * 86400)] = 0


class ValidateBody(Body):
    key_secret: Annotated[str, Field(min_length=1, max_length=256)]


class NewBudget(Body):
    tenant_id: TenantId = ABSENT
    scope: ScopeText
    unit: Unit
    allocated: AmountBody
    overdraft_limit: AmountBody = ABSENT
    commit_overage_policy: Policy = ABSENT


class BudgetPatch(Body):
    overdraft_limit: AmountBody = ABSENT
    commit_overage_policy: Policy = ABSENT


class FundBody(Body):
    operation: Literal["CREDIT", "DEBIT", "RESET", "RESET_SPENT", "REPAY_DEBT"]
    amount: AmountBody
    spent: AmountBody = ABSENT
    reason: Annotated[str, Field(max_length=512)] = ABSENT
    idempotency_key: Annotated[str, Field(min_length=1, max_length=256)] = ABSENT


class ReasonBody(Body):
    reason: Annotated[str, Field(max_length=512)] = ABSENT


class CapsBody(Body):
    max_tokens: Count = ABSENT
    max_steps_remaining: Count = ABSENT
    tool_allowlist: Annotated[list[ShortText], Field(max_length=256)] = ABSENT
    tool_denylist: Annotated[list[ShortText], Field(max_length=256)] = ABSENT
    cooldown_ms: Count = ABSENT
    models: Annotated[list[ShortText], Field(max_length=256)] = ABSENT
    approval_tools: Annotated[list[ShortText], Field(max_length=256)] = ABSENT


class CapsRuleBody(Body):
    caps: CapsBody
    below_percent: Annotated[int, Field(ge=1, le=100)] = ABSENT


class PeriodBody(Body):
    every: Literal["hour", "day", "week", "month"]
    kind: Literal["calendar", "rolling"] = "calendar"
    timezone: Annotated[str, Field(max_length=64)] = "UTC"


MAX_BUDGETS = 1_000


class BudgetSpecBody(Body):
    """The whole of a budget, for our own route."""

    scope: ScopeText
    allocated: AmountBody
    overdraft_limit: Count = 0
    overage_policy: Policy = ABSENT
    period: PeriodBody = ABSENT
    caps: Annotated[list[CapsRuleBody], Field(max_length=16)] = ABSENT


class BudgetsBody(Body):
    """All of them, or none."""

    budgets: Annotated[list[BudgetSpecBody], Field(min_length=1, max_length=MAX_BUDGETS)]

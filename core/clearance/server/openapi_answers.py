"""What every route answers, as JSON schemas. Closed: an answer has these fields and no others."""

from __future__ import annotations

from typing import Any

from clearance.model.amount import Unit
from clearance.server.deliveries import FAILED, PENDING, RETRYING, SUCCESS
from clearance.server.eventtypes import CATEGORIES
from clearance.server.permissions import PERMISSIONS, capabilities

Schema = dict[str, Any]


def closed(required: str, **properties: Any) -> Schema:
    return {"type": "object", "required": required.split(), "properties": properties, "additionalProperties": False}


def ref(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}


def listed(name: str) -> Schema:
    return {"type": "array", "items": ref(name)}


def page(name: str, item: str) -> Schema:
    return closed(f"{name} has_more", **{name: listed(item)}, has_more=FLAG, next_cursor=TEXT)


TEXT, FLAG, WHOLE = {"type": "string"}, {"type": "boolean"}, {"type": "integer"}
COUNT = WHOLE | {"minimum": 0}
TEXTS = {"type": "array", "items": TEXT}
TIME = {"type": "string", "format": "date-time"}
FREE = {"type": "object"}
TRACE = {"type": "string", "pattern": "^[0-9a-f]{32}$"}
UNIT = {"enum": [unit.value for unit in Unit]}
AMOUNT, SIGNED, BALANCES = ref("Amount"), ref("SignedAmount"), listed("Balance")
CAPS = closed(
    "",
    max_tokens=COUNT,
    max_steps_remaining=COUNT,
    tool_allowlist=TEXTS,
    tool_denylist=TEXTS,
    cooldown_ms=COUNT,
    models=TEXTS,
    approval_tools=TEXTS,
)
_DECIDED = {
    "decision": {"enum": ["ALLOW", "ALLOW_WITH_CAPS", "DENY"]},
    "affected_scopes": TEXTS,
    "caps": ref("Caps"),
    "reason_code": {"type": "string", "maxLength": 128},
    "retry_after_ms": COUNT,
}
_COMMITTED = {"status": {"const": "COMMITTED"}, "charged": AMOUNT, "released": AMOUNT, "balances": BALANCES}
_KEY = {
    "key_id": TEXT,
    "tenant_id": TEXT,
    "key_prefix": TEXT,
    "name": TEXT,
    "description": TEXT,
    "permissions": {"type": "array", "items": {"enum": sorted(PERMISSIONS)}},
    "status": {"enum": ["ACTIVE", "REVOKED", "EXPIRED"]},
    "created_at": TIME,
    "expires_at": TIME,
    "revoked_at": TIME,
    "revoked_reason": TEXT,
    "metadata": FREE,
}
_KEY_NAMES = "key_id tenant_id key_prefix permissions status created_at"
_WEBHOOK = {
    "subscription_id": TEXT,
    "tenant_id": TEXT,
    "name": TEXT,
    "description": TEXT,
    "url": TEXT,
    "event_types": TEXTS,
    "event_categories": TEXTS,
    "scope_filter": TEXT,
    "headers": {"type": "object", "additionalProperties": TEXT},
    "retry_policy": FREE,
    "disable_after_failures": COUNT,
    "consecutive_failures": COUNT,
    "status": {"enum": ["ACTIVE", "PAUSED", "DISABLED"]},
    "replay_id": TEXT,
    "metadata": FREE,
    "created_at": TIME,
    "updated_at": TIME,
}
_WEBHOOK_NAMES = "subscription_id tenant_id url status consecutive_failures created_at updated_at"
_FUNDED = {
    f"{when}_{what}": SIGNED for when in ("previous", "new") for what in ["allocated", "remaining", "debt", "spent"]
}

SCHEMAS: dict[str, Schema] = {
    "Amount": closed("unit amount", unit=UNIT, amount=COUNT),
    "SignedAmount": closed("unit amount", unit=UNIT, amount=WHOLE),
    "Caps": CAPS,
    "Balance": closed(
        "scope scope_path remaining",
        scope=TEXT,
        scope_path=TEXT,
        remaining=SIGNED,
        reserved=AMOUNT,
        spent=AMOUNT,
        debt=AMOUNT,
        allocated=AMOUNT,
        overdraft_limit=AMOUNT,
        is_over_limit=FLAG,
    ),
    "Error": closed(
        "error message request_id trace_id", error=TEXT, message=TEXT, request_id=TEXT, trace_id=TRACE, details=FREE
    ),
    "Decision": closed("decision affected_scopes", **_DECIDED),
    "Reservation": closed(
        "decision affected_scopes scope_path",
        **_DECIDED,
        reservation_id=TEXT,
        reserved=AMOUNT,
        expires_at_ms=COUNT,
        remaining_ttl_ms=COUNT,
        scope_path=TEXT,
        balances=BALANCES,
    ),
    "Commit": closed("status charged", **_COMMITTED),
    "RunEnd": closed("status charged", **_COMMITTED, uncharged=AMOUNT),
    "Release": closed("status released", status={"const": "RELEASED"}, released=AMOUNT, balances=BALANCES),
    "Lease": closed("status expires_at_ms", status={"const": "ACTIVE"}, expires_at_ms=COUNT, remaining_ttl_ms=COUNT),
    "Applied": closed("status event_id", status={"const": "APPLIED"}, event_id=TEXT, charged=AMOUNT, balances=BALANCES),
    "ReservationDetail": closed(
        "reservation_id status subject action reserved created_at_ms expires_at_ms scope_path affected_scopes",
        reservation_id=TEXT,
        status={"enum": ["ACTIVE", "COMMITTED", "RELEASED", "EXPIRED"]},
        subject=FREE,
        action=FREE,
        reserved=AMOUNT,
        created_at_ms=COUNT,
        expires_at_ms=COUNT,
        scope_path=TEXT,
        affected_scopes=TEXTS,
        idempotency_key=TEXT,
        finalized_at_ms=COUNT,
        committed=AMOUNT,
        metadata=FREE,
        committed_metadata=FREE,
    ),
    "Reservations": page("reservations", "ReservationDetail"),
    "Balances": page("balances", "Balance"),
    "Introspection": closed(
        "authenticated auth_type permissions capabilities",
        authenticated={"const": True},
        auth_type={"enum": ["tenant", "admin"]},
        tenant_id=TEXT,
        permissions=TEXTS,
        capabilities=closed(" ".join(capabilities(None)), **dict.fromkeys(capabilities(None), FLAG)),
    ),
    "Event": closed(
        "event_id event_type category timestamp tenant_id source data actor",
        event_id=TEXT,
        event_type=TEXT,
        category={"enum": list(CATEGORIES)},
        timestamp=TIME,
        tenant_id=TEXT,
        source=TEXT,
        scope=TEXT,
        data=FREE,
        trace_id=TRACE,
        request_id=TEXT,
        actor=closed("type", type=TEXT, key_id=TEXT),
    ),
    "Events": page("events", "Event"),
    "LogLine": closed(
        "seq at_ms tenant type data",
        seq=COUNT,
        at_ms=COUNT,
        tenant=TEXT,
        type=TEXT,
        scope=TEXT,
        reservation_id=TEXT,
        data=FREE,
    ),
    "Log": closed("events", events=listed("LogLine")),
    "Tenant": closed(
        "tenant_id status created_at updated_at",
        tenant_id=TEXT,
        status={"enum": ["ACTIVE", "SUSPENDED", "CLOSED"]},
        created_at=TIME,
        updated_at=TIME,
        name=TEXT,
        parent_tenant_id=TEXT,
        default_commit_overage_policy=TEXT,
        default_reservation_ttl_ms=COUNT,
        max_reservation_ttl_ms=COUNT,
        max_reservation_extensions=COUNT,
        reservation_expiry_policy=TEXT,
        metadata=FREE,
    ),
    "Tenants": page("tenants", "Tenant"),
    "ApiKey": closed(_KEY_NAMES, **_KEY),
    "NewApiKey": closed(f"{_KEY_NAMES} key_secret", **_KEY, key_secret=TEXT),
    "ApiKeys": page("keys", "ApiKey"),
    "KeyValidation": closed(
        "valid",
        valid=FLAG,
        reason=TEXT,
        tenant_id=TEXT,
        key_id=TEXT,
        permissions=TEXTS,
        expires_at=TIME,
    ),
    "Budget": closed(
        "ledger_id tenant_id scope scope_path unit allocated remaining reserved spent debt overdraft_limit "
        "is_over_limit status created_at",
        ledger_id=TEXT,
        tenant_id=TEXT,
        scope=TEXT,
        scope_path=TEXT,
        unit=UNIT,
        allocated=AMOUNT,
        remaining=SIGNED,
        reserved=AMOUNT,
        spent=AMOUNT,
        debt=AMOUNT,
        overdraft_limit=AMOUNT,
        is_over_limit=FLAG,
        status={"enum": ["ACTIVE", "FROZEN", "CLOSED"]},
        created_at=TIME,
        commit_overage_policy=TEXT,
        period_start=TIME,
        period_end=TIME,
        period=FREE,
        caps={"type": "array", "items": FREE},
    ),
    "Budgets": page("ledgers", "Budget"),
    "AppliedBudgets": closed("ledgers", ledgers=listed("Budget")),
    "Funding": closed(" ".join(["operation", "timestamp", *_FUNDED]), operation=TEXT, timestamp=TIME, **_FUNDED),
    "Webhook": closed(_WEBHOOK_NAMES, **_WEBHOOK),
    "NewWebhook": closed(f"{_WEBHOOK_NAMES} signing_secret", **_WEBHOOK, signing_secret=TEXT),
    "Webhooks": page("subscriptions", "Webhook"),
    "Delivery": closed(
        "delivery_id subscription_id event_id event_type status attempted_at attempts trace_id",
        delivery_id=TEXT,
        subscription_id=TEXT,
        event_id=TEXT,
        event_type=TEXT,
        status={"enum": [PENDING, RETRYING, SUCCESS, FAILED]},
        attempted_at=TIME,
        attempts=COUNT,
        trace_id=TRACE,
        trace_flags=TEXT,
        traceparent_inbound_valid=FLAG,
        response_status=COUNT,
        response_time_ms=COUNT,
        error_message=TEXT,
        completed_at=TIME,
        next_retry_at=TIME,
    ),
    "Deliveries": page("deliveries", "Delivery"),
    "Replay": closed(
        "replay_id events_queued estimated_completion_seconds",
        replay_id=TEXT,
        events_queued=COUNT,
        estimated_completion_seconds=COUNT,
    ),
    "Capabilities": closed(
        "protocol server extensions headers durability",
        protocol=TEXT,
        server=TEXT,
        extensions=TEXTS,
        headers={"type": "object", "additionalProperties": TEXT},
        durability=TEXT,
    ),
    "Stop": closed(
        "scope tenant state reason actor at_ms in_flight",
        scope=TEXT,
        tenant=TEXT,
        state={"enum": ["RUNNING", "PAUSED", "KILLED"]},
        reason=TEXT,
        actor=TEXT,
        at_ms=COUNT,
        in_flight=TEXTS,
    ),
    "Stops": closed("stops", stops=listed("Stop")),
    "Stopped": closed("stopped", stopped={"type": "object", "additionalProperties": ref("Stop")}),
    "HookAnswer": closed(
        "decision",
        decision={"enum": ["ALLOW", "DENY"]},
        result={"type": "object", "description": "What the handler returns to its host."},
        code=TEXT,
        stop={"type": "boolean", "description": "The turn that is under way must end."},
    ),
    "Health": closed("status", status={"const": "UP"}),
}

ANSWERS = {
    "runtime.decide": "Decision",
    "runtime.create": "Reservation",
    "runtime.commit": "Commit",
    "runtime.release": "Release",
    "runtime.extend": "Lease",
    "runtime.event": "Applied",
    "reads.get_reservation": "ReservationDetail",
    "reads.list_reservations": "Reservations",
    "reads.balances": "Balances",
    "reads.introspect": "Introspection",
    "eventreads.tenant_events": "Events",
    "eventreads.admin_events": "Events",
    "eventreads.admin_event": "Event",
    "eventreads.own_log": "Log",
    "admin.create_tenant": "Tenant",
    "admin.list_tenants": "Tenants",
    "admin.get_tenant": "Tenant",
    "admin.patch_tenant": "Tenant",
    "admin.create_key": "NewApiKey",
    "admin.rotate_key": "NewApiKey",
    "admin.list_keys": "ApiKeys",
    "admin.patch_key": "ApiKey",
    "admin.revoke_key": "ApiKey",
    "admin.validate_key": "KeyValidation",
    "budgets.create_budget": "Budget",
    "budgets.put_budget": "Budget",
    "budgets.patch_budget": "Budget",
    "budgets.lookup_budget": "Budget",
    "budgets.freeze_budget": "Budget",
    "budgets.unfreeze_budget": "Budget",
    "budgets.close_budget": "Budget",
    "budgets.list_budgets": "Budgets",
    "budgets.apply_budgets": "AppliedBudgets",
    "budgets.fund_budget": "Funding",
    "webhooks.create": "NewWebhook",
    "webhooks.get": "Webhook",
    "webhooks.patch": "Webhook",
    "webhooks.listing": "Webhooks",
    "webhooks.deliveries": "Deliveries",
    "webhooks.replay": "Replay",
    "vendor.capabilities": "Capabilities",
    "vendor.start_run": "Reservation",
    "vendor.end_run": "RunEnd",
    "vendor.kill": "Stop",
    "vendor.pause": "Stop",
    "vendor.resume": "Stop",
    "vendor.stops": "Stops",
    "vendor.stopped": "Stopped",
    "hosthooks.openclaw": "HookAnswer",
    "documents.health": "Health",
    "documents.liveness": "Health",
}
OTHER_TYPES = {
    "stream.stream": "text/event-stream",
    "metrics.metrics": "text/plain; version=0.0.4; charset=utf-8",
    "documents.page": "text/html; charset=utf-8",
    "documents.openapi_json": "application/json",
}
"""Answers that no schema here describes."""

"""Our own OpenAPI document, from the same table of routes and the same bodies that answer."""

from __future__ import annotations

import re
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from clearance.model.amount import Unit
from clearance.server import adminbodies, bodies, subscriptions
from clearance.server.routes import ROUTES, Route

_BODIES: dict[str, type[BaseModel]] = {
    "runtime.decide": bodies.DecideBody,
    "runtime.create": bodies.ReserveBody,
    "runtime.commit": bodies.CommitBody,
    "runtime.release": bodies.ReleaseBody,
    "runtime.extend": bodies.ExtendBody,
    "runtime.event": bodies.EventBody,
    "vendor.start_run": bodies.RunBody,
    "vendor.end_run": bodies.EndRunBody,
    "vendor.kill": bodies.StopBody,
    "vendor.pause": bodies.StopBody,
    "vendor.resume": bodies.StopBody,
    "vendor.stopped": bodies.StoppedBody,
    "admin.create_tenant": adminbodies.NewTenant,
    "admin.patch_tenant": adminbodies.TenantPatch,
    "admin.create_key": adminbodies.NewKeyBody,
    "admin.patch_key": adminbodies.KeyPatch,
    "admin.rotate_key": adminbodies.RotateBody,
    "admin.validate_key": adminbodies.ValidateBody,
    "budgets.create_budget": adminbodies.NewBudget,
    "budgets.patch_budget": adminbodies.BudgetPatch,
    "budgets.put_budget": adminbodies.BudgetSpecBody,
    "budgets.fund_budget": adminbodies.FundBody,
    "budgets.freeze_budget": adminbodies.ReasonBody,
    "budgets.unfreeze_budget": adminbodies.ReasonBody,
    "webhooks.create": subscriptions.NewSubscription,
    "webhooks.patch": subscriptions.SubscriptionPatch,
    "webhooks.replay": subscriptions.ReplayBody,
}
_CREATED = {
    "runtime.event": "201",
    "vendor.start_run": "201",
    "admin.create_key": "201",
    "admin.rotate_key": "201",
    "budgets.create_budget": "201",
    "webhooks.create": "201",
    "webhooks.replay": "202",
    "webhooks.delete": "204",
}


def _obj(required: str, **properties: Any) -> dict[str, Any]:
    return {
        "type": "object",
        "required": required.split(),
        "properties": properties,
        "additionalProperties": False,
    }


_TEXT, _COUNT, _FLAG = {"type": "string"}, {"type": "integer", "minimum": 0}, {"type": "boolean"}
_AMOUNT, _SIGNED = {"$ref": "#/components/schemas/Amount"}, {"$ref": "#/components/schemas/SignedAmount"}
_TEXTS = {"type": "array", "items": _TEXT}
_BALANCES = {"type": "array", "items": {"$ref": "#/components/schemas/Balance"}}
_FREE = {"type": "object"}
_SUMMARY = {
    "reservation_id": _TEXT,
    "status": {"enum": ["ACTIVE", "COMMITTED", "RELEASED", "EXPIRED"]},
    "subject": _FREE,
    "action": _FREE,
    "reserved": _AMOUNT,
    "created_at_ms": _COUNT,
    "expires_at_ms": _COUNT,
    "scope_path": _TEXT,
    "affected_scopes": _TEXTS,
    "idempotency_key": _TEXT,
    "finalized_at_ms": _COUNT,
    "committed": _AMOUNT,
    "metadata": _FREE,
    "committed_metadata": _FREE,
}
_UNIT = {"enum": [unit.value for unit in Unit]}
_DECISION = {"enum": ["ALLOW", "ALLOW_WITH_CAPS", "DENY"]}
_DECIDED = {
    "decision": _DECISION,
    "affected_scopes": _TEXTS,
    "caps": _FREE,
    "reason_code": {"type": "string", "maxLength": 128},
    "retry_after_ms": _COUNT,
}
SCHEMAS: dict[str, Any] = {
    "Amount": _obj("unit amount", unit=_UNIT, amount=_COUNT),
    "SignedAmount": _obj("unit amount", unit=_UNIT, amount={"type": "integer"}),
    "Balance": _obj(
        "scope scope_path remaining",
        scope=_TEXT,
        scope_path=_TEXT,
        remaining=_SIGNED,
        reserved=_AMOUNT,
        spent=_AMOUNT,
        debt=_AMOUNT,
        allocated=_AMOUNT,
        overdraft_limit=_AMOUNT,
        is_over_limit=_FLAG,
    ),
    "Error": _obj(
        "error message request_id trace_id",
        error=_TEXT,
        message=_TEXT,
        request_id=_TEXT,
        trace_id={"type": "string", "pattern": "^[0-9a-f]{32}$"},
        details=_FREE,
    ),
    "decide": _obj("decision affected_scopes", **_DECIDED),
    "create": _obj(
        "decision affected_scopes",
        **_DECIDED,
        reservation_id=_TEXT,
        reserved=_AMOUNT,
        expires_at_ms=_COUNT,
        remaining_ttl_ms=_COUNT,
        scope_path=_TEXT,
        balances=_BALANCES,
    ),
    "commit": _obj(
        "status charged", status={"const": "COMMITTED"}, charged=_AMOUNT, released=_AMOUNT, balances=_BALANCES
    ),
    "release": _obj("status released", status={"const": "RELEASED"}, released=_AMOUNT, balances=_BALANCES),
    "extend": _obj("status expires_at_ms", status={"const": "ACTIVE"}, expires_at_ms=_COUNT, remaining_ttl_ms=_COUNT),
    "event": _obj("status event_id", status={"const": "APPLIED"}, event_id=_TEXT, charged=_AMOUNT, balances=_BALANCES),
    "get_reservation": _obj(
        "reservation_id status subject action reserved created_at_ms expires_at_ms scope_path affected_scopes",
        **_SUMMARY,
    ),
    "list_reservations": _obj(
        "reservations",
        reservations={"type": "array", "items": {"$ref": "#/components/schemas/get_reservation"}},
        has_more=_FLAG,
        next_cursor=_TEXT,
    ),
    "balances": _obj("balances", balances=_BALANCES, has_more=_FLAG, next_cursor=_TEXT),
}
_RUNTIME = {f"{home}.{name}" for home in ("runtime", "reads") for name in SCHEMAS}


def _name(route: Route) -> str:
    return f"{route.handler.__module__.rpartition('.')[2]}.{route.handler.__name__}"


def document() -> dict[str, Any]:
    models = sorted(set(_BODIES.values()), key=lambda model: model.__name__)
    _, found = models_json_schema(
        [(model, "validation") for model in models], ref_template="#/components/schemas/{model}"
    )
    paths: dict[str, Any] = {}
    for route in ROUTES:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route)
    return {
        "openapi": "3.1.0",
        "info": {"title": "Clearance", "version": "0.1.0", "description": "The Cycles protocol, v0.1.25, and ours."},
        "paths": paths,
        "components": {
            "schemas": _without_nulls(found.get("$defs", {})) | SCHEMAS,
            "securitySchemes": {
                "tenant": {"type": "apiKey", "in": "header", "name": "X-Cycles-API-Key"},
                "admin": {"type": "apiKey", "in": "header", "name": "X-Admin-API-Key"},
            },
        },
    }


def _without_nulls(schemas: dict[str, Any]) -> dict[str, Any]:
    """A default of null only means that a field may be absent."""
    for schema in schemas.values():
        for field in schema.get("properties", {}).values():
            if "default" in field and field["default"] is None:
                del field["default"]
    return schemas


def _operation(route: Route) -> dict[str, Any]:
    name = _name(route)
    success = _CREATED.get(name, "200")
    errors = ["400", "401", "403", "404", "409", "410", "413", "415", "429", "500"]
    operation: dict[str, Any] = {
        "operationId": f"{route.method.lower()}_{re.sub(r'[^a-z0-9]+', '_', route.path.lower()).strip('_')}",
        "summary": name.rpartition(".")[2].replace("_", " "),
        "tags": [name.partition(".")[0]],
        "parameters": [
            {"name": part, "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}
            for part in re.findall(r"{(\w+)}", route.path)
        ],
        "responses": {success: _success(name)} | {status: _error() for status in errors},
        "security": _security(route.access),
    }
    if route.path == "/v1/admin/tenants" and route.method == "POST":
        operation["responses"]["201"] = _success(name)
    if route.permission:
        operation["description"] = f"A tenant's key needs the permission {route.permission}."
    if name in _BODIES:
        schema = {"$ref": f"#/components/schemas/{_BODIES[name].__name__}"}
        operation["requestBody"] = {"required": True, "content": {"application/json": {"schema": schema}}}
    return operation


def _success(name: str) -> dict[str, Any]:
    answer: dict[str, Any] = {"description": "Done", "headers": _HEADERS}
    if name in _RUNTIME:
        schema = {"$ref": f"#/components/schemas/{name.rpartition('.')[2]}"}
        answer["content"] = {"application/json": {"schema": schema}}
    return answer


def _error() -> dict[str, Any]:
    schema = {"$ref": "#/components/schemas/Error"}
    return {"description": "Refused", "headers": _HEADERS, "content": {"application/json": {"schema": schema}}}


_HEADERS = {
    "X-Request-Id": {"schema": _TEXT, "required": True},
    "X-Cycles-Trace-Id": {"schema": {"type": "string", "pattern": "^[0-9a-f]{32}$"}, "required": True},
}


def _security(access: str) -> list[dict[str, list[str]]]:
    kinds = {"tenant": ["tenant"], "admin": ["admin"], "either": ["tenant", "admin"], "public": []}
    return [{kind: []} for kind in kinds[access]]

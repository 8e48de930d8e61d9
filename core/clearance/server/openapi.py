"""Our own OpenAPI document, from the same table of routes and the same bodies that answer."""

from __future__ import annotations

import re
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from clearance.server import adminbodies, bodies, hosthooks, subscriptions
from clearance.server.openapi_answers import ANSWERS, COUNT, OTHER_TYPES, SCHEMAS, TEXT, TRACE, WHOLE, ref
from clearance.server.openapi_parameters import parameters_of
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
    "hosthooks.openclaw": hosthooks.HookBody,
    "admin.create_tenant": adminbodies.NewTenant,
    "admin.patch_tenant": adminbodies.TenantPatch,
    "admin.create_key": adminbodies.NewKeyBody,
    "admin.patch_key": adminbodies.KeyPatch,
    "admin.rotate_key": adminbodies.RotateBody,
    "admin.validate_key": adminbodies.ValidateBody,
    "budgets.create_budget": adminbodies.NewBudget,
    "budgets.patch_budget": adminbodies.BudgetPatch,
    "budgets.put_budget": adminbodies.BudgetSpecBody,
    "budgets.apply_budgets": adminbodies.BudgetsBody,
    "budgets.close_budget": adminbodies.ReasonBody,
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
            "headers": HEADERS,
            "responses": RESPONSES,
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
    operation: dict[str, Any] = {
        "operationId": f"{route.method.lower()}_{re.sub(r'[^a-z0-9]+', '_', route.path.lower()).strip('_')}",
        "summary": name.rpartition(".")[2].replace("_", " "),
        "tags": [name.partition(".")[0]],
        "parameters": [*map(_in_path, re.findall(r"{(\w+)}", route.path)), *parameters_of(name)],
        "responses": {_CREATED.get(name, "200"): _success(route)} | {status: _error(status) for status in _ERRORS},
        "security": _security(route.access),
    }
    if name == "admin.create_tenant":
        operation["responses"]["201"] = _success(route)
    if route.permission:
        operation["description"] = f"A tenant's key needs the permission {route.permission}."
    if name in _BODIES:
        content = {"application/json": {"schema": ref(_BODIES[name].__name__)}}
        operation["requestBody"] = {"required": name not in _OPTIONAL, "content": content}
    return operation


_ERRORS = ("400", "401", "403", "404", "405", "408", "409", "410", "413", "415", "429", "431", "500", "503")
_OPTIONAL = {
    "admin.rotate_key",
    "budgets.close_budget",
    "budgets.freeze_budget",
    "budgets.unfreeze_budget",
    "vendor.end_run",
}


def _in_path(part: str) -> dict[str, Any]:
    return {"name": part, "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}


def _success(route: Route) -> dict[str, Any]:
    name = _name(route)
    answer: dict[str, Any] = {"description": "Done", "headers": _HEADERS | _own_headers(route)}
    if name in ANSWERS:
        answer["content"] = {"application/json": {"schema": ref(ANSWERS[name])}}
    elif name in OTHER_TYPES:
        answer["content"] = {OTHER_TYPES[name]: {"schema": {}}}
    return answer


def _error(status: str) -> dict[str, Any]:
    return {"$ref": f"#/components/responses/{'Limited' if status == '429' else 'Refused'}"}


HEADERS: dict[str, dict[str, Any]] = {
    "X-Request-Id": {"schema": TEXT, "required": True},
    "X-Cycles-Trace-Id": {"schema": TRACE, "required": True},
    "X-Cycles-Tenant": {"schema": TEXT, "required": True},
    "X-RateLimit-Remaining": {"schema": WHOLE, "required": True},
    "X-RateLimit-Reset": {"schema": COUNT, "required": True},
    "Retry-After": {"schema": COUNT, "required": True},
}


def _told(*names: str) -> dict[str, Any]:
    return {name: {"$ref": f"#/components/headers/{name}"} for name in names}


_HEADERS = _told("X-Request-Id", "X-Cycles-Trace-Id")
_LIMITS = _told("X-RateLimit-Remaining", "X-RateLimit-Reset")
_REFUSED = {
    "description": "Refused",
    "headers": _HEADERS,
    "content": {"application/json": {"schema": ref("Error")}},
}
RESPONSES = {"Refused": _REFUSED, "Limited": {**_REFUSED, "headers": _HEADERS | _told("Retry-After")}}


def _own_headers(route: Route) -> dict[str, Any]:
    """What a success tells beside its body: the rate limit everywhere below /v1, the tenant where only tenants ask."""
    headers = _LIMITS if route.path.startswith("/v1/") else {}
    return headers | (_told("X-Cycles-Tenant") if route.access == "tenant" else {})


def _security(access: str) -> list[dict[str, list[str]]]:
    kinds = {"tenant": ["tenant"], "admin": ["admin"], "either": ["tenant", "admin"], "public": []}
    return [{kind: []} for kind in kinds[access]]

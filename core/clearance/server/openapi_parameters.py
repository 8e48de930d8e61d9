"""The query parameters and headers that each route reads, as OpenAPI writes them."""

from __future__ import annotations

from typing import Any

from clearance.model.amount import Unit
from clearance.model.subject import LEVELS
from clearance.server import budgets, eventreads, reads, tenants, webhooks
from clearance.server.bodies import SCOPE
from clearance.server.eventtypes import CATEGORIES

Parameter = dict[str, Any]


_EMPTY = {"const": ""}
"""A filter that is sent without a value is none."""


def _query(name: str, schema: dict[str, Any], *, required: bool = False, what: str = "") -> Parameter:
    found: Parameter = {"name": name, "in": "query", "schema": schema}
    if required:
        found["required"] = True
    return found | ({"description": what} if what else {})


def _text(name: str, what: str = "", most: int | None = None) -> Parameter:
    return _query(name, {"type": "string"} | ({"maxLength": most} if most else {}), what=what)


def _choice(name: str, *values: str, required: bool = False) -> Parameter:
    return _query(name, {"enum": list(values)}, required=required)


def _moment(name: str) -> Parameter:
    return _query(name, {"anyOf": [{"type": "string", "format": "date-time"}, _EMPTY]}, what="ISO 8601 with its offset")


def _limit(most: int) -> Parameter:
    return _query("limit", {"type": "integer", "minimum": 1, "maximum": most})


def _count(name: str) -> Parameter:
    return _query(name, {"anyOf": [{"type": "integer", "minimum": 0, "maximum": 10**18 - 1}, _EMPTY]})


_SCOPE = {"type": "string"} | SCOPE
_ANY_SCOPE = {"anyOf": [_SCOPE, _EMPTY]}

_CURSOR = _text("cursor", "the next_cursor of the page before, with the same filters")
_UNITS = tuple(unit.value for unit in Unit)
_BUDGET = [_query("scope", _SCOPE, required=True), _choice("unit", *_UNITS, required=True)]
_TENANT = _text("tenant_id", "of the operator: whose; a tenant's key has its own")
_LEVELS = [_text(level) for level in LEVELS]
_WINDOW = [_moment("from"), _moment("to")]
_DIRECTION = _choice("sort_dir", "asc", "desc")
_LOG = [
    _text("event_type"),
    _choice("category", *CATEGORIES),
    _query("scope", _ANY_SCOPE),
    *_WINDOW,
    _choice("sort_by", "timestamp"),
    _DIRECTION,
    _limit(100),
    _CURSOR,
]

QUERIES: dict[str, list[Parameter]] = {
    "reads.list_reservations": [
        *_LEVELS,
        _choice("status", *reads.STATUSES),
        _text("idempotency_key"),
        *_WINDOW,
        *(_moment(f"{what}_{end}") for what in ("expires", "finalized") for end in ("from", "to")),
        _choice("sort_by", *reads.SORTABLE),
        _DIRECTION,
        _text("include", "metadata, committed_metadata"),
        _limit(200),
        _CURSOR,
    ],
    "reads.balances": [
        *_LEVELS,
        _TENANT,
        _query("scope_prefix", _ANY_SCOPE),
        _choice("unit", *_UNITS),
        _query("include_children", {"type": "boolean"}, what="accepted; descendants are always there"),
        _limit(200),
        _CURSOR,
    ],
    "eventreads.tenant_events": _LOG,
    "eventreads.admin_events": [
        _TENANT,
        *_LOG,
        _text("trace_id"),
        _text("request_id"),
        _text("search", "part of a scope", most=128),
    ],
    "eventreads.own_log": [
        _count("after"),
        _text("tenant"),
        _query("scope", {"anyOf": [_ANY_SCOPE, {"const": "*"}, {"type": "string", "pattern": "^run:"}]}),
        _text("types", "names of ours, with commas between"),
        _text("reservation_id"),
        _choice("order", "asc", "desc"),
        _limit(eventreads.MAX_LINES),
    ],
    "admin.list_tenants": [_choice("status", *tenants.STATUSES), _limit(100), _CURSOR],
    "admin.list_keys": [_TENANT, _choice("status", "ACTIVE", "REVOKED", "EXPIRED"), _limit(100), _CURSOR],
    "admin.revoke_key": [_text("reason")],
    "budgets.list_budgets": [
        _TENANT,
        _query("scope_prefix", _ANY_SCOPE),
        _choice("unit", *_UNITS),
        _choice("status", *budgets.STATUSES),
        _limit(100),
        _CURSOR,
    ],
    "budgets.lookup_budget": _BUDGET,
    "budgets.patch_budget": _BUDGET,
    "budgets.fund_budget": [_TENANT, *_BUDGET],
    "budgets.freeze_budget": _BUDGET,
    "budgets.unfreeze_budget": _BUDGET,
    "budgets.close_budget": _BUDGET,
    "webhooks.create": [_TENANT],
    "webhooks.listing": [_TENANT, _limit(100), _CURSOR],
    "webhooks.deliveries": [_choice("status", *webhooks.STATUSES), *_WINDOW, _limit(100), _CURSOR],
    "stream.stream": [_TENANT, _count("after")],
}


def _header(name: str, what: str, schema: dict[str, Any] | None = None) -> Parameter:
    return {"name": name, "in": "header", "schema": schema or {"type": "string"}, "description": what}


_KEY = _header(
    "X-Idempotency-Key", "repeats idempotency_key of the body", {"type": "string", "minLength": 1, "maxLength": 256}
)
_RUN = _header("X-Clearance-Run-Id", "ours: the run that this is a part of")
_EXTENDED = _header("X-Clearance-Extensions", "ours: caps may have fields that the protocol does not know")
_HEADERS: dict[str, list[Parameter]] = {
    "runtime.decide": [_KEY, _EXTENDED],
    "runtime.create": [_KEY, _RUN, _EXTENDED],
    "runtime.commit": [_KEY],
    "runtime.release": [_KEY],
    "runtime.extend": [_KEY],
    "runtime.event": [_KEY, _RUN],
    "vendor.start_run": [_KEY],
    "stream.stream": [_header("Last-Event-ID", "where to go on")],
}


def parameters_of(name: str) -> list[Parameter]:
    return [*QUERIES.get(name, ()), *_HEADERS.get(name, ())]

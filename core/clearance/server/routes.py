"""The table of routes, and how a path finds its row."""

from __future__ import annotations

from typing import NamedTuple

from clearance.server import (
    admin,
    budgets,
    documents,
    eventreads,
    hosthooks,
    metrics,
    reads,
    runtime,
    stream,
    vendor,
    webhooks,
)
from clearance.server.context import Handler
from clearance.server.errors import Refused
from clearance.server.http import Call


class Route(NamedTuple):
    """`access`: `tenant`, `admin`, `either` or `public`. `permission` binds tenant keys."""

    method: str
    path: str
    handler: Handler
    access: str
    permission: str | None = None


_RESERVATION = "/v1/reservations/{reservation_id}"
_RUNS = "/v1/x-clearance/runs"
_WEBHOOK = "/v1/admin/webhooks/{subscription_id}"
_OWN_WEBHOOK = "/v1/webhooks/{subscription_id}"

ROUTES = (
    # The runtime plane.
    Route("POST", "/v1/decide", runtime.decide, "tenant", "decide"),
    Route("POST", "/v1/reservations", runtime.create, "tenant", "reservations:create"),
    Route("GET", "/v1/reservations", reads.list_reservations, "either", "reservations:list"),
    Route("GET", _RESERVATION, reads.get_reservation, "either", "reservations:list"),
    Route("POST", _RESERVATION + "/commit", runtime.commit, "tenant", "reservations:commit"),
    Route("POST", _RESERVATION + "/release", runtime.release, "either", "reservations:release"),
    Route("POST", _RESERVATION + "/extend", runtime.extend, "tenant", "reservations:extend"),
    Route("GET", "/v1/balances", reads.balances, "tenant", "balances:read"),
    Route("POST", "/v1/events", runtime.event, "tenant", "events:create"),
    # Across the planes.
    Route("GET", "/v1/auth/introspect", reads.introspect, "either"),
    Route("GET", "/v1/events", eventreads.tenant_events, "tenant", "events:read"),
    Route("GET", "/v1/admin/events", eventreads.admin_events, "admin"),
    Route("GET", "/v1/admin/events/{event_id}", eventreads.admin_event, "admin"),
    Route("GET", _WEBHOOK + "/deliveries", webhooks.deliveries, "admin"),
    Route("GET", _OWN_WEBHOOK + "/deliveries", webhooks.deliveries, "tenant", "webhooks:read"),
    Route("POST", _WEBHOOK + "/replay", webhooks.replay, "admin"),
    # Provisioning.
    Route("POST", "/v1/admin/tenants", admin.create_tenant, "admin"),
    Route("GET", "/v1/admin/tenants", admin.list_tenants, "admin"),
    Route("GET", "/v1/admin/tenants/{tenant_id}", admin.get_tenant, "admin"),
    Route("PATCH", "/v1/admin/tenants/{tenant_id}", admin.patch_tenant, "admin"),
    Route("POST", "/v1/admin/api-keys", admin.create_key, "admin"),
    Route("GET", "/v1/admin/api-keys", admin.list_keys, "admin"),
    Route("PATCH", "/v1/admin/api-keys/{key_id}", admin.patch_key, "admin"),
    Route("DELETE", "/v1/admin/api-keys/{key_id}", admin.revoke_key, "admin"),
    Route("POST", "/v1/auth/validate", admin.validate_key, "admin"),
    Route("POST", "/v1/admin/budgets", budgets.create_budget, "either", "budgets:write"),
    Route("GET", "/v1/admin/budgets", budgets.list_budgets, "either", "budgets:read"),
    Route("PATCH", "/v1/admin/budgets", budgets.patch_budget, "either", "budgets:write"),
    Route("GET", "/v1/admin/budgets/lookup", budgets.lookup_budget, "either", "budgets:read"),
    Route("POST", "/v1/admin/budgets/fund", budgets.fund_budget, "either", "budgets:write"),
    Route("POST", "/v1/admin/budgets/freeze", budgets.freeze_budget, "either", "budgets:write"),
    Route("POST", "/v1/admin/budgets/unfreeze", budgets.unfreeze_budget, "either", "budgets:write"),
    Route("POST", "/v1/admin/webhooks", webhooks.create, "admin"),
    Route("GET", "/v1/admin/webhooks", webhooks.listing, "admin"),
    Route("GET", _WEBHOOK, webhooks.get, "admin"),
    Route("PATCH", _WEBHOOK, webhooks.patch, "admin"),
    Route("DELETE", _WEBHOOK, webhooks.delete, "admin"),
    Route("POST", "/v1/webhooks", webhooks.create, "tenant", "webhooks:write"),
    Route("GET", "/v1/webhooks", webhooks.listing, "tenant", "webhooks:read"),
    Route("GET", _OWN_WEBHOOK, webhooks.get, "tenant", "webhooks:read"),
    Route("PATCH", _OWN_WEBHOOK, webhooks.patch, "tenant", "webhooks:write"),
    Route("DELETE", _OWN_WEBHOOK, webhooks.delete, "tenant", "webhooks:write"),
    # Our own.
    Route("GET", "/v1/x-clearance/capabilities", vendor.capabilities, "either"),
    Route("POST", _RUNS, vendor.start_run, "tenant", "reservations:create"),
    Route("POST", _RUNS + "/{reservation_id}/end", vendor.end_run, "tenant", "reservations:commit"),
    Route("POST", "/v1/x-clearance/kill", vendor.kill, "either", "budgets:write"),
    Route("POST", "/v1/x-clearance/pause", vendor.pause, "either", "budgets:write"),
    Route("POST", "/v1/x-clearance/resume", vendor.resume, "either", "budgets:write"),
    Route("GET", "/v1/x-clearance/stops", vendor.stops, "either", "budgets:read"),
    Route("POST", "/v1/x-clearance/stopped", vendor.stopped, "tenant", "reservations:extend"),
    Route("GET", "/v1/x-clearance/stream", stream.stream, "either", "events:read"),
    Route("GET", "/v1/x-clearance/events", eventreads.own_log, "either", "events:read"),
    Route("PUT", "/v1/x-clearance/budgets", budgets.put_budget, "either", "budgets:write"),
    Route("POST", "/v1/x-clearance/budgets/apply", budgets.apply_budgets, "either", "budgets:write"),
    Route("POST", "/v1/x-clearance/budgets/close", budgets.close_budget, "either", "budgets:write"),
    Route("POST", "/v1/x-clearance/api-keys/{key_id}/rotate", admin.rotate_key, "admin"),
    Route("POST", "/v1/x-clearance/hooks/openclaw", hosthooks.openclaw, "tenant", "reservations:create"),
    # For everyone.
    Route("GET", "/healthz", documents.health, "public"),
    Route("GET", "/actuator/health", documents.health, "public"),
    Route("GET", "/actuator/health/readiness", documents.health, "public"),
    Route("GET", "/actuator/health/liveness", documents.liveness, "public"),
    Route("GET", "/metrics", metrics.metrics, "public"),
    Route("GET", "/openapi.json", documents.openapi_json, "public"),
    Route("GET", "/docs", documents.page, "public"),
)


class Routing:
    """Whole paths by a dict, the others by their segments."""

    def __init__(self, routes: tuple[Route, ...] = ROUTES) -> None:
        self._whole: dict[str, dict[str, Route]] = {}
        self._patterns: dict[int, list[tuple[list[str], dict[str, Route]]]] = {}
        for route in routes:
            self._methods(route.path)[route.method] = route

    def _methods(self, path: str) -> dict[str, Route]:
        if "{" not in path:
            return self._whole.setdefault(path, {})
        segments = path.split("/")
        same_length = self._patterns.setdefault(len(segments), [])
        for known, methods in same_length:
            if known == segments:
                return methods
        same_length.append((segments, {}))
        return same_length[-1][1]

    def find(self, call: Call) -> Route:
        """404 for a path that is not there, 405 for one that is."""
        methods = self._whole.get(call.path) or self._matching(call)
        if methods is None:
            raise Refused(404, "NOT_FOUND", "there is nothing at this path")
        route = methods.get(call.method)
        if route is None:
            allowed = ", ".join(sorted(methods)).encode()
            raise Refused(
                405, "INVALID_REQUEST", f"{call.method[:16]} is not allowed here", headers=[(b"allow", allowed)]
            )
        return route

    def _matching(self, call: Call) -> dict[str, Route] | None:
        given = call.path.split("/")
        for segments, methods in self._patterns.get(len(given), ()):
            if all(known == text or known[:1] == "{" for known, text in zip(segments, given, strict=True)):
                call.params = {
                    known[1:-1]: text for known, text in zip(segments, given, strict=True) if known[:1] == "{"
                }
                return methods
        return None

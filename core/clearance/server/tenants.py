"""Tenants: a document for what people set, and a row of the ledger for what the authority heeds."""

from __future__ import annotations

import time
from typing import Any

from clearance.authority import lifecycle
from clearance.authority.embedded import EmbeddedAuthority
from clearance.errors import TenantClosed
from clearance.server import keys
from clearance.server.errors import Refused, not_found
from clearance.server.settings import Settings
from clearance.server.wire import Wire, iso
from clearance.store.interface import Changes, NewEvent, Record, Tenant, Transaction

KIND = "tenant"
ACTIVE, SUSPENDED, CLOSED = "ACTIVE", "SUSPENDED", "CLOSED"
STATUSES = (ACTIVE, SUSPENDED, CLOSED)
MAX_CACHED = 10_000

_SETTINGS = (
    "default_commit_overage_policy",
    "default_reservation_ttl_ms",
    "max_reservation_ttl_ms",
    "max_reservation_extensions",
    "reservation_expiry_policy",
)
_SHOWN = ("name", "parent_tenant_id", *_SETTINGS, "metadata")


def shown(record: Record, row: Tenant | None) -> Wire:
    body = record.body
    closed = row is not None and row.status == CLOSED
    wire: Wire = {
        "tenant_id": record.id,
        "status": CLOSED if closed else body["status"],
        "created_at": iso(body["created_at_ms"]),
        "updated_at": iso(body["updated_at_ms"]),
    }
    return wire | {name: body[name] for name in _SHOWN if body.get(name) is not None}


def existing(tx: Transaction, tenant: str) -> Record:
    record = tx.record(KIND, tenant)
    if record is None:
        raise not_found(f"no tenant {tenant}", "TENANT_NOT_FOUND")
    return record


def create(tx: Transaction, tenant: str, facts: Wire, now_ms: int) -> tuple[Wire, bool]:
    """The tenant, and whether it is new."""
    known, row = tx.record(KIND, tenant), tx.tenant(tenant)
    if known is not None:
        return shown(known, row), False
    if row is not None and row.status == CLOSED:
        raise TenantClosed(f"tenant {tenant} is closed, for good", scope=f"tenant:{tenant}")
    body = {"status": ACTIVE, **facts, "created_at_ms": now_ms, "updated_at_ms": now_ms}
    record = Record(KIND, tenant, tenant, body)
    event = NewEvent("tenant.created", tenant, f"tenant:{tenant}", None, {"tenant_id": tenant})
    tx.write(Changes(records=[record], tenants=[_row(record)], events=[event]), now_ms)
    return shown(record, None), True


def _row(record: Record) -> Tenant:
    body = record.body
    return Tenant(
        record.id,
        body["status"],
        body.get("default_commit_overage_policy"),
        body.get("max_reservation_extensions"),
    )


def update(tx: Transaction, tenant: str, facts: Wire, now_ms: int) -> Wire:
    record, row = existing(tx, tenant), tx.tenant(tenant)
    if row is not None and row.status == CLOSED:
        if facts == {"status": CLOSED}:
            return shown(record, row)
        raise TenantClosed(f"tenant {tenant} is closed, for good", scope=f"tenant:{tenant}")
    before = record.body["status"]
    after = record._replace(body={**record.body, **facts, "updated_at_ms": now_ms})
    if after.body["status"] == CLOSED:
        return _close(tx, after, now_ms)
    event = NewEvent(
        _event_of(before, after.body["status"], facts),
        tenant,
        f"tenant:{tenant}",
        None,
        {"tenant_id": tenant, "changed_fields": sorted(facts), "new_status": after.body["status"]},
    )
    tx.write(Changes(records=[after], tenants=[_row(after)], events=[event]), now_ms)
    return shown(after, None)


def _event_of(before: str, after: str, facts: Wire) -> str:
    if before != after:
        return "tenant.suspended" if after == SUSPENDED else "tenant.reactivated"
    return "tenant.settings_changed" if set(facts) & set(_SETTINGS) else "tenant.updated"


def _close(tx: Transaction, record: Record, now_ms: int) -> Wire:
    """For good, in one transaction: holds released, budgets closed, keys revoked, webhooks disabled (section 17.3)."""
    lifecycle.close_tenant(tx, record.id, now_ms)
    tx.write(Changes(records=[record]), now_ms)
    for key in keys.of_tenant(tx, record.id):
        changes = keys.revoked(key, now_ms, "api_key.revoked_via_tenant_cascade", "tenant_closed")
        if changes.records:
            tx.write(changes, now_ms)
    for webhook in tx.records("webhook", record.id, "", 200):
        if webhook.body["status"] != "DISABLED":
            off = webhook._replace(body={**webhook.body, "status": "DISABLED"})
            event = NewEvent(
                "webhook.disabled_via_tenant_cascade", record.id, None, None, {"subscription_id": webhook.id}
            )
            tx.write(Changes(records=[off], events=[event]), now_ms)
    return shown(record, tx.tenant(record.id))


class TenantBook:
    """What a request needs to know of its tenant, read at most once a second."""

    def __init__(self, authority: EmbeddedAuthority, settings: Settings) -> None:
        self._authority = authority
        self._seconds = settings.key_cache_seconds
        self._known: dict[str, tuple[dict[str, Any] | None, float]] = {}

    def forget(self) -> None:
        self._known.clear()

    def facts(self, tenant: str) -> dict[str, Any] | None:
        """None for a tenant without a record: nothing governs it. 500 for a record that says nothing readable."""
        now = time.monotonic()
        known = self._known.get(tenant)
        if known is not None and now - known[1] < self._seconds:
            return known[0]
        record = self._authority.record(KIND, tenant)
        facts = record.body if record else None
        if facts is not None and facts.get("status") not in STATUSES:
            raise Refused(500, "INTERNAL_ERROR", f"the record of tenant {tenant} cannot be read")
        if len(self._known) >= MAX_CACHED:
            self._known.clear()
        self._known[tenant] = (facts, now)
        return facts

    def ttl_ms(self, tenant: str, asked: int | None, default: int) -> int:
        """The lease that is granted: the tenant's default, and never more than its maximum."""
        facts = self.facts(tenant) or {}
        ttl: int = asked if asked is not None else facts.get("default_reservation_ttl_ms") or default
        most = facts.get("max_reservation_ttl_ms")
        return min(ttl, most) if most else ttl

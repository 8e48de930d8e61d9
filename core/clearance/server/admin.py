"""Provisioning of tenants and API keys, on the surface that clients of the reference server use (section 17.1)."""

from __future__ import annotations

from typing import Any

from clearance.errors import InvalidRequest
from clearance.server import keys, parameters, tenants
from clearance.server.adminbodies import KeyPatch, NewKeyBody, NewTenant, RotateBody, TenantPatch, ValidateBody
from clearance.server.context import Server
from clearance.server.errors import Refused, not_found
from clearance.server.http import Call, Reply
from clearance.server.permissions import DEFAULT_PERMISSIONS
from clearance.server.reads import more
from clearance.server.wire import Wire, iso
from clearance.store.interface import Changes, NewEvent, Record, Transaction

# -- tenants --------------------------------------------------------------------------------------


async def create_tenant(server: Server, call: Call) -> Reply:
    body = await call.body(NewTenant, server.settings)
    facts = body.model_dump(exclude_unset=True, exclude={"tenant_id"})
    wire, is_new = await server.authority.akeep(lambda tx, now: tenants.create(tx, body.tenant_id, facts, now))
    server.forget()
    return Reply(wire, status=201 if is_new else 200)


async def list_tenants(server: Server, call: Call) -> Reply:
    limit = parameters.limit(call, 100)
    status = parameters.choice(call, "status", tenants.STATUSES)
    after = call.query.get("cursor", "")
    rows = {row.tenant: row for row in server.authority.tenants()}
    found: list[Wire] = []
    while len(found) <= limit:
        records = server.authority.records(tenants.KIND, after=after)
        shown = [tenants.shown(record, rows.get(record.id)) for record in records]
        found += [wire for wire in shown if status in (None, wire["status"])]
        if len(records) < 200:
            break
        after = records[-1].id
    cursor = found[limit - 1]["tenant_id"] if len(found) > limit else None
    return Reply({"tenants": found[:limit]} | more(cursor))


async def get_tenant(server: Server, call: Call) -> Reply:
    tenant = call.params["tenant_id"]
    record = server.authority.record(tenants.KIND, tenant)
    if record is None:
        raise not_found(f"no tenant {tenant[:64]}", "TENANT_NOT_FOUND")
    row = next((row for row in server.authority.tenants() if row.tenant == tenant), None)
    return Reply(tenants.shown(record, row))


async def patch_tenant(server: Server, call: Call) -> Reply:
    body = await call.body(TenantPatch, server.settings)
    facts = body.model_dump(exclude_unset=True)
    tenant = call.params["tenant_id"]
    wire = await server.authority.akeep(lambda tx, now: tenants.update(tx, tenant, facts, now))
    server.forget()
    return Reply(wire)


# -- keys -----------------------------------------------------------------------------------------


async def create_key(server: Server, call: Call) -> Reply:
    body = await call.body(NewKeyBody, server.settings)
    facts: Wire = {"name": body.name, "permissions": body.permissions or list(DEFAULT_PERMISSIONS)}
    if body.permissions is not None:
        facts["permissions"] = body.permissions
    if body.expires_at is not None:
        facts["expires_at_ms"] = int(body.expires_at.timestamp() * 1000)
    facts |= {name: getattr(body, name) for name in ("description", "metadata") if getattr(body, name) is not None}

    def change(tx: Transaction, now_ms: int) -> keys.NewKey:
        record = tenants.existing(tx, body.tenant_id)
        _require_open(tx, record)
        if facts.get("expires_at_ms", now_ms + 1) <= now_ms:
            raise InvalidRequest("expires_at", "is in the past", "a time to come")
        made = keys.new_key(_new_id(now_ms, server), body.tenant_id, now_ms, facts)
        tx.write(keys.written(made), now_ms)
        return made

    made = await server.authority.akeep(change)
    server.forget()
    return Reply(_with_secret(made, server.authority.now_ms()), status=201)


def _require_open(tx: Transaction, record: Record) -> None:
    row = tx.tenant(record.id)
    if row is not None and row.status == tenants.CLOSED:
        raise Refused(409, "TENANT_CLOSED", f"tenant {record.id} is closed, for good")


def _new_id(now_ms: int, server: Server) -> str:
    return "key_" + server.authority.new_id(now_ms)


def _with_secret(made: keys.NewKey, now_ms: int) -> Wire:
    return {**keys.shown(made.record, now_ms), "key_secret": made.secret}


async def list_keys(server: Server, call: Call) -> Reply:
    limit = parameters.limit(call, 100)
    tenant = call.query.get("tenant_id") or None
    status = parameters.choice(call, "status", ("ACTIVE", "REVOKED", "EXPIRED"))
    now_ms, after = server.authority.now_ms(), call.query.get("cursor", "")
    found: list[Wire] = []
    while len(found) <= limit:
        records = server.authority.records(keys.KIND, tenant=tenant, after=after)
        found += [wire for wire in keys.listed(records, now_ms) if status in (None, wire["status"])]
        if len(records) < 200:
            break
        after = records[-1].id
    cursor = found[limit - 1]["key_id"] if len(found) > limit else None
    return Reply({"keys": found[:limit]} | more(cursor))


async def patch_key(server: Server, call: Call) -> Reply:
    body = await call.body(KeyPatch, server.settings)
    facts = body.model_dump(exclude_unset=True)

    def change(tx: Transaction, now_ms: int) -> Record:
        record = keys.existing(tx, call.params["key_id"])
        after = record._replace(body={**record.body, **facts})
        kind = "api_key.permissions_changed" if "permissions" in facts else "api_key.updated"
        event = NewEvent(kind, record.tenant, None, None, {"key_id": record.id, "changed_fields": sorted(facts)})
        tx.write(Changes(records=[after], events=[event]), now_ms)
        return after

    after = await server.authority.akeep(change)
    server.forget()
    return Reply(keys.shown(after, server.authority.now_ms()))


async def revoke_key(server: Server, call: Call) -> Reply:
    def change(tx: Transaction, now_ms: int) -> Record:
        record = keys.existing(tx, call.params["key_id"])
        changes = keys.revoked(record, now_ms, reason=call.query.get("reason"))
        if not changes.records:
            return record
        tx.write(changes, now_ms)
        return changes.records[0]

    after = await server.authority.akeep(change)
    server.forget()
    return Reply(keys.shown(after, server.authority.now_ms()))


async def rotate_key(server: Server, call: Call) -> Reply:
    """A new secret with the rights of the old one, which ends at once or after an overlap. Our own route."""
    body = await call.body(RotateBody, server.settings, optional=True)

    def change(tx: Transaction, now_ms: int) -> keys.NewKey:
        old = keys.existing(tx, call.params["key_id"])
        if old.body["status"] != keys.ACTIVE:
            raise Refused(409, "INVALID_REQUEST", f"{old.id} is revoked; make a new key")
        _require_open(tx, tenants.existing(tx, old.tenant))
        named = ("name", "description", "permissions", "metadata", "expires_at_ms")
        facts: dict[str, Any] = {name: old.body[name] for name in named if name in old.body}
        made = keys.new_key(_new_id(now_ms, server), old.tenant, now_ms, facts)
        tx.write(keys.written(made), now_ms)
        if body.overlap_seconds:
            tx.write(Changes(records=[keys.expiring(old, now_ms + body.overlap_seconds * 1000)]), now_ms)
        else:
            tx.write(keys.revoked(old, now_ms, reason=f"rotated to {made.record.id}"), now_ms)
        return made

    made = await server.authority.akeep(change)
    server.forget()
    return Reply(_with_secret(made, server.authority.now_ms()), status=201)


async def validate_key(server: Server, call: Call) -> Reply:
    """Is this secret good? Answers 200 either way."""
    body = await call.body(ValidateBody, server.settings)
    try:
        record = server.ring.find(body.key_secret)
    except Refused as no:
        return Reply({"valid": False, "reason": no.message})
    answer: Wire = {
        "valid": True,
        "tenant_id": record.tenant,
        "key_id": record.id,
        "permissions": record.body["permissions"],
    }
    if "expires_at_ms" in record.body:
        answer["expires_at"] = iso(record.body["expires_at_ms"])
    return Reply(answer)

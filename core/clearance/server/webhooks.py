"""Routes of webhooks: subscriptions, what was delivered, and delivering again."""

from __future__ import annotations

import secrets
from typing import Any

from clearance.errors import InvalidRequest
from clearance.server import cursors, parameters, tenants
from clearance.server.context import Server
from clearance.server.deliveries import DELIVERY, new_delivery, shown_delivery
from clearance.server.errors import Refused, not_found
from clearance.server.eventreads import MAX_SCANNED, Filter, scan
from clearance.server.eventtypes import SYSTEM, kind_of
from clearance.server.http import Call, Reply
from clearance.server.reads import more
from clearance.server.subscriptions import (
    ACTIVE,
    DISABLED,
    KIND,
    PAUSED,
    NewSubscription,
    ReplayBody,
    SubscriptionPatch,
    check,
    selects,
    shown,
)
from clearance.server.targets import check_url
from clearance.server.wire import Wire
from clearance.store.interface import Changes, NewEvent, Record, Transaction

STATUSES = ("PENDING", "SUCCESS", "FAILED", "RETRYING")
MAX_SUBSCRIPTIONS = 200


async def create(server: Server, call: Call) -> Reply:
    body = await call.body(NewSubscription, server.settings)
    tenant = _owner_of(call, body)
    check_url(body.url, server.settings)
    facts = body.model_dump(exclude_unset=True, exclude={"tenant_id"})
    facts.setdefault("signing_secret", "whsec_" + secrets.token_urlsafe(32))
    facts.setdefault("disable_after_failures", 10)
    check(tenant, facts)
    # Events before its time are replayed, not delivered.
    after = server.watch.last_seq()

    def change(tx: Transaction, now_ms: int) -> Record:
        if tenant != SYSTEM:
            _require_open(tx, tenant)
        if len(tx.records(KIND, tenant, "", MAX_SUBSCRIPTIONS)) >= MAX_SUBSCRIPTIONS:
            raise Refused(409, "INVALID_REQUEST", f"{tenant} has {MAX_SUBSCRIPTIONS} webhooks, the most there may be")
        times = {"created_at_ms": now_ms, "updated_at_ms": now_ms, "after_seq": after}
        state = {"status": ACTIVE, "consecutive_failures": 0}
        record = Record(KIND, "whk_" + server.authority.new_id(now_ms), tenant, {**facts, **state, **times})
        tx.write(Changes(records=[record], events=[_event("webhook.created", record)]), now_ms)
        return record

    record = await server.authority.akeep(change)
    return Reply({**shown(record), "signing_secret": record.body["signing_secret"]}, status=201)


def _owner_of(call: Call, body: NewSubscription) -> str:
    if not call.principal.is_admin:
        if body.tenant_id is not None and body.tenant_id != call.principal.tenant:
            raise Refused(403, "FORBIDDEN", "tenant_id is not the tenant of this API key")
        return call.principal.tenant
    return body.tenant_id or call.query.get("tenant_id") or SYSTEM


def _require_open(tx: Transaction, tenant: str) -> None:
    row = tx.tenant(tenant)
    if row is None and tx.record(tenants.KIND, tenant) is None:
        raise not_found(f"no tenant {tenant}", "TENANT_NOT_FOUND")
    if row is not None and row.status == tenants.CLOSED:
        raise Refused(409, "TENANT_CLOSED", f"tenant {tenant} is closed, for good")


def _event(name: str, record: Record, **facts: Any) -> NewEvent:
    tenant = "" if record.tenant == SYSTEM else record.tenant
    return NewEvent(name, tenant, None, None, {"subscription_id": record.id, **facts})


def _own(call: Call, record: Record | None) -> Record:
    """404 also for another tenant's: a tenant learns nothing of others."""
    if record is None or not (call.principal.is_admin or record.tenant == call.principal.tenant):
        raise not_found("no such webhook", "WEBHOOK_NOT_FOUND")
    return record


def _named(server: Server, call: Call) -> Record:
    return _own(call, server.authority.record(KIND, call.params["subscription_id"]))


async def get(server: Server, call: Call) -> Reply:
    return Reply(shown(_named(server, call)))


async def listing(server: Server, call: Call) -> Reply:
    limit = parameters.limit(call, 100)
    tenant = call.query.get("tenant_id") or None if call.principal.is_admin else call.principal.tenant
    found = server.authority.records(KIND, tenant=tenant, after=call.query.get("cursor", ""), limit=limit + 1)
    cursor = found[limit - 1].id if len(found) > limit else None
    return Reply({"subscriptions": [shown(record) for record in found[:limit]]} | more(cursor))


async def patch(server: Server, call: Call) -> Reply:
    body = await call.body(SubscriptionPatch, server.settings)
    if body.url is not None:
        check_url(body.url, server.settings)
    facts = body.model_dump(exclude_unset=True)

    def change(tx: Transaction, now_ms: int) -> Record:
        old = _own(call, tx.record(KIND, call.params["subscription_id"]))
        if old.tenant != SYSTEM:
            _require_open(tx, old.tenant)
        state = {**old.body, **facts, "updated_at_ms": now_ms}
        name = "webhook.updated"
        if facts.get("status", old.body["status"]) != old.body["status"]:
            name = "webhook.paused" if facts["status"] == PAUSED else "webhook.resumed"
            state["consecutive_failures"] = 0
        check(old.tenant, state)
        record = old._replace(body=state)
        tx.write(Changes(records=[record], events=[_event(name, record, changed_fields=sorted(facts))]), now_ms)
        return record

    return Reply(shown(await server.authority.akeep(change)))


async def delete(server: Server, call: Call) -> Reply:
    def change(tx: Transaction, now_ms: int) -> None:
        record = _own(call, tx.record(KIND, call.params["subscription_id"]))
        event = _event("webhook.deleted", record)
        tx.write(Changes(dropped_records=[(KIND, record.id)], events=[event]), now_ms)

    await server.authority.akeep(change)
    return Reply(b"", status=204, headers=[(b"x-content-type-options", b"nosniff")])


async def deliveries(server: Server, call: Call) -> Reply:
    record = _named(server, call)
    status = parameters.choice(call, "status", STATUSES)
    start, end = parameters.window(call, "from", "to")
    limit = parameters.limit(call, 100)
    bound = f"deliveries|{record.id}|{status}|{start}|{end}"
    prefix = record.id + ":"
    cursor = call.query.get("cursor")
    after = cursors.decoded(cursor, bound, (str,))[0] if cursor else prefix
    found: list[Record] = []
    while len(found) <= limit:
        rows = server.authority.records(DELIVERY, tenant=record.tenant, after=after)
        own = [row for row in rows if row.id.startswith(prefix)]
        found += [row for row in own if _in_window(row, status, start, end)]
        if len(rows) < 200 or len(own) < len(rows):
            break
        after = rows[-1].id
    page = found[:limit]
    next_cursor = cursors.encoded((page[-1].id,), bound) if len(found) > limit else None
    return Reply({"deliveries": [shown_delivery(row) for row in page]} | more(next_cursor))


def _in_window(row: Record, status: str | None, start: int | None, end: int | None) -> bool:
    at = row.body["attempted_at_ms"]
    return status in (None, row.body["status"]) and (start is None or at >= start) and (end is None or at <= end)


async def replay(server: Server, call: Call) -> Reply:
    """Deliver again what happened in a window: all of it, or 400."""
    record = _named(server, call)
    body = await call.body(ReplayBody, server.settings)
    if record.body["status"] == DISABLED:
        raise Refused(409, "INVALID_REQUEST", "this webhook is disabled; set its status to ACTIVE first")
    start, end = int(body.start.timestamp() * 1000), int(body.end.timestamp() * 1000)
    if start > end:
        raise InvalidRequest("from", "is later than to", "a start before the end")
    wanted = _window_of(record, start, end)
    tenant = record.tenant if record.tenant != SYSTEM else None
    events, last = await server.off_loop(lambda: scan(server, wanted, False, MAX_SCANNED, None))
    chosen = [
        event
        for event in events
        if selects(record, event.tenant, kind_of(event), event.scope)
        and (body.event_types is None or kind_of(event).type in body.event_types)
        and (tenant is None or event.tenant == tenant)
    ]
    if last is not None or len(chosen) > body.max_events:
        raise InvalidRequest("max_events", f"more than {body.max_events} events match", "a shorter window")
    replay_id = "rpl_" + server.authority.new_id(server.authority.now_ms())

    def change(tx: Transaction, now_ms: int) -> None:
        present = _own(call, tx.record(KIND, record.id))
        running = present.body.get("replay_id")
        if running and _is_running(tx, present, running):
            raise Refused(409, "REPLAY_IN_PROGRESS", f"replay {running} is still being delivered")
        made = [new_delivery(record, event, now_ms, replay_id) for event in chosen]
        after = present._replace(body={**present.body, "replay_id": replay_id})
        tx.write(Changes(records=[after, *made]), now_ms)

    await server.authority.akeep(change)
    answer: Wire = {
        "replay_id": replay_id,
        "events_queued": len(chosen),
        "estimated_completion_seconds": len(chosen) // 20 + 1,
    }
    return Reply(answer, status=202)


def _window_of(record: Record, start: int, end: int) -> Filter:
    tenant = None if record.tenant == SYSTEM else record.tenant
    return Filter(tenant, (), None, None, None, None, None, start, end, for_tenant=False)


def _is_running(tx: Transaction, record: Record, replay_id: str) -> bool:
    prefix = f"{record.id}:{replay_id}:"
    after = prefix
    while rows := [row for row in tx.records(DELIVERY, record.tenant, after, 200) if row.id.startswith(prefix)]:
        if any(row.due_at_ms is not None for row in rows):
            return True
        after = rows[-1].id
    return False

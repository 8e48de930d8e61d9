"""The event log, read: the operator's list and the tenant's."""

from __future__ import annotations

from dataclasses import dataclass

from clearance.errors import InvalidRequest
from clearance.model.results import Event
from clearance.model.subject import parse_scope
from clearance.server import cursors, parameters, wire
from clearance.server.context import Server
from clearance.server.errors import forbidden, not_found
from clearance.server.eventtypes import (
    CATEGORIES,
    INTERNAL_OF,
    SYSTEM,
    TABLE,
    TENANT_CATEGORIES,
    kind_of,
    seq_of,
    written,
)
from clearance.server.http import Call, Reply
from clearance.store.interface import EventQuery

BATCH = 500
MAX_SCANNED = 20_000
"""How much of the log one request looks through; then it answers what it found and where to go on."""
MAX_LINES = 1_000


@dataclass(frozen=True, slots=True)
class Filter:
    tenant: str | None
    types: tuple[str, ...]
    event_type: str | None
    scope: str | None
    trace_id: str | None
    request_id: str | None
    search: str | None
    start_ms: int | None
    end_ms: int | None
    for_tenant: bool

    def takes(self, event: Event) -> bool:
        kind = kind_of(event)
        if self.event_type is not None:
            if kind.type != self.event_type:
                return False
        elif self.for_tenant and kind.type.startswith("custom."):
            return False
        if self.for_tenant and kind.category not in TENANT_CATEGORIES:
            return False
        if self.end_ms is not None and event.at_ms > self.end_ms:
            return False
        origin = event.data.get("origin") or (None, None)
        if self.trace_id is not None and origin[0] != self.trace_id:
            return False
        if self.request_id is not None and origin[1] != self.request_id:
            return False
        return self.search is None or self.search in (event.scope or "")


async def admin_events(server: Server, call: Call) -> Reply:
    given = call.query
    tenant = given.get("tenant_id")
    found = _filter(call, "" if tenant == SYSTEM else tenant, for_tenant=False)
    return await _list(server, call, found)


async def tenant_events(server: Server, call: Call) -> Reply:
    return await _list(server, call, _filter(call, call.principal.tenant, for_tenant=True))


async def admin_event(server: Server, call: Call) -> Reply:
    text = call.params["event_id"]
    seq = seq_of(text)
    found = server.authority.events(EventQuery(after=seq - 1), limit=1) if seq else []
    if not found or found[0].seq != seq:
        raise not_found(f"no event {text[:64]}", "EVENT_NOT_FOUND")
    return Reply(written(found[0]))


def _filter(call: Call, tenant: str | None, *, for_tenant: bool) -> Filter:
    given = call.query
    event_type = given.get("event_type") or None
    category = parameters.choice(call, "category", CATEGORIES)
    start, end = parameters.window(call, "from", "to")
    search = given.get("search") or None
    if search is not None and len(search) > 128:
        raise InvalidRequest("search", "is too long", "at most 128 characters")
    parameters.choice(call, "sort_by", ("timestamp",), lower=True)
    scope = given.get("scope") or None
    return Filter(
        tenant=tenant or (None if tenant is None else ""),
        types=_types(event_type, category),
        event_type=event_type,
        scope=parse_scope(scope) if scope else None,
        trace_id=None if for_tenant else given.get("trace_id") or None,
        request_id=None if for_tenant else given.get("request_id") or None,
        search=None if for_tenant else search,
        start_ms=start,
        end_ms=end,
        for_tenant=for_tenant,
    )


def _types(event_type: str | None, category: str | None) -> tuple[str, ...]:
    """Our names of what is asked for; a name that nothing has when the answer must be empty."""
    names = set(TABLE)
    if event_type is not None:
        names &= {INTERNAL_OF.get(event_type, "")}
    if category is not None:
        names &= {name for name, kind in TABLE.items() if kind.category == category}
    if len(names) == len(TABLE):
        return ()
    return tuple(sorted(names)) or ("(none)",)


async def _list(server: Server, call: Call, found: Filter) -> Reply:
    limit = parameters.limit(call, 100)
    descending = parameters.choice(call, "sort_dir", ("asc", "desc"), lower=True) != "asc"
    bound = f"{found}|{descending}"
    cursor = call.query.get("cursor")
    after = cursors.decoded(cursor, bound, (int,))[0] if cursor else None
    events, last = await server.off_loop(lambda: scan(server, found, descending, limit, after))
    answer: wire.Wire = {"events": [written(event) for event in events], "has_more": last is not None}
    if last is not None:
        answer["next_cursor"] = cursors.encoded((last,), bound)
    return Reply(answer)


def scan(
    server: Server, found: Filter, descending: bool, limit: int, after: int | None
) -> tuple[list[Event], int | None]:
    """Up to `limit` events, and where to go on (None at the end)."""
    query = EventQuery(tenant=found.tenant, scope=found.scope, types=found.types, descending=descending)
    place = after if after is not None else _start(server, found, descending)
    events: list[Event] = []
    scanned = 0
    while scanned < MAX_SCANNED:
        rows = server.authority.events(_at(query, place), limit=BATCH)
        for event in rows:
            if _beyond(event, found, descending):
                return events, None
            if found.takes(event):
                if len(events) == limit:
                    return events, place
                events.append(event)
            place = event.seq
        scanned += len(rows)
        if len(rows) < BATCH:
            return events, None
    return events, place


def _beyond(event: Event, found: Filter, descending: bool) -> bool:
    if descending:
        return found.start_ms is not None and event.at_ms < found.start_ms
    return found.end_ms is not None and event.at_ms > found.end_ms


def _start(server: Server, found: Filter, descending: bool) -> int:
    """The seq just before the first event of the window, in reading order (0: the beginning, or the newest)."""
    if descending:
        return 0 if found.end_ms is None else first_after(server, found.end_ms)
    return 0 if found.start_ms is None else first_after(server, found.start_ms - 1) - 1


def first_after(server: Server, at_ms: int) -> int:
    """The seq of the first event later than that, or one past the last. The log is in the order of time."""
    newest = server.authority.events(EventQuery(descending=True), limit=1)
    low, high = 0, (newest[0].seq if newest else 0) + 1
    while low + 1 < high:
        middle = (low + high) // 2
        rows = server.authority.events(EventQuery(after=middle - 1), limit=1)
        if rows and rows[0].at_ms <= at_ms:
            low = middle
        else:
            high = middle
    return high


def _at(query: EventQuery, place: int) -> EventQuery:
    return EventQuery(place, query.tenant, query.scope, query.types, query.reservation_id, query.descending)


# -- the log as it is: our own route --------------------------------------------------------------

_OWN = tuple(sorted(name for name, kind in TABLE.items() if kind.category in TENANT_CATEGORIES))


async def own_log(server: Server, call: Call) -> Reply:
    """Lines of the audit log under our own names. A tenant's key sees its tenant's, of the kinds that are tenants'."""
    given, principal = call.query, call.principal
    tenant = given.get("tenant") or None
    types = tuple(name for name in given.get("types", "").split(",") if name)
    if not principal.is_admin:
        if tenant not in (None, principal.tenant):
            raise forbidden("tenant is not the tenant of this API key")
        tenant = principal.tenant
        types = tuple(name for name in types if name in _OWN) or (("(none)",) if types else _OWN)
    order = parameters.choice(call, "order", ("asc", "desc"), lower=True)
    query = EventQuery(
        after=parameters.count(call, "after"),
        tenant=tenant,
        scope=_own_scope(given.get("scope")),
        types=types,
        reservation_id=given.get("reservation_id") or None,
        descending=order == "desc",
    )
    limit = parameters.limit(call, MAX_LINES, 100)
    found = await server.off_loop(lambda: server.authority.events(query, limit=limit))
    return Reply({"events": [_line(event) for event in found]})


def _line(event: Event) -> wire.Wire:
    return {name: value for name, value in event.as_dict().items() if value is not None}


def _own_scope(text: str | None) -> str | None:
    """Controls on a run or on everybody are logged under `run:<id>` and `*`."""
    return text or None if not text or text == "*" or text.startswith("run:") else parse_scope(text)

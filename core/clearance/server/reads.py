"""Reads of the runtime plane: reservations, balances and who am I."""

from __future__ import annotations

from clearance.errors import InvalidRequest, ReservationExpired
from clearance.model.subject import LEVELS, parse_scope
from clearance.server import cursors, parameters, wire
from clearance.server.context import Server
from clearance.server.errors import forbidden
from clearance.server.http import Call, Reply
from clearance.server.permissions import capabilities
from clearance.server.runtime import reservation_in
from clearance.store.interface import AccountKey, ReservationQuery

STATUSES = ("ACTIVE", "COMMITTED", "RELEASED", "EXPIRED")
SORTABLE = ("reservation_id", "tenant", "scope_path", "status", "reserved", "created_at_ms", "expires_at_ms")
INCLUDABLE = frozenset(wire.SUMMARY_PARTS)
_LOWER_LEVELS = LEVELS[1:]


async def get_reservation(server: Server, call: Call) -> Reply:
    reservation_id = reservation_in(call)
    found = server.authority.find(reservation_id)
    call.principal.require_tenant(found.tenant, "this reservation belongs to another tenant")
    if found.status == "EXPIRED":
        raise ReservationExpired(f"{reservation_id} has expired", scope=found.scope_path)
    return Reply(wire.detail(found))


async def list_reservations(server: Server, call: Call) -> Reply:
    query = _query(call)
    limit = parameters.limit(call, 200)
    include = INCLUDABLE & {part.strip() for part in call.query.get("include", "").split(",")}
    cursor = call.query.get("cursor") or None
    if cursor:
        cursors.require_shape(cursor)
    page = await server.off_loop(lambda: server.authority.reservations(query, limit=limit, cursor=cursor))
    answer: wire.Wire = {"reservations": [wire.summary(it, include) for it in page.items]}
    return Reply(answer | more(page.next_cursor))


def more(cursor: str | None) -> wire.Wire:
    return {"has_more": True, "next_cursor": cursor} if cursor else {"has_more": False}


def _query(call: Call) -> ReservationQuery:
    given = call.query
    tenant = given.get("tenant")
    if call.principal.is_admin:
        if not tenant:
            raise InvalidRequest("tenant", "tenant query parameter is required when using admin key authentication")
        tenant = tenant.lower()
    else:
        if tenant is not None and tenant != call.principal.tenant:
            raise forbidden("tenant is not the tenant of this API key")
        tenant = call.principal.tenant
    created = parameters.window(call, "from", "to")
    expires = parameters.window(call, "expires_from", "expires_to")
    finalized = parameters.window(call, "finalized_from", "finalized_to")
    sort_by = parameters.choice(call, "sort_by", SORTABLE, lower=True)
    direction = parameters.choice(call, "sort_dir", ("asc", "desc"), lower=True)
    return ReservationQuery(
        tenant=tenant,
        status=parameters.choice(call, "status", STATUSES),
        segments=segments_of(call),
        idempotency_key=given.get("idempotency_key") or None,
        created_from_ms=created[0],
        created_to_ms=created[1],
        expires_from_ms=expires[0],
        expires_to_ms=expires[1],
        finalized_from_ms=finalized[0],
        finalized_to_ms=finalized[1],
        sort_by=sort_by or "created_at_ms",
        descending=direction != "asc",
    )


def segments_of(call: Call) -> tuple[str, ...]:
    """The levels below the tenant that a scope must name, in lower case like every scope."""
    return tuple(f"{level}:{call.query[level].lower()}" for level in _LOWER_LEVELS if call.query.get(level))


async def balances(server: Server, call: Call) -> Reply:
    """One path with two contracts (A11): the runtime's items, and both families of parameters."""
    given, tenant = call.query, call.principal.tenant
    for name in ("tenant", "tenant_id"):
        if given.get(name) and given[name] != tenant:
            raise forbidden(f"{name} is not the tenant of this API key")
    if not any(given.get(name) for name in (*LEVELS, "tenant_id", "scope_prefix", "unit")):
        raise InvalidRequest("tenant", "no filter was given", "at least one of " + ", ".join(LEVELS))
    parameters.flag(call, "include_children")
    prefix = given.get("scope_prefix")
    limit = parameters.limit(call, 200)
    unit = parameters.unit(call)
    segments, path = segments_of(call), parse_scope(prefix) if prefix else None
    bound = f"{tenant}|{segments}|{path}|{unit}"
    after = account_cursor(given.get("cursor"), bound)
    found = await server.off_loop(
        lambda: server.authority.accounts(
            tenant, segments=segments, prefix=path, unit=unit, limit=limit + 1, after=after
        )
    )
    page = found[:limit]
    cursor = cursors.encoded(page[-1].key, bound) if len(found) > limit else None
    return Reply({"balances": [wire.balance(it) for it in page]} | more(cursor))


def account_cursor(cursor: str | None, bound: str) -> AccountKey | None:
    if not cursor:
        return None
    tenant, scope, unit = cursors.decoded(cursor, bound, (str, str, str))
    return tenant, scope, unit


async def introspect(server: Server, call: Call) -> Reply:
    principal = call.principal
    answer: wire.Wire = {
        "authenticated": True,
        "auth_type": "admin" if principal.is_admin else "tenant",
        "permissions": ["*"] if principal.permissions is None else sorted(principal.permissions),
        "capabilities": capabilities(principal.permissions),
    }
    if not principal.is_admin:
        answer["tenant_id"] = principal.tenant
    return Reply(answer)

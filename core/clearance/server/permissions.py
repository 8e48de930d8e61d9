"""Who may do what (protocol section 17.2)."""

from __future__ import annotations

from clearance.server.names import names

PERMISSIONS = frozenset(
    names(
        "reservations:create reservations:commit reservations:release reservations:extend reservations:list "
        "balances:read budgets:read budgets:write policies:read policies:write webhooks:read webhooks:write "
        "events:read admin:read admin:write admin:tenants:read admin:tenants:write admin:budgets:read "
        "admin:budgets:write admin:policies:read admin:policies:write admin:apikeys:read admin:apikeys:write "
        "admin:webhooks:read admin:webhooks:write admin:events:read admin:audit:read "
        # Not in the protocol's list, but in what its users are told to send (A27).
        "events:create decide"
    )
)
DEFAULT_PERMISSIONS = names(
    "reservations:create reservations:commit reservations:release reservations:extend reservations:list "
    "balances:read budgets:read budgets:write policies:read policies:write"
)

_ALSO = {
    # The protocol names no permission for these two; a key that may reserve may ask, one that may commit may record.
    "decide": ("reservations:create",),
    "events:create": ("reservations:commit",),
}
_RESOURCES = frozenset({"budgets", "webhooks", "policies", "events"})


def allows(held: frozenset[str], needed: str) -> bool:
    """`admin:write` stands for every `*:write`, `admin:read` for every `*:read` and for no write."""
    resource, _, verb = needed.rpartition(":")
    if needed in held or any(other in held for other in _ALSO.get(needed, ())):
        return True
    if verb not in ("read", "write"):
        return False
    return f"admin:{verb}" in held or (resource in _RESOURCES and f"admin:{resource}:{verb}" in held)


_FLAGS = {
    "view_overview": (),
    "view_budgets": ("budgets:read", "admin:read", "admin:budgets:read"),
    "view_events": ("events:read", "admin:read", "admin:events:read"),
    "view_webhooks": ("webhooks:read", "admin:read", "admin:webhooks:read"),
    "view_audit": (),
    "view_tenants": (),
    "view_api_keys": (),
    "view_policies": ("policies:read", "admin:read", "admin:policies:read"),
    "view_reservations": names(
        "reservations:create reservations:commit reservations:release reservations:extend reservations:list admin:read"
    ),
    "manage_budgets": ("budgets:write", "admin:write", "admin:budgets:write"),
    "manage_policies": ("policies:write", "admin:write", "admin:policies:write"),
    "manage_webhooks": ("webhooks:write", "admin:write", "admin:webhooks:write"),
    "manage_tenants": (),
    "manage_api_keys": (),
    "manage_reservations": names(
        "reservations:create reservations:commit reservations:release reservations:extend admin:write"
    ),
}


def capabilities(held: frozenset[str] | None) -> dict[str, bool]:
    """The flags of introspection; None is the operator, who can do everything."""
    return {flag: held is None or any(name in held for name in names) for flag, names in _FLAGS.items()}

"""Who is asking. Tenant keys open their tenant, the admin key opens the routes that name it."""

from __future__ import annotations

import hashlib
import hmac
from typing import Any, NamedTuple

from clearance.server.errors import Refused, forbidden, unauthorized
from clearance.server.http import Call
from clearance.server.keys import KeyRing
from clearance.server.permissions import allows
from clearance.server.settings import Settings
from clearance.server.tenants import SUSPENDED, TenantBook

TENANT_HEADER, ADMIN_HEADER = b"x-cycles-api-key", b"x-admin-api-key"


class Principal(NamedTuple):
    """A tenant's key, or the operator (without a tenant)."""

    key_id: str
    tenant: str = ""
    permissions: frozenset[str] | None = None

    @property
    def is_admin(self) -> bool:
        return self.permissions is None

    def require_tenant(self, tenant: str, message: str) -> None:
        if not self.is_admin and tenant != self.tenant:
            raise forbidden(message)


ADMIN = Principal("admin")
NOBODY = Principal("", permissions=frozenset())


class Gate:
    """Lets a request in, as somebody, or not."""

    def __init__(self, ring: KeyRing, book: TenantBook, settings: Settings) -> None:
        self._ring = ring
        self._book = book
        self._admin = hashlib.sha256(settings.admin_key.encode()).digest() if settings.admin_key else None
        self._permissions: dict[tuple[str, ...], frozenset[str]] = {}

    def enter(self, call: Call, access: str, permission: str | None) -> Principal:
        """`access` is `tenant`, `admin`, `either` or `public`; permissions bind tenant keys only."""
        if access == "public":
            return NOBODY
        if access != "tenant" and (access == "admin" or ADMIN_HEADER in call.headers):
            return self._enter_as_admin(call)
        record = self._ring.find(call.header(TENANT_HEADER))
        held = self._set(record.body["permissions"])
        self._require_active(record.tenant)
        principal = Principal(record.id, record.tenant, held)
        if permission is not None and not allows(held, permission):
            raise _lacking(permission, principal)
        return principal

    def _enter_as_admin(self, call: Call) -> Principal:
        given = call.header(ADMIN_HEADER)
        if given is None:
            raise unauthorized("Missing admin API key")
        if self._admin is None:
            raise Refused(500, "INTERNAL_ERROR", "this server has no admin key")
        if not hmac.compare_digest(hashlib.sha256(given.encode()).digest(), self._admin):
            raise unauthorized("INVALID_KEY")
        return ADMIN

    def _require_active(self, tenant: str) -> None:
        facts = self._book.facts(tenant)
        # A closed tenant is the authority's to refuse, operation by operation (section 16.2).
        if facts is not None and facts["status"] == SUSPENDED:
            raise unauthorized("TENANT_SUSPENDED")

    def _set(self, names: list[Any]) -> frozenset[str]:
        key = tuple(names)
        found = self._permissions.get(key)
        if found is None:
            if len(self._permissions) > 1000:
                self._permissions.clear()
            found = self._permissions[key] = frozenset(names)
        return found


_RUNTIME = ("reservations:", "balances:", "decide", "events:create")


def _lacking(permission: str, principal: Principal) -> Refused:
    # The runtime's list of codes is closed; the governance plane has one of its own for this.
    code = "FORBIDDEN" if permission.startswith(_RUNTIME) else "INSUFFICIENT_PERMISSIONS"
    tenant = (b"x-cycles-tenant", principal.tenant.encode())
    return Refused(403, code, f"this key lacks {permission}", {"permission": permission}, [tenant])

"""What every route can reach."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from threading import Lock
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from clearance.authority.embedded import EmbeddedAuthority
from clearance.server.auth import Gate
from clearance.server.errors import forbidden
from clearance.server.http import Call, Reply, Stream
from clearance.server.keys import KeyRing
from clearance.server.limits import RateLimit
from clearance.server.metrics import Metrics
from clearance.server.settings import Settings
from clearance.server.tenants import TenantBook

if TYPE_CHECKING:
    from clearance.server.stream import LogWatch

R = TypeVar("R")
Handler = Callable[["Server", Call], Awaitable[Reply | Stream]]
MAX_OWNERS = 100_000


class Closing(Protocol):
    def close(self) -> None: ...


P = TypeVar("P", bound=Closing)


class Server:
    """The authority and what stands in front of it."""

    def __init__(self, authority: EmbeddedAuthority, settings: Settings, watch: LogWatch) -> None:
        self.authority = authority
        self.settings = settings
        self.ring = KeyRing(authority, settings)
        self.book = TenantBook(authority, settings)
        self.gate = Gate(self.ring, self.book, settings)
        self.limit = RateLimit(settings.requests_per_second)
        self.watch = watch
        self.metrics = Metrics(authority)
        self._owners: dict[str, str] = {}
        self._parts: dict[type, Any] = {}
        self._parts_lock = Lock()

    def once(self, kind: type[P], make: Callable[[], P]) -> P:
        """The server's only one of a kind, made at its first use and closed with the server."""
        with self._parts_lock:
            found: P = self._parts.get(kind) or self._parts.setdefault(kind, make())
            return found

    def close(self) -> None:
        """While the ledger is still open."""
        with self._parts_lock:
            parts = [self._parts.pop(kind) for kind in list(self._parts)]
        for part in parts:
            part.close()

    async def off_loop(self, work: Callable[[], R]) -> R:
        """Run what waits for the ledger, or reads much of it, beside the event loop."""
        return await asyncio.to_thread(work)

    def forget(self) -> None:
        """After a change of keys or tenants: what was cached of them is out of date."""
        self.ring.forget()
        self.book.forget()

    def remember(self, reservation_id: str, tenant: str) -> None:
        """Spares its settlement a look-up; whose a reservation is never changes."""
        if len(self._owners) >= MAX_OWNERS:
            self._owners.clear()
        self._owners[reservation_id] = tenant

    def require_own(self, call: Call, reservation_id: str) -> None:
        """404 for an unknown reservation, then 403 for another tenant's."""
        tenant = self._owners.get(reservation_id)
        if tenant is None:
            tenant = self.authority.find(reservation_id).tenant
        if not call.principal.is_admin and tenant != call.principal.tenant:
            raise forbidden("this reservation belongs to another tenant")

"""Reads of the embedded authority: get, list, balances, events. They never wait for a writer."""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from dataclasses import asdict
from typing import Any, get_args

from clearance.errors import InvalidRequest, NotFound, ReservationExpired
from clearance.model.account import Account
from clearance.model.balance import Balance
from clearance.model.reservation import Reservation, ReservationStatus
from clearance.model.results import Event, Page, Stop
from clearance.model.subject import covers, parse_scope, tenant_of
from clearance.store.interface import EventQuery, ReservationQuery, Store

DEFAULT_LIMIT = 50
MAX_LIMIT = 200
MAX_EVENTS = 1_000
STATUSES: tuple[str, ...] = get_args(ReservationStatus)


class Queries:
    _store: Store

    def get(self, reservation_id: str) -> Reservation:
        """Raises NotFound, and ReservationExpired for one that has expired (protocol section 14.1)."""
        found = self.find(reservation_id)
        if found.status == "EXPIRED":
            raise ReservationExpired(f"{reservation_id} has expired", scope=found.scope_path)
        return found

    def find(self, reservation_id: str) -> Reservation:
        """Like `get`, and gives expired ones too."""
        with self._store.read() as reader:
            found = reader.reservation(reservation_id)
        if found is None:
            raise NotFound(f"no reservation {reservation_id}")
        return found

    def reservations(
        self, query: ReservationQuery | None = None, *, limit: int = DEFAULT_LIMIT, cursor: str | None = None
    ) -> Page[Reservation]:
        """One page; a cursor belongs to its filters and order (protocol section 14.2)."""
        query = query or ReservationQuery()
        check_limit(limit, MAX_LIMIT)
        _check_query(query)
        after = _decoded(cursor, _bound_to(query)) if cursor else None
        with self._store.read() as reader:
            rows = reader.reservations(query, limit + 1, (after[0], after[1]) if after else None)
        if len(rows) <= limit:
            return Page(rows)
        last = rows[limit - 1]
        value = _sort_value(last, query.sort_by)
        return Page(rows[:limit], _encoded([value, last.id], _bound_to(query)))

    def balances(
        self,
        scope: str | None = None,
        *,
        tenant: str | None = None,
        unit: str | None = None,
        limit: int = DEFAULT_LIMIT,
        cursor: str | None = None,
    ) -> Page[Balance]:
        """The budgets at and below `scope`, or of a tenant, or all; in the order of their scopes."""
        check_limit(limit, MAX_LIMIT)
        path = parse_scope(scope) if scope else None
        owner = tenant_of(path) if path else (tenant.lower() if tenant else None)
        place = f"balances|{path}|{owner}|{unit}"
        after = _decoded(cursor, place) if cursor else None
        found: list[Account] = []
        key = (after[0], after[1], after[2]) if after else None
        with self._store.read() as reader:
            while len(found) <= limit:
                rows = reader.accounts(owner, MAX_LIMIT, key)
                found += [a for a in rows if (path is None or covers(path, a.scope)) and unit in (None, a.unit)]
                if len(rows) < MAX_LIMIT:
                    break
                key = rows[-1].key
        page = [Balance.of(account) for account in found[:limit]]
        return Page(page, _encoded(list(found[limit - 1].key), place) if len(found) > limit else None)

    def balance(self, scope: str, unit: str = "USD_MICROCENTS") -> Balance:
        """One budget. Raises NotFound."""
        path = parse_scope(scope)
        with self._store.read() as reader:
            # The key just before this account: scopes are lists of printable characters.
            rows = reader.accounts(tenant_of(path), 8, (tenant_of(path), path, ""))
        for account in rows:
            if account.scope == path and account.unit == unit:
                return Balance.of(account)
        raise NotFound(f"{path} has no budget in {unit}", scope=path)

    def events(self, query: EventQuery | None = None, *, limit: int = 100) -> list[Event]:
        """Lines of the audit log, by default the oldest first; go on with `after=events[-1].seq`."""
        check_limit(limit, MAX_EVENTS)
        with self._store.read() as reader:
            return reader.events(query or EventQuery(), limit)

    def stops(self) -> list[Stop]:
        """Every scope and run that is, or ever was, stopped."""
        with self._store.read() as reader:
            return reader.stops()

    def describe(self) -> dict[str, Any]:
        return self._store.describe()

    def check(self) -> list[str]:
        """Every problem that a full look at the storage finds; slow."""
        return list(self._store.check())


def check_limit(limit: int, most: int) -> None:
    if isinstance(limit, bool) or not isinstance(limit, int) or not 1 <= limit <= most:
        raise InvalidRequest("limit", f"{limit!r} is refused", f"1 to {most}")


def _check_query(query: ReservationQuery) -> None:
    if query.status is not None and query.status not in STATUSES:
        raise InvalidRequest("status", f"{query.status!r} is unknown", ", ".join(STATUSES))
    for name in ("created", "expires", "finalized"):
        start, end = getattr(query, f"{name}_from_ms"), getattr(query, f"{name}_to_ms")
        if start is not None and end is not None and start > end:
            raise InvalidRequest(f"{name}_from", "is later than the end of the window", "a start before the end")


def _sort_value(it: Reservation, sort_by: str) -> Any:
    return getattr(it, {"reservation_id": "id", "reserved": "estimate"}.get(sort_by, sort_by), None)


def _bound_to(query: ReservationQuery) -> str:
    return json.dumps(asdict(query), sort_keys=True)


def _encoded(place: list[Any], bound_to: str) -> str:
    tag = hashlib.sha256(bound_to.encode()).hexdigest()[:16]
    return base64.urlsafe_b64encode(json.dumps([tag, *place]).encode()).decode().rstrip("=")


def _decoded(cursor: str, bound_to: str) -> list[Any]:
    try:
        tag, *place = json.loads(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
    except (ValueError, binascii.Error, TypeError):
        raise InvalidRequest("cursor", "is not one of ours", "a next_cursor, unchanged") from None
    if tag != hashlib.sha256(bound_to.encode()).hexdigest()[:16]:
        raise InvalidRequest("cursor", "belongs to other filters or another order", "the filters it came with")
    return list(place)

"""Reads of committed state on a connection that never writes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import apsw

from clearance.errors import InvalidRequest
from clearance.model.account import Account
from clearance.model.reservation import Reservation
from clearance.model.results import Event, Stop
from clearance.store.interface import AccountKey, EventQuery, Record, ReservationQuery, Tenant
from clearance.store.sqlite import statements as sql
from clearance.store.sqlite.rows import to_account, to_event, to_record, to_reservation
from clearance.store.sqlite.transaction import lies_below, list_records, to_stop

SORTABLE = {
    "reservation_id": "id",
    "tenant": "tenant",
    "scope_path": "scope_path",
    "status": "status",
    "reserved": "estimate",
    "created_at_ms": "created_at_ms",
    "expires_at_ms": "expires_at_ms",
}

_WINDOWS = (
    ("created_at_ms >= ?", "created_from_ms"),
    ("created_at_ms <= ?", "created_to_ms"),
    ("expires_at_ms >= ?", "expires_from_ms"),
    ("expires_at_ms <= ?", "expires_to_ms"),
    ("finalized_at_ms >= ?", "finalized_from_ms"),
    ("finalized_at_ms <= ?", "finalized_to_ms"),
)
_EXACT = (
    ("tenant = ?", "tenant"),
    ("status = ?", "status"),
    ("kind = ?", "kind"),
    ("run_id = ?", "run_id"),
    ("idempotency_key = ?", "idempotency_key"),
)


class SqliteReader:
    def __init__(self, connection: apsw.Connection) -> None:
        self._connection = connection

    def _all(self, statement: str, bindings: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        return self._connection.execute(statement, bindings).fetchall()

    def reservation(self, reservation_id: str) -> Reservation | None:
        rows = self._all(sql.GET_RESERVATION, (reservation_id,))
        return to_reservation(rows[0]) if rows else None

    def reservations(self, query: ReservationQuery, limit: int, after: tuple[Any, str] | None) -> list[Reservation]:
        where, bindings = _conditions(query)
        column = SORTABLE.get(query.sort_by)
        if column is None:
            raise InvalidRequest("sort_by", f"{query.sort_by!r} is unknown", ", ".join(SORTABLE))
        if after is not None:
            beyond = "<" if query.descending else ">"
            where.append(f"({column} {beyond} ? OR ({column} = ? AND id > ?))")
            bindings += [after[0], after[0], after[1]]
        direction = "DESC" if query.descending else "ASC"
        statement = (
            f"SELECT {sql.RESERVATION_COLUMNS} FROM reservations WHERE {' AND '.join(where) or '1'} "
            f"ORDER BY {column} {direction}, id ASC LIMIT ?"
        )
        return [to_reservation(row) for row in self._all(statement, [*bindings, limit])]

    def accounts(self, tenant: str | None, limit: int, after: AccountKey | None) -> list[Account]:
        start = after or ("", "", "")
        if tenant is None:
            rows = self._all(sql.LIST_ACCOUNTS, (*start, limit))
        else:
            rows = self._all(sql.LIST_ACCOUNTS_OF_TENANT, (tenant, *start[1:], limit))
        return [to_account(row) for row in rows]

    def events(self, query: EventQuery, limit: int) -> list[Event]:
        beyond = "<" if query.descending and query.after else ">"
        where, bindings = [f"seq {beyond} ?"], [query.after]
        for condition, value in (("tenant = ?", query.tenant), ("reservation_id = ?", query.reservation_id)):
            if value is not None:
                where.append(condition)
                bindings.append(value)  # type: ignore[arg-type]
        if query.types:
            where.append(f"type IN ({', '.join('?' * len(query.types))})")
            bindings += query.types  # type: ignore[arg-type]
        if query.scope is not None:
            where.append("(scope = ? OR scope GLOB ?)")
            bindings += [query.scope, _glob(query.scope) + "/*"]  # type: ignore[list-item]
        order = "DESC" if query.descending else "ASC"
        statement = f"SELECT {sql.EVENT_COLUMNS} FROM events WHERE {' AND '.join(where)} ORDER BY seq {order} LIMIT ?"
        return [to_event(row) for row in self._all(statement, [*bindings, limit])]

    def stops(self) -> list[Stop]:
        return [to_stop(row) for row in self._all(sql.GET_STOPS)]

    def open_stops(self, reservation_ids: Sequence[str]) -> dict[str, Stop]:
        active = [to_stop(row) for row in self._all(sql.GET_STOPPED)]
        found: dict[str, Stop] = {}
        for reservation_id in reservation_ids if active else ():
            reservation = self.reservation(reservation_id)
            if reservation is None or not reservation.is_open:
                continue
            around = [reservation, *(run for it in reservation.runs if (run := self.reservation(it)))]
            reached = (stop for stop in active for it in around if lies_below(it, stop.tenant, stop.scope))
            if stop := next(reached, None):
                found[reservation_id] = stop
        return found

    def tenants(self) -> list[Tenant]:
        return [Tenant(*row) for row in self._all(sql.GET_TENANTS)]

    def record(self, kind: str, record_id: str) -> Record | None:
        rows = self._all(sql.GET_RECORD, (kind, record_id))
        return to_record(rows[0]) if rows else None

    def records(self, kind: str, tenant: str | None, after: str, limit: int) -> list[Record]:
        return list_records(self._all, kind, tenant, after, limit)


def _glob(text: str) -> str:
    return text.replace("[", "[[]").replace("*", "[*]").replace("?", "[?]")


def _conditions(query: ReservationQuery) -> tuple[list[str], list[Any]]:
    where: list[str] = []
    bindings: list[Any] = []
    for condition, name in (*_EXACT, *_WINDOWS):
        value = getattr(query, name)
        if value is not None:
            where.append(condition)
            bindings.append(value)
    for segment in query.segments:
        where.append("instr('/' || scope_path || '/', ?) > 0")
        bindings.append(f"/{segment}/")
    if query.scope is not None:
        where.append("(scope_path = ? OR scope_path GLOB ?)")
        bindings += [query.scope, _glob(query.scope) + "/*"]
    return where, bindings

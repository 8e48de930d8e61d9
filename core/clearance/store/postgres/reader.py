"""Reads of committed state, on connections that never write."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from clearance.errors import InvalidRequest
from clearance.model.account import Account
from clearance.model.reservation import Reservation
from clearance.model.results import Event, Stop
from clearance.store.interface import AccountKey, EventQuery, Record, ReservationQuery, Tenant
from clearance.store.postgres import statements as sql
from clearance.store.postgres.connection import Link
from clearance.store.postgres.log import LAST_NUMBER, LOWEST_BOUND, complete_up_to
from clearance.store.postgres.problems import Lost
from clearance.store.postgres.rows import clean, is_name
from clearance.store.postgres.wire import Row, Statement
from clearance.store.sqlite.reader import SORTABLE
from clearance.store.sqlite.rows import to_account, to_event, to_record, to_reservation
from clearance.store.sqlite.transaction import lies_below, to_stop

_WINDOWS = (
    ("created_at_ms >= %s", "created_from_ms"),
    ("created_at_ms <= %s", "created_to_ms"),
    ("expires_at_ms >= %s", "expires_from_ms"),
    ("expires_at_ms <= %s", "expires_to_ms"),
    ("finalized_at_ms >= %s", "finalized_from_ms"),
    ("finalized_at_ms <= %s", "finalized_to_ms"),
)
_EXACT = (
    ("tenant = %s", "tenant"),
    ("status = %s", "status"),
    ("kind = %s", "kind"),
    ("run_id = %s", "run_id"),
    ("idempotency_key = %s", "idempotency_key"),
)
_BELOW = "(scope = %s OR starts_with(scope, %s))"


class PostgresReader:
    """Each statement sees one moment."""

    def __init__(self, link: Link) -> None:
        self.link = link

    def _run(self, statements: Sequence[Statement]) -> list[list[Row]]:
        """A read may be repeated, so a connection that was lost while nobody used it is nobody's trouble."""
        try:
            return self.link.run(statements, keep=False)
        except Lost:
            self.link.close()
            return self.link.run(statements, keep=False)

    def _all(self, statement: str, bindings: Sequence[Any] = ()) -> list[Row]:
        return self._run([(statement, bindings)])[0]

    def reservation(self, reservation_id: str) -> Reservation | None:
        rows = self._all(sql.GET_RESERVATION, (reservation_id,)) if is_name(reservation_id) else []
        return to_reservation(rows[0]) if rows else None

    def reservations(self, query: ReservationQuery, limit: int, after: tuple[Any, str] | None) -> list[Reservation]:
        where, bindings = _conditions(query)
        column = SORTABLE.get(query.sort_by)
        if column is None:
            raise InvalidRequest("sort_by", f"{query.sort_by!r} is unknown", ", ".join(SORTABLE))
        if after is not None:
            beyond = "<" if query.descending else ">"
            where.append(f"({column} {beyond} %s OR ({column} = %s AND id > %s))")
            bindings += [after[0], after[0], after[1]]
        direction = "DESC" if query.descending else "ASC"
        statement = (
            f"SELECT {sql.RESERVATION_COLUMNS} FROM clearance.reservations WHERE {' AND '.join(where) or 'true'} "
            f"ORDER BY {column} {direction}, id ASC LIMIT %s"
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
        """Upwards, only lines below which nothing can appear any more, so that nobody who follows misses one."""
        beyond = "<" if query.descending and query.after else ">"
        where, bindings = [f"seq {beyond} %s"], [query.after, *_given(query.tenant, query.reservation_id)]
        where += ["tenant = %s"] * (query.tenant is not None)
        where += ["reservation_id = %s"] * (query.reservation_id is not None)
        if query.types:
            where.append("type = ANY(%s::text[])")
            bindings.append(list(query.types))
        if query.scope is not None:
            where.append(_BELOW)
            bindings += [query.scope, query.scope + "/"]
        order = "DESC" if query.descending else "ASC"
        found_by = " AND ".join(where)
        statement = f"SELECT {sql.EVENT_COLUMNS} FROM clearance.events WHERE {found_by} ORDER BY seq {order} LIMIT %s"
        lines: Statement = (statement, [*bindings, limit])
        if query.descending:
            return [to_event(row) for row in self._run([lines])[0]]
        last, lowest, found = self._run([(LAST_NUMBER, ()), (LOWEST_BOUND, ()), lines])
        complete = complete_up_to(last[0][0], lowest[0][0])
        return [to_event(row) for row in found if row[0] <= complete]

    def stops(self) -> list[Stop]:
        return [to_stop(row) for row in self._all(sql.GET_STOPS)]

    def stops_version(self) -> int:
        """Rises with every change of a stop."""
        return int(self._all(sql.GET_STOPS_VERSION)[0][0])

    def open_stops(self, reservation_ids: Sequence[str]) -> dict[str, Stop]:
        names = [name for name in reservation_ids if is_name(name)]
        stopped, reservations = self._run([(sql.GET_STOPPED, ()), (sql.GET_RESERVATIONS, (names,))])
        active = [to_stop(row[1:]) for row in stopped if row[1] is not None]
        held = [it for row in reservations if active and (it := to_reservation(row)).is_open]
        around = {name for it in held for name in it.runs}
        rows = self._all(sql.GET_RESERVATIONS, (sorted(around),)) if around else []
        runs = {row[0]: to_reservation(row) for row in rows}
        found: dict[str, Stop] = {}
        for it in held:
            # A stop on whoever owns a run reaches what is done inside.
            reached = [it, *(runs[name] for name in it.runs if name in runs)]
            stop = next((s for s in active for one in reached if lies_below(one, s.tenant, s.scope)), None)
            if stop:
                found[it.id] = stop
        return found

    def tenants(self) -> list[Tenant]:
        return [Tenant(*row) for row in self._all(sql.GET_TENANTS)]

    def record(self, kind: str, record_id: str) -> Record | None:
        rows = self._all(sql.GET_RECORD, (kind, record_id))
        return to_record(rows[0]) if rows else None

    def records(self, kind: str, tenant: str | None, after: str, limit: int) -> list[Record]:
        if tenant is None:
            rows = self._all(sql.GET_RECORDS, (kind, after, limit))
        else:
            rows = self._all(sql.GET_RECORDS_OF_TENANT, (kind, tenant, after, limit))
        return [to_record(row) for row in rows]


def _given(*values: Any) -> list[Any]:
    return [value for value in values if value is not None]


def _conditions(query: ReservationQuery) -> tuple[list[str], list[Any]]:
    where: list[str] = []
    bindings: list[Any] = []
    for condition, name in (*_EXACT, *_WINDOWS):
        value = getattr(query, name)
        if value is not None:
            where.append(condition)
            bindings.append(clean(value) if isinstance(value, str) else value)
    for segment in query.segments:
        where.append("strpos('/' || scope_path || '/', %s) > 0")
        bindings.append(f"/{segment}/")
    if query.scope is not None:
        where.append("(scope_path = %s OR starts_with(scope_path, %s))")
        bindings += [query.scope, query.scope + "/"]
    return where, bindings

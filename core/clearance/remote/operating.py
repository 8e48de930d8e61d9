"""Reads and the operator's verbs over HTTP. Sync, like those of the embedded authority."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar
from urllib.parse import quote, urlencode

from clearance.authority.budgets import BudgetSpec
from clearance.authority.requests import check_amount, check_id, check_key, check_text
from clearance.errors import NotFound, ReservationExpired
from clearance.ledger.funding import FundingOperation
from clearance.model.amount import Amount, Unit, parse_unit
from clearance.model.balance import Balance
from clearance.model.reservation import Reservation
from clearance.model.results import Event, Page, Stop
from clearance.model.subject import Subject, parse_scope, tenant_of
from clearance.remote import readings, requests
from clearance.remote.errors import NotOffered
from clearance.remote.exchange import Exchange
from clearance.remote.plan import Plan
from clearance.remote.steps import Shell, perform
from clearance.remote.wire import BALANCES, LOG, RESERVATIONS, VENDOR, Call, Json, Request, get, post, reservation_path
from clearance.store.interface import EventQuery, ReservationQuery

T = TypeVar("T")

DEFAULT_LIMIT = 50
BUDGETS = "/v1/admin/budgets"


class Operating:
    _plan: Plan
    _shell: Shell
    _exchange: Exchange
    _has_admin_key: bool

    def _ask(self, call: Call[T]) -> T:
        return perform(self._shell, self._exchange.of(call))

    def _require(self, feature: str, what: str) -> None:
        if not perform(self._shell, self._plan.offers(feature)):
            raise NotOffered(f"{what} needs a Clearance server; this one speaks the base protocol")

    # -- reads

    def get(self, reservation_id: str) -> Reservation:
        """Raises NotFound, and ReservationExpired for one that has expired."""
        path = reservation_path(check_id(reservation_id, "reservation_id"))
        return self._ask(Call("get", get(path, as_admin=self._has_admin_key), readings.reservation))

    def find(self, reservation_id: str) -> Reservation:
        """Like `get`, and gives expired ones too: the server lists them, so this looks through that list."""
        try:
            return self.get(reservation_id)
        except ReservationExpired:
            cursor: str | None = None
            while True:
                page = self.reservations(ReservationQuery(status="EXPIRED"), limit=200, cursor=cursor)
                for found in page.items:
                    if found.id == reservation_id:
                        return found
                cursor = page.next_cursor
                if cursor is None:
                    raise NotFound(f"no reservation {reservation_id}") from None

    def reservations(
        self, query: ReservationQuery | None = None, *, limit: int = DEFAULT_LIMIT, cursor: str | None = None
    ) -> Page[Reservation]:
        """One page; the operator's key needs `query.tenant`."""
        given = readings.listing(query or ReservationQuery()) | {"limit": limit, "cursor": cursor}
        as_admin = self._has_admin_key and given.get("tenant") is not None
        return self._ask(Call("reservations", get(RESERVATIONS, given, as_admin=as_admin), readings.reservations))

    def balances(
        self,
        scope: str | None = None,
        *,
        tenant: str | None = None,
        unit: str | None = None,
        limit: int = DEFAULT_LIMIT,
        cursor: str | None = None,
    ) -> Page[Balance]:
        """The budgets at and below `scope`, or of the key's tenant."""
        path = parse_scope(scope) if scope else None
        kept_in = parse_unit(unit).value if unit else None
        segments = path.split("/") if path else []
        query: dict[str, object] = {level: value for level, _, value in (it.partition(":") for it in segments)}
        if tenant is not None:
            query.setdefault("tenant", tenant)
        query |= {"scope_prefix": path, "unit": kept_in, "limit": limit, "cursor": cursor}
        if not query.get("tenant"):
            query["tenant"] = self._tenant()
        page = self._ask(Call("balances", get(BALANCES, query), readings.balances))
        items = [it for it in page.items if readings.matches(it, path, kept_in)]
        return Page(items, page.next_cursor)

    def balance(self, scope: str, unit: str = "USD_MICROCENTS") -> Balance:
        """One budget. Raises NotFound."""
        path, kept_in = parse_scope(scope), parse_unit(unit).value
        cursor: str | None = None
        while True:
            page = self.balances(path, unit=kept_in, limit=200, cursor=cursor)
            for found in page.items:
                if found.scope == path:
                    return found
            cursor = page.next_cursor
            if cursor is None:
                raise NotFound(f"{path} has no budget in {kept_in}", scope=path)

    def events(self, query: EventQuery | None = None, *, limit: int = 100) -> list[Event]:
        """Lines of the audit log, by default the oldest first. A tenant's key sees its own tenant's."""
        self._require("events", "events()")
        given = readings.log_query(query or EventQuery()) | {"limit": limit}
        return self._ask(Call("events", get(LOG, given, as_admin=self._has_admin_key), readings.events))

    def _tenant(self) -> str:
        return self._ask(Call("introspect", get("/v1/auth/introspect"), readings.tenant))

    # -- the stop button

    def kill(self, scope: str, *, reason: str, actor: str | None = None) -> Stop:
        """Stop everything below a scope, a run (`run:<id>`) or everybody (`*`), until `resume`."""
        return self._control("kill", scope, reason, actor)

    def pause(self, scope: str, *, reason: str, actor: str | None = None) -> Stop:
        return self._control("pause", scope, reason, actor)

    def resume(self, scope: str, *, reason: str, actor: str | None = None) -> Stop:
        return self._control("resume", scope, reason, actor)

    def _control(self, verb: str, scope: str, reason: str, actor: str | None) -> Stop:
        self._require("stops", f"{verb}()")
        reason = check_text(reason, "reason", 512)
        return self._ask(requests.control(verb, scope, reason, actor, as_admin=self._has_admin_key))

    def stops(self) -> list[Stop]:
        """Every scope and run that is, or ever was, stopped."""
        self._require("stops", "stops()")
        return self._ask(Call("stops", get(VENDOR + "/stops", as_admin=self._has_admin_key), readings.stops))

    # -- budgets

    def set_budget(self, spec: BudgetSpec, *, must_be_new: bool = False) -> Balance:
        """Create a budget or bring it to its spec; what was spent and is held stays."""
        if must_be_new:
            body: Json = {
                "scope": spec.scope,
                "unit": spec.unit.value,
                "allocated": requests.wire_amount(spec.allocated),
                "overdraft_limit": {"unit": spec.unit.value, "amount": spec.overdraft_limit},
            }
            if spec.overage_policy is not None:
                body["commit_overage_policy"] = spec.overage_policy
            if self._has_admin_key:
                body["tenant_id"] = tenant_of(spec.scope)
            created = self._budget("POST", BUDGETS, body, status=201)
            if spec.period is None and not spec.caps:
                return created
        self._require("budget.spec", "set_budget()")
        return self._budget("PUT", VENDOR + "/budgets", spec.model_dump(mode="json", exclude_none=True))

    def apply_budgets(self, specs: Sequence[BudgetSpec]) -> list[Balance]:
        """All of them in one transaction, or none."""
        self._require("budget.apply", "apply_budgets()")
        if not specs:
            return []
        body = {"budgets": [spec.model_dump(mode="json", exclude_none=True) for spec in specs]}
        request = post(f"{VENDOR}/budgets/apply", body, as_admin=self._has_admin_key)
        return self._ask(Call("apply_budgets", request, readings.ledgers))

    def fund(
        self,
        scope: str,
        operation: FundingOperation,
        amount: Amount,
        *,
        spent: Amount | None = None,
        reason: str | None = None,
        idempotency_key: str | None = None,
    ) -> Balance:
        """CREDIT, DEBIT, RESET, RESET_SPENT or REPAY_DEBT (protocol section 17.1)."""
        check_amount(amount, "amount")
        path = parse_scope(scope)
        body: Json = {
            "operation": operation,
            "amount": requests.wire_amount(amount),
            "idempotency_key": requests.key_of(check_key(idempotency_key)),
        }
        if spent is not None:
            body["spent"] = requests.wire_amount(spent)
        if reason is not None:
            body["reason"] = reason
        query = self._named(path, amount.unit)
        if self._has_admin_key:
            query["tenant_id"] = tenant_of(path)
        request = post(f"{BUDGETS}/fund?{urlencode(query)}", body, as_admin=self._has_admin_key)
        self._ask(Call("fund", request, lambda data: data))
        return self._lookup(path, amount.unit)

    def freeze(self, scope: str, unit: Unit = Unit.USD_MICROCENTS, *, reason: str = "") -> Balance:
        """No new holds on this budget; what is held may settle."""
        return self._status("freeze", scope, unit, reason)

    def unfreeze(self, scope: str, unit: Unit = Unit.USD_MICROCENTS, *, reason: str = "") -> Balance:
        return self._status("unfreeze", scope, unit, reason)

    def close_budget(self, scope: str, unit: Unit = Unit.USD_MICROCENTS, *, reason: str = "") -> Balance:
        """For good."""
        self._require("budget.close", "close_budget()")
        return self._status("close", scope, unit, reason, home=f"{VENDOR}/budgets")

    def close_tenant(self, tenant: str) -> None:
        """For good: releases open calls, charges open runs what they spent, closes the budgets. Needs the admin key."""
        path = f"/v1/admin/tenants/{quote(Subject(tenant=tenant).tenant_key, safe='')}"
        request = post(path, {"status": "CLOSED"}, as_admin=True)._replace(method="PATCH")
        self._ask(Call("close_tenant", request, lambda data: None))

    def _status(self, verb: str, scope: str, unit: Unit, reason: str, home: str = BUDGETS) -> Balance:
        query = urlencode(self._named(parse_scope(scope), parse_unit(unit)))
        return self._budget("POST", f"{home}/{verb}?{query}", {"reason": reason} if reason else {})

    def _named(self, path: str, unit: Unit) -> dict[str, object]:
        return {"scope": path, "unit": unit.value}

    def _lookup(self, path: str, unit: Unit) -> Balance:
        request = get(f"{BUDGETS}/lookup", self._named(path, unit), as_admin=self._has_admin_key)
        return self._ask(Call("lookup", request, readings.ledger))

    def _budget(self, method: str, path: str, body: Json, status: int = 200) -> Balance:
        request: Request = post(path, body, as_admin=self._has_admin_key)._replace(method=method)
        # A repetition of a creation or a change of status that had arrived would be refused as a duplicate.
        return self._ask(Call("budget", request, readings.ledger, status, repeatable=method == "PUT"))

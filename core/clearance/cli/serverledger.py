"""A server's ledger as the commands work on it: the reads and the operator's verbs of a local one, over HTTP."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import replace
from typing import Any, TypeVar

from clearance.authority.administration import current_user
from clearance.authority.budgets import BudgetSpec
from clearance.authority.queries import MAX_LIMIT, check_limit
from clearance.errors import AuthorityUnavailable, BadAnswer, ClearanceError, InvalidRequest, NotFound
from clearance.model.amount import Unit, parse_unit
from clearance.model.balance import Balance
from clearance.model.reservation import Reservation
from clearance.model.results import Page, Stop
from clearance.model.subject import covers, parse_scope, tenant_of
from clearance.remote import Administration, NotOffered, readings
from clearance.remote.operating import BUDGETS, DEFAULT_LIMIT, Operating
from clearance.remote.transport import Transport
from clearance.remote.wire import EXTENSIONS, VENDOR, Call, Json, get, optional_text, text, texts
from clearance.store.interface import ReservationQuery

MAX_PAGE = 100
MAX_LOOKS = 50
"""Requests that one page may take; it is shorter then, and its cursor goes on."""
WHOLE_BUDGETS = "budget.whole"
"""The extension of servers that tell a budget's period and caps where it is read."""

UNTOLD = frozenset({"period", "caps"})

T = TypeVar("T")
Listing = Callable[[str | None, int, str | None], Page[T]]


class ServerLedger(Administration, Operating):
    """One server with the operator's key, which shows every tenant that the server knows, or with a tenant's key."""

    _shell: Transport
    _server: Json

    def reach(self) -> None:
        """Ask who is there, before anything is changed. Raises NotOffered for what is no Clearance server."""
        self._has_admin_key = self.is_admin
        try:
            self._server = self._ask(Call("capabilities", get(VENDOR + "/capabilities"), _server_facts))
        except (BadAnswer, NotFound, InvalidRequest) as error:
            problem = f"{self.url} is no Clearance server (is the URL right?): {error.message}"
            raise NotOffered(problem) from None
        except AuthorityUnavailable as error:
            raise AuthorityUnavailable(
                f"{error.message}; nothing was done (is it running, is the URL right?)"
            ) from None

    @property
    def durability(self) -> str:
        return str(self._server["durability"])

    def describe(self) -> dict[str, Any]:
        return {"engine": "server", "path": self.url, "protocol": self._server["protocol"]}

    def amend_budget(self, now: BudgetSpec, then: BudgetSpec, kept: Collection[str]) -> Balance:
        """Bring a budget to a spec, of which the fields in `kept` are as they were read.

        Where the server does not tell period and caps, only the amount can be changed without losing them.
        """
        untold = UNTOLD & set(kept)
        if not untold or WHOLE_BUDGETS in self._server["extensions"]:
            return self.set_budget(then)
        if untold != UNTOLD or then != now.model_copy(update={"allocated": then.allocated}):
            self.require_whole_budgets()
        return self.fund(then.scope, "RESET", then.allocated)

    def require_whole_budgets(self) -> None:
        """Raises NotOffered where a budget is told without its period and caps."""
        if WHOLE_BUDGETS not in self._server["extensions"]:
            raise NotOffered(
                f"{self.url} does not tell the period and caps that a budget has, and this could lose them: "
                "change the amount alone, give both in full (or `none` and --no-caps), or run this where the ledger is"
            )

    def _require(self, feature: str, what: str) -> None:
        if feature not in self._server["extensions"]:
            raise NotOffered(f"{what} is not offered by {self.url}, whose Clearance is older than this one")

    # -- reads

    def balance(self, scope: str, unit: str = "USD_MICROCENTS") -> Balance:
        query = self._named(parse_scope(scope), parse_unit(unit))
        request = get(f"{BUDGETS}/lookup", query)._replace(headers=(EXTENSIONS,))
        return self._ask(Call("budget", request, readings.ledger))

    def balances(
        self,
        scope: str | None = None,
        *,
        tenant: str | None = None,
        unit: str | None = None,
        limit: int = DEFAULT_LIMIT,
        cursor: str | None = None,
    ) -> Page[Balance]:
        """Of the governance plane, which tells the status too."""
        path = parse_scope(scope) if scope else None
        kept_in = parse_unit(unit).value if unit else None

        def listing(owner: str | None, most: int, after: str | None) -> Page[Balance]:
            query = {"tenant_id": owner, "scope_prefix": path, "unit": kept_in, "cursor": after}
            request = get(BUDGETS, {**query, "limit": min(most, MAX_PAGE)})._replace(headers=(EXTENSIONS,))
            page = self._ask(Call("budgets", request, _ledgers))
            return Page([it for it in page.items if readings.matches(it, path, kept_in)], page.next_cursor)

        return self._pages(tenant_of(path) if path else tenant, listing, limit, cursor)

    def reservations(
        self, query: ReservationQuery | None = None, *, limit: int = DEFAULT_LIMIT, cursor: str | None = None
    ) -> Page[Reservation]:
        """In the order of the query within each tenant."""
        asked = query or ReservationQuery()
        if asked.run_id is not None:
            raise NotOffered("a server does not list what is inside a run; leave --run away, or use --scope")
        read = super().reservations

        def listing(owner: str | None, most: int, after: str | None) -> Page[Reservation]:
            page = read(replace(asked, tenant=owner, kind=None), limit=most, cursor=after)
            return Page([it for it in page.items if _matches(it, asked)], page.next_cursor)

        return self._pages(asked.tenant or (tenant_of(asked.scope) if asked.scope else None), listing, limit, cursor)

    def _pages(self, tenant: str | None, listing: Listing[T], limit: int, cursor: str | None) -> Page[T]:
        """One page. A server lists one tenant at a time, so the operator who names none gets one after the other."""
        everybody = tenant is None and self.is_admin
        names = sorted(str(it["tenant_id"]) for it in self.tenants()) if everybody else [tenant or ""]
        check_limit(limit, MAX_LIMIT)
        first, _, after = (cursor or "").partition(":")
        if cursor and first not in names:
            raise InvalidRequest("cursor", "belongs to other filters", "a next_cursor, with the filters it came with")
        found: list[T] = []
        looks = 0
        for name in (it for it in names if it >= first):
            while len(found) < limit and looks < MAX_LOOKS:
                page = listing(name or None, limit - len(found), after or None)
                found += page.items
                looks += 1
                after = page.next_cursor or ""
                if not after:
                    break
            else:
                return Page(found, f"{name}:{after}")
        return Page(found)

    # -- changes

    def _control(self, verb: str, scope: str, reason: str, actor: str | None) -> Stop:
        return super()._control(verb, scope, reason, actor or current_user())

    def _lookup(self, path: str, unit: Unit) -> Balance:
        """The budget after it was funded; that it cannot be shown does not undo the funding."""
        try:
            return self.balance(path, unit.value)
        except ClearanceError as error:
            error.message = f"the money was changed, and the budget cannot be shown: {error.message}"
            raise


def _server_facts(data: Json) -> Json:
    return {
        "protocol": text(data, "protocol"),
        "durability": optional_text(data, "durability") or "unknown",
        "extensions": texts(data, "extensions"),
    }


def _ledgers(data: Json) -> Page[Balance]:
    return Page(readings.ledgers(data), optional_text(data, "next_cursor"))


def _matches(found: Reservation, asked: ReservationQuery) -> bool:
    """What the protocol cannot filter by: the kind, and the path of a scope rather than its names."""
    in_scope = asked.scope is None or covers(asked.scope, found.scope_path)
    return in_scope and asked.kind in (None, found.kind)

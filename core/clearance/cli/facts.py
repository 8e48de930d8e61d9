"""Answers as plain data: what --json prints and what the views draw."""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING, Any

from clearance.errors import NotFound

if TYPE_CHECKING:
    from clearance.authority.budgets import BudgetSpec
    from clearance.cli.session import Ledger
    from clearance.model.balance import Balance
    from clearance.model.reservation import Reservation
    from clearance.model.results import Stop

PAGE = 200
MAX_NAMED = 200
NAMING_SECONDS = 0.3
"""Each is a request where the ledger is a server, and whoever stops something does not want to wait."""


def all_balances(authority: Ledger, scope: str | None = None, unit: str | None = None) -> list[Balance]:
    found: list[Balance] = []
    cursor = None
    while True:
        page = authority.balances(scope, unit=unit, limit=PAGE, cursor=cursor)
        found += page.items
        cursor = page.next_cursor
        if cursor is None:
            return found


def amended(authority: Ledger, now: BudgetSpec, then: BudgetSpec, kept: list[str]) -> Balance:
    """A budget brought to a new spec, of which the fields in `kept` are as they were read."""
    from clearance.connecting import LocalAuthority

    if isinstance(authority, LocalAuthority):
        return authority.set_budget(then)
    return authority.amend_budget(now, then, kept)


def require_whole_budgets(authority: Ledger) -> None:
    """Raises NotOffered at a server that tells budgets without what a new spec would have to be compared with."""
    from clearance.connecting import LocalAuthority

    if not isinstance(authority, LocalAuthority):
        authority.require_whole_budgets()


def stop_facts(stop: Stop) -> dict[str, Any]:
    return {"scope": stop.scope, "state": stop.state, "reason": stop.reason, "actor": stop.actor, "at_ms": stop.at_ms}


def stops_in_force(authority: Ledger) -> list[Stop]:
    return [stop for stop in authority.stops() if stop.state != "RUNNING"]


def reservation_line(it: Reservation) -> dict[str, Any]:
    """What a list shows of a reservation."""
    facts = it.as_dict()
    keys = ("reservation_id", "kind", "status", "action", "unit", "estimate", "charged", "scope_path", "runs")
    times = ("created_at_ms", "expires_at_ms", "finalized_at_ms")
    return {key: facts[key] for key in (*keys, *times) if key in facts}


def in_flight(authority: Ledger, ids: tuple[str, ...]) -> list[dict[str, Any]]:
    """The reservations that a stop found open; all of them by id, the first ones with what they are."""
    found: list[dict[str, Any]] = []
    ends_at = time.monotonic() + NAMING_SECONDS
    for number, reservation_id in enumerate(ids):
        facts: dict[str, Any] = {"reservation_id": reservation_id}
        if number < MAX_NAMED and time.monotonic() < ends_at:
            with contextlib.suppress(NotFound):
                facts = reservation_line(authority.find(reservation_id))
        found.append(facts)
    return found


def tree(balances: list[Balance], root: str | None) -> list[dict[str, Any]]:
    """Budgets as nodes below each other; a scope without a budget of its own stands where it joins others."""
    nodes: dict[str, dict[str, Any]] = {}
    roots: list[dict[str, Any]] = []
    for balance in balances:
        parts = balance.scope.split("/")
        below = roots
        for end in range(1, len(parts) + 1):
            scope = "/".join(parts[:end])
            if root is not None and not f"{scope}/".startswith(f"{root}/"):
                continue
            if scope not in nodes:
                nodes[scope] = {"scope": scope, "budgets": [], "below": []}
                below.append(nodes[scope])
            below = nodes[scope]["below"]
        nodes[balance.scope]["budgets"].append(balance.as_dict())
    return roots

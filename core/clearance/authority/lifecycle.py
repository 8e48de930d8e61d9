"""What takes several steps in one transaction: the end of runs, expiry, the end of a tenant."""

from __future__ import annotations

from typing import Any

from clearance.authority import settle
from clearance.errors import NotFound
from clearance.model.account import CLOSED
from clearance.model.reservation import Reservation
from clearance.model.results import EVERYTHING, Settlement
from clearance.store.interface import Changes, NewEvent, Tenant, Transaction

SWEEP_LIMIT = 200
"""How many expired reservations one sweep takes, so that no batch grows long."""


def end_run(tx: Transaction, run_id: str, metadata: dict[str, Any], now_ms: int) -> Settlement:
    """Charge what was charged inside; calls that are still open count as their estimate (nobody knows better)."""
    run = settle.find(tx, run_id)
    if run.kind != "run":
        raise NotFound(f"no run {run_id}")
    settle.require_open(run)
    for call in tx.open_in_run(run.id):
        _end_inner(tx, call, now_ms)
    answer, changes = settle.close_run(tx, run, metadata, now_ms)
    tx.write(changes, now_ms)
    return answer


def _end_inner(tx: Transaction, inner: Reservation, now_ms: int) -> None:
    if inner.due_at_ms <= now_ms:
        # Out of time, only not swept yet: what it ends as must not depend on when somebody sweeps.
        expire(tx, inner, now_ms)
        return
    if inner.kind == "run":
        end_run(tx, inner.id, {}, now_ms)
        return
    _, changes = settle.as_estimated(tx, inner, now_ms, "run ended")
    tx.write(changes, now_ms)


def sweep(tx: Transaction, now_ms: int) -> int:
    """Expire what is past its lease and grace; returns how many."""
    due = tx.due(now_ms, SWEEP_LIMIT)
    for found in due:
        present = tx.reservation(found.id)
        if present is not None and present.is_open:
            expire(tx, present, now_ms)
    return len(due)


def expire(tx: Transaction, it: Reservation, now_ms: int) -> None:
    """A call gives its hold back; a run is charged what was committed inside it, so that a crash forgets no spend."""
    if it.kind == "call":
        tx.write(settle.expired(tx, it, now_ms), now_ms)
        return
    for inner in tx.open_in_run(it.id):
        expire(tx, inner, now_ms)
    _, changes = settle.close_run(tx, it, {}, now_ms, expired=True)
    tx.write(changes, now_ms)


def close_tenant(tx: Transaction, tenant: str, now_ms: int) -> None:
    """For good: open calls are released, runs are charged what they spent, budgets close (protocol section 17.3)."""
    for it in sorted(tx.open_below(tenant, EVERYTHING), key=lambda it: len(it.runs), reverse=True):
        if it.kind == "run":
            _, changes = settle.close_run(tx, it, {}, now_ms)
        else:
            _, changes = settle.released(tx, it, now_ms, "tenant_closed")
        tx.write(changes, now_ms)
    closed = [account._replace(status=CLOSED) for account in tx.accounts_below(tenant)]
    events = [NewEvent("tenant.closed", tenant, f"tenant:{tenant}", None, {})]
    events += [
        NewEvent("budget.closed_via_tenant_cascade", tenant, account.scope, None, {"unit": account.unit})
        for account in closed
    ]
    row = tx.tenant(tenant) or Tenant(tenant)
    tx.write(Changes(accounts=closed, tenants=[row._replace(status=CLOSED)], events=events), now_ms)

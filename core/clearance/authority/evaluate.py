"""The decision: may this subject take this action now? One pure function for reserve, decide, dry_run and start_run.

Order of reasons: closed tenant, control, budget (design, section 4; protocol sections 6, 15 and 16). Access, arguments,
quotas, loops and approvals come between control and budget.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from clearance.authority.ids import NewId
from clearance.authority.interface import DEFAULT_MAX_EXTENSIONS
from clearance.authority.purse import (
    Purse,
    current,
    enclosing_run,
    find_purse,
    held_policy,
    renewals,
    require_budget,
)
from clearance.authority.reasons import reach, refusal_details, refusal_message, stop_details, stop_message
from clearance.authority.requests import Ask
from clearance.ledger import accounts as ledger
from clearance.model.account import Account, figures
from clearance.model.caps import Caps, merge
from clearance.model.reservation import Reservation, run_scope
from clearance.model.results import Decision, Figures
from clearance.rules.control import stop_on
from clearance.store.interface import Changes, NewEvent, Rows, Tenant

RUN_MAX_EXTENSIONS = 2**31
"""A run lives as long as its owner keeps it alive."""


def evaluate(rows: Rows, ask: Ask, now_ms: int, new_id: NewId, *, live: bool) -> tuple[Decision, Changes]:
    """The decision and, if `live` and allowed, what must be written.

    Raises InvalidRequest, UnitMismatch, NotFound and Conflict for requests that have no answer; every other no is a
    Decision of DENY, whose event is among the changes.
    """
    tenant = ask.subject.tenant_key
    defaults = rows.tenant(tenant)
    run = enclosing_run(rows, ask.run_id, tenant, now_ms) if ask.run_id is not None else None
    no = _closed_tenant(ask, defaults) if defaults else None
    if no is None and rows.stops():
        no = _stopped(rows, ask, tenant, run)
    if no:
        return no, Changes(events=[denial(ask, no, tenant, live)])
    purse = Purse(()) if ask.unfunded else find_purse(rows, ask.subject.scopes, tenant, ask.unit, run, now_ms)
    no = None if ask.unfunded else _refused(rows, ask, tenant, purse.accounts, now_ms)
    if no:
        denied = denial(ask, no, tenant, live)
        if not live:
            return no, Changes(events=[denied])
        return no, Changes(accounts=purse.renewed, renewals=renewals(purse.renewed), events=[denied])
    caps = _caps(rows, ask, tenant, run, purse.accounts, now_ms)
    if not live:
        decision = _allowed(ask, caps, figures(purse.accounts))
        return decision, Changes()
    return _granted(ask, now_ms, new_id, tenant, defaults, run, purse, caps)


def _granted(
    ask: Ask,
    now_ms: int,
    new_id: NewId,
    tenant: str,
    defaults: Tenant | None,
    run: Reservation | None,
    purse: Purse,
    caps: Caps | None,
) -> tuple[Decision, Changes]:
    held = ledger.hold(purse.accounts, ask.estimate.amount)
    reservation = _reservation(ask, now_ms, new_id(now_ms), tenant, defaults, run, held)
    own = _run_account(ask, reservation) if ask.kind == "run" else ()
    decision = _allowed(ask, caps, figures(held), reservation.id, reservation.expires_at_ms, ask.ttl_ms)
    granted = granted_event(ask, decision, reservation, own)
    return decision, Changes(
        accounts=(*held, *own), opened=(reservation,), renewals=renewals(purse.renewed), events=[granted]
    )


def _run_account(ask: Ask, run: Reservation) -> tuple[Account, ...]:
    """The account that the calls inside a run hold on."""
    if ask.unfunded:
        return ()
    return (Account(run.tenant, run_scope(run.id), run.unit, allocated=run.estimate, created_at_ms=run.created_at_ms),)


def _reservation(
    ask: Ask,
    now_ms: int,
    new: str,
    tenant: str,
    defaults: Tenant | None,
    run: Reservation | None,
    held: Sequence[Account],
) -> Reservation:
    most = defaults.max_extensions if defaults and defaults.max_extensions is not None else DEFAULT_MAX_EXTENSIONS
    policy = ask.overage_policy or (defaults.overage_policy if defaults else None)
    return Reservation(
        id=("run_" if ask.kind == "run" else "rsv_") + new,
        tenant=tenant,
        kind=ask.kind,
        status="ACTIVE",
        unit=ask.unit,
        estimate=ask.estimate.amount,
        subject=ask.subject.wire,
        action=ask.action.wire,
        affected_scopes=ask.subject.scopes,
        held_on=tuple([account.scope for account in held]),
        created_at_ms=now_ms,
        expires_at_ms=now_ms + ask.ttl_ms,
        grace_period_ms=ask.grace_period_ms,
        overage_policy=policy or held_policy(held),  # type: ignore[arg-type]
        max_extensions=RUN_MAX_EXTENSIONS if ask.kind == "run" else most,
        runs=(*run.runs, run.id) if run else (),
        idempotency_key=ask.idempotency_key,
        metadata=ask.metadata,
    )


# -- reasons for no -------------------------------------------------------------------------------


def _closed_tenant(ask: Ask, tenant: Tenant) -> Decision | None:
    if tenant.status != "CLOSED":
        return None
    return _denied(ask, "TENANT_CLOSED", f"tenant {tenant.tenant} is closed", ask.subject.scopes[0])


def _stopped(rows: Rows, ask: Ask, tenant: str, run: Reservation | None) -> Decision | None:
    stop = stop_on(rows.stops(), tenant, *reach(rows, ask.subject.scopes, (*run.runs, run.id) if run else ()))
    if stop is None:
        return None
    return _denied(ask, stop.state, stop_message(stop), stop.scope, details=stop_details(stop))


def _refused(rows: Rows, ask: Ask, tenant: str, accounts: Sequence[Account], now_ms: int) -> Decision | None:
    if not accounts:
        error = require_budget(rows, ask.subject.scopes, tenant, ask.estimate.unit)
        return _denied(ask, "BUDGET_NOT_FOUND", error.message, error.scope, details=error.details)
    refusal = ledger.check(accounts, ask.estimate.amount)
    if refusal is None:
        return None
    account = refusal.account
    wait_ms = None
    if refusal.code == "BUDGET_EXCEEDED" and account.period_end_ms and account.allocated >= ask.estimate.amount:
        wait_ms = max(0, account.period_end_ms - now_ms)
    return _denied(
        ask,
        refusal.code,
        refusal_message(refusal),
        account.scope,
        retry_after_ms=wait_ms,
        details=refusal_details(refusal),
    )


def _denied(
    ask: Ask,
    code: str,
    message: str,
    scope: str | None,
    *,
    retry_after_ms: int | None = None,
    details: dict[str, Any] | None = None,
) -> Decision:
    return Decision(
        "DENY",
        ask.subject.scopes,
        ask.estimate.unit,
        ask.estimate.amount,
        reason_code=code,
        message=message,
        scope=scope,
        retry_after_ms=retry_after_ms,
        details=details or {},
    )


# -- yes ------------------------------------------------------------------------------------------


def _caps(
    rows: Rows, ask: Ask, tenant: str, run: Reservation | None, accounts: Sequence[Account], now_ms: int
) -> Caps | None:
    """The tightest caps of the subject's budgets; inside a run the scopes' caps hold as well."""
    if run is not None:
        accounts = [*accounts, *_budgets(rows, ask, tenant, ask.unit, now_ms)]
    found = _biting(accounts)
    for unit in ask.units[1:]:
        lists = [caps.of_tools for caps in _biting(_budgets(rows, ask, tenant, unit, now_ms))]
        found += [caps for caps in lists if caps.wire]
    return merge(found) if found else None


def _budgets(rows: Rows, ask: Ask, tenant: str, unit: str, now_ms: int) -> Sequence[Account]:
    return current(rows.accounts_on(tenant, ask.subject.scopes, unit), now_ms).accounts


def _biting(accounts: Sequence[Account]) -> list[Caps]:
    return [rule.caps for a in accounts for rule in a.caps if rule.applies(a.remaining, a.allocated)]


def _allowed(
    ask: Ask,
    caps: Caps | None,
    after: Figures,
    reservation_id: str | None = None,
    expires_at_ms: int | None = None,
    remaining_ttl_ms: int | None = None,
) -> Decision:
    return Decision(
        "ALLOW_WITH_CAPS" if caps else "ALLOW",
        ask.subject.scopes,
        ask.estimate.unit,
        ask.estimate.amount,
        reservation_id,
        expires_at_ms,
        remaining_ttl_ms,
        caps,
        figures=after,
    )


# -- events ---------------------------------------------------------------------------------------


def granted_event(ask: Ask, decision: Decision, reservation: Reservation, own: Sequence[Account]) -> NewEvent:
    data: dict[str, Any] = {
        "decision": decision.decision,
        "unit": ask.unit,
        "estimate": decision.estimate,
        "scopes": decision.affected_scopes,
        "expires_at_ms": decision.expires_at_ms,
        "action": reservation.action,
        "figures": decision.figures,
    }
    if decision.caps:
        data["caps"] = decision.caps.wire
    if reservation.runs:
        data["runs"] = reservation.runs
    if own:
        data["own"] = figures(own)
    kind = "run.started" if ask.kind == "run" else "reservation.created"
    return NewEvent(kind, reservation.tenant, reservation.scope_path, reservation.id, data)


def previewed(ask: Ask, decision: Decision) -> NewEvent:
    """Keeps the answer of a dry run or decide that was asked for with an idempotency key."""
    data: dict[str, Any] = {
        "decision": decision.decision,
        "unit": decision.unit,
        "estimate": decision.estimate,
        "scopes": decision.affected_scopes,
        "action": ask.action.wire,
        "figures": decision.figures,
        "dry_run": True,
    }
    if decision.caps:
        data["caps"] = decision.caps.wire
    return NewEvent("decision.previewed", ask.subject.tenant_key, ask.subject.scope_path, None, data)


def denial(ask: Ask, no: Decision, tenant: str, live: bool) -> NewEvent:
    """Also for a live denial, which the protocol answers as an error (A9)."""
    data: dict[str, Any] = {
        "reason_code": no.reason_code,
        "message": no.message,
        "scope": no.scope,
        "unit": no.unit,
        "requested": no.estimate,
        "scopes": no.affected_scopes,
        "action": ask.action.wire,
        "details": no.details,
    }
    if no.retry_after_ms is not None:
        data["retry_after_ms"] = no.retry_after_ms
    if ask.run_id:
        data["run_id"] = ask.run_id
    if ask.metadata:
        data["metadata"] = ask.metadata
    if not live:
        data["dry_run"] = True
    return NewEvent("reservation.denied", tenant, ask.subject.scope_path, None, data)

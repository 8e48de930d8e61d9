"""What became of a hold: commit, release, extend, expire; and direct debits. Pure, like `evaluate`.

Order of errors: protocol section 15. None of these is stopped by a kill, a pause or a frozen budget, except `extend`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from clearance.authority.notices import crossings
from clearance.authority.purse import (
    Purse,
    current,
    find_purse,
    held_policy,
    known_run,
    renewals,
    require_budget,
)
from clearance.authority.reasons import REASONS, reach, refusal_details, refusal_message, stop_details, stop_message
from clearance.errors import (
    Killed,
    MaxExtensionsExceeded,
    NotFound,
    Paused,
    ReservationExpired,
    ReservationFinalized,
    TenantClosed,
    UnitMismatch,
)
from clearance.ledger import accounts as ledger
from clearance.model.account import ALLOW_IF_AVAILABLE, REJECT, Account, OveragePolicy, figures
from clearance.model.action import Action
from clearance.model.amount import Amount, Unit
from clearance.model.reservation import Reservation, run_scope
from clearance.model.results import Lease, Settlement
from clearance.model.subject import Subject
from clearance.rules.control import stop_on
from clearance.store.interface import Changes, NewEvent, Rows


class Charged(NamedTuple):
    """The accounts that a charge has changed, before and after, and the part that no policy could charge."""

    before: tuple[Account, ...]
    after: tuple[Account, ...]
    uncharged: int = 0
    renewed: tuple[Account, ...] = ()


def find(rows: Rows, reservation_id: str) -> Reservation:
    found = rows.reservation(reservation_id)
    if found is None:
        raise NotFound(f"no reservation {reservation_id}")
    return found


def require_tenant_open(rows: Rows, tenant: str) -> None:
    row = rows.tenant(tenant)
    if row is not None and row.status == "CLOSED":
        raise TenantClosed(f"tenant {tenant} is closed", scope=f"tenant:{tenant}")


def require_open(it: Reservation) -> None:
    if it.status == "EXPIRED":
        raise ReservationExpired(f"{it.id} has expired", scope=it.scope_path)
    if not it.is_open:
        raise ReservationFinalized(f"{it.id} was {it.status.lower()} before", scope=it.scope_path)


def _require_in_grace(it: Reservation, now_ms: int) -> None:
    if now_ms >= it.due_at_ms:
        late_ms = now_ms - it.expires_at_ms
        raise ReservationExpired(
            f"the lease of {it.id} ended {late_ms:,} ms ago, beyond its grace; record the spend as an event",
            scope=it.scope_path,
        )


# -- commit ---------------------------------------------------------------------------------------


def commit(
    rows: Rows, reservation_id: str, actual: Amount, metadata: dict[str, Any], now_ms: int
) -> tuple[Settlement, Changes]:
    it = find(rows, reservation_id)
    require_tenant_open(rows, it.tenant)
    require_open(it)
    if it.kind == "run":
        raise ReservationFinalized(f"{it.id} is a run: it ends with end_run, which charges what its calls charged")
    if actual.unit != it.unit:
        raise UnitMismatch("actual", f"is in {actual.unit}", it.unit, scope=it.scope_path)
    _require_in_grace(it, now_ms)
    charged = _charge_hold(rows, it, actual.amount, now_ms)
    return settled(it, actual.amount, charged, metadata, now_ms)


def settled(
    it: Reservation, actual: int, charged: Charged, metadata: dict[str, Any], now_ms: int, why: str | None = None
) -> tuple[Settlement, Changes]:
    """The answer and the changes of a commit whose accounts are known."""
    amount = actual - charged.uncharged
    released = max(it.estimate - actual, 0)
    done = it.committed(amount, actual, now_ms, metadata or None)
    after = figures(charged.after)
    data: dict[str, Any] = {
        "unit": it.unit,
        "estimate": it.estimate,
        "actual": actual,
        "charged": amount,
        "released": released,
        "action": it.action,
        "figures": after,
    }
    if charged.uncharged:
        data["uncharged"] = charged.uncharged
    if it.runs:
        data["runs"] = it.runs
    if metadata:
        data["metadata"] = metadata
    if why:
        data["why"] = why
    kind = "run.ended" if it.kind == "run" else "reservation.committed"
    events = [NewEvent(kind, it.tenant, it.scope_path, it.id, data)]
    if actual > it.estimate:
        # Only a charge beyond the hold can lower what remains, so only then can a line be crossed.
        events += [*crossings(it, charged.before, charged.after), _overage(it, actual, charged)]
    answer = Settlement(
        "COMMITTED", Unit[it.unit], it.estimate, actual, amount, released, charged.uncharged, it.id, figures=after
    )
    return answer, Changes(accounts=charged.after, changed=(done,), renewals=renewals(charged.renewed), events=events)


def _overage(it: Reservation, actual: int, charged: Charged) -> NewEvent:
    debt = sum(new.debt - old.debt for old, new in zip(charged.before, charged.after, strict=True))
    return NewEvent(
        "reservation.commit_overage",
        it.tenant,
        it.scope_path,
        it.id,
        {
            "unit": it.unit,
            "estimated_amount": it.estimate,
            "actual_amount": actual,
            "overage": actual - it.estimate,
            "overage_policy": it.overage_policy,
            "debt_incurred": debt,
        },
    )


def _charge_hold(rows: Rows, it: Reservation, actual: int, now_ms: int) -> Charged:
    if it.held_on and it.held_on[0].startswith("run:"):
        return _charge_run(rows, it, actual, now_ms)
    purse = holders(rows, it, now_ms)
    outcome = ledger.settle(purse.accounts, it.estimate, actual, it.overage_policy)
    if isinstance(outcome, ledger.Refusal):
        raise _error(outcome)
    return Charged(purse.accounts, outcome.accounts, actual - outcome.charged, purse.renewed)


def as_estimated(rows: Rows, it: Reservation, now_ms: int, why: str) -> tuple[Settlement, Changes]:
    """Commit the estimate of a call whose cost nobody will tell."""
    return settled(it, it.estimate, _charge_hold(rows, it, it.estimate, now_ms), {}, now_ms, why)


def holders(rows: Rows, it: Reservation, now_ms: int) -> Purse:
    """The accounts that hold this estimate, as fixed when it was reserved, each in its present period."""
    return current(rows.accounts_on(it.tenant, it.held_on, it.unit), now_ms)


def _error(refusal: ledger.Refusal) -> Exception:
    kind = REASONS[refusal.code]
    return kind(refusal_message(refusal), scope=refusal.account.scope, details=refusal_details(refusal))


# -- inside a run ---------------------------------------------------------------------------------


def _charge_run(rows: Rows, it: Reservation, actual: int, now_ms: int) -> Charged:
    """A call inside a run. What is more than the run has left goes to the enclosing run, then to the scopes."""
    (own,) = holders(rows, it, now_ms).accounts
    if actual <= it.estimate:
        moved = own._replace(reserved=own.reserved - it.estimate, spent=own.spent + actual)
        return Charged((own,), (moved,))
    if it.overage_policy == REJECT:
        raise _error(ledger.Refusal("BUDGET_EXCEEDED", own, actual))
    moved = own._replace(reserved=own.reserved - it.estimate, spent=own.spent + it.estimate)
    run_id = own.scope.removeprefix("run:")
    beyond = _spill(rows, run_id, moved, actual - it.estimate, now_ms)
    return beyond._replace(before=(own, *beyond.before[1:]))


def _spill(rows: Rows, run_id: str, own: Account, amount: int, now_ms: int) -> Charged:
    """Charge `amount` to a run's account as far as it goes and the rest to whoever funded the run."""
    fits = min(amount, max(own.remaining, 0))
    after = own._replace(spent=own.spent + fits)
    rest = amount - fits
    if rest == 0:
        return Charged((own,), (after,))
    run = find(rows, run_id)
    purse = holders(rows, run, now_ms)
    if run.held_on and run.held_on[0].startswith("run:"):
        (funder,) = purse.accounts
        above = _spill(rows, funder.scope.removeprefix("run:"), funder, rest, now_ms)
    else:
        above = _debit(purse, rest, run.overage_policy)
    return Charged((own, *above.before), (after, *above.after), above.uncharged, above.renewed)


def _debit(purse: Purse, amount: int, policy: OveragePolicy) -> Charged:
    """A charge that has already happened: whatever the policy cannot take stays visible as uncharged."""
    scopes = purse.accounts
    if policy == REJECT or not scopes:
        return Charged(scopes, scopes, amount, purse.renewed)
    outcome = ledger.debit(scopes, amount, policy)
    if isinstance(outcome, ledger.Refusal):
        outcome = ledger.debit(scopes, amount, ALLOW_IF_AVAILABLE)
    assert isinstance(outcome, ledger.Settled)
    return Charged(scopes, outcome.accounts, amount - outcome.charged, purse.renewed)


# -- release, extend, expire ----------------------------------------------------------------------


def release(rows: Rows, reservation_id: str, reason: str | None, now_ms: int) -> tuple[Settlement, Changes]:
    it = find(rows, reservation_id)
    require_tenant_open(rows, it.tenant)
    require_open(it)
    _require_in_grace(it, now_ms)
    if it.kind == "run":
        raise ReservationFinalized(f"{it.id} is a run: it ends with end_run, which charges what its calls charged")
    return released(rows, it, now_ms, reason)


def released(rows: Rows, it: Reservation, now_ms: int, reason: str | None) -> tuple[Settlement, Changes]:
    after, changes = _give_back(
        rows, it, now_ms, "RELEASED", "reservation.released", {"reason": reason} if reason else {}
    )
    answer = Settlement(
        "RELEASED", Unit[it.unit], it.estimate, 0, 0, it.estimate, reservation_id=it.id, figures=figures(after)
    )
    return answer, changes


def expired(rows: Rows, it: Reservation, now_ms: int) -> Changes:
    """Past lease and grace: the hold goes back (protocol section 11)."""
    facts = {"expired_at_ms": it.expires_at_ms, "extensions_used": it.extension_count}
    return _give_back(rows, it, now_ms, "EXPIRED", "reservation.expired", facts)[1]


def _give_back(
    rows: Rows, it: Reservation, now_ms: int, status: str, event: str, facts: dict[str, Any]
) -> tuple[Sequence[Account], Changes]:
    purse = holders(rows, it, now_ms)
    after = ledger.refund(purse.accounts, it.estimate)
    # Only committed and released reservations have a time at which they were finalized (protocol section 3).
    done = it._replace(status=status, finalized_at_ms=None if status == "EXPIRED" else now_ms)  # type: ignore[arg-type]
    data = {
        "unit": it.unit,
        "estimate": it.estimate,
        "released": it.estimate,
        "action": it.action,
        "figures": figures(after),
        **facts,
    }
    if it.runs:
        data["runs"] = it.runs
    events = [NewEvent(event, it.tenant, it.scope_path, it.id, data)]
    return after, Changes(accounts=after, changed=[done], renewals=renewals(purse.renewed), events=events)


def extend(rows: Rows, reservation_id: str, extend_by_ms: int, now_ms: int) -> tuple[Lease, Changes]:
    it = find(rows, reservation_id)
    require_tenant_open(rows, it.tenant)
    require_open(it)
    if now_ms > it.expires_at_ms:
        raise ReservationExpired(f"the lease of {it.id} has ended and cannot be extended", scope=it.scope_path)
    scopes, runs = reach(rows, it.affected_scopes, it.runs)
    stop = stop_on(rows.stops(), it.tenant, scopes, (*runs, it.id))
    if stop is not None:
        kind = Killed if stop.state == "KILLED" else Paused
        raise kind(stop_message(stop), scope=stop.scope, details=stop_details(stop))
    if it.extension_count >= it.max_extensions:
        raise MaxExtensionsExceeded(
            f"{it.id} was extended {it.extension_count} times, the most it may be", scope=it.scope_path
        )
    longer = it._replace(expires_at_ms=it.expires_at_ms + extend_by_ms, extension_count=it.extension_count + 1)
    data = {"expires_at_ms": longer.expires_at_ms, "extension_count": longer.extension_count}
    event = NewEvent("reservation.extended", it.tenant, it.scope_path, it.id, data)
    lease = Lease(it.id, longer.expires_at_ms, longer.expires_at_ms - now_ms)
    return lease, Changes(changed=[longer], events=[event])


# -- direct debit ---------------------------------------------------------------------------------


def debit_event(
    rows: Rows,
    subject: Subject,
    action: Action,
    actual: Amount,
    policy: OveragePolicy | None,
    run_id: str | None,
    metadata: dict[str, Any],
    now_ms: int,
    event_id: str,
) -> tuple[Settlement, Changes]:
    """Spend without a hold (protocol section 12); inside a run it goes to the run first and is never refused."""
    tenant, unit = subject.tenant_key, actual.unit
    require_tenant_open(rows, tenant)
    run = known_run(rows, run_id, tenant) if run_id else None
    purse = find_purse(rows, subject.scopes, tenant, unit, run, now_ms)
    if not purse.accounts:
        raise require_budget(rows, subject.scopes, tenant, unit)
    first = purse.accounts[0]
    if first.scope.startswith("run:"):
        charged = _spill(rows, first.scope.removeprefix("run:"), first, actual.amount, now_ms)
    else:
        defaults = rows.tenant(tenant)
        chosen = policy or (defaults.overage_policy if defaults else None) or held_policy(purse.accounts)
        outcome = ledger.charge(purse.accounts, actual.amount, chosen)  # type: ignore[arg-type]
        if isinstance(outcome, ledger.Refusal):
            raise _error(outcome)
        charged = Charged(purse.accounts, outcome.accounts, actual.amount - outcome.charged, purse.renewed)
    amount = actual.amount - charged.uncharged
    data: dict[str, Any] = {
        "event_id": event_id,
        "unit": unit,
        "actual": actual.amount,
        "charged": amount,
        "action": action.wire,
        "figures": figures(charged.after),
    }
    if charged.uncharged:
        data["uncharged"] = charged.uncharged
    if run_id:
        data["run_id"] = run_id
    if metadata:
        data["metadata"] = metadata
    applied = NewEvent("spend.recorded", tenant, subject.scope_path, None, data)
    events = [applied, *crossings(None, charged.before, charged.after)]
    answer = Settlement(
        "APPLIED",
        unit,
        0,
        actual.amount,
        amount,
        0,
        charged.uncharged,
        event_id=event_id,
        figures=figures(charged.after),
    )
    return answer, Changes(accounts=charged.after, renewals=renewals(charged.renewed), events=events)


# -- the end of a run -----------------------------------------------------------------------------


def close_run(
    rows: Rows, run: Reservation, metadata: dict[str, Any], now_ms: int, *, expired: bool = False
) -> tuple[Settlement, Changes]:
    """Charge whoever funded the run what its calls charged and drop its account. Its open calls were settled before."""
    own = rows.account(run.tenant, run_scope(run.id), run.unit)
    spent = own.spent if own else 0
    purse = holders(rows, run, now_ms)
    moved = tuple(a._replace(reserved=a.reserved - run.estimate, spent=a.spent + spent) for a in purse.accounts)
    charged = Charged(purse.accounts, moved, renewed=purse.renewed)
    answer, changes = settled(run, spent, charged, metadata, now_ms, "lease expired" if expired else None)
    if own:
        changes.dropped_accounts = [own.key]
    return answer, changes

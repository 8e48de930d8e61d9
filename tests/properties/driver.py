"""The authority behind the operations of the reference model: the same names, arguments and answers."""

from __future__ import annotations

from tests.properties.replay import pages

from clearance.authority.budgets import BudgetSpec
from clearance.model.action import Action
from clearance.model.amount import Amount, Unit
from clearance.model.caps import Caps, CapsRule
from clearance.model.period import Period
from clearance.model.subject import Subject
from clearance.store.interface import ReservationQuery

ACT = Action(kind="llm.completion", name="model")


def money(unit, amount):
    return Amount(unit=Unit(unit), amount=amount)


class Driver:
    def __init__(self, place):
        self.place = place
        self.subjects = {}

    @property
    def authority(self):
        return self.place.authority

    def call(self, name, args):
        """The plain answer and the id of a new reservation, if one was made."""
        answer = getattr(self, name)(**args)
        made = answer["id"] if name in ("reserve", "start_run") else None
        return answer, made

    def subject(self, levels):
        return self.subjects.setdefault(levels, Subject(**dict(levels)))

    # -- actions

    def reserve(self, subject, unit, amount, policy, ttl, grace, run, key):
        return decision(self.authority.reserve(
            self.subject(subject), ACT, money(unit, amount), ttl_ms=ttl, grace_period_ms=grace, overage_policy=policy,
            run_id=run, idempotency_key=key,
        ))  # fmt: skip

    def dry_run(self, subject, unit, amount, run, key):
        amount = money(unit, amount)
        return decision(self.authority.dry_run(self.subject(subject), ACT, amount, run_id=run, idempotency_key=key))

    def decide(self, subject, unit, amount, key):
        return decision(self.authority.decide(self.subject(subject), ACT, money(unit, amount), idempotency_key=key))

    def start_run(self, subject, unit, amount, policy, ttl, run):
        budget = None if amount is None else money(unit, amount)
        return decision(
            self.authority.start_run(self.subject(subject), budget, ttl_ms=ttl, overage_policy=policy, run_id=run)
        )

    def commit(self, hold, unit, amount, key):
        return settlement(self.authority.commit(hold, money(unit, amount), idempotency_key=key))

    def release(self, hold, reason, key):
        return settlement(self.authority.release(hold, reason=reason, idempotency_key=key))

    def extend(self, hold, by, key):
        lease = self.authority.extend(hold, by, idempotency_key=key)
        return {"id": lease.reservation_id, "expires": lease.expires_at_ms, "ttl": lease.remaining_ttl_ms}

    def event(self, subject, unit, amount, policy, run, key):
        return settlement(self.authority.event(
            self.subject(subject), ACT, money(unit, amount), overage_policy=policy, run_id=run, idempotency_key=key
        ))  # fmt: skip

    def end_run(self, run):
        return settlement(self.authority.end_run(run))

    def control(self, target, state):
        verb = {"KILLED": "kill", "PAUSED": "pause", "RUNNING": "resume"}[state]
        stop = getattr(self.authority, verb)(target, reason="a drill", actor="tester")
        return (stop.scope, stop.state, sorted(stop.in_flight))

    # -- budgets

    def set_budget(self, scope, unit, amount, limit, policy, period, caps, new):
        spec = BudgetSpec(
            scope=scope,
            allocated=money(unit, amount),
            overdraft_limit=limit,
            overage_policy=policy,
            period=Period(every=period[0], kind=period[1]) if period else None,
            caps=tuple(CapsRule(caps=Caps(max_tokens=most), below_percent=below) for below, most in caps),
        )
        return figures(self.authority.set_budget(spec, must_be_new=new))

    def fund(self, scope, unit, operation, amount, spent, key):
        spent = None if spent is None else money(unit, spent)
        return figures(self.authority.fund(scope, operation, money(unit, amount), spent=spent, idempotency_key=key))

    def status(self, scope, unit, status):
        verb = {"FROZEN": "freeze", "ACTIVE": "unfreeze", "CLOSED": "close_budget"}[status]
        return figures(getattr(self.authority, verb)(scope, Unit(unit)))

    def close_tenant(self, tenant):
        return self.authority.close_tenant(tenant)

    # -- what is on the books

    def books(self):
        """Every budget in the shape of the model's, without what a balance does not tell."""
        return {(b.scope, b.unit.value): self.book(b) for b in pages(self.authority.balances)}

    @staticmethod
    def book(b):
        return {
            "scope": b.scope,
            "unit": b.unit.value,
            "allocated": b.allocated,
            "reserved": b.reserved,
            "spent": b.spent,
            "debt": b.debt,
            "limit": b.overdraft_limit,
            "period": (b.period.every, b.period.kind) if b.period else None,
            "end": b.period_end_ms,
            "over": b.is_over_limit,
            "status": b.status,
            "caps": tuple((rule.below_percent, rule.caps.max_tokens) for rule in b.caps),
        }

    def open_holds(self):
        return {it.id for it in pages(self.authority.reservations, ReservationQuery(status="ACTIVE"))}


def figures(b):
    return {b.scope: [b.allocated, b.reserved, b.spent, b.debt, b.overdraft_limit, int(b.is_over_limit)]}


def decision(answer):
    return {
        "decision": answer.decision,
        "scopes": list(answer.affected_scopes),
        "id": answer.reservation_id,
        "expires": answer.expires_at_ms,
        "ttl": answer.remaining_ttl_ms,
        "max_tokens": answer.caps.max_tokens if answer.caps else None,
        "reason": answer.reason_code,
        "scope": answer.scope,
        "figures": answer.figures,
    }


def settlement(answer):
    return {
        "status": answer.status,
        "id": answer.reservation_id,
        "estimate": answer.estimate,
        "actual": answer.actual,
        "charged": answer.charged,
        "released": answer.released,
        "uncharged": answer.uncharged,
        "figures": answer.figures,
    }

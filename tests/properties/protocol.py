"""The operations of the reference model: what the authority is compared with, one method an operation."""

from __future__ import annotations

from tests.properties.reference import AVAILABLE, Ledger, No, figures, left, scope_tenant, scopes_of, tenant_of, window

DENIALS = {
    "BudgetNotFound": "BUDGET_NOT_FOUND",
    "BudgetExceeded": "BUDGET_EXCEEDED",
    "BudgetFrozen": "BUDGET_FROZEN",
    "BudgetClosed": "BUDGET_CLOSED",
    "OverdraftLimitExceeded": "OVERDRAFT_LIMIT_EXCEEDED",
    "DebtOutstanding": "DEBT_OUTSTANDING",
    "TenantClosed": "TENANT_CLOSED",
    "Killed": "KILLED",
    "Paused": "PAUSED",
}
RUNS_EXTEND_FOR_EVER = 10**9


class Reference(Ledger):
    # -- deciding (sections 6 and 7)

    def reserve(self, subject, unit, amount, policy, ttl, grace, run, key):
        return self.decided("reserve", subject, unit, amount, policy, ttl, grace, run, key)

    def dry_run(self, subject, unit, amount, run, key):
        return self.decided("dry_run", subject, unit, amount, None, 60_000, 5_000, run, key)

    def decide(self, subject, unit, amount, key):
        return self.decided("decide", subject, unit, amount, None, 60_000, 5_000, None, key)

    def start_run(self, subject, unit, amount, policy, ttl, run):
        return self.decided("run", subject, unit, amount, policy, ttl, 5_000, run, None)

    def decided(self, endpoint, subject, unit, amount, policy, ttl, grace, run, key):
        self.used()
        place = (tenant_of(subject), "decide" if endpoint == "decide" else "reserve", key)
        payload = (endpoint, subject, unit, amount, policy, ttl, grace, run)
        said = self.replay(place, payload)
        if said is not None:
            held = self.holds.get(said["id"])
            lease = max(0, said["expires"] - self.now) if held and held["status"] == "ACTIVE" else 0
            return {**said, "ttl": lease if held else None}
        live = endpoint in ("reserve", "run")
        outer = self.enclosing(run, tenant_of(subject))
        try:
            rows, caps = self.judged(subject, unit, amount, outer, live)
        except No as no:
            if live or no.name == "UnitMismatch":
                raise
            return self.remember(place, payload, self.answer("DENY", subject, no))
        if not live:
            return self.remember(place, payload, self.answer(caps, subject, rows=rows))
        kind = "run" if endpoint == "run" else "call"
        h = self.new_hold(kind, subject, unit, amount, policy, ttl, grace, outer, rows)
        answer = self.answer(caps, subject, rows=rows, id=h["id"], expires=h["expires"], ttl=ttl)
        return self.remember(place, payload, answer)

    @staticmethod
    def answer(caps, subject, no=None, rows=(), id=None, expires=None, ttl=None):
        decision = caps if caps == "DENY" else "ALLOW" if caps is None else "ALLOW_WITH_CAPS"
        return {
            "decision": decision,
            "scopes": scopes_of(subject),
            "id": id,
            "expires": expires,
            "ttl": ttl,
            "max_tokens": None if caps == "DENY" else caps,
            "reason": DENIALS[no.name] if no else None,
            "scope": no.scope if no else None,
            "figures": figures(rows),
        }

    def enclosing(self, run_id, tenant):
        if run_id is None:
            return None
        run = self.known_run(run_id, tenant)
        if run["status"] != "ACTIVE":
            raise No("ReservationFinalized")
        if self.now > run["expires"]:
            raise No("ReservationExpired")
        return run

    def known_run(self, run_id, tenant):
        if self.holds.get(run_id, {}).get("kind") != "run":
            raise No("NotFound")
        if self.holds[run_id]["tenant"] != tenant:
            raise No("InvalidRequest")
        return self.holds[run_id]

    def judged(self, subject, unit, amount, run, live):
        """The accounts that would hold it and the cap on tokens; raises the first reason for no."""
        scopes, tenant = scopes_of(subject), tenant_of(subject)
        if tenant in self.closed:
            raise No("TenantClosed", scopes[0])
        self.stop_on(tenant, scopes, [*run["runs"], run["id"]] if run else [])
        rows = [] if amount is None else self.purse(scopes, unit, run)
        if amount is not None and not rows:
            self.require_some_unit(scopes)
            raise No("BudgetNotFound", scopes[-1])
        for b in rows:
            name = self.refusal(b, amount)
            if name:
                if live:
                    self.save(b for b in rows if self.budgets[b["scope"], unit]["end"] is not None)
                raise No(name, b["scope"])
        limits = [rule[1] for b in [*rows, *(self.view(scopes, unit) if run else [])] for rule in self.capping(b)]
        return rows, min(limits, default=None)

    @staticmethod
    def refusal(b, amount):
        if b["status"] != "ACTIVE":
            return "BudgetFrozen" if b["status"] == "FROZEN" else "BudgetClosed"
        if b["over"]:
            return "OverdraftLimitExceeded"
        if b["debt"] > 0 and b["limit"] == 0:
            return "DebtOutstanding"
        return "BudgetExceeded" if left(b) < amount else None

    @staticmethod
    def capping(b):
        return [rule for rule in b["caps"] if rule[0] is None or left(b) * 100 < b["allocated"] * rule[0]]

    def new_hold(self, kind, subject, unit, amount, policy, ttl, grace, outer, rows):
        for b in rows:
            b["reserved"] += amount
        self.save(rows)
        named = [b["policy"] for b in reversed(rows) if b["policy"]]
        h = self.holds[self.given] = {
            "id": self.given,
            "kind": kind,
            "status": "ACTIVE",
            "tenant": tenant_of(subject),
            "scopes": scopes_of(subject),
            "unit": unit,
            "estimate": amount or 0,
            "policy": policy or (named[0] if named else AVAILABLE),
            "expires": self.now + ttl,
            "grace": grace,
            "on": [b["scope"] for b in rows],
            "runs": [*outer["runs"], outer["id"]] if outer else [],
            "extensions": RUNS_EXTEND_FOR_EVER if kind == "run" else 10,
        }
        if kind == "run" and amount is not None:
            self.save([self.blank("run:" + h["id"], unit, amount)])
        return h

    # -- settling (sections 8 to 12)

    def commit(self, hold, unit, amount, key):
        self.used()
        h = self.hold(hold)
        said = self.replay((hold, "commit", key), (unit, amount))
        if said is not None:
            return said
        self.require_settleable(h)
        if h["kind"] == "run":
            raise No("ReservationFinalized")
        if unit != h["unit"]:
            raise No("UnitMismatch")
        if self.due(h):
            raise No("ReservationExpired")
        rows, charged = self.charge_hold(h, amount)
        self.save(rows)
        h["status"] = "COMMITTED"
        spare = max(h["estimate"] - amount, 0)
        answer = self.settled("COMMITTED", hold, h["estimate"], amount, charged, spare, rows)
        return self.remember((hold, "commit", key), (unit, amount), answer)

    def require_settleable(self, h):
        if h["tenant"] in self.closed:
            raise No("TenantClosed", "tenant:" + h["tenant"])
        if h["status"] != "ACTIVE":
            raise No("ReservationExpired" if h["status"] == "EXPIRED" else "ReservationFinalized")

    def release(self, hold, reason, key):
        self.used()
        h = self.hold(hold)
        said = self.replay((hold, "release", key), reason)
        if said is not None:
            return said
        self.require_settleable(h)
        if self.due(h):
            raise No("ReservationExpired")
        if h["kind"] == "run":
            raise No("ReservationFinalized")
        rows = self.give_back(h, "RELEASED")
        answer = self.settled("RELEASED", hold, h["estimate"], 0, 0, h["estimate"], rows)
        return self.remember((hold, "release", key), reason, answer)

    def extend(self, hold, by, key):
        self.used()
        h = self.hold(hold)
        said = self.replay((hold, "extend", key), by)
        if said is not None:
            lease = max(0, said["expires"] - self.now) if h["status"] == "ACTIVE" else 0
            return {**said, "ttl": lease}
        self.require_settleable(h)
        if self.now > h["expires"]:
            raise No("ReservationExpired")
        self.stop_on(h["tenant"], h["scopes"], [*h["runs"], h["id"]])
        if h["extensions"] == 0:
            raise No("MaxExtensionsExceeded")
        h["extensions"] -= 1
        h["expires"] += by
        answer = {"id": hold, "expires": h["expires"], "ttl": h["expires"] - self.now}
        return self.remember((hold, "extend", key), by, answer)

    def event(self, subject, unit, amount, policy, run, key):
        self.used()
        tenant, scopes = tenant_of(subject), scopes_of(subject)
        place, payload = (tenant, "event", key), (subject, unit, amount, policy, run)
        said = self.replay(place, payload)
        if said is not None:
            return said
        if tenant in self.closed:
            raise No("TenantClosed", "tenant:" + tenant)
        rows = self.purse(scopes, unit, self.known_run(run, tenant) if run else None)
        if not rows:
            self.require_some_unit(scopes)
            raise No("BudgetNotFound", scopes[-1])
        if rows[0]["scope"].startswith("run:"):
            rows, charged = self.take_from_run(rows[0], amount)
        else:
            policy = policy or next((b["policy"] for b in reversed(rows) if b["policy"]), AVAILABLE)
            for b in rows:
                if b["status"] != "ACTIVE":
                    raise No("BudgetFrozen" if b["status"] == "FROZEN" else "BudgetClosed", b["scope"])
                if policy == "REJECT" and left(b) < amount:
                    raise No("BudgetExceeded", b["scope"])
            charged = self.take(rows, amount, policy)
        self.save(rows)
        return self.remember(place, payload, self.settled("APPLIED", None, 0, amount, charged, 0, rows))

    def end_run(self, run):
        self.used()
        if self.hold(run)["kind"] != "run":
            raise No("NotFound")
        if self.hold(run)["status"] != "ACTIVE":
            raise No("ReservationFinalized")
        return self.finish_run(self.hold(run))

    # -- the stop button

    def control(self, target, state):
        if target.startswith("run:") and target[4:] not in self.holds:
            raise No("NotFound")
        hit = [h["id"] for h in self.holds.values() if h["status"] == "ACTIVE" and self.reaches(target, h)]
        if state == "RUNNING":
            self.stops.pop(target, None)
            return (target, state, [])
        if self.stops.get(target) != "KILLED":
            self.stops[target] = state
        return (target, self.stops[target], sorted(hit))

    # -- budgets (section 17.1)

    @staticmethod
    def blank(scope, unit, allocated):
        return {
            "scope": scope,
            "unit": unit,
            "allocated": allocated,
            **dict.fromkeys(("reserved", "spent", "debt", "limit"), 0),
            **dict.fromkeys(("policy", "period", "start", "end")),
            "over": False,
            "status": "ACTIVE",
            "caps": (),
        }

    def set_budget(self, scope, unit, amount, limit, policy, period, caps, new):
        old = self.budgets.get((scope, unit))
        if old and new:
            raise No("AlreadyExists")
        if old and old["status"] == "CLOSED":
            raise No("BudgetClosed", scope)
        b = dict(old or self.blank(scope, unit, 0))
        money = (b["allocated"], b["limit"]) != (amount, limit)
        b.update(allocated=amount, limit=limit, policy=policy, caps=caps)
        if money:
            b["over"] = b["debt"] > limit
        if period != b["period"]:
            waits = period is None or (period[1] == "rolling" and not b["spent"])
            b["start"], b["end"] = (None, None) if waits else window(period, self.now)
            b["period"] = period
        self.save([b])
        return figures([b])

    def existing(self, scope, unit):
        if (scope, unit) not in self.budgets:
            raise No("BudgetNotFound", scope)
        return self.budgets[scope, unit]

    def fund(self, scope, unit, operation, amount, spent, key):
        place, payload = (scope_tenant(scope), "fund", key), (scope, unit, operation, amount, spent)
        said = self.replay(place, payload)
        if said is not None:
            return said
        b = self.rolled(self.existing(scope, unit))
        if b["status"] != "ACTIVE":
            raise No("BudgetFrozen" if b["status"] == "FROZEN" else "BudgetClosed", scope)
        if operation == "REPAY_DEBT":
            repaid = min(b["debt"], amount)
            b["debt"] -= repaid
            b["allocated"] += amount - repaid
        elif operation.startswith("RESET"):
            b["allocated"] = amount
            if operation == "RESET_SPENT":
                b["spent"] = spent or 0
        else:
            b["allocated"] += amount if operation == "CREDIT" else -amount
            if operation == "DEBIT" and left(b) < 0:
                raise No("BudgetExceeded", scope)
        b["over"] = b["debt"] > b["limit"]
        self.save([b])
        return self.remember(place, payload, figures([b]))

    def status(self, scope, unit, status):
        b = self.existing(scope, unit)
        if b["status"] == "CLOSED" and status != "CLOSED":
            raise No("BudgetClosed", scope)
        b["status"] = status
        return figures([b])

    def close_tenant(self, tenant):
        if tenant in self.closed:
            return
        mine = [h for h in self.holds.values() if h["status"] == "ACTIVE" and h["tenant"] == tenant]
        for h in sorted(mine, key=lambda h: len(h["runs"]), reverse=True):
            if h["kind"] == "run":
                self.close_run(h)
            else:
                self.give_back(h, "RELEASED")
        self.closed.add(tenant)
        for b in self.budgets.values():
            if scope_tenant(b["scope"]) == tenant:
                b["status"] = "CLOSED"

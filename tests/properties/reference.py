"""The protocol as plainly as it can be said: dicts, loops and ifs. It shares no code with Clearance.

A test drives this and the authority side by side; every answer, error and figure must agree. Sections are those of the
Cycles protocol. Answers are plain dicts and tuples (`machine.Driver` brings the authority's into the same shape).
"""

from __future__ import annotations

HOUR, DAY = 3_600_000, 86_400_000
OVERDRAFT = "ALLOW_WITH_OVERDRAFT"
AVAILABLE = "ALLOW_IF_AVAILABLE"


class No(Exception):
    """An error that the protocol demands: its name and, for denials, the scope that decided."""

    def __init__(self, name, scope=None):
        super().__init__(name, scope)
        self.name, self.scope = name, scope


def left(b):
    return b["allocated"] - b["spent"] - b["reserved"] - b["debt"]


def scopes_of(subject):
    parts = [f"{level}:{name.lower()}" for level, name in subject]
    return ["/".join(parts[: i + 1]) for i in range(len(parts))]


def tenant_of(subject):
    return dict(subject).get("tenant", "default").lower()


def scope_tenant(scope):
    first = scope.split("/")[0]
    return first[7:] if first.startswith("tenant:") else "default"


def figures(rows):
    names = ("allocated", "reserved", "spent", "debt", "limit", "over")
    return {b["scope"]: [int(b[name]) for name in names] for b in rows}


def window(period, now):
    every, kind = period
    length = {"hour": HOUR, "day": DAY}[every]
    start = now if kind == "rolling" else now // length * length
    return start, start + length


class Ledger:
    """Rows and the arithmetic of sections 5 to 12."""

    def __init__(self, now):
        self.now = now
        self.budgets = {}
        self.holds = {}
        self.said = {}
        self.stops = {}
        self.closed = set()
        self.next_sweep = 0
        self.given = None

    # -- budgets and their periods

    def rolled(self, b):
        """A copy of the budget in its present period."""
        b = dict(b)
        if b["period"] and b["status"] != "CLOSED" and (b["end"] is None or self.now >= b["end"]):
            b["spent"], b["over"] = 0, b["debt"] > b["limit"]
            b["start"], b["end"] = window(b["period"], self.now)
        return b

    def view(self, scopes, unit):
        return [self.rolled(self.budgets[s, unit]) for s in scopes if (s, unit) in self.budgets]

    def save(self, rows):
        for b in rows:
            self.budgets[b["scope"], b["unit"]] = b

    def purse(self, scopes, unit, run):
        """Where an amount is held: the innermost run account in this unit, else the budgeted scopes."""
        for run_id in reversed([*run["runs"], run["id"]] if run else []):
            if ("run:" + run_id, unit) in self.budgets:
                return self.view(["run:" + run_id], unit)
        return self.view(scopes, unit)

    def require_some_unit(self, scopes):
        for scope in scopes:
            if any(key[0] == scope for key in self.budgets):
                raise No("UnitMismatch")

    # -- charging

    @staticmethod
    def take(rows, want, policy):
        """Charge `want` beyond any hold, or as much as the policy lets: section 8, phases a, b, c."""

        def lends(b):
            return policy == OVERDRAFT and b["limit"] > 0

        c = want
        for b in rows:
            if not lends(b) and left(b) < want:
                c = min(c, max(left(b), 0))
        for b in rows:
            if lends(b) and left(b) < c and b["debt"] + c - max(left(b), 0) > b["limit"]:
                raise No("OverdraftLimitExceeded", b["scope"])
        for b in rows:
            had = left(b)
            paid = min(c, max(had, 0))
            b["spent"] += paid
            b["debt"] += c - paid
            if b["debt"] > b["limit"] or (c < want and had < want and not lends(b)):
                b["over"] = True
        return c

    def take_from_run(self, own, want):
        """Charge a run; what it has not goes to the enclosing run, then to the scopes under the run's own policy."""
        fits = min(want, max(left(own), 0))
        own["spent"] += fits
        rest = want - fits
        if rest == 0:
            return [own], want
        run = self.holds[own["scope"][4:]]
        rows = self.view(run["on"], run["unit"])
        if run["on"][0].startswith("run:"):
            above, charged = self.take_from_run(rows[0], rest)
            return [own, *above], fits + charged
        charged = 0
        if run["policy"] != "REJECT":
            try:
                charged = self.take(rows, rest, run["policy"])
            except No:
                charged = self.take(rows, rest, AVAILABLE)
        return [own, *rows], fits + charged

    def charge_hold(self, h, actual):
        """The rows after a commit, and what was charged."""
        rows = self.view(h["on"], h["unit"])
        kept = min(actual, h["estimate"])
        beyond = actual - kept
        if beyond and h["policy"] == "REJECT":
            raise No("BudgetExceeded", rows[-1]["scope"])
        for b in rows:
            b["reserved"] -= h["estimate"]
            b["spent"] += kept
        if beyond == 0:
            return rows, actual
        if h["on"][0].startswith("run:"):
            rows, charged = self.take_from_run(rows[0], beyond)
        else:
            charged = self.take(rows, beyond, h["policy"])
        return rows, kept + charged

    # -- the ends of a hold

    def hold(self, hold_id):
        if hold_id not in self.holds:
            raise No("NotFound")
        return self.holds[hold_id]

    def open_in(self, run_id):
        return [h for h in self.holds.values() if h["status"] == "ACTIVE" and h["runs"][-1:] == [run_id]]

    def due(self, h):
        return h["status"] == "ACTIVE" and self.now > h["expires"] + h["grace"]

    def give_back(self, h, status):
        rows = self.view(h["on"], h["unit"])
        for b in rows:
            b["reserved"] -= h["estimate"]
        self.save(rows)
        h["status"] = status
        return rows

    def close_run(self, run):
        own = self.budgets.pop(("run:" + run["id"], run["unit"]), None)
        spent = own["spent"] if own else 0
        rows = self.view(run["on"], run["unit"])
        for b in rows:
            b["reserved"] -= run["estimate"]
            b["spent"] += spent
        self.save(rows)
        run["status"] = "COMMITTED"
        return self.settled("COMMITTED", run["id"], run["estimate"], spent, spent, run["estimate"] - spent, rows)

    @staticmethod
    def settled(status, hold_id, estimate, actual, charged, released, rows):
        return {
            "status": status,
            "id": hold_id,
            "estimate": estimate,
            "actual": actual,
            "charged": charged,
            "released": released,
            "uncharged": actual - charged,
            "figures": figures(rows),
        }

    def expire(self, h):
        """A call's hold goes back; a run is charged what was committed inside it."""
        if h["kind"] == "call":
            self.give_back(h, "EXPIRED")
            return
        for inner in self.open_in(h["id"]):
            self.expire(inner)
        self.close_run(h)

    def finish_run(self, run):
        """Open calls count as their estimate; those past their lease and grace have expired."""
        for inner in self.open_in(run["id"]):
            if self.due(inner):
                self.expire(inner)
            elif inner["kind"] == "run":
                self.finish_run(inner)
            else:
                rows, _ = self.charge_hold(inner, inner["estimate"])
                self.save(rows)
                inner["status"] = "COMMITTED"
        return self.close_run(run)

    def sweep(self):
        for h in sorted(filter(self.due, self.holds.values()), key=lambda h: h["expires"] + h["grace"]):
            if h["status"] == "ACTIVE":
                self.expire(h)

    def used(self):
        """Expiry by use, at most once a second."""
        if self.now >= self.next_sweep:
            self.next_sweep = self.now + 1000
            self.sweep()

    # -- controls and keys

    def stop_on(self, tenant, scopes, runs):
        """A stop reaches a call through its own scopes, its runs, and the scopes of whoever owns those runs."""
        owners = [scope for run_id in runs for scope in self.holds[run_id]["scopes"]]
        for target in ["*", "tenant:" + tenant, *owners, *scopes, *("run:" + run_id for run_id in runs)]:
            if target in self.stops:
                raise No({"KILLED": "Killed", "PAUSED": "Paused"}[self.stops[target]], target)

    def reaches(self, target, h):
        if target == "*":
            return True
        if target.startswith("run:"):
            return target[4:] in (h["id"], *h["runs"])
        paths = [one["scopes"][-1] for one in (h, *(self.holds[run_id] for run_id in h["runs"]))]
        below = any(path == target or path.startswith(target + "/") for path in paths)
        return below or target == "tenant:" + h["tenant"]

    def replay(self, place, payload):
        """The answer that this key was given before, or None."""
        if place is None or place[-1] is None or place not in self.said:
            return None
        before, answer = self.said[place]
        if before != payload:
            raise No("IdempotencyMismatch")
        return answer

    def remember(self, place, payload, answer):
        if place is not None and place[-1] is not None:
            self.said[place] = (payload, answer)
        return answer

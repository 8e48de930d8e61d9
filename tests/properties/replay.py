"""The event log read again from its first line, in two ways that must both rebuild the balances.

By figures: each event says how the accounts stood after it; the last word counts. By deltas: each event says what
happened, and the arithmetic of the protocol's section 5 is done again from zero. It knows the events and nothing else.
"""

from __future__ import annotations

from collections import Counter

SETTLED = ("reservation.committed", "reservation.released", "reservation.expired", "run.ended")
ALLOCATED, RESERVED, SPENT, DEBT = range(4)


def left(account):
    return account[ALLOCATED] - account[SPENT] - account[RESERVED] - account[DEBT]


def charge(account, amount):
    """What remains pays; the rest is debt."""
    paid = min(amount, max(left(account), 0))
    account[SPENT] += paid
    account[DEBT] += amount - paid


class Replay:
    """Feed it events in order of `seq`; `figures` and `deltas` are keyed by (tenant, scope, unit)."""

    def __init__(self):
        self.seq = 0
        self.figures = {}
        self.deltas = {}
        self.held = {}
        self.estimates = {}
        self.settled = Counter()

    def feed(self, events):
        for event in events:
            assert event.seq > self.seq, f"the log goes back from {self.seq} to {event.seq}"
            self.seq = event.seq
            self.take(event)

    def read(self, authority):
        """Everything that is new in the log."""
        from clearance.store.interface import EventQuery

        while events := authority.events(EventQuery(after=self.seq), limit=1000):
            self.feed(events)
        return self

    def take(self, event):
        data = event.data
        if data.get("dry_run"):
            return
        if event.type in SETTLED:
            self.settled[event.reservation_id] += 1
        scopes = {**data.get("figures", {}), **data.get("own", {})}
        keys = {scope: (event.tenant, scope, data["unit"]) for scope in scopes}
        for facts in ("figures", "own"):
            for scope, values in data.get(facts, {}).items():
                self.figures[keys[scope]] = values
        if event.type == "budget.carried_forward":
            self.deltas.update({key: list(self.figures[key][:4]) for key in keys.values()})
            return
        kind = event.type.replace(".", "_")
        if kind.startswith(("reservation_", "run_")) and hasattr(self, kind):
            getattr(self, kind)(event, data, keys)
        elif kind == "spend_recorded":
            self.spend_recorded(event, data, keys)
        elif kind.startswith("budget_") and keys:
            (key,) = keys.values()
            self.budget(event.type, data, key)

    # -- budgets

    def budget(self, kind, data, key):
        account = self.deltas.setdefault(key, [0, 0, 0, 0])
        says = next(iter(data["figures"].values()))
        amount = data.get("amount", 0)
        if kind in ("budget.created", "budget.updated"):
            account[ALLOCATED] = says[0]
        elif kind in ("budget.funded", "budget.debited"):
            account[ALLOCATED] += amount if kind == "budget.funded" else -amount
        elif kind in ("budget.reset", "budget.reset_spent"):
            account[ALLOCATED] = amount
            if kind == "budget.reset_spent":
                account[SPENT] = says[2]
        elif kind == "budget.debt_repaid":
            repaid = min(account[DEBT], amount)
            account[DEBT] -= repaid
            account[ALLOCATED] += amount - repaid
        elif kind == "budget.renewed":
            account[SPENT] = 0

    # -- holds

    def reservation_created(self, event, data, keys):
        own = data.get("own", {})
        self.held[event.reservation_id] = [key for scope, key in keys.items() if scope not in own]
        self.estimates[event.reservation_id] = data["estimate"]
        for key in self.held[event.reservation_id]:
            # Older than the opening balance that includes it, where the log was compacted.
            self.deltas.setdefault(key, [0, 0, 0, 0])[RESERVED] += data["estimate"]
        for scope in own:
            self.deltas[keys[scope]] = [data["estimate"], 0, 0, 0]

    run_started = reservation_created

    def _let_go(self, event):
        estimate = self.estimates[event.reservation_id]
        for key in self.held[event.reservation_id]:
            self.deltas[key][RESERVED] -= estimate
        return estimate, self.held[event.reservation_id]

    def reservation_released(self, event, data, keys):
        self._let_go(event)

    reservation_expired = reservation_released

    def reservation_committed(self, event, data, keys):
        estimate, held = self._let_go(event)
        kept = min(estimate, data["actual"])
        for key in held:
            self.deltas[key][SPENT] += kept
        self._charge(held, data["charged"] - kept)

    def run_ended(self, event, data, keys):
        _, held = self._let_go(event)
        for key in held:
            self.deltas[key][SPENT] += data["charged"]
        for accounts in (self.deltas, self.figures):
            accounts.pop((event.tenant, f"run:{event.reservation_id}", data["unit"]), None)

    def spend_recorded(self, event, data, keys):
        inside = [key for scope, key in keys.items() if scope.startswith("run:")]
        if inside:
            # The innermost run pays first: the one that no other of them is held on.
            funders = {key for run in inside for key in self.held[run[1].removeprefix("run:")]}
            self._charge([key for key in inside if key not in funders], data["charged"])
        else:
            self._charge(list(keys.values()), data["charged"])

    def _charge(self, held, amount):
        """A charge beyond holds: on a run's account as far as it goes, the rest on whoever funded the run."""
        if amount == 0:
            return
        if held[0][1].startswith("run:"):
            account = self.deltas[held[0]]
            fits = min(amount, max(left(account), 0))
            account[SPENT] += fits
            self._charge(self.held[held[0][1].removeprefix("run:")], amount - fits)
            return
        for key in held:
            charge(self.deltas[key], amount)


def audit(authority, replay=None, *, half_compacted=False):
    """Every problem of a ledger: the balances, the open holds and the log must tell one story. Empty if they do.

    A compaction that was interrupted may leave the beginning of a run whose end it has removed.
    """
    from clearance.store.interface import ReservationQuery

    replay = (replay or Replay()).read(authority)
    balances, problems = pages(authority.balances), []
    held, runs = Counter(), set()
    for it in pages(authority.reservations, ReservationQuery(status="ACTIVE")):
        if replay.settled[it.id]:
            problems.append(f"{it.id} is open and settled")
        runs.add(f"run:{it.id}")
        for scope in it.held_on:
            held[it.tenant, scope, it.unit] += it.estimate
    problems += [f"{name} was settled {times} times" for name, times in replay.settled.items() if times > 1]
    for b in balances:
        key = (b.tenant, b.scope, b.unit.value)
        now = [b.allocated, b.reserved, b.spent, b.debt]
        if b.remaining != b.allocated - b.spent - b.reserved - b.debt:
            problems.append(f"{key} remaining {b.remaining} of {now}")
        if b.reserved != held[key]:
            problems.append(f"{key} has {b.reserved} reserved, its open holds are {held[key]}")
        figures = [*now, b.overdraft_limit, int(b.is_over_limit)]
        if replay.figures.get(key) != figures:
            problems.append(f"{key} is {figures}, by figures {replay.figures.get(key)}")
        if replay.deltas.get(key) != now:
            problems.append(f"{key} is {now}, by deltas {replay.deltas.get(key)}")
    budgets = {key for key in replay.deltas if not key[1].startswith("run:")}
    if budgets != {(b.tenant, b.scope, b.unit.value) for b in balances}:
        problems.append(f"the log knows {sorted(budgets)}, the ledger other budgets")
    for key in replay.deltas.keys() - budgets:
        if half_compacted and key[1] not in runs:
            continue
        deltas, figures = replay.deltas[key], replay.figures[key]
        if deltas[RESERVED] != held[key] or figures[:4] != deltas:
            problems.append(f"{key} is {deltas} by deltas, {figures} by figures, {held[key]} held")
    return problems


def pages(listing, *args):
    found, cursor = [], None
    while True:
        page = listing(*args, limit=200, cursor=cursor)
        found += page.items
        cursor = page.next_cursor
        if cursor is None:
            return found

"""A Hypothesis machine that drives an authority and the reference model side by side.

`make_machine(factory)` works for any store: `factory()` gives an object with `authority`, `clock` (a ManualClock),
`close()`, `can_reopen` and, where that is True, `reopen()`, which closes the authority and opens the ledger again.
"""

from __future__ import annotations

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from tests.properties.drawing import (
    CHANGES,
    FUNDING,
    LEASES_MS,
    OPERATIONS,
    STATES,
    STEPS_MS,
    SUBJECTS,
    UNITS,
    actors,
    amounts,
    any_hold,
    budgets,
    calls_mostly,
    firsts,
    graces,
    keyed,
    op,
    policies,
    scopes,
    slices,
    some,
    subjects,
    targets,
    units,
)
from tests.properties.driver import Driver
from tests.properties.protocol import Reference
from tests.properties.reference import DAY, No, left, tenant_of
from tests.properties.replay import Replay, audit

from clearance.errors import ClearanceError, Denied


class Machine(RuleBasedStateMachine):
    """Every step is one operation on both sides, then all the invariants."""

    factory = None
    steps = 0
    """Operations compared since the class was made."""

    def __init__(self):
        super().__init__()
        self.place = type(self).factory()
        self.model = Reference(self.place.clock.now_ms())
        self.driver = Driver(self.place)
        self.replay = Replay()
        self.calls, self.keys = [], 0
        self.seen = {}
        self.funding = False
        self.checked = 0

    def teardown(self):
        self.place.close()

    # -- both sides

    def both(self, name, **args):
        type(self).steps += 1
        self.seen = {key: dict(b) for key, b in self.model.budgets.items()}
        self.funding = name in ("set_budget", "fund", "close_tenant")
        real, new_id = attempt(lambda: self.driver.call(name, args))
        self.model.given = new_id
        model, _ = attempt(lambda: (getattr(self.model, name)(**args), None))
        assert real == model, f"{name} {args}:\n  authority {real}\n  model     {model}"
        if args.get("key") is not None and (name, args) not in self.calls:
            self.calls.append((name, args))

    def key(self, wanted):
        self.keys += 1
        return f"key-{self.keys}" if wanted else None

    def hold(self, n, kind="call"):
        """Most often an open hold; 7 and 8 are any of the newest."""
        known = [h for h in self.model.holds.values() if h["kind"] == kind]
        pool = ([h for h in known if h["status"] == "ACTIVE" or n > 6] or known)[:-10:-1]
        return pool[n % len(pool)]["id"] if pool and n < 9 else "rsv_nobody"

    def run_or_none(self, n, subject):
        """A run, most often one of the subject's tenant, or none."""
        name = self.hold(n, "run")
        stranger = name in self.model.holds and self.model.holds[name]["tenant"] != tenant_of(subject)
        return None if n % 3 == 2 or (name == "rsv_nobody" and n != 9) or (stranger and n != 4) else name

    def budget(self, n):
        """The (scope, unit) of a budget that there is; 9 is one that there is not."""
        known = [key for key in self.model.budgets if not key[0].startswith("run:")]
        return dict(zip(("scope", "unit"), known[n % len(known)] if n < 9 else ("agent:nobody", UNITS[0]), strict=True))

    @op(1)
    def rest(self):
        """Nothing. What Hypothesis tries first, and shrinks to, should not look like work."""

    # -- budgets

    @initialize(**firsts)
    def begin(self, amounts, limit, policy, periods, caps):
        scopes = ("tenant:acme", "tenant:acme/agent:bot", "tenant:beta", "tenant:acme")
        for n, scope in enumerate(scopes):
            unit = UNITS[-1 if n == 3 else 0]
            shared = {"limit": limit, "policy": policy, "caps": caps, "period": periods[n]}
            self.both("set_budget", scope=scope, unit=unit, amount=amounts[n], new=n < 3, **shared)

    @op(2, scope=scopes, unit=units, **budgets)
    def set_budget(self, **args):
        self.both("set_budget", **args)

    @op(4, n=some, operation=st.sampled_from(FUNDING), amount=amounts, spent=amounts, keyed=keyed)
    def fund(self, n, operation, amount, spent, keyed):
        spent = spent if operation == "RESET_SPENT" and spent % 4 else None
        self.both("fund", operation=operation, amount=amount, spent=spent, key=self.key(keyed), **self.budget(n))

    @op(1, n=some, status=st.sampled_from(("FROZEN",) * 4 + ("ACTIVE",) * 8 + ("CLOSED",)))
    def freeze(self, n, status):
        self.both("status", status=status, **self.budget(n))

    @op(1)
    def unfreeze_all(self):
        if not (any(b["status"] == "FROZEN" for b in self.model.budgets.values())):
            return
        for scope, unit in [key for key, b in self.model.budgets.items() if b["status"] == "FROZEN"]:
            self.both("status", scope=scope, unit=unit, status="ACTIVE")

    @op(1, sure=st.integers(0, 4))
    def close_tenant(self, sure):
        if not (len(self.model.holds) > 15):
            return
        self.both("close_tenant", tenant="acme" if sure == 4 else "beta")

    # -- actions

    @op(6, amount=amounts, ttl=st.sampled_from(LEASES_MS), grace=graces, run=some, keyed=keyed, **actors)
    def reserve(self, subject, run, keyed, **args):
        run = self.run_or_none(run, subject)
        self.both("reserve", subject=subject, run=run, key=self.key(keyed), **args)

    @op(5, subject=subjects, unit=units, amount=st.integers(0, 40), policy=policies)
    def reserve_little(self, **args):
        self.both("reserve", ttl=60_000, grace=5000, run=None, key=None, **args)

    @op(1, subject=subjects, unit=units, amount=amounts, run=some, keyed=keyed)
    def dry_run(self, subject, run, keyed, **args):
        run = self.run_or_none(run, subject)
        self.both("dry_run", subject=subject, run=run, key=self.key(keyed), **args)

    @op(1, subject=subjects, unit=units, amount=amounts, keyed=keyed)
    def decide(self, keyed, **args):
        self.both("decide", key=self.key(keyed), **args)

    @op(5, n=some, change=st.sampled_from(CHANGES), unit=st.sampled_from((0,) * 9 + (1,)), keyed=keyed)
    def commit(self, n, change, unit, keyed):
        """Equal, less, or more than the estimate."""
        name = self.hold(n)
        h = self.model.holds.get(name, {"estimate": 5, "unit": UNITS[0]})
        unit = "CREDITS" if unit else h["unit"]
        self.both("commit", hold=name, unit=unit, amount=max(0, h["estimate"] + change), key=self.key(keyed))

    @op(4, n=some, keyed=keyed)
    def commit_open(self, n, keyed):
        """More settles than strays, so that money goes round."""
        waiting = [h for h in self.model.holds.values() if h["status"] == "ACTIVE" and h["kind"] == "call"]
        for h in waiting[: 1 + n % 2]:
            self.both("commit", hold=h["id"], unit=h["unit"], amount=h["estimate"] * n // 6, key=self.key(keyed))

    @op(2, n=some, of=calls_mostly, reason=st.sampled_from((None, "no use")), keyed=keyed)
    def release(self, n, of, reason, keyed):
        self.both("release", hold=self.hold(n, of), reason=reason, key=self.key(keyed))

    @op(2, n=some, of=any_hold, by=st.sampled_from((1, 1000, 60_000)), keyed=keyed)
    def extend(self, n, of, by, keyed):
        for _ in range(12 if n == 1 and by == 1 else 1):
            self.both("extend", hold=self.hold(n, of), by=by, key=self.key(keyed))

    @op(3, subject=subjects, unit=units, amount=amounts, policy=policies, run=some, keyed=keyed)
    def event(self, subject, run, keyed, **args):
        run = self.run_or_none(run, subject)
        self.both("event", subject=subject, run=run, key=self.key(keyed), **args)

    @op(3, amount=slices, ttl=st.sampled_from(LEASES_MS), run=some, **actors)
    def start_run(self, subject, run, unit, amount, **args):
        unit = UNITS[0] if amount is None else unit
        self.both("start_run", subject=subject, unit=unit, amount=amount, run=self.run_or_none(run, subject), **args)

    @op(2, n=some, of=st.sampled_from(("run", "run", "run", "call")))
    def end_run(self, n, of):
        self.both("end_run", run=self.hold(n, of))

    @op(6, n=some, amount=amounts, subject=st.sampled_from(SUBJECTS[:3]), ttl=st.sampled_from((1000, 60_000)))
    def spend_in_run(self, n, amount, subject, ttl):
        """A call inside a run, perhaps a run in a run; it costs more than was thought, or is left open."""
        run = self.run_or_none(n % 2, subject)
        shared = {"subject": subject, "unit": UNITS[0], "policy": None}
        if run is None or n == 6:
            self.both("start_run", amount=30, ttl=DAY if amount % 2 else 60_000, run=run, **shared)
            run = self.model.given or run
        self.both("reserve", amount=amount // 4, ttl=ttl, grace=0, run=run, key=None, **shared)
        if self.model.given and n < 5:
            self.both("commit", hold=self.model.given, unit=UNITS[0], amount=amount, key=None)

    # -- the stop button, retries and time

    @op(2, at=targets, state=st.sampled_from(STATES))
    def control(self, at, state):
        target = "run:" + self.hold(at, "run") if isinstance(at, int) else at
        self.both("control", target=target, state=state)

    @op(2)
    def resume_all(self):
        if not (self.model.stops):
            return
        for target in list(self.model.stops):
            self.both("control", target=target, state="RUNNING")

    @op(4, n=st.integers(0, 30), other=st.sampled_from((False, False, True)))
    def retry(self, n, other):
        """The same key again, with the same payload or with another."""
        if not (self.calls):
            return
        name, args = self.calls[-1 - n % len(self.calls)]
        changing = next(field for field in ("amount", "by", "reason") if field in args)
        changed = "other" if changing == "reason" else args[changing] + 1
        self.both(name, **({**args, changing: changed} if other else args))

    @op(3, ms=st.sampled_from(STEPS_MS))
    def wait(self, ms):
        self.move(ms)

    @op(2, n=some, of=any_hold, beyond=st.sampled_from((0, 1)), grace=st.booleans())
    def wait_for_lease(self, n, of, beyond, grace):
        """To the very end of a lease or of its grace, or a millisecond past it."""
        h = self.model.holds.get(self.hold(n, of))
        if h:
            self.move(max(0, h["expires"] + (h["grace"] if grace else 0) + beyond - self.model.now))

    @op(2, n=st.integers(0, 8), then=st.sampled_from(("commit", "end_run", "end_run", "nothing")))
    def wait_past_the_sweep(self, n, then):
        """A hold whose time is over although nobody has swept yet, and what is done to it or its run then."""
        waiting = [h for h in self.model.holds.values() if h["status"] == "ACTIVE"]
        waiting = sorted(waiting, key=lambda h: (len(h["runs"]), -h["expires"]), reverse=True)
        h = waiting[n % len(waiting)] if waiting else None
        if h and h["expires"] + h["grace"] >= self.model.now:
            self.move(h["expires"] + h["grace"] - self.model.now)
            self.both("decide", subject=SUBJECTS[0], unit=UNITS[0], amount=0, key=None)
            self.move(1)
            if then == "commit":
                self.both("commit", hold=h["id"], unit=h["unit"], amount=h["estimate"], key=None)
            elif then == "end_run" and h["runs"]:
                self.both("end_run", run=h["runs"][-1])

    def move(self, ms):
        self.place.clock.advance(ms)
        self.model.now += ms

    @op(1)
    def sweep(self):
        type(self).steps += 1
        self.place.authority.sweep()
        self.model.sweep()

    @op(1)
    def reopen(self):
        if not (self.place.can_reopen):
            return
        type(self).steps += 1
        self.place.reopen()
        self.model.next_sweep = 0

    # -- what holds after every step

    @invariant()
    def the_books_balance(self):
        if self.checked != type(self).steps:
            self.checked = type(self).steps
            self.the_log_the_holds_and_the_balances_agree()
            self.both_sides_have_the_same_books()
            self.nothing_is_oversold()

    def the_log_the_holds_and_the_balances_agree(self):
        assert audit(self.place.authority, self.replay) == []

    def both_sides_have_the_same_books(self):
        untold = ("policy", "start")
        books = {key: b for key, b in self.model.budgets.items() if not key[0].startswith("run:")}
        assert self.driver.books() == {
            key: {name: value for name, value in b.items() if name not in untold} for key, b in books.items()
        }
        waiting = {h["id"]: h for h in self.model.holds.values() if h["status"] == "ACTIVE"}
        assert self.driver.open_holds() == waiting.keys()
        if self.model.stops:
            reached = {name for name, h in waiting.items() if any(self.model.reaches(at, h) for at in self.model.stops)}
            assert self.place.authority.stopped(waiting).keys() == reached

    def nothing_is_oversold(self):
        """No action uses more than was free; debt grows only up to its limit."""
        for key, new in self.model.budgets.items() if not self.funding else ():
            old = self.seen.get(key)
            if old and new["end"] == old["end"]:
                used, before = new["spent"] + new["reserved"], old["spent"] + old["reserved"]
                assert used <= max(before, before + left(old)), f"{key} is oversold: {old} became {new}"
                assert new["debt"] <= max(old["debt"], new["limit"]), f"{key} owes too much: {new}"


def attempt(call):
    """("ok", answer) or ("no", error type, scope of a denial), and the id that was given."""
    try:
        answer, new_id = call()
    except No as no:
        return ("no", no.name, no.scope), None
    except ClearanceError as error:
        return ("no", type(error).__name__, error.scope if isinstance(error, Denied) else None), None
    return ("ok", answer), new_id


def make_machine(factory):
    """A machine class for the ledgers that `factory()` opens; it counts its own steps."""

    class LedgerMachine(Machine):
        steps = 0

        @rule(operation=st.integers(0, len(OPERATIONS) - 1).flatmap(OPERATIONS.__getitem__))
        def step(self, operation):
            name, arguments = operation
            getattr(self, name)(**arguments)

    LedgerMachine.factory = staticmethod(factory)
    return LedgerMachine

"""What the machine draws from: small worlds, so that subjects, scopes and amounts meet often."""

from __future__ import annotations

from hypothesis import strategies as st
from tests.properties.reference import DAY, HOUR, scopes_of

ACME = ("tenant", "Acme")
SUBJECTS = (
    (ACME,),
    (ACME, ("agent", "bot")),
    (ACME, ("workspace", "w"), ("agent", "Bot")),
    (("tenant", "beta"), ("agent", "bot")),
    (("agent", "solo"),),
)
SCOPES = sorted({scope for subject in SUBJECTS for scope in scopes_of(subject)})
UNITS = ("USD_MICROCENTS",) * 7 + ("TOKENS",)
POLICIES = (None, None, "REJECT", "ALLOW_IF_AVAILABLE", "ALLOW_WITH_OVERDRAFT", "ALLOW_WITH_OVERDRAFT")
FUNDING = ("CREDIT", "CREDIT", "DEBIT", "RESET", "RESET_SPENT", "REPAY_DEBT")
PERIODS = (None, None, ("hour", "rolling"), ("hour", "calendar"), ("day", "calendar"))
CAPS = ((), (), ((None, 100),), ((50, 20),), ((50, 20), (10, 5)))
LEASES_MS = (1000, 60_000, 60_000, DAY)
CHANGES = (0, 0, -1000, -1, 1, 15, 60)
STATES = ("KILLED", "PAUSED", "RUNNING", "RUNNING")
STEPS_MS = (0, 1, 999, 1000, 5000, 60_000, HOUR // 2, HOUR, HOUR, DAY)

subjects, scopes, units = st.sampled_from(SUBJECTS), st.sampled_from(SCOPES), st.sampled_from(UNITS)
policies, amounts = st.sampled_from(POLICIES), st.integers(0, 90)
some = st.integers(0, 9)
"""Which of the recent holds, runs or calls; 9 is one that nobody knows."""
keyed = st.booleans()
budgets = {
    "amount": st.integers(0, 400),
    "limit": st.sampled_from((0, 0, 30, 100)),
    "policy": policies,
    "period": st.sampled_from(PERIODS),
    "caps": st.sampled_from(CAPS),
    "new": st.sampled_from((False,) * 5 + (True,)),
}
firsts = {
    "amounts": st.tuples(*[st.integers(60, 300)] * 4),
    "limit": st.sampled_from((0, 0, 50)),
    "policy": policies,
    "periods": st.tuples(*[st.sampled_from(PERIODS)] * 4),
    "caps": st.sampled_from(CAPS),
}
actors = {"subject": subjects, "unit": units, "policy": policies}
graces, slices = st.sampled_from((0, 5000, 60_000)), st.one_of(st.integers(0, 90), st.none())
targets = st.one_of(scopes, st.just("*"), st.integers(0, 3))
any_hold, calls_mostly = st.sampled_from(("call", "run")), st.sampled_from(("call", "call", "call", "run"))

OPERATIONS = []


def op(weight, **arguments):
    """An operation of the machine, drawn `weight` times as often as the rarest.

    All are drawn in one rule: Hypothesis leaves out some of many rules in each example, and a ledger where nothing is
    ever committed soon has nothing more to show.
    """

    def keep(method):
        OPERATIONS.extend([st.tuples(st.just(method.__name__), st.fixed_dictionaries(arguments))] * weight)
        return method

    return keep

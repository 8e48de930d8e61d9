"""The arithmetic of accounts: every row of the ledger table, and the order in which a hold is refused."""

from __future__ import annotations

import pytest

from clearance.ledger.accounts import Refusal, Settled, charge, check, hold, refund, settle
from clearance.model.account import ALLOW_IF_AVAILABLE as AIA
from clearance.model.account import ALLOW_WITH_OVERDRAFT as AWO
from clearance.model.account import CLOSED, FROZEN, REJECT, Account, OveragePolicy

POLICIES: tuple[OveragePolicy, ...] = (REJECT, AIA, AWO)
Row = tuple[int, int, int, int]


def account(
    allocated: int = 0,
    reserved: int = 0,
    spent: int = 0,
    debt: int = 0,
    limit: int = 0,
    name: str = "a",
    **more: object,
) -> Account:
    return Account("t", name, "TOKENS", allocated, reserved, spent, debt, overdraft_limit=limit, **more)  # type: ignore[arg-type]


def row(it: Account) -> Row:
    return it.remaining, it.reserved, it.spent, it.debt


def test_reserve_moves_the_estimate_from_remaining_to_reserved() -> None:
    (after,) = hold([account(100)], 30)
    assert row(after) == (70, 30, 0, 0)


def test_release_and_expiry_move_it_back() -> None:
    (after,) = refund([account(100, reserved=30)], 30)
    assert row(after) == (100, 0, 0, 0)


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize(("actual", "expected"), [(0, (100, 0, 0, 0)), (10, (90, 0, 10, 0)), (30, (70, 0, 30, 0))])
def test_commit_up_to_the_estimate(policy: OveragePolicy, actual: int, expected: Row) -> None:
    outcome = settle([account(100, reserved=30)], 30, actual, policy)
    assert isinstance(outcome, Settled)
    assert (outcome.charged, row(outcome.accounts[0])) == (actual, expected)


@pytest.mark.parametrize("policy", [AIA, AWO])
def test_commit_beyond_the_estimate_that_is_covered(policy: OveragePolicy) -> None:
    outcome = settle([account(100, reserved=30, limit=50)], 30, 100, policy)
    assert isinstance(outcome, Settled)
    assert (outcome.charged, row(outcome.accounts[0])) == (100, (0, 0, 100, 0))
    assert not outcome.accounts[0].over_limit


def test_commit_beyond_the_estimate_under_reject_is_refused_even_with_plenty_left() -> None:
    assert settle([account(1000, reserved=30)], 30, 31, REJECT) == Refusal(
        "BUDGET_EXCEEDED", account(1000, reserved=30), 31
    )


@pytest.mark.parametrize(
    ("before", "actual", "charged", "expected"),
    [
        (account(100, reserved=100, limit=50), 150, 150, (-50, 0, 100, 50)),
        (account(100, reserved=90, limit=50), 140, 140, (-40, 0, 100, 40)),
        (account(100, reserved=100, spent=20, debt=0, limit=70), 150, 150, (-70, 0, 120, 50)),
    ],
)
def test_the_part_that_nobody_funds_becomes_debt(before: Account, actual: int, charged: int, expected: Row) -> None:
    outcome = settle([before], before.reserved, actual, AWO)
    assert isinstance(outcome, Settled)
    assert (outcome.charged, row(outcome.accounts[0])) == (charged, expected)


def test_debt_up_to_the_limit_is_allowed_and_one_more_is_not() -> None:
    before = account(100, reserved=100, limit=50)
    assert isinstance(settle([before], 100, 150, AWO), Settled)
    refused = settle([before], 100, 151, AWO)
    assert isinstance(refused, Refusal)
    assert refused.code == "OVERDRAFT_LIMIT_EXCEEDED"


def test_debt_of_before_counts_towards_the_limit() -> None:
    before = account(100, reserved=40, spent=40, debt=40, limit=50)
    assert before.remaining == -20
    assert isinstance(settle([before], 40, 50, AWO), Settled)
    assert isinstance(settle([before], 40, 51, AWO), Refusal)


@pytest.mark.parametrize(
    ("remaining", "delta", "charged", "over"),
    [(50, 50, 50, False), (50, 49, 49, False), (50, 51, 50, True), (0, 1, 0, True), (-10, 5, 0, True)],
)
def test_what_is_available_caps_the_charge_and_marks_the_account(
    remaining: int, delta: int, charged: int, over: bool
) -> None:
    before = account(100 + remaining, reserved=100)
    outcome = settle([before], 100, 100 + delta, AIA)
    assert isinstance(outcome, Settled)
    assert outcome.charged == 100 + charged
    assert outcome.accounts[0].over_limit is over
    assert outcome.accounts[0].debt == 0


def test_only_the_account_that_could_not_cover_is_marked_and_all_are_charged_alike() -> None:
    poor, rich = account(110, reserved=100, name="poor"), account(1000, reserved=100, name="rich")
    outcome = settle([poor, rich], 100, 200, AIA)
    assert isinstance(outcome, Settled)
    assert outcome.charged == 110
    assert [a.spent for a in outcome.accounts] == [110, 110]
    assert [a.over_limit for a in outcome.accounts] == [True, False]


def test_two_accounts_short_by_different_amounts_are_both_marked() -> None:
    outcome = settle([account(110, reserved=100), account(150, reserved=100)], 100, 200, AIA)
    assert isinstance(outcome, Settled)
    assert [a.over_limit for a in outcome.accounts] == [True, True]


def test_an_account_without_overdraft_caps_the_whole_operation_before_the_limits_are_checked() -> None:
    outcome = settle([account(110, reserved=100), account(100, reserved=100, limit=10)], 100, 200, AWO)
    assert isinstance(outcome, Settled)
    assert outcome.charged == 110
    assert [(a.debt, a.over_limit) for a in outcome.accounts] == [(0, True), (10, False)]


def test_a_flag_that_is_set_stays_set() -> None:
    outcome = settle([account(1000, reserved=100, over_limit=True)], 100, 50, AIA)
    assert isinstance(outcome, Settled)
    assert outcome.accounts[0].over_limit


# -- the order of refusals ------------------------------------------------------------------------

EMPTY = {"allocated": 10}
WORSE_FIRST = [
    ("BUDGET_FROZEN", account(10, debt=5, status=FROZEN, over_limit=True)),
    ("BUDGET_CLOSED", account(10, debt=5, status=CLOSED, over_limit=True)),
    ("OVERDRAFT_LIMIT_EXCEEDED", account(10, debt=5, over_limit=True)),
    ("DEBT_OUTSTANDING", account(10, debt=5)),
    ("BUDGET_EXCEEDED", account(10)),
    ("BUDGET_EXCEEDED", account(10, debt=5, limit=1)),
]


@pytest.mark.parametrize(("code", "refusing"), WORSE_FIRST)
def test_the_gravest_reason_of_an_account_is_named(code: str, refusing: Account) -> None:
    refusal = check([refusing], 100)
    assert refusal is not None
    assert refusal.code == code


@pytest.mark.parametrize(("code", "refusing"), WORSE_FIRST)
def test_the_first_failing_account_from_the_root_decides(code: str, refusing: Account) -> None:
    refusal = check([account(1000), account(99, name="root"), refusing._replace(scope="leaf")], 100)
    assert refusal == Refusal("BUDGET_EXCEEDED", account(99, name="root"), 100)


@pytest.mark.parametrize(
    ("before", "estimate", "passes"),
    [
        (account(100), 100, True),
        (account(100), 101, False),
        (account(0), 0, True),
        (account(0, debt=1, limit=1), 0, False),
        (account(100, debt=10, limit=5), 50, True),
        (account(100, debt=10, limit=10), 90, True),
    ],
)
def test_remaining_must_cover_the_whole_estimate(before: Account, estimate: int, passes: bool) -> None:
    assert (check([before], estimate) is None) is passes


# -- direct debits --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("before", "policy", "actual", "charged", "expected"),
    [
        (account(100), REJECT, 100, 100, (0, 0, 100, 0)),
        (account(100), AIA, 60, 60, (40, 0, 60, 0)),
        (account(100), AIA, 150, 100, (0, 0, 100, 0)),
        (account(100, limit=50), AWO, 150, 150, (-50, 0, 100, 50)),
        (account(80, spent=80, debt=20, limit=100), AWO, 10, 10, (-30, 0, 80, 30)),
        (account(80, spent=80, debt=20, limit=100), AIA, 10, 0, (-20, 0, 80, 20)),
        (account(100, over_limit=True), AIA, 10, 10, (90, 0, 10, 0)),
        (account(100, debt=1), AIA, 10, 10, (89, 0, 10, 1)),
        (account(0), AIA, 0, 0, (0, 0, 0, 0)),
    ],
)
def test_an_event_is_charged(before: Account, policy: OveragePolicy, actual: int, charged: int, expected: Row) -> None:
    outcome = charge([before], actual, policy)
    assert isinstance(outcome, Settled)
    assert (outcome.charged, row(outcome.accounts[0])) == (charged, expected)
    assert outcome.accounts[0].over_limit is (before.over_limit or charged < actual)


@pytest.mark.parametrize(
    ("code", "before", "policy"),
    [
        ("BUDGET_FROZEN", account(100, status=FROZEN), AIA),
        ("BUDGET_CLOSED", account(100, status=CLOSED), AIA),
        ("BUDGET_EXCEEDED", account(9), REJECT),
        ("OVERDRAFT_LIMIT_EXCEEDED", account(5, limit=4), AWO),
    ],
)
def test_an_event_is_refused(code: str, before: Account, policy: OveragePolicy) -> None:
    outcome = charge([account(1000), before], 10, policy)
    assert isinstance(outcome, Refusal)
    assert outcome.code == code

"""The arithmetic of accounts. Pure: accounts in, accounts out.

Every function takes the budgeted accounts of one subject, root first, all in one unit, and returns them changed, or a
Refusal. Amounts are ints >= 0. Rules and names are those of the Cycles protocol v0.1.25, sections 5 to 12.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from clearance.model.account import ALLOW_WITH_OVERDRAFT, CLOSED, FROZEN, REJECT, Account, OveragePolicy

Accounts = tuple[Account, ...]


class Refusal(NamedTuple):
    """Why not: the error code of the protocol and the account that decided."""

    code: str
    account: Account
    requested: int


class Settled(NamedTuple):
    """The accounts after a charge and what each of them was charged."""

    accounts: Accounts
    charged: int


def check(accounts: Sequence[Account], estimate: int) -> Refusal | None:
    """May `estimate` be held? The first failing scope, root to leaf, names the reason (section 6, step 7)."""
    for account in accounts:
        if account.status == FROZEN:
            return Refusal("BUDGET_FROZEN", account, estimate)
        if account.status == CLOSED:
            return Refusal("BUDGET_CLOSED", account, estimate)
        if account.over_limit:
            return Refusal("OVERDRAFT_LIMIT_EXCEEDED", account, estimate)
        if account.debt > 0 and account.overdraft_limit == 0:
            return Refusal("DEBT_OUTSTANDING", account, estimate)
        if account.remaining < estimate:
            return Refusal("BUDGET_EXCEEDED", account, estimate)
    return None


def hold(accounts: Sequence[Account], estimate: int) -> Accounts:
    """Reserve `estimate` on every account; `check` must have passed."""
    return _move(accounts, estimate, 0)


def refund(accounts: Sequence[Account], estimate: int) -> Accounts:
    """Release or expiry: give the whole hold back (sections 9 and 11)."""
    return _move(accounts, -estimate, 0)


def settle(accounts: Sequence[Account], estimate: int, actual: int, policy: OveragePolicy) -> Settled | Refusal:
    """Commit `actual` against a hold of `estimate` (section 8)."""
    if actual <= estimate:
        return Settled(_move(accounts, -estimate, actual), actual)
    if policy == REJECT:
        return Refusal("BUDGET_EXCEEDED", accounts[-1], actual)
    # The charge beyond the estimate is a debit on accounts that hold the estimate as spent already.
    base = _move(accounts, -estimate, estimate)
    extra = debit(base, actual - estimate, policy)
    if isinstance(extra, Refusal):
        return extra
    return Settled(extra.accounts, estimate + extra.charged)


def charge(accounts: Sequence[Account], actual: int, policy: OveragePolicy) -> Settled | Refusal:
    """A direct debit without a hold (section 12): frozen and closed refuse, debt and over-limit do not."""
    for account in accounts:
        if account.status == FROZEN:
            return Refusal("BUDGET_FROZEN", account, actual)
        if account.status == CLOSED:
            return Refusal("BUDGET_CLOSED", account, actual)
        if policy == REJECT and account.remaining < actual:
            return Refusal("BUDGET_EXCEEDED", account, actual)
    return debit(accounts, actual, policy)


def debit(accounts: Sequence[Account], amount: int, policy: OveragePolicy) -> Settled | Refusal:
    """Charge `amount` beyond any hold: what fits, what becomes debt, and which accounts go over their limit."""
    overdraft = policy == ALLOW_WITH_OVERDRAFT
    charged = amount
    for account in accounts:
        if not (overdraft and account.overdraft_limit > 0):
            charged = min(charged, max(account.remaining, 0))
    for account in accounts:
        deficit = charged - max(account.remaining, 0)
        if deficit > 0 and account.debt + deficit > account.overdraft_limit:
            return Refusal("OVERDRAFT_LIMIT_EXCEEDED", account, amount)
    return Settled(tuple(_debited(account, charged, amount, overdraft) for account in accounts), charged)


def _debited(account: Account, charged: int, wanted: int, overdraft: bool) -> Account:
    remaining = account.remaining
    funded = min(charged, max(remaining, 0))
    capped = charged < wanted and remaining < wanted and not (overdraft and account.overdraft_limit > 0)
    return account._replace(
        spent=account.spent + funded,
        debt=account.debt + charged - funded,
        over_limit=account.over_limit or capped,
    )


def _move(accounts: Sequence[Account], reserved: int, spent: int) -> Accounts:
    """So much more reserved and spent. Every operation comes by here, and `_replace` takes three times as long."""
    return tuple([tuple.__new__(Account, (*a[:4], a[4] + reserved, a[5] + spent, *a[6:])) for a in accounts])

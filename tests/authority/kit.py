"""Words that the tests of the authority share. Amounts are tokens unless a test says otherwise."""

from __future__ import annotations

from typing import Any

from clearance.authority.budgets import BudgetSpec
from clearance.authority.embedded import EmbeddedAuthority
from clearance.model.account import Account
from clearance.model.action import Action
from clearance.model.amount import Amount, tokens
from clearance.model.balance import Balance
from clearance.model.results import Event
from clearance.model.subject import Subject, tenant_of
from clearance.store.interface import Changes, EventQuery

ACME = Subject(tenant="acme")
BOT = Subject(tenant="acme", agent="bot")
CALL = Action(kind="llm.completion", name="small-model")
TENANT = "tenant:acme"
AGENT = "tenant:acme/agent:bot"
MINUTE = 60_000


def budget(authority: EmbeddedAuthority, scope: str = TENANT, amount: int | Amount = 1000, **spec: Any) -> Balance:
    allocated = amount if isinstance(amount, Amount) else tokens(amount)
    return authority.set_budget(BudgetSpec(scope=scope, allocated=allocated, **spec))


def hold(authority: EmbeddedAuthority, amount: int = 100, subject: Subject = ACME, **options: Any) -> str:
    """The id of a new reservation."""
    reservation_id = authority.reserve(subject, CALL, tokens(amount), **options).reservation_id
    assert reservation_id is not None
    return reservation_id


def run(authority: EmbeddedAuthority, amount: int | None = 100, subject: Subject = ACME, **options: Any) -> str:
    """The id of a new run."""
    run_id = authority.start_run(subject, None if amount is None else tokens(amount), **options).reservation_id
    assert run_id is not None
    return run_id


def balance(authority: EmbeddedAuthority, scope: str = TENANT) -> Balance:
    return authority.balance(scope, "TOKENS")


def figures(authority: EmbeddedAuthority, scope: str = TENANT) -> tuple[int, int, int, int]:
    """remaining, reserved, spent, debt"""
    found = balance(authority, scope)
    assert found.remaining == found.allocated - found.spent - found.reserved - found.debt
    return found.remaining, found.reserved, found.spent, found.debt


def ledger(authority: EmbeddedAuthority) -> tuple[list[Balance], list[Event]]:
    """Every balance and every line of the log: what a refused request must leave as it was."""
    return authority.balances(limit=200).items, authority.events(limit=1000)


def events(authority: EmbeddedAuthority, *types: str) -> list[Event]:
    return authority.events(EventQuery(types=types), limit=1000)


def kinds(authority: EmbeddedAuthority) -> list[str]:
    return [event.type for event in authority.events(limit=1000)]


def put_account(authority: EmbeddedAuthority, scope: str = TENANT, **fields: Any) -> None:
    """A budget in any state, also in one that takes long to reach."""
    blank = Account(tenant_of(scope), scope, "TOKENS")
    write(authority, Changes(accounts=[blank._replace(**fields)]))


def write(authority: EmbeddedAuthority, changes: Changes) -> None:
    with authority._store.transaction(flush=False) as transaction:
        transaction.write(changes, 0)

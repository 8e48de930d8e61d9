"""Accounts: every field comes back, in the order of their keys."""

from __future__ import annotations

from clearance.model.caps import Caps, CapsRule
from clearance.model.period import Period
from clearance.store.conformance.kit import NOW_MS, Bench, account, expect, spec
from clearance.store.interface import Changes

LARGEST = 2**63 - 1


@spec
def every_field_of_an_account_comes_back(bench: Bench) -> None:
    full = account(
        allocated=LARGEST,
        reserved=1,
        spent=LARGEST - 1,
        debt=2,
        overdraft_limit=LARGEST,
        over_limit=True,
        status="FROZEN",
        overage_policy="ALLOW_WITH_OVERDRAFT",
        period=Period(every="day", kind="calendar"),
        period_start_ms=NOW_MS,
        period_end_ms=NOW_MS + 1,
        caps=(CapsRule(caps=Caps(max_tokens=5), below_percent=50), CapsRule(caps=Caps(max_tokens=7))),
    )
    bench.write(Changes(accounts=[full]))
    with bench.store.read() as reader:
        expect("the account as read", reader.accounts(None, 10, None), [full])
    with bench.store.transaction(flush=False) as tx:
        expect("the account in a transaction", tx.account(*full.key), full)


@spec
def a_missing_account_is_none(bench: Bench) -> None:
    with bench.store.transaction(flush=False) as tx:
        expect("the account", tx.account("acme", "tenant:acme", "TOKENS"), None)
        expect("the scope's accounts", list(tx.accounts_of("acme", "tenant:acme")), [])
        expect("the tenant's accounts", list(tx.accounts_below("acme")), [])


@spec
def an_account_changes_as_a_whole(bench: Bench) -> None:
    """Its figures and its configuration, also when it is written twice in a transaction."""
    bench.write(Changes(accounts=[account()]))
    with bench.store.transaction(flush=False) as tx:
        tx.write(Changes(accounts=[account(spent=1)]), NOW_MS)
        tx.write(Changes(accounts=[account(spent=2, status="CLOSED", overdraft_limit=9)]), NOW_MS)
    bench.write(Changes(accounts=[account(spent=3, debt=1, over_limit=True, status="CLOSED", overdraft_limit=9)]))
    with bench.store.read() as reader:
        expected = account(spent=3, debt=1, over_limit=True, status="CLOSED", overdraft_limit=9)
        expect("the account", reader.accounts(None, 10, None), [expected])


@spec
def a_dropped_account_is_gone_and_can_come_back(bench: Bench) -> None:
    bench.write(Changes(accounts=[account("run:run_1")]), Changes(dropped_accounts=[account("run:run_1").key]))
    with bench.store.transaction(flush=False) as tx:
        expect("the dropped account", tx.account(*account("run:run_1").key), None)
        tx.write(Changes(accounts=[account("run:run_1", spent=4)]), NOW_MS)
    with bench.store.transaction(flush=False) as tx:
        expect("the new account", tx.account(*account("run:run_1").key), account("run:run_1", spent=4))
        tx.write(Changes(dropped_accounts=[account("run:run_1").key]), NOW_MS)
        expect("within the transaction", tx.account(*account("run:run_1").key), None)


@spec
def accounts_are_listed_by_the_bytes_of_their_keys_without_those_of_runs(bench: Bench) -> None:
    scopes = ["tenant:a", "tenant:a/agent:B_", "tenant:a/agent:b", "tenant:a/agent:b-c", "tenant:a/agent:b/toolset:x"]
    accounts = [account(scope, unit, "a") for scope in scopes for unit in ("TOKENS", "USD_MICROCENTS")]
    accounts = sorted([*accounts, account("tenant:b", tenant="b")], key=lambda it: it.key)
    bench.write(Changes(accounts=[*reversed(accounts), account("run:run_1", tenant="a")]))
    with bench.store.read() as reader:
        expect("all", reader.accounts(None, 100, None), accounts)
        expect("a tenant's", reader.accounts("a", 100, None), accounts[:-1])
        expect("a page", reader.accounts(None, 3, accounts[4].key), accounts[5:8])
        expect("a tenant's page", reader.accounts("a", 100, accounts[7].key), accounts[8:-1])


@spec
def the_accounts_of_a_scope_and_of_a_tenant_are_its_own(bench: Bench) -> None:
    bot = "tenant:acme/agent:bot"
    mine = [account(bot, "CREDITS"), account(bot, "TOKENS"), account(), account("run:run_1")]
    bench.write(Changes(accounts=[*mine, account("tenant:other", tenant="other")]))
    with bench.store.transaction(flush=False) as tx:
        expect("of the scope", [it.unit for it in tx.accounts_of("acme", bot)], ["CREDITS", "TOKENS"])
        below = {it.key for it in tx.accounts_below("acme")}
        expect("of the tenant", below, {it.key for it in mine})

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from clearance.connecting import LocalAuthority
from clearance.model.account import CLOSED, FROZEN
from clearance.model.amount import Unit, usd

USD = 100_000_000
Cli = Callable[..., Any]
BOT = "tenant:acme/agent:bot"


def test_a_budget_is_made_with_everything_it_was_given(cli: Cli, ledger: LocalAuthority) -> None:
    answer = cli(
        *("budget", "set", "tenant:new", "12.50", "--period", "day", "--timezone", "Europe/Berlin"),
        *("--overdraft", "1", "--overage-policy", "allow-with-overdraft"),
        *("--below", "20%", "--max-tokens", "500", "--deny-tool", "mail", "--deny-tool", "shell", "--cooldown", "2s"),
    )
    assert answer.code == 0, answer.err
    found = ledger.balance("tenant:new")
    assert (found.allocated, found.overdraft_limit) == (12 * USD + USD // 2, USD)
    assert found.period is not None
    assert (found.period.every, found.period.kind, found.period.timezone) == ("day", "calendar", "Europe/Berlin")
    (rule,) = found.caps
    assert rule.below_percent == 20
    assert rule.caps.wire == {"max_tokens": 500, "tool_denylist": ["mail", "shell"], "cooldown_ms": 2000}


def test_what_is_not_given_stays(cli: Cli, ledger: LocalAuthority) -> None:
    cli("budget", "set", "tenant:new", "5", "--period", "week", "--rolling", "--max-tokens", "9", "--overdraft", "2")
    before = ledger.balance("tenant:new")
    answer = cli("budget", "set", "tenant:new", "7", "--json").json
    after = ledger.balance("tenant:new")
    assert after.allocated == 7 * USD
    assert (after.period, after.caps, after.overdraft_limit) == (before.period, before.caps, before.overdraft_limit)
    assert [(it["field"], it["now"], it["then"]) for it in answer["changes"]] == [("allocated", 5 * USD, 7 * USD)]


def test_period_and_caps_can_be_taken_away(cli: Cli, ledger: LocalAuthority) -> None:
    cli("budget", "set", "tenant:new", "5", "--period", "day", "--max-tokens", "9")
    assert cli("budget", "set", "tenant:new", "5", "--period", "none", "--no-caps").code == 0
    assert ledger.balance("tenant:new").period is None
    assert ledger.balance("tenant:new").caps == ()


def test_setting_the_same_again_writes_nothing(cli: Cli, ledger: LocalAuthority) -> None:
    before = len(ledger.events())
    answer = cli("budget", "set", "tenant:acme", "10.00")
    assert "nothing to change" in answer.out
    assert len(ledger.events()) == before


def test_microcents_and_dollars_are_never_confused(cli: Cli, ledger: LocalAuthority) -> None:
    cli("budget", "set", "tenant:new", "1250000000", "--unit", "USD_MICROCENTS")
    assert ledger.balance("tenant:new").allocated == 1_250_000_000
    assert cli("budget", "set", "tenant:new", "1.5", "--unit", "USD_MICROCENTS").code == 1


def test_funding_changes_the_ledger(cli: Cli, ledger: LocalAuthority) -> None:
    for operation, amount, then in (
        ("credit", "2.50", 1_250_000_000),
        ("debit", "0.5", 1_200_000_000),
        ("reset", "3", 300_000_000),
        ("RESET_SPENT", "4", 400_000_000),
        ("repay-debt", "1", 500_000_000),
    ):
        assert cli("budget", "fund", "tenant:acme", amount, "--operation", operation, "--reason", "test").code == 0
        assert ledger.balance("tenant:acme").allocated == then


def test_a_key_makes_funding_safe_to_repeat(cli: Cli, ledger: LocalAuthority) -> None:
    for _ in range(2):
        assert cli("budget", "fund", "tenant:acme", "1", "--idempotency-key", "k").code == 0
    assert ledger.balance("tenant:acme").allocated == 11 * USD
    other = cli("budget", "fund", "tenant:acme", "2", "--idempotency-key", "k")
    assert other.code == 2
    assert ledger.balance("tenant:acme").allocated == 11 * USD


def test_freeze_unfreeze_and_close(cli: Cli, ledger: LocalAuthority) -> None:
    assert cli("budget", "freeze", BOT, "--reason", "look").code == 0
    assert ledger.balance(BOT).status == FROZEN
    refused = cli("budget", "fund", BOT, "1")
    assert (refused.code, refused.err) == (2, f"error: {BOT} is frozen; unfreeze it first\n")
    assert cli("budget", "unfreeze", BOT).code == 0
    assert cli("budget", "close", BOT).code == 0
    assert ledger.balance(BOT).status == CLOSED
    assert cli("budget", "set", BOT, "1").code == 2


def test_show_and_tree_tell_the_figures(cli: Cli, ledger: LocalAuthority, hold: Callable[..., str]) -> None:
    ledger.commit(hold("2.00"), usd("1.50"))
    hold("0.25")
    (shown,) = cli("budget", "show", BOT, "--json").json["budgets"]
    assert (shown["spent"], shown["reserved"], shown["remaining"], shown["unit"]) == (
        150_000_000,
        25_000_000,
        325_000_000,
        "USD_MICROCENTS",
    )
    text = cli("budget", "show", BOT).out
    assert "1.50 USD" in text
    assert "3.25 USD" in text
    drawn = cli("budget", "tree").out
    assert "tenant:acme" in drawn
    assert "1.50 USD of 5.00 USD spent, 0.25 USD held, 3.25 USD left" in drawn
    (root,) = cli("budget", "tree", "--json").json["tree"]
    assert [node["scope"] for node in root["below"]] == [BOT]
    (only,) = cli("budget", "tree", BOT, "--json").json["tree"]
    assert only["scope"] == BOT


def test_a_scope_may_have_budgets_in_several_units(cli: Cli, ledger: LocalAuthority) -> None:
    cli("budget", "set", "tenant:acme", "500", "--unit", "tokens")
    assert ledger.balance("tenant:acme", Unit.TOKENS).allocated == 500
    assert len(cli("budget", "show", "tenant:acme", "--json").json["budgets"]) == 2
    assert len(cli("budget", "show", "tenant:acme", "--unit", "TOKENS", "--json").json["budgets"]) == 1


def test_more_budgets_than_a_page_are_all_shown(cli: Cli, ledger: LocalAuthority) -> None:
    from clearance.authority.budgets import BudgetSpec

    ledger.apply_budgets([BudgetSpec(scope=f"tenant:t{number:03}", allocated=usd(1)) for number in range(450)])
    assert len(cli("budget", "tree", "--json").json["tree"]) == 451
    assert len(cli("status", "--json").json["budgets"]) == 452


@pytest.mark.parametrize("words", [("--json", "budget", "tree"), ("budget", "tree", "--json")])
def test_global_options_stand_before_or_after_the_command(
    cli: Cli, ledger: LocalAuthority, words: tuple[str, ...]
) -> None:
    assert cli(*words).json["tree"]


@pytest.mark.parametrize("words", [(), ("budget",), ("--help",), ("budget", "set", "-h"), ("reservations", "--help")])
def test_help_is_shown(cli: Cli, words: tuple[str, ...]) -> None:
    answer = cli(*words)
    assert answer.code == 0
    assert "Usage: clearance" in answer.out

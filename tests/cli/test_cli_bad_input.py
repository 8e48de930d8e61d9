"""A mistake gets one line that names the field, the problem and what is allowed; the ledger stays as it was."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.cli.conftest import figures

from clearance.connecting import LocalAuthority

Cli = Callable[..., Any]
SET = ("budget", "set", "tenant:acme")
FUND = ("budget", "fund", "tenant:acme")
BAD = [
    ((*SET, "-5"), 1, "-5 is negative; allowed: 0 or more"),
    ((*SET, "nan"), 1, "allocated: 'nan' is not a plain decimal number; allowed: dollars"),
    ((*SET, "1e5"), 1, "allocated: '1e5' is not a plain decimal number"),
    ((*SET, "1e999999999"), 1, "is not a plain decimal number"),
    ((*SET, "inf"), 1, "is not a plain decimal number"),
    ((*SET, "1,000"), 1, "is not a plain decimal number"),
    ((*SET, ""), 1, "is not a plain decimal number"),
    ((*SET, "0.000000001"), 1, "is finer than a microcent; allowed: at most 8 decimal places"),
    ((*SET, "92233720368.54775808"), 1, "is more than the ledger can hold"),
    ((*SET, "9" * 500), 1, "is not a plain decimal number"),
    ((*SET, "1.5", "--unit", "TOKENS"), 1, "'1.5' is not a whole number; allowed: a whole number"),
    ((*SET, "9223372036854775808", "--unit", "TOKENS"), 1, "is more than the ledger can hold"),
    ((*SET, "5", "--unit", "EUR"), 1, "unit: 'EUR' is unknown; allowed: USD, USD_MICROCENTS"),
    ((*SET, "5", "--period", "dya"), 1, "period.every: 'dya' is not a period; did you mean day?"),
    ((*SET, "5", "--rolling"), 1, "period: is missing beside --rolling"),
    ((*SET, "5", "--period", "none", "--rolling"), 1, "period: is none"),
    ((*SET, "5", "--period", "day", "--timezone", "Mars/Base"), 1, "period.timezone: 'Mars/Base' is no time zone"),
    ((*SET, "5", "--overage-policy", "SOMETIMES"), 1, "overage_policy: 'SOMETIMES' is unknown; allowed: REJECT"),
    ((*SET, "5", "--overdraft=-1"), 1, "overdraft: '-1' is negative"),
    ((*SET, "5", "--below", "20%"), 1, "caps[0]: limits nothing"),
    ((*SET, "5", "--below", "20", "--max-tokens", "1"), 1, "caps[0].below: '20' is not a share"),
    ((*SET, "5", "--max-tokens", "-1"), 1, "caps[0].max_tokens: -1 is refused"),
    ((*SET, "5", "--max-tokens", "x"), 1, "Invalid value for '--max-tokens'"),
    ((*SET, "5", "--cooldown", "30"), 1, "caps[0].cooldown: '30' is not a duration"),
    ((*SET, "5", "--no-caps", "--max-tokens", "1"), 1, "no_caps: does not go with other caps"),
    (("budget", "set", "acme", "5"), 1, "scope: 'acme' is not a segment; allowed: level:name"),
    (("budget", "set", "tenant:a b", "5"), 1, "'a b' is refused; allowed: "),
    (("budget", "set", "agent:x/tenant:acme", "5"), 1, "is out of order"),
    (("budget", "set", "tenant:" + "x" * 129, "5"), 1, "at most 128 characters"),
    (("budget", "set", "", "5"), 1, "is not a segment"),
    (SET, 1, "Missing argument 'AMOUNT'; see `clearance budget set --help`"),
    ((*FUND, "5", "--operation", "gift"), 1, "operation: 'gift' is unknown; allowed: credit, debit"),
    ((*FUND, "500", "--operation", "debit"), 2, "cannot be taken"),
    ((*FUND, "5", "--spent", "1"), 1, "spent: does not go with CREDIT"),
    ((*FUND, "5", "--reason", "x" * 513), 1, "allowed: at most 512 characters"),
    ((*FUND, "5", "--unit", "TOKENS"), 1, "has no budget in TOKENS; it has one in USD_MICROCENTS"),
    (("budget", "fund", "tenant:nobody", "5"), 1, "tenant:nobody has no budget"),
    (("budget", "freeze", "tenant:nobody"), 1, "tenant:nobody has no budget"),
    (("budget", "freeze", "tenant:acme", "--reason", "x" * 513), 1, "allowed: at most 512 characters"),
    (("budget", "freeze", "tenant:acme", "--unit", "?"), 1, "unit: '?' is unknown"),
    (("budget", "show", "tenant:nobody"), 1, "tenant:nobody has no budget"),
    (("budget", "tree", "tenant:nobody"), 1, "no budget at or below tenant:nobody"),
    (("budget", "sett", "x"), 1, "No such command 'sett'"),
    (("bugdet",), 1, "No such command 'bugdet'"),
    (("status", "--nope"), 1, "No such option"),
    (("kill", "tenant:acme"), 1, "Missing option '--reason'"),
    (("kill", "tenant:acme", "--reason", "  "), 1, "reason: is missing, blank or too long"),
    (("kill", "tenant:acme", "--reason", "x", "--actor", "y" * 129), 1, "actor: is missing, blank or too long"),
    (("kill", "acme", "--reason", "x"), 1, "scope: 'acme' is not a segment"),
    (("kill", "run:gone", "--reason", "x"), 1, "no run gone"),
    (("kill", "a.txt", "b.txt", "--reason", "x"), 1, "quote the star: '*'"),
    (("pause", "", "--reason", "x"), 1, "is not a segment"),
    (("reservations", "--status", "odd"), 1, "status: 'ODD' is unknown; allowed: active"),
    (("reservations", "--limit", "0"), 1, "limit: 0 is refused; allowed: 1 to 200"),
    (("reservations", "--cursor", "!!"), 1, "cursor: is not one of ours"),
    (("reservations", "show", "gone"), 1, "no reservation gone"),
    (("events", "--after", "-1"), 1, "Invalid value for '--after'"),
    (("events", "--limit", "5000"), 1, "limit: 5000 is refused; allowed: 1 to 1000"),
    (("events", "--scope", "acme"), 1, "scope: 'acme' is not a segment"),
    (("price", "no-such-model-at-all"), 2, "no price for model 'no-such-model-at-all'"),
    (("price", ""), 1, "model: '' is not a name"),
    (("demo", "--scenario", "odd"), 1, "scenario: 'odd' is unknown; allowed: runaway"),
    (("apply", "missing.yaml"), 1, "config: there is no file missing.yaml"),
    (("apply", "."), 1, "config: . is a folder"),
    (("--ledger", "mysql://x", "status"), 1, "url: mysql:// is not known here; allowed: sqlite:///"),
    (("--ledger", "sqlite:///", "status"), 1, "names no file"),
    (("--ledger", "not-there.db", "status"), 1, "there is no ledger at"),
    (("--ledger", "not-there.db", "kill", "*", "--reason", "x"), 1, "there is no ledger at"),
]


@pytest.mark.parametrize(("words", "code", "message"), BAD, ids=[" ".join(words)[:60] for words, _, _ in BAD])
def test_bad_input_is_one_line_and_changes_nothing(
    cli: Cli, ledger: LocalAuthority, tmp_path: Path, words: tuple[str, ...], code: int, message: str
) -> None:
    before, events = figures(ledger), len(ledger.events())
    answer = cli(*words)
    assert answer.code == code, answer
    assert answer.out == ""
    assert answer.err.startswith("error: ")
    assert answer.err.count("\n") == 1
    assert message in answer.err
    as_json = cli(*words, "--json")
    error = json.loads(as_json.err)["error"]
    assert as_json.code == code
    assert set(error) == {"code", "message", "field", "details"}
    assert message in error["message"]
    assert (figures(ledger), len(ledger.events())) == (before, events)
    assert not (tmp_path / "not-there.db").exists()


def test_a_file_that_is_no_ledger_is_left_alone(cli: Cli, tmp_path: Path) -> None:
    wrong = tmp_path / "notes.txt"
    wrong.write_text("dear diary " * 50)
    answer = cli("--ledger", str(wrong), "budget", "set", "tenant:acme", "5")
    assert answer.code == 1
    assert "is not a Clearance ledger" in answer.err
    assert wrong.read_text() == "dear diary " * 50


def test_an_unexpected_error_names_its_type_and_how_to_see_more(
    cli: Cli, ledger: LocalAuthority, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError("boom")

    monkeypatch.setattr("clearance.cli.facts.all_balances", broken)
    answer = cli("budget", "tree")
    assert answer.code == 1
    assert answer.err == "error: unexpected ZeroDivisionError: boom (set CLEARANCE_DEBUG=1 to see the traceback)\n"
    monkeypatch.setenv("CLEARANCE_DEBUG", "1")
    from clearance.cli import main

    assert main(["budget", "tree"]) == 1
    assert "Traceback" in capsys.readouterr().err


def test_without_the_extra_a_hint_is_given(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    import sys

    from clearance.cli import main

    for name in [name for name in sys.modules if name.startswith("clearance.cli.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "typer", None)
    assert main(["status"]) == 1
    assert capsys.readouterr().err == "error: the command line needs typer: pip install 'clearance[cli]'\n"


def test_control_characters_in_the_ledger_do_not_reach_the_terminal(cli: Cli, ledger: LocalAuthority) -> None:
    ledger.kill("tenant:acme", reason="\x1b[2Jgone [red]x[/red]", actor="me")
    for words in (("status",), ("events",)):
        out = cli(*words).out
        assert "\x1b" not in out
        assert "[red]x[/red]" in out

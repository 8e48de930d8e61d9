from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.cli.conftest import figures

from clearance.connecting import LocalAuthority

Cli = Callable[..., Any]
FILE = """
budgets:
  - scope: tenant:acme
    allocated: "20"
    overage_policy: REJECT
  - scope: tenant:next
    allocated: "3.5"
    period: day
    caps:
      - {below: 50%, max_tokens: 100}
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "clearance.yaml"
    path.write_text(FILE)
    return path


def test_apply_shows_the_difference_and_brings_the_ledger_to_the_file(
    cli: Cli, ledger: LocalAuthority, file: Path
) -> None:
    answer = cli("apply", "--yes")
    assert answer.code == 0, answer.err
    assert "10.00 USD" in answer.out
    assert "20.00 USD" in answer.out
    assert "not in the file, left alone: tenant:acme/agent:bot" in answer.out
    assert ledger.balance("tenant:acme").allocated == 2_000_000_000
    assert ledger.balance("tenant:next").caps[0].below_percent == 50
    assert ledger.balance("tenant:acme/agent:bot").allocated == 500_000_000


def test_a_second_apply_changes_nothing(cli: Cli, ledger: LocalAuthority, file: Path) -> None:
    cli("apply", "--yes")
    before, events = figures(ledger), len(ledger.events())
    answer = cli("apply")
    assert answer.code == 0
    assert "nothing to change" in answer.out
    assert cli("apply", "--dry-run").code == 0
    assert (figures(ledger), len(ledger.events())) == (before, events)


def test_every_field_is_compared(cli: Cli, ledger: LocalAuthority, file: Path) -> None:
    cli("apply", "--yes")
    file.write_text(FILE.replace("REJECT", "ALLOW_WITH_OVERDRAFT").replace("50%", "40%").replace("day", "week"))
    changes = cli("apply", "--dry-run", "--json").json["changes"]
    assert {(it["scope"], it["field"]) for it in changes} == {
        ("tenant:acme", "overage_policy"),
        ("tenant:next", "period"),
        ("tenant:next", "caps"),
    }
    assert cli("apply", "--yes", "--json").json["applied"] is True
    assert cli("apply", "--json").json["changes"] == []


def test_dry_run_changes_nothing_and_says_so_by_its_exit_code(cli: Cli, ledger: LocalAuthority, file: Path) -> None:
    before = figures(ledger)
    answer = cli("apply", "--dry-run", "--json")
    assert answer.code == 3
    assert answer.json["applied"] is False
    assert answer.json["changed"] == 2
    assert figures(ledger) == before


def test_dry_run_makes_no_ledger(cli: Cli, file: Path, tmp_path: Path) -> None:
    assert cli("apply", "--dry-run").code == 3
    assert not (tmp_path / "ledger.db").exists()
    assert cli("apply", "--yes").code == 0
    assert (tmp_path / "ledger.db").exists()


def test_without_yes_and_without_a_person_nothing_is_applied(cli: Cli, ledger: LocalAuthority, file: Path) -> None:
    before = figures(ledger)
    for words in (("apply",), ("apply", "--json")):
        answer = cli(*words)
        assert answer.code == 1
        assert "--yes" in answer.err
        assert figures(ledger) == before


@pytest.mark.parametrize(("reply", "code", "allocated"), [("y\n", 0, 2_000_000_000), ("n\n", 1, 1_000_000_000)])
def test_a_person_is_asked(
    cli: Cli,
    ledger: LocalAuthority,
    file: Path,
    monkeypatch: pytest.MonkeyPatch,
    reply: str,
    code: int,
    allocated: int,
) -> None:
    import io

    typed = io.StringIO(reply)
    monkeypatch.setattr(typed, "isatty", lambda: True, raising=False)
    monkeypatch.setattr("sys.stdin", typed)
    assert cli("apply").code == code
    assert ledger.balance("tenant:acme").allocated == allocated


def test_one_bad_budget_means_that_none_is_applied(cli: Cli, ledger: LocalAuthority, file: Path) -> None:
    before = figures(ledger)
    file.write_text(FILE + "  - {scope: tenant:third, allocated: 12.5, perod: day}\n  - {scope: x}\n")
    answer = cli("apply", "--yes")
    assert answer.code == 1
    lines = answer.err.splitlines()
    assert len(lines) == 4
    assert all(line.startswith("error: clearance.yaml:1") for line in lines)
    assert "budgets[2].allocated: 12.5 is not quoted" in answer.err
    assert 'quote it: "12.5"' in answer.err
    assert "budgets[2].perod: is not known here; did you mean period?" in answer.err
    assert "budgets[3].scope: 'x' is not a segment" in answer.err
    assert figures(ledger) == before


def test_a_closed_budget_stops_the_whole_file(cli: Cli, ledger: LocalAuthority, file: Path) -> None:
    ledger.close_budget("tenant:acme")
    answer = cli("apply", "--yes")
    assert answer.code == 2
    assert "take it out of the file" in answer.err
    assert cli("budget", "show", "tenant:next").code == 1


def test_the_configuration_names_the_ledger(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: Path
) -> None:
    monkeypatch.delenv("CLEARANCE_URL")
    file.write_text("ledger: sqlite:///sub/other.db\n" + FILE)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    assert cli("--config", "../clearance.yaml", "apply", "--yes").code == 0
    assert (tmp_path / "sub" / "other.db").exists()
    assert cli("apply", "../clearance.yaml", "--dry-run").code == 0, "a file given names the ledger too"


def test_the_ledger_is_found_although_other_parts_are_wrong(
    cli: Cli, ledger: LocalAuthority, monkeypatch: pytest.MonkeyPatch, file: Path
) -> None:
    monkeypatch.delenv("CLEARANCE_URL")
    file.write_text("ledger: ledger.db\nbudgets: [{scope: x}]\n")
    assert cli("kill", "*", "--reason", "now").code == 0
    assert [stop.state for stop in ledger.stops()] == ["KILLED"]


def test_prices_of_the_configuration_are_used(cli: Cli, file: Path) -> None:
    file.write_text('prices: {my-model: {input: "2.50", output: "10.00"}}')
    answer = cli("price", "my-model", "--input", "1000", "--output", "100", "--json").json
    assert answer["source"] == "override"
    assert answer["call"] == {
        "usage": {"input_tokens": 1000, "output_tokens": 100},
        "amount": 350_000,
        "unit": "USD_MICROCENTS",
    }
    assert "0.0035 USD" in cli("price", "my-model", "--input", "1000", "--output", "100").out
    assert "example" in cli("price", "my-model").out

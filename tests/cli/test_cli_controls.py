from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from clearance.connecting import LocalAuthority
from clearance.errors import Killed
from clearance.model.amount import usd
from clearance.model.subject import Subject

Cli = Callable[..., Any]
BOT = "tenant:acme/agent:bot"


@pytest.mark.parametrize("scope", ["*", "tenant:acme", BOT])
def test_kill_names_what_is_in_flight_and_nothing_new_is_granted(
    cli: Cli, ledger: LocalAuthority, hold: Callable[..., str], scope: str
) -> None:
    held = hold("0.50")
    answer = cli("kill", scope, "--reason", "runaway", "--actor", "ops", "--json").json
    assert (answer["scope"], answer["state"], answer["actor"]) == (scope, "KILLED", "ops")
    assert answer["in_flight_count"] == 1
    (flying,) = answer["in_flight"]
    assert (flying["reservation_id"], flying["estimate"]) == (held, 50_000_000)
    with pytest.raises(Killed):
        hold()
    ledger.commit(held, usd("0.10"))
    assert cli("resume", scope, "--reason", "fixed").code == 0
    assert hold()


def test_kill_shows_the_reservations_as_a_table(cli: Cli, hold: Callable[..., str]) -> None:
    held = hold("0.50")
    out = cli("kill", "*", "--reason", "runaway").out
    assert held in out
    assert "llm.completion:gpt-4o" in out
    assert "everybody (*)" in out


def test_a_run_can_be_killed_by_its_id(cli: Cli, ledger: LocalAuthority) -> None:
    run = ledger.start_run(Subject(tenant="acme", agent="bot"), usd("1")).reservation_id
    answer = cli("kill", f"run:{run}", "--reason", "loop", "--json").json
    assert answer["scope"] == f"run:{run}"
    assert [it["reservation_id"] for it in answer["in_flight"]] == [run]


def test_a_kill_outranks_a_pause(cli: Cli, ledger: LocalAuthority) -> None:
    cli("kill", BOT, "--reason", "first")
    answer = cli("pause", BOT, "--reason", "second")
    assert answer.code == 0
    assert "a kill outranks a pause" in answer.out


def test_resume_says_what_still_stops_the_scope(cli: Cli, ledger: LocalAuthority) -> None:
    cli("pause", "*", "--reason", "maintenance")
    cli("kill", BOT, "--reason", "loop")
    answer = cli("resume", BOT, "--reason", "fixed", "--json").json
    assert answer["was_stopped"]
    assert [it["scope"] for it in answer["still_stopped_by"]] == ["*"]
    assert "nothing to resume" in cli("resume", BOT, "--reason", "again").out


def test_stops_do_not_need_a_sound_configuration(cli: Cli, ledger: LocalAuthority, tmp_path: Any) -> None:
    (tmp_path / "clearance.yaml").write_text("budgets: [")
    assert cli("kill", "*", "--reason", "now").code == 0


def test_status_shows_stops_budgets_and_what_is_open(
    cli: Cli, ledger: LocalAuthority, hold: Callable[..., str]
) -> None:
    hold()
    cli("kill", BOT, "--reason", "loop", "--actor", "ops")
    answer = cli("status", "--json").json
    assert [it["scope"] for it in answer["stops"]] == [BOT]
    assert answer["open_reservations"] == {"calls": 1, "runs": 0, "more": False}
    assert answer["ledger"]["engine"] == "sqlite"
    text = cli("status").out
    assert f"KILLED {BOT}: loop (ops" in text
    assert "open: 1 calls, 0 runs" in text


def test_what_a_dead_process_held_is_given_back_before_figures_are_shown(
    cli: Cli, ledger: LocalAuthority, monkeypatch: pytest.MonkeyPatch
) -> None:
    from clearance.authority.clock import SystemClock
    from clearance.model.action import action

    ledger.reserve(Subject(tenant="acme"), action("llm.completion:m"), usd("1"), ttl_ms=1_000, grace_period_ms=0)
    real = SystemClock().now_ms()
    monkeypatch.setattr(SystemClock, "now_ms", lambda _: real + 60_000)
    (budget,) = cli("budget", "show", "tenant:acme", "--json").json["budgets"]
    assert (budget["reserved"], budget["remaining"]) == (0, 1_000_000_000)
    assert cli("reservations", "--status", "expired", "--json").json["reservations"]

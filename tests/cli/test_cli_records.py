from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from clearance.connecting import LocalAuthority
from clearance.model.amount import usd
from clearance.model.subject import Subject

Cli = Callable[..., Any]
PROGRAM = (sys.executable, "-m", "clearance")


def test_reservations_are_listed_in_pages(cli: Cli, ledger: LocalAuthority, hold: Callable[..., str]) -> None:
    made = [hold("0.10") for _ in range(5)]
    ledger.commit(made[0], usd("0.05"))
    first = cli("reservations", "--limit", "3", "--json").json
    second = cli("reservations", "--limit", "3", "--cursor", first["next_cursor"], "--json").json
    found = [it["reservation_id"] for it in (*first["reservations"], *second["reservations"])]
    assert sorted(found) == sorted(made)
    assert second["next_cursor"] is None
    (done,) = cli("reservations", "--status", "committed", "--json").json["reservations"]
    assert (done["reservation_id"], done["charged"], done["unit"]) == (made[0], 5_000_000, "USD_MICROCENTS")
    assert cli("reservations", "--scope", "tenant:other").out == "no reservations\n"
    assert made[1] in cli("reservations").out


def test_reservations_of_a_run(cli: Cli, ledger: LocalAuthority, hold: Callable[..., str]) -> None:
    from clearance.model.action import action

    bot = Subject(tenant="acme", agent="bot")
    run = ledger.start_run(bot, usd("1")).reservation_id
    inside = ledger.reserve(bot, action("llm.completion:m"), usd("0.1"), run_id=run).reservation_id
    hold()
    for name in (run, f"run:{run}"):
        found = cli("reservations", "--run", name, "--json").json["reservations"]
        assert [it["reservation_id"] for it in found] == [inside]


def test_one_reservation_in_full(cli: Cli, hold: Callable[..., str]) -> None:
    held = hold()
    shown = cli("reservations", "show", held, "--json").json
    assert (shown["reservation_id"], shown["status"], shown["estimate"]) == (held, "ACTIVE", 100_000_000)
    assert "1.00 USD" in cli("reservations", "show", held).out


def test_events_can_be_read_on_from_a_number(cli: Cli, ledger: LocalAuthority) -> None:
    every = cli("events", "--json").json
    assert [it["seq"] for it in every["events"]] == [1, 2]
    assert every["last_seq"] == 2
    ledger.fund("tenant:acme", "CREDIT", usd(1))
    later = cli("events", "--after", "2", "--json").json["events"]
    assert [it["type"] for it in later] == ["budget.funded"]
    assert cli("events", "--type", "budget.funded", "--json").json["events"] == later
    (last,) = cli("events", "--limit", "1", "--json").json["events"]
    assert last["seq"] == 3
    assert "amount 1.00 USD" in cli("events").out


def test_follow_shows_a_new_event_and_ends_quietly(ledger: LocalAuthority) -> None:
    words = (*PROGRAM, "events", "--follow", "--json", "--limit", "1")
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert json.loads(process.stdout.readline())["seq"] == 2
        ledger.fund("tenant:acme", "CREDIT", usd(1), reason="more")
        new = json.loads(process.stdout.readline())
        assert (new["seq"], new["type"], new["data"]["reason"]) == (3, "budget.funded", "more")
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == 0
        assert process.stderr.read() == ""


def test_follow_ends_when_its_reader_goes_away(ledger: LocalAuthority) -> None:
    words = (*PROGRAM, "events", "--follow", "--json", "--limit", "1")
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        ledger.fund("tenant:acme", "CREDIT", usd(1))
        assert process.wait(10) == 0
        assert process.stderr.read() == ""


def test_the_program_works_as_a_process_of_its_own(tmp_path: Path) -> None:
    def run(*words: str) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
        return subprocess.run((*PROGRAM, *words), capture_output=True, text=True, env=environment, timeout=30)

    made = run("budget", "set", "tenant:acme", "1")
    assert (made.returncode, made.stderr) == (0, "")
    denied = run("budget", "fund", "tenant:acme", "5", "--operation", "debit")
    assert denied.returncode == 2
    assert denied.stderr.startswith("error: tenant:acme has 1.00 USD left")
    assert json.loads(run("--json", "status").stdout)["budgets"][0]["remaining"] == 100_000_000
    helped = run("--help")
    assert helped.returncode == 0
    assert "Exit codes" in helped.stdout

"""How the demo behaves as a program: what it prints, its exit codes, Ctrl+C, and what it leaves behind."""

from __future__ import annotations

import importlib.util
import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from rich.console import Console

from clearance import demo
from clearance.demo import runaway as scenario
from clearance.demo import views
from clearance.demo.facts import Check, Facts, Lane, body_of, money
from clearance.errors import InvalidRequest

COMMAND = "import sys; from clearance.demo import run; sys.exit(run({!r}, seconds=30))"


def start(name: str, tmp_path: Path, **environment: str) -> subprocess.Popen[str]:
    paths = os.pathsep.join(path for path in sys.path if path)
    return subprocess.Popen(
        [sys.executable, "-c", COMMAND.format(name)],
        env={**os.environ, "PYTHONPATH": paths, "TMPDIR": str(tmp_path), **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_a_pipe_gets_plain_lines(tmp_path):
    process = start("tools", tmp_path, FORCE_COLOR="1", LANGSMITH_TRACING="true", HTTP_PROXY="http://127.0.0.1:9")
    out, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (0, "")
    assert out.isascii()
    assert "\x1b" not in out
    assert [line for line in out.splitlines() if len(line) > 80 and "--ledger" not in line] == []
    assert out.count("\n  ok ") == 5
    assert "FAILED" not in out
    (ledger,) = tmp_path.glob("*/ledger.db")
    assert f"  clearance --ledger {ledger} events\n" in out
    assert "  | guard = ClearanceCallbackHandler(authority, mailer, tool_costs=costs)" in out


def test_json_is_one_object_that_names_the_ledger_it_kept(tools):
    assert sorted(tools.told) == ["checks", "figures", "ledger", "ok", "scenario", "seconds"]
    assert Path(tools.told["ledger"]).is_file()


@pytest.mark.skipif(sys.platform == "win32", reason="sends SIGINT")
def test_an_interrupt_ends_it_quietly_and_leaves_nothing(tmp_path):
    process = start("runaway", tmp_path)
    assert process.stdout is not None
    while "agent.invoke" not in process.stdout.readline():
        pass
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=10)
    assert (process.returncode, out.strip(), err) == (130, "", "")
    assert list(tmp_path.iterdir()) == []


def test_without_the_extra_it_says_what_to_install(monkeypatch, capsys):
    monkeypatch.setattr(demo, "find_spec", lambda name: None if name == "uvicorn" else importlib.util.find_spec(name))
    assert demo.run() == 1
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert "pip install 'clearance[demo]'" in err


def test_an_unknown_scenario_is_refused():
    with pytest.raises(InvalidRequest, match=r"scenario: 'fly' .* runaway, tools, parallel, crash"):
        demo.run("fly")


@pytest.mark.parametrize("seconds", [0, -1, 31, float("nan"), float("inf")])
def test_a_time_out_of_range_is_refused(seconds):
    with pytest.raises(InvalidRequest, match="seconds"):
        demo.run(seconds=seconds)


def test_importing_the_demo_loads_no_framework():
    code = "import sys, clearance.demo; print([m for m in ('langchain_core', 'rich', 'openai') if m in sys.modules])"
    paths = os.pathsep.join(path for path in sys.path if path)
    out = subprocess.check_output([sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": paths}, text=True)
    assert out.strip() == "[]"


def test_telemetry_is_off_while_it_plays_and_as_before_afterwards(monkeypatch):
    monkeypatch.setenv("LANGSMITH_TRACING", "true")
    monkeypatch.delenv("LANGCHAIN_TRACING_V2", raising=False)
    with demo.quiet():
        assert os.environ["LANGSMITH_TRACING"] == os.environ["LANGCHAIN_TRACING_V2"] == "false"
    assert os.environ["LANGSMITH_TRACING"] == "true"
    assert "LANGCHAIN_TRACING_V2" not in os.environ


# --- a check that fails


@pytest.fixture
def failing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Facts:
    """The runaway scenario as if one request had come after the denial."""
    guarded = scenario.Guarded(3.0, 42, 90, 41, 42, 100, 90, 10, 0, 20, 42, "no")
    facts = scenario.Runaway(
        tmp_path / "ledger.db",
        scenario._checks(guarded, 0),
        "gpt-5.2",
        scenario.Unguarded(4.0, 60, 150, 135_000),
        guarded,
    )
    monkeypatch.setattr(demo, "new_folder", lambda: tmp_path)
    monkeypatch.setattr(scenario, "play", lambda *_: facts)
    return facts


def test_a_check_that_fails_gives_exit_code_1_and_says_so(failing, capsys):
    assert demo.run("runaway") == 1
    out = capsys.readouterr().out
    assert "  FAILED  Not one provider request after the denial\n          41 at the denial, 42 a moment later" in out
    assert "1 of 4 checks FAILED." in out


def test_a_check_that_fails_is_not_ok_in_json(failing, capsys):
    assert demo.run("runaway", as_json=True) == 1
    told = json.loads(capsys.readouterr().out)
    assert told["ok"] is False
    assert [check["holds"] for check in told["checks"]] == [False, True, True, True]


def on_a_terminal(width: int = 80) -> tuple[views.Terminal, io.StringIO]:
    out = io.StringIO()
    return views.Terminal(Console(file=out, force_terminal=True, color_system="standard", width=width)), out


def test_a_check_that_fails_is_red_in_a_terminal(failing):
    terminal, out = on_a_terminal()
    terminal.end(failing, 1.0)
    (line,) = [line for line in out.getvalue().splitlines() if "Not one provider request" in line]
    assert "\x1b[1;31m" in line


@pytest.mark.parametrize("width", [40, 80, 200])
def test_a_terminal_shows_figures_in_place_and_gives_the_cursor_back(width, failing):
    terminal, out = on_a_terminal(width)
    with terminal:
        terminal.begin("runaway")
        terminal.act("With Clearance", body_of(scenario.with_clearance))
        for spent in (10, 50, 90):
            terminal.show([Lane("guarded", 3, spent, 100), Lane("no limit", None, 5), Lane("worker", 1, 5, bar_of=50)])
        terminal.say("Denied")
        terminal.end(failing, 1.0)
    shown = out.getvalue()
    assert shown.count("\x1b[?25l") == shown.count("\x1b[?25h") > 0
    assert "ClearanceCallbackHandler" in shown


# --- small parts


def test_the_code_shown_is_the_code_that_runs():
    assert body_of(scenario.with_clearance).splitlines() == [
        'authority.set_budget(BudgetSpec(scope="tenant:acme", allocated=usd("1.00")))',
        'guard = ClearanceCallbackHandler(authority, Subject(tenant="acme"))',
        'agent.invoke({"input": TASK}, config={"callbacks": [guard]})',
    ]


@pytest.mark.parametrize(
    ("microcents", "decimals", "text"),
    [
        (0, 8, "0.00000000 USD"),
        (99_862_875, 8, "0.99862875 USD"),
        (99_862_875, 4, "0.9986 USD"),
        (99_999_999, 2, "1.00 USD"),
        (-150_000_000, 2, "-1.50 USD"),
        (123_456_789_000_000, 2, "1,234,567.89 USD"),
    ],
)
def test_money_has_the_decimals_asked_for(microcents, decimals, text):
    assert money(microcents, decimals) == text


def test_facts_are_ok_only_if_every_check_holds(tmp_path):
    good, bad = Check("a", True, ""), Check("b", False, "")
    assert Facts(tmp_path, (good,)).ok
    assert not Facts(tmp_path, (good, bad)).ok

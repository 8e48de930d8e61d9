"""Programs and commands look for the ledger in the same places."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import clearance


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("CLEARANCE_URL", raising=False)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    return tmp_path


def command(*words: str) -> None:
    done = subprocess.run((sys.executable, "-m", "clearance", *words), capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("place", ["the data folder", "clearance.yaml", "CLEARANCE_URL"])
def test_a_kill_from_the_command_line_reaches_the_program(
    place: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if place == "clearance.yaml":
        (folder / "clearance.yaml").write_text("ledger: sqlite:///here.db\n")
    if place == "CLEARANCE_URL":
        (folder / "clearance.yaml").write_text("ledger: sqlite:///not-this.db\n")
        monkeypatch.setenv("CLEARANCE_URL", str(folder / "named.db"))
    command("budget", "set", "tenant:acme", "5")
    command("kill", "*", "--reason", "test")
    ran = []
    authority = clearance.connect()

    @authority.guard("tool.call:send", "0.01", subject=clearance.Subject(tenant="acme"))
    def send() -> None:
        ran.append(1)

    with pytest.raises(clearance.Killed):
        send()
    assert ran == []
    authority.close()


@pytest.mark.parametrize("url", ["", "memory://x", "sqlite://x", "ftp://x", "a\0b", "sqlite:///a\0b", 5])
def test_a_url_that_names_nothing_is_refused_and_makes_nothing(url: str, folder: Path) -> None:
    with pytest.raises(clearance.InvalidRequest):
        clearance.connect(url)
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("url", ["postgresql:/u:hunter2@h/a", "postgres:///u:hunter2@h/a", "sqlite://u:hunter2@h/a"])
def test_a_login_in_a_url_of_a_file_is_not_shown(url: str, folder: Path) -> None:
    with pytest.raises(clearance.InvalidRequest) as refused:
        clearance.connect(url)
    assert "hunter2" not in str(refused.value)
    assert not list(folder.iterdir())


def test_a_server_needs_a_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CLEARANCE_API_KEY", raising=False)
    with pytest.raises(clearance.InvalidRequest, match="CLEARANCE_API_KEY"):
        clearance.connect("http://127.0.0.1:1")


def test_budgets_take_money_as_text() -> None:
    authority = clearance.connect("memory://")
    assert authority.set_budget(clearance.BudgetSpec(scope="tenant:acme", allocated="12.50")).allocated == 1_250_000_000
    assert authority.fund("tenant:acme", "CREDIT", "0.50").allocated == 1_300_000_000
    with pytest.raises(clearance.InvalidRequest, match="float"):
        clearance.BudgetSpec(scope="tenant:acme", allocated=12.5)
    with pytest.raises(clearance.InvalidRequest, match="spec"):
        authority.set_budget(None)
    authority.close()


def test_a_kill_of_a_scope_that_nobody_uses_warns(folder: Path) -> None:
    command("budget", "set", "tenant:acme", "5")
    words = (sys.executable, "-m", "clearance", "kill", "tenant:amce", "--reason", "typo")
    assert "spelt right" in subprocess.run(words, capture_output=True, text=True, timeout=60).stdout

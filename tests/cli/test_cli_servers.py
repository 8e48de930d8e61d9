from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import httpx

from clearance.connecting import open_ledger
from clearance.model.amount import usd

PROGRAM = (sys.executable, "-m", "clearance")


def run(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "CLEARANCE_URL": str(folder / "ledger.db")}
    return subprocess.run((*PROGRAM, *words), capture_output=True, text=True, env=environment, cwd=folder, timeout=30)


def test_a_ledger_is_moved_with_equal_balances(tmp_path: Path) -> None:
    assert run(tmp_path, "budget", "set", "tenant:acme", "12.50").returncode == 0
    moved = run(tmp_path, "db", "export", "out.jsonl", "--json")
    assert moved.returncode == 0, moved.stderr
    assert json.loads(moved.stdout)["balances"]["USD_MICROCENTS"][0] == usd("12.50").amount
    again = run(tmp_path, "db", "import", "out.jsonl", "--ledger", str(tmp_path / "other.db"), "--json")
    assert again.returncode == 0, again.stderr
    assert open_ledger(tmp_path / "other.db").balance("tenant:acme").allocated == usd("12.50").amount
    twice = run(tmp_path, "db", "import", "out.jsonl", "--ledger", str(tmp_path / "other.db"))
    assert twice.returncode == 1
    assert "not empty" in twice.stderr


def test_status_names_the_engine_and_an_absent_ledger_is_an_error(tmp_path: Path) -> None:
    absent = run(tmp_path, "db", "status")
    assert (absent.returncode, "no ledger" in absent.stderr) == (1, True)
    run(tmp_path, "db", "migrate")
    shown = run(tmp_path, "db", "status")
    assert "sqlite" in shown.stdout


def test_serve_answers_until_it_is_told_to_end(tmp_path: Path) -> None:
    environment = {**os.environ, "CLEARANCE_URL": str(tmp_path / "ledger.db"), "XDG_DATA_HOME": str(tmp_path)}
    command = (*PROGRAM, "serve", "--port", "0")
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        try:
            lines = [process.stderr.readline(), process.stderr.readline()]
            (url,) = re.findall(r"http://\S+", "".join(lines))
            assert httpx.get(f"{url}/healthz").status_code == 200
            process.send_signal(signal.SIGTERM)
            assert process.wait(20) == 0
        finally:
            process.kill()
    assert (tmp_path / "clearance" / "admin.key").stat().st_mode & 0o777 == 0o600

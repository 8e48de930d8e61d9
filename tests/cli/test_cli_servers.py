from __future__ import annotations

import errno
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any, TextIO

import httpx
import pytest

from clearance.authority.budgets import BudgetSpec
from clearance.authority.clock import ManualClock, SystemClock
from clearance.cli import servers
from clearance.connecting import open_ledger
from clearance.model.action import action
from clearance.model.amount import usd
from clearance.model.subject import Subject

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


def test_files_that_cannot_be_moved_are_one_line(tmp_path: Path) -> None:
    assert run(tmp_path, "budget", "set", "tenant:acme", "12.50").returncode == 0
    assert run(tmp_path, "db", "export", "out.jsonl").returncode == 0
    whole = (tmp_path / "out.jsonl").read_bytes()
    (tmp_path / "long.jsonl").write_bytes(whole + b"hello\n")
    (tmp_path / "bytes.jsonl").write_bytes(whole.replace(b"acme", b"\xff", 1))
    for words, told in (
        (("export", "absent/x"), "file: absent/x cannot be written (No such file or directory)"),
        (("export", "out.jsonl"), "file: out.jsonl is there already"),
        (("export", "/dev/full"), "file: /dev/full is there already"),
        (("import", "absent"), "file: absent cannot be read (No such file or directory)"),
        (("import", "."), "file: . cannot be read (Is a directory)"),
        (("import", "long.jsonl"), "of long.jsonl is not part of an export (it is not JSON); nothing was changed"),
        (("import", "bytes.jsonl"), "line 2 of bytes.jsonl is not part of an export (tenant of accounts is no text"),
    ):
        other = ("--ledger", "other.db") if words[0] == "import" else ()
        refused = run(tmp_path, "db", *words, *other)
        assert (refused.returncode, refused.stdout, refused.stderr.count("\n")) == (1, "", 1)
        assert told in refused.stderr
        assert "unexpected" not in refused.stderr
    assert (tmp_path / "out.jsonl").read_bytes() == whole
    assert run(tmp_path, "db", "import", "out.jsonl", "--ledger", "other.db").returncode == 0


def test_an_export_that_fails_leaves_no_file(tmp_path: Path) -> None:
    def fail(out: TextIO) -> Any:
        out.write("half")
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        servers._write_new(tmp_path / "out.jsonl", fail)
    assert list(tmp_path.iterdir()) == []


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


def test_compact_takes_what_is_old_and_tells_how_much(tmp_path: Path) -> None:
    clock = ManualClock(SystemClock().now_ms() - 100 * 86_400_000)
    authority = open_ledger(tmp_path / "ledger.db", clock=clock)
    authority.set_budget(BudgetSpec(scope="tenant:acme", allocated=usd(5)))
    for _ in range(3):
        held = authority.reserve(Subject(tenant="acme"), action("tool.call:x"), usd(1)).reservation_id
        authority.commit(held or "", usd(1))
    authority.close()
    told = run(tmp_path, "db", "compact", "--older-than", "90d", "--dry-run", "--json")
    assert told.returncode == 0, told.stderr
    would = json.loads(told.stdout)
    assert (would["dry_run"], would["reservations_removed"]) == (True, 2)
    done = json.loads(run(tmp_path, "db", "compact", "--older-than", "90d", "--json").stdout)
    assert done == {**would, "dry_run": False}
    shown = json.loads(run(tmp_path, "db", "status", "--json").stdout)
    assert shown["totals"]["rows"]["reservations"] == 1
    assert shown["totals"]["balances"]["USD_MICROCENTS"][2] == usd(3).amount


def test_compact_explains_an_age_that_it_does_not_take(tmp_path: Path) -> None:
    run(tmp_path, "db", "migrate")
    for age, words in (("90", "36h, 90d, 12w"), ("3h", "1d or more"), ("0d", "36h, 90d, 12w")):
        refused = run(tmp_path, "db", "compact", "--older-than", age)
        assert refused.returncode == 1
        assert words in refused.stderr
        assert "Traceback" not in refused.stderr


def _told(process: subprocess.Popen[str], count: int) -> list[str]:
    assert process.stderr is not None
    return [process.stderr.readline() for _ in range(count)]


def test_serve_is_configured_by_the_file_and_flags_go_first(tmp_path: Path) -> None:
    server = "server: {port: 1, admin_port: 0, store: served.db, durability: power, max_body_bytes: 2000}\n"
    (tmp_path / "clearance.yaml").write_text(server)
    environment = {**os.environ, "CLEARANCE_URL": "http://127.0.0.1:9", "CLEARANCE_ADMIN_KEY": "a-key-for-this-test"}
    command = (*PROGRAM, "serve", "--port", "0")
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True, cwd=tmp_path) as process:
        try:
            urls = re.findall(r"http://\S+", "".join(_told(process, 2)))
            assert len(set(urls)) == 2
            headers = {"X-Admin-API-Key": "a-key-for-this-test"}
            found = httpx.get(f"{urls[1]}/v1/x-clearance/capabilities", headers=headers)
            assert found.json()["durability"] == "power"
            body = {"tenant_id": "acme", "name": "x" * 3000}
            assert httpx.post(f"{urls[0]}/v1/admin/tenants", headers=headers, json=body).status_code == 413
        finally:
            process.terminate()
            process.wait(20)
    assert (tmp_path / "served.db").exists()


def test_a_wrong_server_section_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "clearance.yaml").write_text("server: {prot: 7878}\n")
    answer = run(tmp_path, "serve")
    assert answer.returncode == 1
    assert "clearance.yaml:1: server.prot: is not known here; did you mean port?" in answer.stderr
    assert "Traceback" not in answer.stderr

"""`clearance hosts doctor` and `clearance openclaw doctor`: what they find, and that they change nothing."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from clearance.authority.budgets import BudgetSpec
from clearance.connecting import connect
from clearance_hooks.capabilities import MINIHOST, OPENCLAW
from clearance_hooks.doctor import examine

CONFIG: dict[str, Any] = {"tenant": "acme", "authority": {"url": "memory://"}}


def written(folder: Path, text: str, name: str = "host.yaml") -> Path:
    path = folder / name
    path.write_text(text)
    return path


def entry(folder: Path, config: Any) -> Path:
    return written(folder, json.dumps({"plugins": {"entries": {"clearance": {"config": config}}}}), "host.json")


def doctor(*words: str, **environ: str) -> subprocess.CompletedProcess[str]:
    program = (sys.executable, "-m", "clearance", "hosts", *words)
    return subprocess.run(program, env={"PATH": "", **environ}, capture_output=True, text=True, timeout=60)


def test_the_doctor_is_content_with_what_works(tmp_path: Path) -> None:
    done = doctor(
        "doctor", str(entry(tmp_path, {**CONFIG, "authority": {"url": "${LEDGER}"}})), "--json", LEDGER="memory://"
    )
    facts = json.loads(done.stdout)
    assert (done.returncode, facts["failed"]) == (0, 0)
    found = {check["name"]: check["text"] for check in facts["checks"]}
    assert found["variable LEDGER"] == "resolved: yes"
    assert found["gate tool"] == "armed"
    assert found["authority"].startswith("answers")


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"tenant": "acme", "authority": {"url": "${UNSET}"}}, "resolved: no"),
        ({"tenant": "acme", "authority": {"url": "http://127.0.0.1:9", "token": "x"}}, "cannot be asked"),
        ({"tenant": "acme", "run_bugdet": "1"}, "did you mean run_budget?"),
    ],
)
def test_the_doctor_fails_for_what_does_not_work(config: Any, said: str, tmp_path: Path) -> None:
    done = doctor("doctor", str(entry(tmp_path, config)), "--json")
    assert done.returncode == 1
    assert said in done.stdout
    assert "Traceback" not in done.stderr


def test_the_doctor_fails_where_nothing_is_enabled(tmp_path: Path) -> None:
    done = doctor("doctor", str(written(tmp_path, "other: 1\n")))
    assert done.returncode == 1
    assert "nothing is gated" in done.stdout


def test_the_doctor_prints_what_the_host_can_do(tmp_path: Path) -> None:
    done = doctor("doctor", str(openclaw_file(tmp_path)), "--host", "openclaw", KEY="k")
    assert re.search(r"every model call is refused by itself +no", done.stdout)
    assert done.returncode == 0


def openclaw_file(folder: Path, config: Any = None, hooks: Any = None, **plugins: Any) -> Path:
    """As `clearance openclaw install` makes it, among keys of OpenClaw's own."""
    own = {"authority": {"url": "http://127.0.0.1:9", "token": "${KEY}"}, "run_budget": "1.00", "timeout_ms": 3000}
    found = {
        "enabled": True,
        "hooks": {"allowConversationAccess": True} if hooks is None else hooks,
        "config": {**own, **(config or {})},
    }
    section = {"load": {"paths": ["/x"]}, "entries": {"clearance": found, "memory-core": {"enabled": True}}, **plugins}
    return written(folder, json.dumps({"gateway": {"port": 1}, "plugins": section}), "openclaw.json")


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"hooks": {}}, "hooks.allowConversationAccess: is not true, so turns cannot be gated"),
        ({"hooks": {"allowConversationAccess": "true"}}, "hooks.allowConversationAccess: is not true"),
        ({"config": {"run_bugdet": "1"}}, "did you mean run_budget?"),
        ({"config": {"run_budget": None}}, "run_budget: is missing"),
        ({"config": {"timeout_ms": 20_000}}, "timeout_ms: is refused; allowed: 100 to 14000"),
        ({"config": {"authority": None}}, "authority: is missing"),
        ({"config": {"enforce": "per_call"}}, "OpenClaw cannot enforce per_call"),
        ({"config": {"authority": {"url": "http://127.0.0.1:9", "token": "${NONE}"}}}, "the variable NONE is not set"),
        ({"allow": ["memory-core"]}, "plugins.allow leaves it out"),
        ({"deny": ["clearance"]}, "Clearance is not enabled here"),
        ({"entries": {}}, "Clearance is not enabled here"),
        ({"entires": {"clearance": {"config": {}}}, "entries": {}}, "what stands at plugins.entires.clearance"),
    ],
)
def test_the_doctor_reads_openclaws_own_file(wrong: dict[str, Any], said: str, tmp_path: Path) -> None:
    def failures(path: Path) -> list[str]:
        return [finding.text for finding in examine(path, OPENCLAW, {"KEY": "k"}) if finding.level == "fail"]

    assert failures(openclaw_file(tmp_path)) == []
    assert any(said in text for text in failures(openclaw_file(tmp_path, **wrong)))


def listing(folder: Path) -> dict[str, int]:
    return {str(path): path.stat().st_size for path in sorted(folder.rglob("*"))}


@pytest.mark.parametrize("url", ["sqlite:///{}/none.db", "sqlite:///{}/deep/er/none.db", "{}/none.db", "default"])
def test_the_doctor_makes_nothing(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CLEARANCE_URL", raising=False)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.chdir(tmp_path)
    config: dict[str, Any] = {"tenant": "acme", "run_budget": "1"}
    if url != "default":
        config["authority"] = {"url": url.format(tmp_path)}
    path = entry(tmp_path, config)
    before = listing(tmp_path)
    found = {finding.name: finding for finding in examine(path, MINIHOST, {})}
    assert found["authority"].level == "fail"
    assert "there is no such ledger" in found["authority"].text
    assert listing(tmp_path) == before


@pytest.mark.parametrize(("run_budget", "level"), [("1.00", "ok"), ("6.00", "warn")])
def test_the_doctor_asks_for_what_a_run_holds_and_leaves_the_ledger_as_it_is(
    run_budget: str, level: str, tmp_path: Path
) -> None:
    url = f"sqlite:///{tmp_path}/ledger.db"
    ledger = connect(url)
    ledger.set_budget(BudgetSpec(scope="tenant:acme", allocated="5.00"))
    ledger.close()
    path = entry(tmp_path, {"tenant": "acme", "run_budget": run_budget, "authority": {"url": url}})
    before = listing(tmp_path)
    found = {finding.name: finding for finding in examine(path, MINIHOST, {})}
    assert found["authority"].level == level
    assert listing(tmp_path) == before


@pytest.mark.parametrize("stop", ["kill", "pause"])
def test_a_stop_is_a_warning_since_the_guard_is_armed_and_the_authority_answers(stop: str, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/ledger.db"
    ledger = connect(url)
    ledger.set_budget(BudgetSpec(scope="tenant:acme", allocated="5.00"))
    getattr(ledger, stop)("tenant:acme", reason="incident 7")
    ledger.close()
    path = entry(tmp_path, {"tenant": "acme", "run_budget": "1.00", "authority": {"url": url}})
    done = doctor("doctor", str(path), "--json")
    facts = json.loads(done.stdout)
    assert (done.returncode, facts["failed"], facts["warned"]) == (0, 0, 1)
    warning = next(check for check in facts["checks"] if check["level"] == "warn")
    assert warning["text"].startswith("answers, and denies now: tenant:acme was ")
    assert "incident 7" in warning["text"]


def test_the_doctor_asks_a_server_and_makes_no_journal(tmp_path: Path) -> None:
    path = entry(tmp_path, {"tenant": "acme", "authority": {"url": "http://127.0.0.1:9", "token": "x"}})
    before = listing(tmp_path)
    done = doctor("doctor", str(path), "--json", XDG_DATA_HOME=str(tmp_path / "data"), HOME=str(tmp_path))
    assert "cannot be asked" in done.stdout
    assert listing(tmp_path) == before


# --- the doctor of OpenClaw


@pytest.mark.parametrize(
    "program", ["sleep 300.0417", "sleep 300.0417 & sleep 300.0417", "trap '' TERM INT; while :; do :; done"]
)
@pytest.mark.parametrize("command", ["doctor", "install"])
def test_a_program_that_hangs_is_ended_in_time(program: str, command: str, tmp_path: Path) -> None:
    hangs = written(tmp_path, f"#!/bin/sh\n{program}\n", "hangs")
    hangs.chmod(0o755)
    line = (sys.executable, "-m", "clearance", "openclaw", command, "--openclaw", str(hangs), "--timeout", "1")
    environ = {"PATH": "/usr/bin:/bin", "COLUMNS": "200"}
    began = time.monotonic()
    done = subprocess.run(line, env=environ, capture_output=True, text=True, timeout=60)
    assert time.monotonic() - began < 20
    assert done.returncode == 1
    assert "did not end in 1 s" in done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    assert str(hangs) not in processes()
    assert "300.0417" not in processes()


def processes() -> str:
    return " ".join(
        path.read_text(errors="replace").replace("\0", " ")
        for path in Path("/proc").glob("[0-9]*/cmdline")
        if path.exists()
    )


def test_a_program_that_prints_without_end_is_ended(tmp_path: Path) -> None:
    prints = written(tmp_path, "#!/bin/sh\nwhile :; do head -c 1000000 /dev/zero; done\n", "prints")
    prints.chmod(0o755)
    line = (sys.executable, "-m", "clearance", "openclaw", "doctor", "--openclaw", str(prints), "--json")
    done = subprocess.run(line, env={"PATH": "/usr/bin:/bin"}, capture_output=True, text=True, timeout=60)
    assert (done.returncode, "prints more than" in done.stdout) == (1, True)
    assert str(prints) not in processes()


@pytest.mark.parametrize("said", ["[1]", '"x"', '{"plugin": 1, "diagnostics": "x", "typedHooks": 5}', "not json"])
def test_a_program_that_answers_something_else_is_told_in_words(said: str, tmp_path: Path) -> None:
    program = written(tmp_path, f"#!/bin/sh\necho '{said}'\n", "says")
    program.chmod(0o755)
    line = (sys.executable, "-m", "clearance", "openclaw", "doctor", "--openclaw", str(program), "--json")
    done = subprocess.run(line, env={"PATH": "/usr/bin:/bin"}, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (1, "")
    assert json.loads(done.stdout)["failed"] >= 1


@pytest.mark.parametrize("words", [("doctor", "absent.yaml"), ("doctor", "absent.yaml", "--host", "nobody")])
def test_the_doctor_answers_a_mistake_in_one_line(words: tuple[str, ...]) -> None:
    done = doctor(*words)
    assert done.returncode == 1
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1

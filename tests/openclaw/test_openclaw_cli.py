"""`clearance openclaw`, with a program in the place of OpenClaw that writes down how it was called."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.openclaw.shim_world import Served

from clearance_hooks.openclaw import PLUGIN

GATES = ["before_agent_run", "before_tool_call", "before_model_resolve", "before_prompt_build"]
ENDS = ["after_tool_call", "agent_end", "llm_output", "model_call_ended"]
LOADED = {"id": "clearance", "version": "0.1.0", "rootDir": "/x", "enabled": True, "status": "loaded"}


class FakeOpenClaw:
    def __init__(self, folder: Path) -> None:
        self.program = folder / "openclaw"
        self.calls_file = folder / "calls"
        self.inspected: Any = {"plugin": LOADED, "typedHooks": [{"name": it} for it in GATES + ENDS], "diagnostics": []}
        self.entry: Any = {}
        self.fails = ""

    def write(self) -> None:
        facts = {"inspect": json.dumps(self.inspected), "get": json.dumps(self.entry), "fails": self.fails}
        self.program.write_text(
            f"#!{sys.executable}\nimport json, sys\nfacts = {facts!r}\n"
            f"open({str(self.calls_file)!r}, 'a').write(json.dumps(sys.argv[1:]) + '\\n')\n"
            "if facts['fails'] and facts['fails'] in sys.argv:\n    sys.exit('it went\\nwrong here')\n"
            "print(next((facts[it] for it in ('inspect', 'get') if it in sys.argv), ''))\n"
        )
        self.program.chmod(0o755)

    @property
    def calls(self) -> list[list[str]]:
        return [json.loads(line) for line in self.calls_file.read_text().splitlines()]


@pytest.fixture
def fake(tmp_path: Path) -> FakeOpenClaw:
    return FakeOpenClaw(tmp_path)


def run(*arguments: str, **environ: str) -> tuple[int, str, str]:
    line = [
        sys.executable,
        "-c",
        "import sys; from clearance.cli import main; sys.exit(main())",
        "openclaw",
    ]
    done = subprocess.run(
        [*line, *arguments], capture_output=True, text=True, timeout=60, env={"PATH": "/usr/bin", **environ}
    )
    assert "Traceback" not in done.stderr
    return done.returncode, done.stdout, done.stderr


def test_path_is_a_folder_that_openclaw_can_load() -> None:
    code, said, _ = run("path")
    assert code == 0
    assert (Path(said.strip()) / "openclaw.plugin.json").exists()
    assert json.loads(run("path", "--json")[1]) == {"path": str(PLUGIN)}


def test_install_links_grants_points_and_enables(fake: FakeOpenClaw) -> None:
    fake.write()
    code, said, _ = run("install", "--openclaw", str(fake.program), "--run-budget", "0.50")
    assert code == 0
    assert "clearance openclaw doctor" in said
    link, batch, enable = fake.calls
    assert link == ["plugins", "install", "--link", str(PLUGIN), "--force", "--accept-capabilities"]
    assert enable == ["plugins", "enable", "clearance"]
    values = {it["path"].removeprefix("plugins.entries.clearance."): it["value"] for it in json.loads(batch[-1])}
    assert values == {
        "hooks.allowConversationAccess": True,
        "config.authority.url": "http://127.0.0.1:7878",
        "config.authority.token": "${CLEARANCE_API_KEY}",
        "config.run_budget": "0.50",
    }


def test_a_dry_run_calls_nothing(fake: FakeOpenClaw) -> None:
    fake.write()
    code, said, _ = run("install", "--openclaw", str(fake.program), "--dry-run", "--json")
    facts = json.loads(said)
    assert (code, facts["installed"], len(facts["commands"])) == (0, False, 3)
    assert not fake.calls_file.exists()


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--openclaw", "no-such-program"], "no-such-program"),
        (["--url", "somewhere"], "is no server's URL"),
        (["--key-variable", "lower"], "no name of a variable"),
        (["--run-budget", "much"], "not a number"),
    ],
)
def test_a_mistake_is_one_line(arguments: list[str], named: str) -> None:
    code, _, said = run("install", *arguments)
    assert (code, said.count("\n")) == (1, 1)
    assert named in said


def test_what_openclaw_refuses_is_told(fake: FakeOpenClaw) -> None:
    fake.fails = "enable"
    fake.write()
    code, _, said = run("install", "--openclaw", str(fake.program))
    assert code == 1
    assert "plugins enable" in said
    assert "wrong here" in said


def doctor(fake: FakeOpenClaw, **environ: str) -> tuple[int, dict[str, dict[str, str]]]:
    fake.write()
    code, said, _ = run("doctor", "--openclaw", str(fake.program), "--json", **environ)
    return code, {it["name"]: it for it in json.loads(said)["checks"]}


def entry(served: Served, **more: Any) -> dict[str, Any]:
    authority = {"url": served.url, "token": "${CLEARANCE_API_KEY}"}
    return {"enabled": True, "config": {"authority": authority, "run_budget": "1.00", **more}}


def test_the_doctor_finds_an_armed_plugin_sound(fake: FakeOpenClaw, served: Served) -> None:
    fake.entry = entry(served)
    code, checks = doctor(fake, CLEARANCE_API_KEY=served.token)
    assert code == 0
    assert {it["level"] for it in checks.values()} == {"ok"}
    assert {"plugin", "gates", "secret", "authority"} == set(checks)


def test_the_doctor_sees_dropped_gates(fake: FakeOpenClaw, served: Served) -> None:
    fake.entry = entry(served)
    fake.inspected["typedHooks"] = [{"name": "before_tool_call"}]
    fake.inspected["diagnostics"] = [{"level": "warn", "message": "typed hook before_agent_run blocked"}]
    code, checks = doctor(fake, CLEARANCE_API_KEY=served.token)
    assert code == 1
    assert "before_agent_run" in checks["gates"]["text"]
    assert "allowConversationAccess true" in checks["gates"]["todo"]
    assert checks["diagnostic"]["level"] == "fail"


def test_the_doctor_names_what_is_wrong(fake: FakeOpenClaw, served: Served) -> None:
    fake.entry = entry(served)
    code, checks = doctor(fake)
    assert (code, "CLEARANCE_API_KEY is not set" in checks["secret"]["text"]) == (1, True)
    code, checks = doctor(fake, CLEARANCE_API_KEY="cyc_live_wrong")
    assert (code, checks["authority"]["level"]) == (1, "fail")
    assert "cyc_live_wrong" not in json.dumps(checks)
    fake.entry = entry(served, run_bugdet="1.00")
    code, checks = doctor(fake, CLEARANCE_API_KEY=served.token)
    assert (code, "did you mean run_budget" in checks["configuration"]["text"]) == (1, True)
    served.stop()
    code, checks = doctor(fake, CLEARANCE_API_KEY=served.token)
    assert (code, checks["authority"]["todo"]) == (1, "clearance serve")


def test_a_key_that_openclaw_hides_is_taken_from_its_variable(fake: FakeOpenClaw, served: Served) -> None:
    fake.entry = entry(served, authority={"url": served.url, "token": "__OPENCLAW_REDACTED__"})
    code, checks = doctor(fake, CLEARANCE_API_KEY=served.token)
    assert (code, checks["authority"]["level"]) == (0, "ok")
    code, checks = doctor(fake)
    assert (code, checks["secret"]["level"]) == (0, "warn")


def test_the_doctor_of_a_host_without_the_plugin(fake: FakeOpenClaw) -> None:
    fake.fails = "inspect"
    code, checks = doctor(fake)
    assert (code, checks["plugin"]["todo"]) == (1, "clearance openclaw install")

"""Our own commands on the real OpenClaw, in a home of its own, and a turn without a Gateway there."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.openclaw.real.gateway import Gateway


def clearance(openclaw: Gateway, home: Path, *arguments: str) -> tuple[int, Any]:
    line = [sys.executable, "-c", "import sys; from clearance.cli import main; sys.exit(main())", "openclaw"]
    line += [*arguments, "--openclaw", openclaw.openclaw, "--json"]
    done = subprocess.run(line, env=openclaw.environ_in(home), capture_output=True, text=True, timeout=240, check=False)
    assert done.stdout, done.stderr
    return done.returncode, json.loads(done.stdout)


def test_install_then_doctor_then_a_turn_without_a_gateway(openclaw: Gateway, tmp_path: Path) -> None:
    for name in ("ws", "tmp", "state"):
        (tmp_path / name).mkdir()
    config = openclaw.host_config(0)
    del config["gateway"]
    (tmp_path / "openclaw.json").write_text(json.dumps(config))
    openclaw.begin(openclaw.once)
    before = openclaw.spent

    code, facts = clearance(openclaw, tmp_path, "install", "--url", f"http://127.0.0.1:{openclaw.server_port}")
    assert (code, facts["installed"]) == (0, True)
    code, facts = clearance(openclaw, tmp_path, "doctor")
    assert (code, {it["level"] for it in facts["checks"]}) == (0, {"ok"}), facts

    # Here OpenClaw loads the plugin in several modes, and the last registration is the one that counts.
    line = [openclaw.openclaw, "agent", "--local", "--agent", "main", "--session-id", "s", "--message", "go", "--json"]
    done = subprocess.run(
        line, env=openclaw.environ_in(tmp_path), capture_output=True, text=True, timeout=240, check=False
    )
    assert (done.returncode, openclaw.requests, openclaw.tool_runs) == (0, 2, 1), done.stderr
    openclaw.at_rest()
    assert openclaw.spent - before == openclaw.sim.stats()["cost"]

    written = json.loads((tmp_path / "openclaw.json").read_text())
    written["plugins"]["entries"]["clearance"]["hooks"]["allowConversationAccess"] = False
    (tmp_path / "openclaw.json").write_text(json.dumps(written))
    code, facts = clearance(openclaw, tmp_path, "doctor")
    assert code == 1
    assert any(it["name"] == "gates" and "before_agent_run" in it["text"] for it in facts["checks"])

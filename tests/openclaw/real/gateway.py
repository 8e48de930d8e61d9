"""The real OpenClaw: one Gateway with our plugin, a provider that counts, and an authority that can be switched off.

`make test-openclaw` puts OpenClaw where OPENCLAW_BIN says. Node comes from the test environment.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.openclaw.shim_world import ADMIN, node

from clearance.authority.budgets import BudgetSpec
from clearance.connecting import LocalAuthority, connect
from clearance.model.amount import usd
from clearance.model.caps import Caps, CapsRule
from clearance.server import Settings, create_app, keys
from clearance.server.permissions import PERMISSIONS
from clearance.server.serving import Serving, listening
from clearance.simulator import Reply, ScriptedRequest, Simulator, ToolCall
from clearance.store.interface import ReservationQuery
from clearance_hooks.openclaw import PLUGIN

MODEL, CHEAPER, FALLBACK = "gpt-4o", "gpt-4o-mini", "gpt-4.1"
SCOPE = "tenant:acme"
TOKEN_VARIABLE = "CLEARANCE_API_KEY"
START_S, TURN_S, REST_S = 180.0, 120.0, 20.0


@dataclass
class Gateway:
    folder: Path
    openclaw: str
    sim: Simulator
    authority: LocalAuthority
    server_port: int
    script: Callable[[ScriptedRequest], Any] = lambda request: Reply(text="done")
    on_request: Callable[[int], object] = lambda number: None
    _server: Any = None
    _process: subprocess.Popen[bytes] | None = None
    _turns: int = 0
    _key: str = ""
    asked: int = 0

    # --- the authority

    def serve(self) -> None:
        if self._server is not None:
            return
        import threading

        server = Serving(create_app(self.authority, Settings(admin_key=ADMIN)))
        bound = listening("127.0.0.1", self.server_port)
        thread = threading.Thread(target=lambda: server.run(sockets=[bound]), daemon=True)
        thread.start()
        _until(lambda: server.started, 20, "the authority's server starts")
        self._server = (server, thread)

    def stop_serving(self) -> None:
        server, thread = self._server
        server.should_exit = True
        thread.join(20)
        self._server = None

    # --- OpenClaw

    @property
    def environ(self) -> dict[str, str]:
        return self.environ_in(self.folder)

    def environ_in(self, folder: Path) -> dict[str, str]:
        home = str(folder)
        return {
            "PATH": f"{Path(node()).parent}:{Path(self.openclaw).parent}:{os.environ['PATH']}",
            "HOME": home,
            "OPENCLAW_HOME": home,
            "OPENCLAW_STATE_DIR": f"{home}/state",
            "OPENCLAW_CONFIG_PATH": f"{home}/openclaw.json",
            "OPENCLAW_NO_RESPAWN": "1",
            "TMPDIR": f"{home}/tmp",
            "NO_COLOR": "1",
            TOKEN_VARIABLE: self._key,
        }

    @property
    def config_file(self) -> Path:
        return self.folder / "openclaw.json"

    @property
    def log(self) -> str:
        return (self.folder / "gateway.log").read_text(errors="replace")

    def entry(self, *, token: str = "${CLEARANCE_API_KEY}", grant: bool = True, **config: Any) -> dict[str, Any]:
        authority = {"url": f"http://127.0.0.1:{self.server_port}", "token": token}
        own = {"authority": authority, "run_budget": "1.00", "settle_window_ms": 500, **config}
        return {"enabled": True, "hooks": {"allowConversationAccess": grant}, "config": own}

    def write_config(self, entry: Mapping[str, Any], port: int) -> None:
        plugins = {
            "enabled": True,
            "allow": ["clearance"],
            "load": {"paths": [str(PLUGIN)]},
            "entries": {"clearance": entry},
        }
        new = self.config_file.with_suffix(".new")
        new.write_text(json.dumps({**self.host_config(port), "plugins": plugins}, indent=1))
        new.replace(self.config_file)

    def host_config(self, port: int) -> dict[str, Any]:
        """Everything but the plugins."""
        names = (MODEL, CHEAPER, FALLBACK)
        models = [{"id": name, "name": name, **_MODEL_FACTS} for name in names]
        provider = {"baseUrl": self.sim.base_url, "apiKey": "sk-none", "api": "openai-completions", "models": models}
        chosen = {"primary": f"sim/{MODEL}", "fallbacks": [f"sim/{FALLBACK}"]}
        return {
            "agents": {"defaults": {"workspace": f"{self.folder}/ws", "model": chosen, "skipBootstrap": True}},
            "models": {"providers": {"sim": provider}},
            "gateway": {
                "mode": "local",
                "port": port,
                "bind": "loopback",
                "auth": {"mode": "token", "token": "gateway-token-for-tests"},
            },
        }

    def start(self) -> None:
        self.port = _free_port()
        for name in ("ws", "tmp"):
            (self.folder / name).mkdir()
        self.write_config(self.entry(), self.port)
        with (self.folder / "gateway.log").open("wb") as log:
            self._process = subprocess.Popen(
                [self.openclaw, "gateway", "run"], env=self.environ, stdout=log, stderr=log, start_new_session=True
            )
        _until(self._listens, START_S, "the Gateway starts", lambda: self.log[-3000:])
        _until(lambda: "Clearance is armed" in self.log, START_S, "the plugin is armed", lambda: self.log[-3000:])

    def _listens(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, f"the Gateway ended:\n{self.log[-3000:]}"
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def stop(self) -> None:
        if self._process is not None and self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGTERM)
            try:
                self._process.wait(15)
            except subprocess.TimeoutExpired:
                os.killpg(self._process.pid, signal.SIGKILL)
                self._process.wait(10)

    def reconfigure(self, entry: Mapping[str, Any], seen: str) -> None:
        """Write the entry while the Gateway runs, and wait until its log says what must be seen."""
        before = len(self.log)
        self.write_config(entry, self.port)
        _until(lambda: seen in self.log[before:], 60, f"the log says {seen!r}", lambda: self.log[before:])

    def turn(self, message: str = "please run the command") -> tuple[int, str]:
        """One turn of the agent through the Gateway: exit code and everything that was printed."""
        self._turns += 1
        session = f"s{self._turns}"
        done = subprocess.run(
            [self.openclaw, "agent", "--agent", "main", "--session-id", session, "--message", message, "--json"],
            env=self.environ,
            capture_output=True,
            text=True,
            timeout=TURN_S,
            check=False,
        )
        return done.returncode, done.stdout + done.stderr

    # --- looking

    @property
    def marks(self) -> Path:
        return self.folder / "marks"

    @property
    def tool(self) -> Reply:
        """The model wants a command that leaves its mark."""
        return Reply(tool_calls=(ToolCall("exec", {"command": f"echo ran >> {self.marks}"}),))

    @property
    def tool_runs(self) -> int:
        return len(self.marks.read_text().splitlines()) if self.marks.exists() else 0

    @property
    def requests(self) -> int:
        assert self.sim.wait_idle(REST_S), "a request is still in flight"
        return len(self.sim.requests)

    @property
    def spent(self) -> int:
        return self.authority.balance(SCOPE).spent

    def held(self) -> list[str]:
        found = self.authority.reservations(ReservationQuery(status="ACTIVE"), limit=200).items
        return [f"{row.kind} {row.id}" for row in found]

    def at_rest(self) -> None:
        _until(lambda: not self.held(), REST_S, "nothing is held", lambda: str(self.held()))

    def begin(
        self, script: Callable[[ScriptedRequest], Any], *, budget: str = "5.00", caps: Caps | None = None
    ) -> None:
        """A new scene: nothing counted, nothing spent, nothing stopped."""
        self.serve()
        self.at_rest()
        self.sim.reset()
        self.marks.unlink(missing_ok=True)
        self.script, self.on_request, self.asked = script, lambda number: None, 0
        rules = () if caps is None else (CapsRule(caps=caps),)
        self.authority.set_budget(BudgetSpec(scope=SCOPE, allocated=usd(budget).amount + self.spent, caps=rules))

    def once(self, request: ScriptedRequest) -> Reply:
        """The model wants the tool once and is then done."""
        return self.tool if self.asked == 1 else Reply(text="done")

    def answer(self, request: ScriptedRequest) -> Any:
        self.asked += 1
        self.on_request(self.asked)
        return self.script(request)


_MODEL_FACTS = {
    "reasoning": False,
    "input": ["text"],
    "cost": {"input": 0, "output": 0, "cacheRead": 0, "cacheWrite": 0},
    "contextWindow": 128000,
    "maxTokens": 4096,
}


@contextmanager
def gateway(folder: Path, openclaw: str) -> Iterator[Gateway]:
    authority = connect(f"sqlite:///{folder}/ledger.db", durability="process")
    assert isinstance(authority, LocalAuthority)
    authority.set_budget(BudgetSpec(scope=SCOPE, allocated=usd("5.00")))
    facts = {"name": "gateway", "permissions": sorted(PERMISSIONS)}
    made = keys.new_key("key_1", "acme", authority.now_ms(), facts)
    authority.keep(lambda tx, now_ms: tx.write(keys.written(made), now_ms))
    sim = Simulator(script=lambda request: it.answer(request))
    sim.start()
    it = Gateway(folder, openclaw, sim, authority, _free_port(), _key=made.secret)
    try:
        it.serve()
        it.start()
        yield it
    finally:
        it.stop()
        if it._server is not None:
            it.stop_serving()
        sim.stop()
        authority.close()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _until(condition: Callable[[], Any], seconds: float, what: str, else_show: Callable[[], str] = lambda: "") -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"not within {seconds:.0f} s: {what}\n{else_show()}"
        time.sleep(0.1)

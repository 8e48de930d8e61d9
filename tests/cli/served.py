"""A real `clearance serve` in a process of its own, and what it did, asked without the command line."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
from tests.server.kit import ALL, until

import clearance
from clearance.model.action import Action
from clearance.model.amount import usd
from clearance.model.subject import Subject
from clearance.remote import Administration, RemoteAuthority

ADMIN_KEY = "an-operators-key-for-the-commands"
PROGRAM = (sys.executable, "-m", "clearance")
TOOL = Action(kind="tool.call", name="search")
SOURCE = str(Path(clearance.__file__).resolve().parents[1])


class Served:
    def __init__(self, folder: Path) -> None:
        self.ledger = folder / "ledger.db"
        self._folder = folder
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self._port = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{self._port}"
        self.start()

    def start(self) -> None:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("CLEARANCE_")}
        environment |= {"CLEARANCE_ADMIN_KEY": ADMIN_KEY, "PYTHONPATH": SOURCE}
        words = ("serve", "--store", str(self.ledger), "--port", str(self._port))
        self._process = subprocess.Popen(
            (*PROGRAM, *words), env=environment, cwd=self._folder, stderr=subprocess.DEVNULL
        )
        until(self._is_up, 20)

    def _is_up(self) -> bool:
        try:
            return httpx.get(self.url + "/healthz").status_code == 200
        except httpx.HTTPError:
            return False

    def stop(self) -> None:
        self._process.send_signal(signal.SIGTERM)
        self._process.wait(20)

    def tenant(self, name: str, permissions: Sequence[str] = ALL) -> Tenant:
        with Administration(self.url, admin_key=ADMIN_KEY) as admin:
            admin.create_tenant(name, {"name": name})
            secret = admin.create_key(name, {"name": "test", "permissions": list(permissions)})["key_secret"]
        return Tenant(self, name, secret)


@dataclass(frozen=True)
class Tenant:
    """A tenant, its key, and its agent."""

    served: Served
    name: str
    secret: str

    @property
    def scope(self) -> str:
        return f"tenant:{self.name}"

    @property
    def bot(self) -> Subject:
        return Subject(tenant=self.name, agent="bot")

    @contextmanager
    def agent(self) -> Iterator[RemoteAuthority]:
        with closing(RemoteAuthority(self.served.url, api_key=self.secret, background=False)) as authority:
            yield authority

    def hold(self, amount: str = "1.00") -> str:
        with self.agent() as agent:
            held = agent.reserve(self.bot, TOOL, usd(amount)).reservation_id
        assert held is not None
        return held

    def spend(self, amount: str) -> None:
        held = self.hold(amount)
        with self.agent() as agent:
            agent.commit(held, usd(amount))

    def figures(self) -> tuple[int, int, int]:
        """Of the tenant's own budget, as the protocol's own route tells them: allocated, reserved, spent."""
        query = {"tenant": self.name, "unit": "USD_MICROCENTS"}
        answer = httpx.get(
            f"{self.served.url}/v1/balances", params=query, headers={"X-Cycles-API-Key": self.secret}
        ).json()
        (it,) = (it for it in answer["balances"] if it["scope_path"] == self.scope)
        return it["allocated"]["amount"], it["reserved"]["amount"], it["spent"]["amount"]

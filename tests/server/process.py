"""A server in a process of its own, to be ended and killed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import httpx
from tests.server.kit import amount, until


class Child:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.told = folder / "told"
        self.start()

    def start(self) -> None:
        self.told.unlink(missing_ok=True)
        environment = {name: value for name, value in os.environ.items() if not name.startswith("CLEARANCE_")}
        arguments = [str(self.folder / "ledger.db"), str(self.told), str(self.folder / "admin.key")]
        self.process = subprocess.Popen([sys.executable, "-m", "tests.server.child", *arguments], env=environment)
        lines = until(lambda: self._lines(2), 20)
        self.urls = [line.removeprefix("listening on ") for line in lines if line.startswith("listening")]
        self.key = (self.folder / "admin.key").read_text().strip()
        until(self._is_up, 20)

    def _lines(self, count: int) -> list[str]:
        lines = self.told.read_text().splitlines() if self.told.exists() else []
        return lines if len([line for line in lines if line.startswith("listening")]) == count else []

    def _is_up(self) -> bool:
        try:
            return httpx.get(self.urls[0] + "/healthz").status_code == 200
        except httpx.HTTPError:
            return False

    def admin(self, method: str, path: str, json: object = None) -> httpx.Response:
        return httpx.request(method, self.urls[1] + path, json=json, headers={"X-Admin-API-Key": self.key})

    def tenant(self, name: str = "acme") -> dict[str, str]:
        self.admin("POST", "/v1/admin/tenants", {"tenant_id": name, "name": name})
        permissions = ["reservations:create", "reservations:commit", "balances:read", "budgets:write", "webhooks:write"]
        body = {"tenant_id": name, "name": "k", "permissions": permissions}
        secret = self.admin("POST", "/v1/admin/api-keys", body).json()["key_secret"]
        budget = {"tenant_id": name, "scope": f"tenant:{name}", "unit": "TOKENS", "allocated": amount(1_000_000)}
        self.admin("POST", "/v1/admin/budgets", budget)
        return {"X-Cycles-API-Key": secret}

    def end(self, how: int) -> int:
        self.process.send_signal(how)
        return self.process.wait(20)

"""Servers and clients of the remote tests."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from clearance.authority.embedded import EmbeddedAuthority
from clearance.model.action import Action
from clearance.model.subject import Subject
from clearance.remote import RemoteAuthority
from clearance.server import Settings, create_app
from clearance.server.serving import Serving, listening
from clearance.store.sqlite import MEMORY, SqliteStore
from remote.faulty import FaultyServer

HERE = Path(__file__).parent
ACME = Subject(tenant="acme", agent="bot")
TOOL = Action(kind="tool.call", name="search")
ADMIN = "an-operators-key-for-tests"
PERMISSIONS = ["budgets:read", "budgets:write", "balances:read", "events:read"]
PERMISSIONS += [f"reservations:{verb}" for verb in ("create", "commit", "release", "extend", "list")]
Open = Callable[..., RemoteAuthority]


@pytest.fixture
def server() -> Iterator[FaultyServer]:
    made = FaultyServer()
    yield made
    made.stop()


@pytest.fixture
def connect(server: FaultyServer) -> Iterator[Open]:
    """Clients of the faulty server, by default without a background thread; they are closed with the test."""
    opened: list[RemoteAuthority] = []

    def open_client(url: str | None = None, **options: Any) -> RemoteAuthority:
        options = {"api_key": "k-secret-1", "background": False, **options}
        opened.append(RemoteAuthority(url or server.url, **options))
        return opened[-1]

    yield open_client
    server.faults.clear()
    for client in opened:
        if client._background is not None:
            client._background.stop()
        client._shell.close()


@pytest.fixture
def remote(connect: Open, tmp_path: Path) -> RemoteAuthority:
    return connect(journal=tmp_path / "journal", tenant="acme")


@dataclass
class RealServer:
    """The server of this project in a thread, with one tenant and its key."""

    url: str
    api_key: str
    authority: EmbeddedAuthority


@pytest.fixture(scope="session")
def real() -> Iterator[RealServer]:
    authority = EmbeddedAuthority(SqliteStore(MEMORY), durability="process")
    app = create_app(authority, Settings(admin_key=ADMIN))
    bound = listening("127.0.0.1", 0)
    serving = Serving(app)
    thread = threading.Thread(target=lambda: serving.run(sockets=[bound]), daemon=True)
    thread.start()
    eventually(lambda: serving.started)
    url = f"http://127.0.0.1:{bound.getsockname()[1]}"
    with httpx.Client(base_url=url, headers={"X-Admin-API-Key": ADMIN}) as client:
        client.post("/v1/admin/tenants", json={"tenant_id": "acme", "name": "Acme"}).raise_for_status()
        made = client.post("/v1/admin/api-keys", json={"tenant_id": "acme", "name": "k", "permissions": PERMISSIONS})
        made.raise_for_status()
    yield RealServer(url, made.json()["key_secret"], authority)
    serving.should_exit = True
    thread.join(20)
    authority.close()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def launch(script: str, *args: object) -> subprocess.Popen[str]:
    """A Python process of ours with pipes; it imports what this one can."""
    return subprocess.Popen(
        [sys.executable, str(HERE / script), *map(str, args)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )


def end(process: subprocess.Popen[str]) -> None:
    if process.poll() is None:
        process.kill()
    process.communicate()


def eventually(true: Callable[[], Any], timeout_s: float = 10.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not true():
        assert time.monotonic() < deadline, "it never became true"
        time.sleep(0.01)


def records(folder: Path) -> list[Path]:
    """Every record below a journal's base folder, what is quarantined left out."""
    return sorted(path for path in folder.rglob("*.json") if path.parent.name != "quarantine")


def together(count: int, work: Callable[[int], object]) -> list[BaseException]:
    """Run `work(n)` in `count` threads at once; the errors."""
    errors: list[BaseException] = []

    def one(number: int) -> None:
        try:
            work(number)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=one, args=(n,)) for n in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return errors

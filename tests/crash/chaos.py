"""Everything at once: servers and direct clients on one PostgreSQL, and somebody who ends them at random."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import random
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import httpx
import psycopg
from tests.crash import chaos_worker
from tests.crash.processes import end, launch
from tests.postgres.server import Server

ADMIN_KEY = "the-operators-own-key-for-chaos"
LOGS = {"committed": "charged", "released": None, "event": "charged"}
CONTEXT = multiprocessing.get_context("forkserver")
BACKEND_KILL_GAP_SECONDS = 12.0
Answers = dict[tuple[str, str], int]


class Worker:
    """A client process, forked from one that has imported everything, and what it was told."""

    def __init__(self, url: str, number: int, key: str, world: World) -> None:
        receiver, sender = CONTEXT.Pipe(duplex=False)
        self.process = CONTEXT.Process(target=chaos_worker.main, args=(url, number, key, sender), daemon=True)
        self.process.start()
        sender.close()
        self._lines = os.fdopen(os.dup(receiver.fileno()))
        receiver.close()
        self._world = world
        self._reading = threading.Thread(target=self._read, daemon=True)
        self._reading.start()

    def _read(self) -> None:
        for line in self._lines:
            if line.endswith("\n"):
                self._world.heard(*line.split())

    def kill(self) -> None:
        self.process.kill()
        self.process.join()
        self._reading.join(20)
        self._lines.close()


class World:
    def __init__(self, rng: random.Random, folder: Path) -> None:
        CONTEXT.set_forkserver_preload(["tests.crash.chaos_worker", "clearance.remote"])
        self.rng = rng
        self.folder = folder
        self.counts: Counter[str] = Counter()
        self.faults: Counter[str] = Counter()
        self.acknowledged: Answers = {}
        self._lock = threading.Lock()
        self._numbers = iter(range(10**9))
        self.direct: list[Worker] = []
        self.remote: list[Worker] = []
        self.servers: list[subprocess.Popen[bytes]] = []
        self._backend_killed_at = time.monotonic()
        self.database = Server(fsync="on", max_connections="150")
        self.url = self.database.new_database()
        self.proxy = launch("fault_proxy.py", self.database.port, rng.randrange(10**6))
        assert self.proxy.stdout is not None
        port = self.proxy.stdout.readline().strip()
        self.shaky_url = self.url.replace(f":{self.database.port}/", f":{port}/")
        threading.Thread(target=self._count_faults, daemon=True).start()
        self.ports = [_free_port() for _ in range(2)]

    def begin(self) -> None:
        self.servers = [self._serve(port) for port in self.ports]
        self.key = self._make_key()
        self.direct = [self._client(self.shaky_url) for _ in range(3)]
        self.remote = [self._client(f"http://127.0.0.1:{port}") for port in self.ports]

    def _count_faults(self) -> None:
        assert self.proxy.stdout is not None
        for line in self.proxy.stdout:
            self.faults[line.strip()] += 1

    def heard(self, word: str, name: str, figure: str) -> None:
        with self._lock:
            self.counts[word] += 1
            if word in LOGS:
                self.acknowledged[word, name] = int(figure)

    # -- who there is -----------------------------------------------------------------------------

    def _serve(self, port: int) -> subprocess.Popen[bytes]:
        environment = {k: v for k, v in os.environ.items() if not k.startswith("CLEARANCE_")}
        environment |= {"CLEARANCE_ADMIN_KEY": ADMIN_KEY, "XDG_DATA_HOME": str(self.folder)}
        command = [sys.executable, "-m", "clearance", "serve", "--store", self.shaky_url, "--port", str(port)]
        with (self.folder / f"server-{port}.log").open("ab") as log:
            return subprocess.Popen(command, env=environment, stdout=log, stderr=log, cwd=self.folder)

    def _make_key(self) -> str:
        base, headers = f"http://127.0.0.1:{self.ports[0]}", {"X-Admin-API-Key": ADMIN_KEY}
        permissions = ["reservations:create", "reservations:commit", "reservations:release", "reservations:extend"]
        body = {"tenant_id": "hot", "name": "chaos", "permissions": [*permissions, "balances:read"]}
        deadline = time.monotonic() + 60
        while True:
            try:
                httpx.post(f"{base}/v1/admin/tenants", json={"tenant_id": "hot", "name": "hot"}, headers=headers)
                made = httpx.post(f"{base}/v1/admin/api-keys", json=body, headers=headers)
                return str(made.json()["key_secret"])
            except (httpx.HTTPError, KeyError, ValueError):
                assert time.monotonic() < deadline, "no server came up"
                time.sleep(0.2)
                self.supervise()

    def _client(self, url: str) -> Worker:
        return Worker(url, next(self._numbers), self.key, self)

    def supervise(self) -> None:
        """A server that finds no ledger when it starts says so and ends; whoever runs servers starts them again."""
        for number, server in enumerate(self.servers):
            if server.poll() is not None:
                self.faults["server did not start"] += 1
                self.servers[number] = self._serve(self.ports[number])

    # -- what befalls them ------------------------------------------------------------------------

    def strike(self) -> None:
        self.supervise()
        kind = self.rng.choices(("worker", "server", "sessions", "backend"), (5, 2, 3, 2))[0]
        if kind == "backend" and time.monotonic() < self._backend_killed_at + BACKEND_KILL_GAP_SECONDS:
            kind = "sessions"
        with contextlib.suppress(psycopg.OperationalError):
            getattr(self, f"_kill_{kind}")()
            self.faults[f"kill {kind}"] += 1

    def _kill_worker(self) -> None:
        workers = self.rng.choice((self.direct, self.direct, self.remote))
        victim = self.rng.randrange(len(workers))
        workers[victim].kill()
        url = self.shaky_url if workers is self.direct else f"http://127.0.0.1:{self.ports[victim]}"
        workers[victim] = self._client(url)

    def _kill_server(self) -> None:
        victim = self.rng.randrange(len(self.servers))
        self.servers[victim].kill()
        self.servers[victim].wait()
        self.servers[victim] = self._serve(self.ports[victim])

    def _kill_sessions(self) -> None:
        self.database.end_sessions(self.url)

    def _kill_backend(self) -> None:
        """kill -9: PostgreSQL throws its memory away and recovers from its log."""
        self._backend_killed_at = time.monotonic()
        self.database.kill_a_backend()

    def rest(self) -> None:
        """Everybody ends; what they were told is all in."""
        for worker in (*self.direct, *self.remote):
            worker.kill()
        for server in self.servers:
            server.kill()
            server.wait()
        end(self.proxy)
        self.database.await_ready()

    def close(self) -> None:
        self.rest()
        self.database.stop()


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])

"""Everything at once: random faults, and a real server that is killed while it is spent through."""

from __future__ import annotations

import gc
import os
import random
import socket
import sys
import threading
import time
from collections import Counter
from contextlib import closing, suppress
from pathlib import Path

import httpx
import pytest

from clearance.authority.budgets import BudgetSpec
from clearance.connecting import open_ledger
from clearance.errors import AuthorityUnavailable, BadAnswer, LimitExceeded
from clearance.model.amount import usd
from clearance.remote import Administration, RemoteAuthority
from clearance.store.interface import EventQuery
from remote.conftest import ACME, ADMIN, PERMISSIONS, TOOL, Open, end, eventually, launch, records, together
from remote.faulty import FaultyServer
from remote.proxy import FaultyProxy


def test_an_authority_that_nobody_holds_ends_its_thread(server: FaultyServer, tmp_path: Path) -> None:
    client = RemoteAuthority(server.url, api_key="k", journal=tmp_path)
    client._left()
    assert client._background is not None
    thread = client._background._thread
    assert thread is not None
    time.sleep(0.3)
    del client
    gc.collect()
    thread.join(5)
    assert not thread.is_alive()


@pytest.mark.parametrize("seed", range(3))
def test_whatever_fails_everything_spent_is_charged_once(
    server: FaultyServer, connect: Open, tmp_path: Path, seed: int
) -> None:
    rng = random.Random(seed)
    kinds = [*[""] * 12, "refuse", "lost", "half", "503", "429:0"]
    for verb, most in (("reserve", kinds), ("commit", [*kinds, "garbage", "empty", "other2xx"]), ("event", kinds)):
        server.fail(verb, *rng.choices(most, k=400))
    client = connect(journal=tmp_path, background=True)
    spent: list[int] = []

    def work(number: int) -> None:
        own = random.Random(seed * 100 + number)
        done, until = 0, time.monotonic() + 15
        while done < 12 and time.monotonic() < until:
            try:
                with client.guard(TOOL, "0.05", subject=ACME) as permit:
                    cost = own.randint(1, usd("0.05").amount)
                    spent.append(cost)
                    done += 1
                    permit.settle(cost)
                    if own.random() < 0.1:
                        server.expire(permit.id)
            except (AuthorityUnavailable, LimitExceeded):
                time.sleep(0.05)

    assert together(8, work) == []
    server.faults.clear()
    assert client.flush(20)
    eventually(lambda: not server.open, 20)
    assert server.charged == sum(spent)
    assert len(spent) > 60
    assert records(tmp_path) == []


ACTIONS = int(os.environ.get("CLEARANCE_SOAK_ACTIONS", "300"))
"""Guarded actions of the soak below; the long form has 100,000. It ends early after CLEARANCE_SOAK_SECONDS."""
SECONDS = float(os.environ.get("CLEARANCE_SOAK_SECONDS", "600"))
SHORT = ACTIONS <= 1_000
FAULTS = 0.1 if SHORT else 0.03
KILL_EVERY_S, MOST_KILLS = (1.0, 3) if SHORT else (15.0, 10**6)
WORKERS = 8
LEASE_MS = 3_000


def port_of_no_client() -> int:
    """Outside the ports that the system gives to clients. Among those, a client that knocks while the server is down
    can be given the server's own port, connect to itself, and keep the server from coming back."""
    while True:
        port = random.randint(15_000, 32_000)
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


class KilledServer:
    """The real server as a process, on one ledger and one port, through all its deaths."""

    def __init__(self, folder: Path) -> None:
        self.ledger, self.port = folder / "ledger.db", port_of_no_client()
        self.kills = 0
        self.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        self.process = launch("serving.py", self.ledger, self.port, ADMIN)
        eventually(self._answers, 120)

    def _answers(self) -> bool:
        assert self.process.poll() is None, "the server did not start"
        try:
            return httpx.get(self.url + "/healthz", timeout=5).status_code == 200
        except httpx.HTTPError:
            return False

    def kill(self) -> None:
        end(self.process)
        self.kills += 1

    def api_key(self) -> str:
        """A tenant with more money than it can spend, and its key."""
        with Administration(self.url, admin_key=ADMIN, timeout_ms=9_000) as admin:
            admin.create_tenant("acme", {"name": "Acme"})
            secret: str = admin.create_key("acme", {"name": "k", "permissions": PERMISSIONS})["key_secret"]
        with closing(RemoteAuthority(self.url, api_key=secret, admin_key=ADMIN, timeout_ms=9_000)) as client:
            client.set_budget(BudgetSpec(scope="tenant:acme", allocated=usd(1_000_000)))
        return secret

    def settled(self) -> list[int]:
        """What each settlement in the log has charged, read from the file when nobody serves it any more."""
        with closing(open_ledger(self.ledger)) as authority:
            found, after = [], 0
            while rows := authority.events(EventQuery(after=after, types=SETTLED), limit=1000):
                found += [int(row.data["charged"]) for row in rows]
                after = rows[-1].seq
            authority.sweep()
            assert authority.balance("tenant:acme").reserved == 0
            assert authority.balance("tenant:acme").spent == sum(found)
        return found


SETTLED = ("reservation.committed", "spend.recorded")


class Spenders:
    """Threads that spend through one client until enough actions have happened; `spent` is what really was."""

    def __init__(self, client: RemoteAuthority) -> None:
        self.client = client
        self.spent: list[int] = []
        self.free = 0
        self.refused = 0
        self.over = threading.Event()
        self.ends_at = 0.0

    def left(self) -> bool:
        enough = len(self.spent) + self.free >= ACTIONS or time.monotonic() >= self.ends_at
        return not enough and not self.over.is_set()

    def work(self, number: int) -> None:
        own = random.Random(number)
        try:
            while self.left():
                try:
                    self._act(own)
                except (AuthorityUnavailable, BadAnswer, LimitExceeded):
                    self.refused += 1
                    time.sleep(0.02)
        except BaseException:
            self.over.set()
            raise

    def _act(self, own: random.Random) -> None:
        with suppress(ZeroDivisionError), self.client.guard(TOOL, "0.05", subject=ACME, ttl_ms=LEASE_MS) as permit:
            cost = own.randint(1, usd("0.05").amount)
            how = own.random()
            if how < 0.03:  # it turns out to be needless
                self.free += 1
                permit.release("not needed")
                return
            self.spent.append(cost)
            permit.settle(cost)
            if how < 0.1:
                raise ZeroDivisionError


def test_through_faults_and_kills_every_unit_spent_is_charged_once(tmp_path: Path) -> None:
    server = KilledServer(tmp_path)
    proxy = FaultyProxy(server.port, FAULTS)
    key = server.api_key()
    client = RemoteAuthority(proxy.url, api_key=key, journal=tmp_path / "journal", timeout_ms=1_000)
    spenders = Spenders(client)

    def kill_again_and_again() -> None:
        while server.kills < MOST_KILLS and not spenders.over.wait(KILL_EVERY_S):
            server.kill()
            server.start()

    began = time.monotonic()
    spenders.ends_at = began + SECONDS
    killer = threading.Thread(target=kill_again_and_again)
    killer.start()
    try:
        errors = together(WORKERS, spenders.work)
        spenders.over.set()
        killer.join()
        assert errors == []
        proxy.rate = 0.0
        assert client.flush(60), client._replayer.replay()
        assert records(tmp_path / "journal") == []
        with closing(RemoteAuthority(server.url, api_key=key, timeout_ms=9_000)) as patient:
            eventually(lambda: patient.balance("tenant:acme").reserved == 0, 30)
    finally:
        spenders.over.set()
        killer.join()
        client.close()
        proxy.stop()
        end(server.process)
    charged = server.settled()
    sys.stdout.write(
        f"\n{len(spenders.spent)} actions charged, {spenders.free} given back, {spenders.refused} not begun, "
        f"{server.kills} kills, {dict(proxy.did)}, {time.monotonic() - began:.0f} s; "
        f"spent {sum(spenders.spent)}, charged {sum(charged)}\n"
    )
    assert Counter(charged) == Counter(spenders.spent)
    assert len(charged) + spenders.free >= min(ACTIONS, 300)
    assert server.kills >= 1
    assert {"refuse", "lost", "half", "garbage"} <= set(proxy.did)

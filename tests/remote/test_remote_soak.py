"""Everything at once: random faults, and a real server that is killed while it is spent through."""

from __future__ import annotations

import gc
import random
import subprocess
import threading
import time
from pathlib import Path

import httpx
import pytest

from clearance.authority.budgets import BudgetSpec
from clearance.errors import AuthorityUnavailable, LimitExceeded
from clearance.model.amount import usd
from clearance.remote import RemoteAuthority
from remote.conftest import ACME, ADMIN, PERMISSIONS, TOOL, Open, end, eventually, free_port, launch, records, together
from remote.faulty import FaultyServer


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


def serving(ledger: Path, port: int) -> subprocess.Popen[str]:
    process = launch("serving.py", ledger, port, ADMIN)

    def answers() -> bool:
        assert process.poll() is None, "the server did not start"
        try:
            return httpx.get(f"http://127.0.0.1:{port}/healthz", timeout=1).status_code == 200
        except httpx.HTTPError:
            return False

    eventually(answers, 30)
    return process


def tenant_key(url: str) -> str:
    with httpx.Client(base_url=url, headers={"X-Admin-API-Key": ADMIN}) as client:
        client.post("/v1/admin/tenants", json={"tenant_id": "acme", "name": "Acme"}).raise_for_status()
        made = client.post("/v1/admin/api-keys", json={"tenant_id": "acme", "name": "k", "permissions": PERMISSIONS})
        secret: str = made.raise_for_status().json()["key_secret"]
        return secret


def test_a_server_that_is_killed_charges_everything_once(tmp_path: Path) -> None:
    port = free_port()
    url, ledger = f"http://127.0.0.1:{port}", tmp_path / "ledger.db"
    server = serving(ledger, port)
    key = tenant_key(url)
    client = RemoteAuthority(url, api_key=key, journal=tmp_path / "journal", timeout_ms=1_000)
    client.set_budget(BudgetSpec(scope="tenant:acme", allocated=usd(1000)))
    spent: list[int] = []
    over = threading.Event()

    def work(number: int) -> None:
        own = random.Random(number)
        while not over.is_set():
            try:
                with client.guard(TOOL, "0.05", subject=ACME, ttl_ms=3_000, grace_period_ms=0) as permit:
                    cost = own.randint(1, usd("0.05").amount)
                    spent.append(cost)
                    permit.settle(cost)
            except (AuthorityUnavailable, LimitExceeded):
                time.sleep(0.05)

    def kill_twice() -> None:
        nonlocal server
        try:
            for _ in range(2):
                time.sleep(0.7)
                end(server)
                server = serving(ledger, port)
            time.sleep(0.5)
        finally:
            over.set()

    try:
        killer = threading.Thread(target=kill_twice)
        killer.start()
        assert together(4, work) == []
        killer.join()
        assert client.flush(25), client._replayer.replay()
        patient = RemoteAuthority(url, api_key=key, timeout_ms=9_000)
        eventually(lambda: patient.balance("tenant:acme").reserved == 0, 15)
        assert patient.balance("tenant:acme").spent == sum(spent)
        patient.close()
        assert len(spent) > 50
        assert records(tmp_path / "journal") == []
    finally:
        client.close()
        end(server)

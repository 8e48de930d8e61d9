"""What a process does on a ledger. It says "ready", waits for a word, works, and tells what it did."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from contextlib import closing
from multiprocessing.connection import Connection
from queue import SimpleQueue
from typing import Any

from tests.authority.kit import BOT, CALL, TENANT
from tests.postgres.kit import open_authority

from clearance import connect
from clearance.authority.embedded import EmbeddedAuthority
from clearance.errors import AuthorityUnavailable, BudgetExceeded, Killed
from clearance.model.amount import tokens
from clearance.store.postgres import statements


def spend(authority: EmbeddedAuthority, number: int, line: Connection) -> dict[str, object]:
    """Until nothing is left. One thread; each action that happened counts."""
    rng, spent, actions, waits = random.Random(number), 0, 0, []
    most = 5
    while True:
        began = time.monotonic()
        try:
            held = authority.reserve(BOT, CALL, tokens(rng.randint(1, most)))
        except BudgetExceeded:
            most = 1
            balance = authority.balance(TENANT, "TOKENS")
            if balance.remaining == 0 and balance.reserved == 0:
                return {"spent": spent, "actions": actions, "slowest_ms": max(waits, default=0) * 1000}
            time.sleep(0.02)
            continue
        actual = rng.randint(1, held.estimate)
        authority.commit(held.reservation_id or "", tokens(actual))
        waits.append(time.monotonic() - began)
        spent, actions = spent + actual, actions + 1


def settle_for_ever(authority: EmbeddedAuthority, number: int, line: Connection) -> dict[str, object]:
    """Tells each settlement after it was acknowledged, until killed. An outage is asked about with the same key."""
    rng = random.Random(number)
    lock = threading.Lock()

    def work(thread: int) -> None:
        for n in range(10**9):
            name = f"{number}-{thread}-{n}"
            held = _insist(lambda name=name: authority.reserve(BOT, CALL, tokens(5), idempotency_key=f"r{name}"))
            actual = rng.randint(1, 5)
            _insist(
                lambda held=held, actual=actual, name=name: authority.commit(
                    held.reservation_id or "", tokens(actual), idempotency_key=f"c{name}"
                )
            )
            with lock:
                line.send((held.reservation_id, actual))

    for thread in range(3):
        threading.Thread(target=work, args=(thread,), daemon=True).start()
    time.sleep(120)
    return {}


def _insist(call: Callable[[], Any]) -> Any:
    while True:
        try:
            return call()
        except AuthorityUnavailable:
            time.sleep(0.05)


def reserve_until_killed(authority: EmbeddedAuthority, number: int, line: Connection) -> dict[str, object]:
    """Every hold that was granted, and when the process learned of the kill."""
    held = []
    while True:
        try:
            held.append(authority.reserve(BOT, CALL, tokens(1)).reservation_id)
        except Killed:
            return {"held": held, "learned": time.time()}


def run_until_stopped(url: str, line: Connection) -> float:
    """When a run that does nothing was told of a stop."""
    stopped: SimpleQueue[float] = SimpleQueue()
    with closing(connect(url)) as authority, authority.run(BOT, on_stop=lambda stop: stopped.put(time.time())):
        line.send("running")
        return stopped.get()


TASKS = {"spend": spend, "settle": settle_for_ever, "reserve": reserve_until_killed}


def main(url: str, task: str, number: int, line: Connection) -> None:
    if task.startswith("run"):
        if task == "run unnotified":
            statements.CHANNEL = "nobody_speaks_here"
        line.send("ready")
        line.recv()
        line.send(run_until_stopped(url, line))
        return
    authority = open_authority(url, durability="power" if task == "settle" else "settlements")
    authority.balance(TENANT, "TOKENS")
    line.send("ready")
    line.recv()
    told = TASKS[task](authority, number, line)
    authority.close()
    line.send(told)

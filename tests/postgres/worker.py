"""A process on a ledger: `worker.py URL TASK NUMBER`.

Says "ready", waits for a line, works, and tells what it did as JSON.
"""

from __future__ import annotations

import json
import random
import sys
import threading
import time

from tests.authority.kit import BOT, CALL, TENANT
from tests.postgres.kit import open_authority

from clearance.authority.embedded import EmbeddedAuthority
from clearance.errors import AuthorityUnavailable, BudgetExceeded, Killed
from clearance.model.amount import tokens


def say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def spend(authority: EmbeddedAuthority, number: int) -> dict[str, object]:
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


def settle_for_ever(authority: EmbeddedAuthority, number: int) -> dict[str, object]:
    """Prints each settlement after it was acknowledged, until killed. An outage is asked about with the same key."""
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
                say(json.dumps([held.reservation_id, actual]))

    for thread in range(3):
        threading.Thread(target=work, args=(thread,), daemon=True).start()
    time.sleep(120)
    return {}


def _insist(call):  # type: ignore[no-untyped-def]
    while True:
        try:
            return call()
        except AuthorityUnavailable:
            time.sleep(0.05)


def reserve_until_killed(authority: EmbeddedAuthority, number: int) -> dict[str, object]:
    """Every hold that was granted, and when the process learned of the kill."""
    held = []
    while True:
        try:
            held.append(authority.reserve(BOT, CALL, tokens(1)).reservation_id)
        except Killed:
            return {"held": held, "learned": time.time()}


TASKS = {"spend": spend, "settle": settle_for_ever, "reserve": reserve_until_killed}


def main(url: str, task: str, number: int) -> None:
    authority = open_authority(url, durability="power" if task == "settle" else "settlements")
    authority.balance(TENANT, "TOKENS")
    say("ready")
    sys.stdin.readline()
    told = TASKS[task](authority, number)
    authority.close()
    say(json.dumps(told))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))

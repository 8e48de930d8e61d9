"""A process of eight threads that spends a budget until nothing of it is left: `spender.py LEDGER NUMBER`.

Says "ready", waits for a line, and at the end tells as JSON what it spent and in how many actions.
"""

from __future__ import annotations

import json
import random
import sys
import threading
import time

from clearance.authority.embedded import EmbeddedAuthority
from clearance.errors import BudgetExceeded
from clearance.model.action import Action
from clearance.model.amount import Amount, Unit
from clearance.model.subject import Subject
from clearance.store.sqlite import SqliteStore

THREADS = 8
SUBJECT = Subject(tenant="acme", agent="bot")
ACTION = Action(kind="llm.completion", name="model")


def microcents(amount: int) -> Amount:
    return Amount(unit=Unit.USD_MICROCENTS, amount=amount)


def tell(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def spend(authority: EmbeddedAuthority, rng: random.Random, done: list[int]) -> None:
    """Each entry of `done` is one action that has really happened and what it cost."""
    most = 5
    while True:
        estimate = rng.randint(1, most)
        try:
            held = authority.reserve(SUBJECT, ACTION, microcents(estimate))
        except BudgetExceeded:
            most = 1
            balance = authority.balance("tenant:acme")
            if balance.remaining <= 0 and balance.reserved == 0:
                return
            time.sleep(0.002)
            continue
        actual = rng.randint(1, estimate)
        authority.commit(held.reservation_id or "", microcents(actual))
        done.append(actual)


def main(path: str, number: int) -> None:
    authority = EmbeddedAuthority(SqliteStore(path))
    authority.balance("tenant:acme")
    spent: list[list[int]] = [[] for _ in range(THREADS)]
    threads = [
        threading.Thread(target=spend, args=(authority, random.Random(number * THREADS + n), spent[n]))
        for n in range(THREADS)
    ]
    tell("ready")
    sys.stdin.readline()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    authority.close()
    tell(json.dumps({"spent": sum(map(sum, spent)), "actions": sum(map(len, spent))}))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))

"""A process that works on a ledger until it is killed: `writer.py LEDGER SEED`.

Before each operation it writes a line of what it is about to do, after the answer one of what it was told. A line is
one `write`, so a killed process leaves whole lines, and never says that something was answered that was not.
"""

from __future__ import annotations

import itertools
import os
import random
import sys
import threading

from clearance.authority.embedded import EmbeddedAuthority
from clearance.errors import Denied
from clearance.model.action import Action
from clearance.model.amount import Amount, Unit
from clearance.model.subject import Subject
from clearance.store.sqlite import SqliteStore

SUBJECT = Subject(tenant="acme", agent="bot")
ACTION = Action(kind="tool.call", name="search")


def microcents(amount: int) -> Amount:
    return Amount(unit=Unit.USD_MICROCENTS, amount=amount)


def tell(*words: object) -> None:
    os.write(1, (" ".join(map(str, words)) + "\n").encode())


def work(authority: EmbeddedAuthority, rng: random.Random, name: str) -> None:
    run: str | None = None
    for number in itertools.count():
        key, estimate = f"{name}-{number}", rng.randint(1, 50)
        tell("try", key, estimate)
        held = authority.reserve(SUBJECT, ACTION, microcents(estimate), run_id=run, idempotency_key=key, ttl_ms=5_000)
        tell("reserved", key, held.reservation_id, estimate)
        settle(authority, rng, held.reservation_id or "", estimate)
        if number % 10 == 3:
            spent = authority.event(SUBJECT, ACTION, microcents(estimate), run_id=run)
            tell("event", spent.event_id, spent.charged)
        if number % 10 == 5 and run is None:
            run = authority.start_run(SUBJECT, microcents(10_000), ttl_ms=5_000).reservation_id
            tell("run", run)
        if number % 10 == 9 and run is not None:
            tell("ended", run, authority.end_run(run).charged)
            run = None


def settle(authority: EmbeddedAuthority, rng: random.Random, held: str, estimate: int) -> None:
    fate = rng.random()
    if fate < 0.7:
        actual = rng.choice((estimate, rng.randint(0, estimate), estimate + rng.randint(1, 20)))
        tell("committed", held, authority.commit(held, microcents(actual)).charged)
    elif fate < 0.85:
        authority.release(held)
        tell("released", held, 0)


def main(path: str, seed: int) -> None:
    authority = EmbeddedAuthority(SqliteStore(path))
    tell("ready")

    def thread(number: int) -> None:
        try:
            work(authority, random.Random(seed * 10 + number), f"{seed}-{number}")
        except Denied as denied:
            tell("denied", denied.code)

    threads = [threading.Thread(target=thread, args=(number,)) for number in range(3)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))

"""A process that forks again and again while its threads are in the middle of operations: `forker.py LEDGER SEED`.

Each child works on the authority that it inherited, from two threads of its own. Says at the end how much everybody
has spent, and "hung" or "failed" for children that did not get through.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import threading
import time
import warnings

from clearance.authority.embedded import EmbeddedAuthority
from clearance.model.action import Action
from clearance.model.amount import Amount, Unit
from clearance.model.subject import Subject
from clearance.store.sqlite import SqliteStore

SUBJECT = Subject(tenant="acme", agent="bot")
ACTION = Action(kind="llm.completion", name="model")
CHILDREN = 25
CALLS = 5
PATIENCE_SECONDS = 30


def microcents(amount: int) -> Amount:
    return Amount(unit=Unit.USD_MICROCENTS, amount=amount)


def act(authority: EmbeddedAuthority) -> None:
    """One action of one microcent, and a read."""
    held = authority.reserve(SUBJECT, ACTION, microcents(3))
    authority.commit(held.reservation_id or "", microcents(1))
    authority.balance("tenant:acme")


def child(authority: EmbeddedAuthority) -> int:
    """The exit code: 0 if every thread has done all its calls."""
    done: list[int] = []
    threads = [
        threading.Thread(target=lambda: [act(authority) for _ in range(CALLS)] and done.append(1)) for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    authority.close()
    return 0 if len(done) == len(threads) else 1


def wait_for(pid: int) -> str:
    stop = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < stop:
        found, status = os.waitpid(pid, os.WNOHANG)
        if found:
            return "done" if status == 0 else "failed"
        time.sleep(0.005)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return "hung"


def main(path: str, seed: int) -> None:
    rng = random.Random(seed)
    authority = EmbeddedAuthority(SqliteStore(path))
    acted = [0] * 4
    stopping = threading.Event()

    def work(number: int) -> None:
        while not stopping.is_set():
            act(authority)
            acted[number] += 1

    threads = [threading.Thread(target=work, args=(number,)) for number in range(len(acted))]
    for thread in threads:
        thread.start()
    pids = []
    for _ in range(CHILDREN):
        time.sleep(rng.random() * 0.05)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            pid = os.fork()
        if pid == 0:
            code = 2
            try:
                code = child(authority)
            finally:
                os._exit(code)
        pids.append(pid)
    ends = [wait_for(pid) for pid in pids]
    stopping.set()
    for thread in threads:
        thread.join()
    authority.close()
    sys.stdout.write(" ".join([str(sum(acted)), *ends]))
    sys.stdout.flush()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))

"""A process that settles and dies: `worker.py URL JOURNAL KEY DEED`. It says what it did as a line of JSON."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from clearance.model.action import Action
from clearance.model.amount import usd
from clearance.model.subject import Subject
from clearance.remote import RemoteAuthority
from clearance.remote.journal import Journal

SUBJECT = Subject(tenant="acme", agent="bot")
ACTION = Action(kind="tool.call", name="search", tags=("paid",))


def die_after(name: str) -> None:
    """Be killed right after the journal has done this."""
    done: Callable[..., Any] = getattr(Journal, name)

    def and_die(self: Journal, *args: Any) -> Any:
        answer = done(self, *args)
        os.kill(os.getpid(), signal.SIGKILL)
        return answer

    setattr(Journal, name, and_die)


def spend(authority: RemoteAuthority) -> None:
    held = authority.reserve(SUBJECT, ACTION, usd("1"), metadata={"why": "test"})
    say({"reservation_id": held.reservation_id})
    authority.commit(held.reservation_id or "", usd("0.25"), idempotency_key="settle-1", metadata={"n": 1})


def say(facts: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(facts) + "\n")
    sys.stdout.flush()


def main(url: str, journal: str, key: str, deed: str) -> None:
    if deed.startswith("die-after-"):
        die_after(deed.removeprefix("die-after-").partition(":")[0])
        deed = deed.partition(":")[2]
    authority = RemoteAuthority(url, api_key=key, tenant="acme", journal=Path(journal), background=deed == "live")
    if deed == "spend":
        spend(authority)
    elif deed == "run":
        with authority.run(SUBJECT, usd("5"), ttl_ms=1500), authority.guard(ACTION, "1") as permit:
            permit.settle_now("0.75")
            say({"spent": True})
            sys.stdin.readline()
    elif deed == "live":
        sys.stdin.readline()
    else:
        done = authority.flush_journal(float(deed))
        say({"settled": done.settled, "waiting": done.waiting, "quarantined": done.quarantined})
    authority.close()


if __name__ == "__main__":
    main(*sys.argv[1:])

"""A process that dies in the middle of a run: `runner.py LEDGER`. Says the run's id and waits to be killed."""

from __future__ import annotations

import sys

from clearance.authority.embedded import EmbeddedAuthority
from clearance.model.action import Action
from clearance.model.amount import Amount, Unit
from clearance.model.subject import Subject
from clearance.store.sqlite import SqliteStore

SUBJECT = Subject(tenant="acme", agent="bot")
ACTION = Action(kind="llm.completion", name="model")


def microcents(amount: int) -> Amount:
    return Amount(unit=Unit.USD_MICROCENTS, amount=amount)


def main(path: str) -> None:
    authority = EmbeddedAuthority(SqliteStore(path))
    run = authority.start_run(SUBJECT, microcents(500), ttl_ms=60_000).reservation_id
    inner = authority.start_run(SUBJECT, microcents(100), ttl_ms=60_000, run_id=run).reservation_id
    for amount, within in ((10, run), (20, run), (30, inner)):
        held = authority.reserve(SUBJECT, ACTION, microcents(40), run_id=within)
        authority.commit(held.reservation_id or "", microcents(amount))
    authority.reserve(SUBJECT, ACTION, microcents(50), run_id=inner)
    sys.stdout.write(f"{run}\n")
    sys.stdout.flush()
    sys.stdin.readline()


if __name__ == "__main__":
    main(sys.argv[1])

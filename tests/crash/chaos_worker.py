"""A process that works until it is killed: `main(URL, NUMBER, KEY, line)`.

A URL of PostgreSQL decides here, with a clock that steps; one of http asks a server. Whatever fails is asked again with
the same key until there is an answer. One line for each answer that it was given: `word id figure`.
"""

from __future__ import annotations

import itertools
import os
import random
import tempfile
import threading
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, TypeVar

from clearance.authority.clock import SystemClock
from clearance.authority.embedded import EmbeddedAuthority
from clearance.errors import AuthorityUnavailable, ClearanceError, Denied, LimitExceeded
from clearance.model.action import Action
from clearance.model.amount import Amount, Unit
from clearance.model.subject import Subject
from clearance.store.postgres import PostgresStore, wire

ACTION = Action(kind="tool.call", name="search")
THREADS = 3
TTL_MS = 20_000
R = TypeVar("R")


class SteppingClock(SystemClock):
    """Goes back and forth by up to some seconds, as clocks do that are set."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._offset_ms = 0
        self._step_at = 0.0

    def now_ms(self) -> int:
        now = time.monotonic()
        if now >= self._step_at:
            self._step_at = now + self._rng.uniform(0.5, 3)
            self._offset_ms = self._rng.choice((0, 0, 50, -50, 2_000, -2_000, 10_000, -10_000))
        return super().now_ms() + self._offset_ms


OUT = [1]
"""Where it says what it was told: a line is one write, so a killed process leaves whole lines."""


def tell(*words: object) -> None:
    os.write(OUT[0], (" ".join(map(str, words)) + "\n").encode())


def insist(call: Callable[[], R]) -> R:
    while True:
        try:
            return call()
        except (AuthorityUnavailable, LimitExceeded):
            time.sleep(0.05)


def work(authority: Any, subject: Subject, rng: random.Random, name: str) -> None:
    for number in itertools.count():
        try:
            one(authority, subject, rng, f"{name}-{number}")
        except Denied as denied:
            tell("denied", denied.code, 0)
            time.sleep(0.01)
        except ClearanceError as error:
            # Out of time by a clock that stepped, or finished by another's: an answer, and nothing to remember.
            tell("refused", type(error).__name__, 0)


def one(authority: Any, subject: Subject, rng: random.Random, key: str) -> None:
    estimate = rng.randint(1, 50)
    held = insist(
        lambda: authority.reserve(subject, ACTION, credits_(estimate), ttl_ms=TTL_MS, idempotency_key=key)
    ).reservation_id
    tell("held", held, estimate)
    fate = rng.random()
    if fate < 0.75:
        actual = rng.choice((estimate, rng.randint(0, estimate), estimate + rng.randint(1, 20)))
        done = insist(lambda: authority.commit(held, credits_(actual), idempotency_key=key))
        if done.status == "APPLIED":
            # The hold had expired meanwhile, and the client of the server has recorded the spend as an event.
            tell("late", held, done.charged)
            tell("event", done.event_id, done.charged)
        else:
            tell("committed", held, done.charged)
    elif fate < 0.95:
        insist(lambda: authority.release(held, idempotency_key=key))
        tell("released", held, 0)
    if rng.random() < 0.1:
        spent = insist(lambda: authority.event(subject, ACTION, credits_(estimate), idempotency_key=key))
        tell("event", spent.event_id, spent.charged)


def credits_(amount: int) -> Amount:
    return Amount(unit=Unit.CREDITS, amount=amount)


def opened(url: str, number: int, key: str) -> Any:
    if url.startswith("http"):
        from clearance.remote import RemoteAuthority

        return RemoteAuthority(url, api_key=key, journal=Path(tempfile.mkdtemp(prefix="clearance-chaos-")))
    # Shorter than in earnest, so that a line that hangs is given up while somebody watches.
    wire.ANSWER_SECONDS = 4.0
    clock = SteppingClock(random.Random(number))
    return EmbeddedAuthority(PostgresStore(url), durability="power", clock=clock)


def main(url: str, number: int, key: str, line: Connection) -> None:
    OUT[0] = line.fileno()
    authority = insist(lambda: opened(url, number, key))
    tell("ready", number, 0)
    subjects = [Subject(tenant="hot", agent=f"a{number % 4}"), Subject(tenant="hot"), Subject(tenant="hot")]
    if not url.startswith("http"):
        subjects[2] = Subject(tenant=f"t{number % 3}", agent="bot")
    for n in range(THREADS):
        rng = random.Random(number * THREADS + n)
        threading.Thread(target=work, args=(authority, subjects[n], rng, f"{number}-{n}"), daemon=True).start()
    time.sleep(10**6)

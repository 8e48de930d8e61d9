"""Writers are killed with SIGKILL at random moments: what was answered is there, the rest is one thing or the other."""

from __future__ import annotations

import random
import signal
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.crash.processes import SCOPE, SECONDS, SEED, launch, microcents, new_ledger, opened
from tests.properties.replay import Replay, audit

from clearance.authority.embedded import EmbeddedAuthority
from clearance.model.action import Action
from clearance.model.subject import Subject
from clearance.store.interface import EventQuery, ReservationQuery

pytestmark = pytest.mark.timeout(SECONDS * 3 + 240)

WRITERS = 3
ALLOCATED = 10**15
LONG_AFTER_MS = 3_600_000
ANSWERS = ("reserved", "committed", "released", "event", "run", "ended")


class Writer:
    """A running writer and every whole line that it has said."""

    def __init__(self, ledger: Path, seed: int) -> None:
        self.process: subprocess.Popen[str] = launch("writer.py", ledger, seed)
        self.said: list[list[str]] = []
        self._reading = threading.Thread(target=self._read)
        self._reading.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.endswith("\n"):
                self.said.append(line.split())
        self.process.stdout.close()

    @property
    def is_working(self) -> bool:
        return len(self.said) > 1

    def kill(self) -> list[list[str]]:
        self.process.send_signal(signal.SIGKILL)
        self._reading.join()
        assert self.process.wait() == -signal.SIGKILL, "a writer ended by itself"
        assert self.process.stdin is not None
        self.process.stdin.close()
        return self.said


def killed(ledger: Path, seconds: float, seed: int) -> Iterator[list[list[str]]]:
    """What each killed writer has said, for as long as the loop goes on."""
    rng, seeds = random.Random(seed), iter(range(seed, 10**9))
    writers = [Writer(ledger, next(seeds)) for _ in range(WRITERS)]
    stop = time.monotonic() + seconds
    try:
        while time.monotonic() < stop:
            victim = writers.pop(0)
            while not victim.is_working:
                assert victim.process.poll() is None, "a writer could not open the ledger"
                time.sleep(0.005)
            time.sleep(rng.random() * 0.2)
            yield victim.kill()
            writers.append(Writer(ledger, next(seeds)))
    finally:
        for writer in writers:
            writer.process.kill()
            writer.kill()


def test_everything_acknowledged_survives_kill_nine(tmp_path: Path) -> None:
    ledger = tmp_path / "ledger.db"
    new_ledger(ledger, ALLOCATED)
    answered: list[list[str]] = []
    unknown: list[tuple[str, int]] = []
    kills = 0
    for said in killed(ledger, SECONDS, SEED):
        kills += 1
        kept = {words[1] for words in said if words[0] == "reserved"}
        unknown += [(words[1], int(words[2])) for words in said if words[0] == "try" and words[1] not in kept]
        answered += [words for words in said if words[0] in ANSWERS]
        assert not [words for words in said if words[0] == "denied"]
    assert kills >= 5
    assert len(answered) > 100

    authority = opened(ledger)
    assert authority.check() == []
    assert audit(authority) == []
    require_all(authority, answered)
    retry_the_unknown(authority, unknown)
    authority.close()
    the_pending_expire(ledger)


def require_all(authority: EmbeddedAuthority, answered: list[list[str]]) -> None:
    """Each answer is in the log with its figure; the log and the tables were compared before."""
    facts: dict[tuple[str, str], int] = {}
    seq = 0
    while page := authority.events(EventQuery(after=seq), limit=1000):
        seq = page[-1].seq
        for event in page:
            name = event.data.get("event_id") if event.type == "spend.recorded" else event.reservation_id
            if event.type in LOGGED and name:
                word, figure = LOGGED[event.type]
                facts[word, name] = event.data[figure] if figure else 0
    for words in answered:
        word, name = words[0], words[2] if words[0] == "reserved" else words[1]
        figure = int(words[-1]) if LOGGED_WORDS[word] else 0
        assert facts.get((word, name)) == figure, f"answered and lost: {words}"


LOGGED = {
    "reservation.created": ("reserved", "estimate"),
    "reservation.committed": ("committed", "charged"),
    "reservation.released": ("released", None),
    "run.started": ("run", None),
    "run.ended": ("ended", "charged"),
    "spend.recorded": ("event", "charged"),
}
LOGGED_WORDS = dict(LOGGED.values())


def retry_the_unknown(authority: EmbeddedAuthority, unknown: list[tuple[str, int]]) -> None:
    """Nobody heard what became of these. Asked again with the same key, each is held once, never twice."""
    for key, estimate in unknown:
        found = authority.reservations(ReservationQuery(idempotency_key=key)).items
        assert len(found) <= 1
        if found and not found[0].runs:
            again = authority.reserve(
                Subject(tenant="acme", agent="bot"),
                Action(kind="tool.call", name="search"),
                microcents(estimate),
                idempotency_key=key,
                ttl_ms=5_000,
            )
            assert again.reservation_id == found[0].id
    assert audit(authority) == []


def the_pending_expire(ledger: Path) -> None:
    authority = opened(ledger, LONG_AFTER_MS)
    while authority.sweep():
        pass
    replay = Replay()
    assert audit(authority, replay) == []
    assert set(replay.settled.values()) == {1}
    assert set(replay.settled) == set(replay.estimates), "a hold was never settled"
    assert authority.balance(SCOPE).reserved == 0
    kinds = Counter(event.type for event in authority.events(EventQuery(types=("reservation.expired",)), limit=1000))
    assert kinds["reservation.expired"] > 0
    authority.close()

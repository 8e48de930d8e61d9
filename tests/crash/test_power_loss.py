"""Power cuts at random moments, on a disk that drops what was not synced: each durability keeps what it promises."""

from __future__ import annotations

import random
import shutil
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.crash.lossy_disk import LossyDisk
from tests.crash.processes import SCOPE, SECONDS, SEED, microcents, opened
from tests.properties.replay import audit

from clearance.authority.budgets import BudgetSpec
from clearance.authority.embedded import EmbeddedAuthority
from clearance.model.action import Action
from clearance.model.subject import Subject
from clearance.store.interface import EventQuery
from clearance.store.sqlite import SqliteStore

pytestmark = pytest.mark.timeout(SECONDS * 3 + 240)

SUBJECT = Subject(tenant="acme", agent="bot")
ACTION = Action(kind="tool.call", name="search")
THREADS = 4
KINDS = {"held": "reservation.created", "committed": "reservation.committed", "released": "reservation.released"}
KEPT = {"power": set(KINDS), "settlements": {"committed", "released"}, "process": set()}


@pytest.fixture
def disk() -> Iterator[LossyDisk]:
    disk = LossyDisk()
    yield disk
    disk.close()


class Work:
    """Threads that hold and settle; `told` is every answer that they got, in the order in which they got it."""

    def __init__(self, path: Path, durability: str) -> None:
        self.authority = EmbeddedAuthority(SqliteStore(path), durability=durability, background=False)
        self.authority.set_budget(BudgetSpec(scope=SCOPE, allocated=microcents(10**15)))
        self.told: list[tuple[str, str, int]] = []
        self.errors: list[BaseException] = []
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._work, args=(SEED + n,)) for n in range(THREADS)]
        for thread in self._threads:
            thread.start()

    def _work(self, seed: int) -> None:
        rng = random.Random(seed)
        try:
            while not self._over.is_set():
                self._one(rng)
        except BaseException as error:
            self.errors.append(error)

    def _one(self, rng: random.Random) -> None:
        estimate = rng.randint(1, 50)
        held = self.authority.reserve(SUBJECT, ACTION, microcents(estimate), ttl_ms=60_000).reservation_id or ""
        self.told.append(("held", held, estimate))
        fate = rng.random()
        if fate < 0.7:
            charged = self.authority.commit(held, microcents(rng.randint(0, 60))).charged
            self.told.append(("committed", held, charged))
        elif fate < 0.85:
            self.authority.release(held)
            self.told.append(("released", held, 0))

    def end(self) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()
        self.authority.close()
        assert self.errors == []


def found_after_cut(
    disk: LossyDisk, work: Work, home: Path, place: Path, rng: random.Random
) -> tuple[int, Counter[str]]:
    """How many answers had been given before the cut, and how many of each kind are not found after it."""
    before = len(work.told)
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir()
    disk.cut(home, place, rng)
    authority = opened(place / "ledger.db")
    try:
        assert authority.check() == []
        assert audit(authority) == []
        return before, missing(authority, work.told[:before])
    finally:
        authority.close()


def missing(authority: EmbeddedAuthority, told: list[tuple[str, str, int]]) -> Counter[str]:
    logged: Counter[tuple[str, str, int]] = Counter()
    words = {kind: word for word, kind in KINDS.items()}
    seq = 0
    while page := authority.events(EventQuery(after=seq), limit=1000):
        seq = page[-1].seq
        for event in page:
            if event.type in words:
                figure = {"held": "estimate", "committed": "charged"}.get(words[event.type])
                amount = event.data[figure] if figure else 0
                logged[words[event.type], event.reservation_id or "", amount] += 1
    assert max(logged.values(), default=1) == 1
    return Counter(word for word, name, amount in told if not logged[word, name, amount])


def cut_again_and_again(
    disk: LossyDisk, folder: Path, durability: str, seconds: float
) -> tuple[int, int, Counter[str]]:
    """Cuts, answers and losses. A new ledger from time to time: its log is read after every cut."""
    rng, stop = random.Random(SEED), time.monotonic() + seconds
    cuts = answers = 0
    lost: Counter[str] = Counter()
    while time.monotonic() < stop:
        home = folder / f"{durability}-{cuts}"
        home.mkdir()
        work = Work(home / "ledger.db", durability)
        try:
            while len(work.told) < 8_000 and time.monotonic() < stop:
                time.sleep(rng.random() * 0.1)
                lost += found_after_cut(disk, work, home, folder / "found", rng)[1]
                cuts += 1
                work.authority.tidy()
        finally:
            work.end()
        answers += len(work.told)
        shutil.rmtree(home)
    return cuts, answers, lost


@pytest.mark.parametrize("durability", ["power", "settlements"])
def test_what_was_promised_to_survive_a_power_cut_does(
    disk: LossyDisk, tmp_path: Path, durability: str, capsys: pytest.CaptureFixture[str]
) -> None:
    cuts, answers, lost = cut_again_and_again(disk, tmp_path, durability, SECONDS / 2)
    with capsys.disabled():
        sys.stdout.write(f"\n{durability}: {cuts} power cuts, {answers:,} answers, lost {dict(lost)}\n")
    assert not lost.keys() & KEPT[durability]
    assert cuts >= 5
    assert answers > 100


def test_the_disk_does_lose_what_was_not_synced(disk: LossyDisk, tmp_path: Path) -> None:
    """Or the test above would prove nothing. What is left is a true ledger all the same, of a moment before."""
    _, answers, lost = cut_again_and_again(disk, tmp_path, "process", min(SECONDS, 4.0))
    assert answers > 100
    assert lost["committed"] > 10


def test_a_ledger_cut_while_it_is_made_is_made_again(disk: LossyDisk, tmp_path: Path) -> None:
    """Whatever a power cut leaves of a ledger without answers, the next program can start from it."""
    rng = random.Random(SEED)
    home, place = tmp_path / "home", tmp_path / "found"
    home.mkdir()
    EmbeddedAuthority(SqliteStore(home / "ledger.db"), background=False).close()
    for _ in range(20):
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir()
        disk.cut(home, place, rng)
        authority = opened(place / "ledger.db")
        authority.set_budget(BudgetSpec(scope=SCOPE, allocated=microcents(5)))
        assert audit(authority) == []
        authority.close()

"""The log: a follower never misses a line, and lines of one account stand in the order in which they happened."""

from __future__ import annotations

import threading
import time

import psycopg
from tests.authority.kit import BOT, CALL, TENANT, budget
from tests.postgres.kit import open_authority, with_budget

from clearance.model.amount import tokens
from clearance.model.subject import Subject
from clearance.store.interface import Changes, EventQuery, Needs, NewEvent
from clearance.store.postgres import PostgresStore


def _line(tenant: str) -> Changes:
    return Changes(events=[NewEvent("x.y", tenant, None, None, {})])


def test_a_line_with_a_lower_number_that_commits_later_is_not_missed(url: str) -> None:
    authority = with_budget(url, 10)
    budget(authority, "tenant:b", 10)
    start = authority.events(limit=1000)[-1].seq
    slow, quick = PostgresStore(url), PostgresStore(url)

    def follow() -> list[str]:
        return [event.tenant for event in authority.events(EventQuery(after=start), limit=10)]

    with slow.transaction(flush=False) as first:
        first.prefetch([Needs([("acme", (TENANT,), ("TOKENS",))])])
        first.write(_line("acme"), 1)
        with quick.transaction(flush=False) as second:
            second.prefetch([Needs([("b", ("tenant:b",), ("TOKENS",))])])
            second.write(_line("b"), 2)
        assert follow() == [], "the lower number is still under way"
        newest = authority.events(EventQuery(descending=True), limit=1)
        assert [event.tenant for event in newest] == ["b"], "a look at the newest line need not wait"
    assert follow() == ["acme", "b"]
    for store in (slow, quick):
        store.close()
    authority.close()


def test_a_stranger_in_the_database_holds_no_follower_up(own_url: str) -> None:
    authority = with_budget(own_url, 10)
    with psycopg.connect(own_url) as stranger:
        stranger.execute("CREATE TABLE public.strange (n BIGINT)")
        stranger.execute("INSERT INTO public.strange VALUES (1)")
        authority.reserve(BOT, CALL, tokens(1))
        assert authority.events(limit=10)[-1].type == "reservation.created"
    authority.close()


def test_followers_see_every_line_once_while_many_write(url: str) -> None:
    opened = with_budget(url, 10**6)
    for n in range(4):
        budget(opened, f"tenant:t{n}", 10**6)
    writers = [open_authority(url) for _ in range(4)]
    over = threading.Event()

    def write(turn: int) -> None:
        for n in range(60):
            writers[turn].reserve(Subject(tenant=f"t{(n + turn) % 4}"), CALL, tokens(1))

    followed: list[int] = []

    def follow() -> None:
        reader = open_authority(url)
        while True:
            last = over.is_set()
            page = reader.events(EventQuery(after=followed[-1] if followed else 0), limit=7)
            followed.extend(event.seq for event in page)
            if last and not page:
                reader.close()
                return

    threads = [threading.Thread(target=write, args=(turn,)) for turn in range(4)]
    follower = threading.Thread(target=follow)
    for thread in (*threads, follower):
        thread.start()
    for thread in threads:
        thread.join()
    over.set()
    follower.join()
    everything = [event.seq for event in opened.events(limit=1000)]
    assert followed == everything
    assert len(everything) == 5 + 240
    for authority in (*writers, opened):
        authority.close()


def test_lines_of_one_account_stand_in_the_order_of_their_effects(url: str) -> None:
    """Each line's figures follow from the line before: a later effect never has a lower number."""
    opened = with_budget(url, 10**6)
    writers = [open_authority(url) for _ in range(4)]

    def write(turn: int) -> None:
        for _ in range(40):
            held = writers[turn].reserve(BOT, CALL, tokens(1)).reservation_id
            writers[turn].commit(held or "", tokens(1))

    threads = [threading.Thread(target=write, args=(turn,)) for turn in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    reserved = spent = 0
    for event in opened.events(limit=1000)[1:]:
        if event.type == "reservation.created":
            reserved += 1
        else:
            reserved, spent = reserved - 1, spent + 1
        assert event.data["figures"][TENANT][1:3] == [reserved, spent], event.seq
    assert (reserved, spent) == (0, 160)
    for authority in (*writers, opened):
        authority.close()


def test_more_lines_than_a_number_has(url: str) -> None:
    store = PostgresStore(url)
    with store.transaction(flush=False) as tx:
        for _ in range(3):
            tx.write(Changes(events=[NewEvent("x.y", "acme", None, None, {}) for _ in range(900)]), 1)
    with store.read() as reader:
        seqs = [event.seq for event in reader.events(EventQuery(), 5000)]
    assert len(seqs) == 2700
    assert seqs == sorted(set(seqs))
    time.sleep(0)
    store.close()

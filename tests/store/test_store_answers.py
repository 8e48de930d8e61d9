"""A used key is found again, whoever wrote it and however keys rise; a new one is not."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from clearance.authority.requests import place_of
from clearance.guard.process import new_key
from clearance.store.interface import Answered, Changes, Needs, NewEvent, Place
from clearance.store.sqlite import SqliteStore
from clearance.store.sqlite import statements as sql
from clearance.store.sqlite import transaction as transaction_module

LINE = NewEvent("spend.recorded", "acme", "tenant:acme", None, {})


class Gone(Exception):
    pass


@pytest.fixture
def stores(tmp_path: Path) -> Iterator[list[SqliteStore]]:
    opened = [SqliteStore(tmp_path / "ledger.db") for _ in range(2)]
    yield opened
    for store in opened:
        store.close()


def write(store: SqliteStore, *places: Place, fail: bool = False) -> list[int]:
    with store.transaction(flush=False) as tx:
        seqs = [tx.write(Changes(events=[LINE], place=place), 1) for place in places]
        if fail:
            raise Gone
    return seqs


def rising() -> Place:
    return place_of("acme", "reserve", new_key(), [])


def in_no_order() -> Place:
    return place_of("acme", "reserve", f"order {random.random()}", [])


def test_keys_are_found_as_they_were_written_by_anyone(stores: list[SqliteStore]) -> None:
    random.seed(7)
    known: dict[Place, Answered | None] = {}
    for _ in range(300):
        store = random.choice(stores)
        fresh = [random.choice((rising, in_no_order))() for _ in range(random.randint(1, 4))]
        asked = [*fresh, *random.sample(sorted(known), min(4, len(known)))]
        random.shuffle(asked)
        with store.transaction(flush=False) as tx:
            if random.random() < 0.5:
                tx.prefetch([Needs(answers=(place.key,)) for place in asked])
            assert [tx.answered(place.key) for place in asked] == [known.get(place) for place in asked]
        if random.random() < 0.2:
            with pytest.raises(Gone):
                write(store, *fresh, fail=True)
            known.update(dict.fromkeys(fresh))
            continue
        seqs = write(store, *fresh)
        known.update({place: Answered(place.payload, seq) for place, seq in zip(fresh, seqs, strict=True)})


def test_a_rising_key_that_another_process_has_used_is_found(stores: list[SqliteStore]) -> None:
    one, two = stores
    write(one, rising())
    place = rising()
    with one.transaction(flush=False) as tx:
        assert tx.answered(place.key) is None, "behind all that there is"
    (seq,) = write(two, place)
    with one.transaction(flush=False) as tx:
        assert tx.answered(place.key) == Answered(place.payload, seq)


def test_new_keys_are_known_to_be_new_without_asking_the_table(stores: list[SqliteStore]) -> None:
    store = stores[0]
    write(store, rising())
    with store.transaction(flush=False) as tx:
        tx.answered(rising().key)
    asked: list[str] = []
    store._connection.trace_v2(  # type: ignore[union-attr]
        1, lambda event: asked.append(event["sql"])
    )
    later = [rising() for _ in range(50)]
    for place in later:
        with store.transaction(flush=False) as tx:
            assert tx.answered(place.key) is None
        write(store, place)
    for place in later:
        with store.transaction(flush=False) as tx:
            found = tx.answered(place.key)
        assert found is not None
    assert sum(text.startswith("INSERT INTO answers") for text in asked) == 50
    searches = [text for text in asked if "FROM answers" in text]
    assert len(searches) <= 15, "some of the same millisecond lie before the first"


def test_what_was_written_long_ago_is_asked_of_the_table(
    stores: list[SqliteStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transaction_module, "MAX_RECENT", 10)
    places = [rising() for _ in range(40)]
    for place in places:
        write(stores[0], place)
        with stores[0].transaction(flush=False) as tx:
            assert len(tx._known.written) <= 11  # type: ignore[attr-defined]
    with stores[0].transaction(flush=False) as tx:
        assert all(tx.answered(place.key) for place in places)


def test_the_search_for_a_key_or_the_next_uses_the_primary_key(stores: list[SqliteStore]) -> None:
    rows = (
        stores[0]
        ._connection.execute(  # type: ignore[union-attr]
            f"EXPLAIN QUERY PLAN {sql.GET_ANSWER_OR_NEXT}", (b"x",)
        )
        .fetchall()
    )
    assert [row[3] for row in rows] == ["SEARCH answers USING PRIMARY KEY (key>?)"]

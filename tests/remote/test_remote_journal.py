"""The journal as files: what it keeps, where, and what it survives."""

from __future__ import annotations

import os
from dataclasses import replace
from itertools import count
from pathlib import Path

import pytest

from clearance.errors import AuthorityUnavailable
from clearance.model.action import Action
from clearance.model.amount import INT64_MAX, Amount, Unit, usd
from clearance.model.subject import Subject
from clearance.remote import list_journal
from clearance.remote.journal import Entry, Journal, partition
from clearance.remote.records import BadRecord, Origin, Record, decoded, reservation_name
from remote.conftest import ACME, TOOL, Open, records, together
from remote.faulty import FaultyServer

RECORD = Record(
    "key-1",
    Amount(unit=Unit.TOKENS, amount=INT64_MAX),
    "commit",
    "rsv_ü/1",
    Origin(
        Subject(tenant="acme", dimensions={"b": "2", "a": "1"}), Action(kind="k", name="n", tags=("t",)), "REJECT", "r"
    ),
    {"settled_as": "actual", "nested": {"x": [1, None]}},
    1,
    2,
)


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    return Journal(tmp_path / "j")


@pytest.mark.parametrize(
    "record", [RECORD, RECORD.as_event(), replace(RECORD, origin=None), replace(RECORD, refused="X")]
)
def test_a_record_reads_back_as_it_was_written(record: Record) -> None:
    assert decoded(record.encoded()) == record


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b"{}",
        RECORD.encoded()[:-1],
        RECORD.encoded().replace(b'"version":2', b'"version":1'),
        RECORD.encoded().replace(b'"mode":"commit"', b'"mode":"other"'),
        RECORD.encoded().replace(b'"amount":9', b'"amount":-9'),
        RECORD.encoded().replace(b'"tenant":"acme"', b'"tenant":"a b"'),
        RECORD.encoded().replace(b'"key-1"', b"7"),
    ],
)
def test_anything_else_is_a_bad_record(data: bytes) -> None:
    with pytest.raises(BadRecord):
        decoded(data)


def test_the_partition_is_stable_over_keys_only_with_a_tenant() -> None:
    assert partition("http://a:1", "acme", "k1") == partition("http://a:1", "acme", "k2")
    names = [
        partition("http://a:1", "acme", "k1"),
        partition("http://a:2", "acme", "k1"),
        partition("http://a:1", "other", "k1"),
        partition("http://a:1", None, "k1"),
        partition("http://a:1", None, "k2"),
    ]
    assert len(set(names)) == 5
    assert not any("acme" in name or "k1" in name for name in names)


def test_one_partition_does_not_see_the_other(server: FaultyServer, connect: Open, tmp_path: Path) -> None:
    one = connect(journal=tmp_path, tenant="acme")
    held = one.reserve(ACME, TOOL, usd(1))
    server.fail("commit", "refuse", "refuse", "refuse")
    with pytest.raises(AuthorityUnavailable):
        one.commit(held.reservation_id or "", usd(1))
    other = connect(journal=tmp_path, tenant="other")
    assert other.flush_journal(1).settled == 0
    assert len(records(tmp_path)) == 1


def test_a_later_record_of_the_same_reservation_is_not_removed_with_the_earlier(journal: Journal) -> None:
    journal.write(RECORD)
    first = journal.read(RECORD.name)
    assert first is not None
    journal.write(replace(RECORD, key="key-2"))
    journal.remove(first)
    journal.change(first, RECORD.as_event())
    left = journal.read(RECORD.name)
    assert left is not None
    assert left.record.key == "key-2"
    journal.remove(left)
    journal.remove(left)
    assert journal.names() == []


def test_the_file_of_a_removed_record_serves_the_next_one(journal: Journal) -> None:
    assert journal.folder is not None
    long = replace(RECORD, key="k" * 200)
    for record in (long, replace(RECORD, reservation_id="rsv_2"), replace(long, reservation_id="rsv_3")):
        journal.write(record)
        (path,) = journal.folder.iterdir()
        assert path.read_bytes() == record.encoded(), "nothing is left of a longer one before it"
        inode = path.stat().st_ino
        journal.remove(Entry(record, record.encoded()))
        assert journal.names() == []
        (spare,) = journal.folder.iterdir()
        assert spare.stat().st_ino == inode
    journal.close()
    assert list(journal.folder.iterdir()) == []


def test_few_spare_files_are_kept_and_a_child_leaves_its_parents_alone(journal: Journal) -> None:
    assert journal.folder is not None
    written = [replace(RECORD, reservation_id=f"rsv_{number}") for number in range(20)]
    for record in written:
        journal.write(record)
    for record in written:
        journal.remove(Entry(record, record.encoded()))
    assert len(list(journal.folder.iterdir())) == 8
    child = Journal(journal.folder)
    child.write(written[0])
    assert len(list(journal.folder.iterdir())) == 9
    for spare in journal.folder.glob("*.tmp"):
        spare.unlink()
    assert journal.write(written[1]), "somebody has tidied them away"


def test_writers_of_equal_process_ids_share_no_spare_file(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    """As two containers have them that keep one folder."""
    assert journal.folder is not None
    for number, writer in enumerate((journal, Journal(journal.folder))):
        monkeypatch.setattr("clearance.remote.journal._numbers", count())
        record = replace(RECORD, reservation_id=f"rsv_{number}")
        writer.write(record)
        writer.remove(Entry(record, record.encoded()))
    assert len(list(journal.folder.glob("spare-*.tmp"))) == 2


def test_writers_never_show_half_a_record(journal: Journal) -> None:
    """Many threads write one name while others read it."""

    def work(number: int) -> None:
        for turn in range(20):
            if number % 2:
                journal.write(replace(RECORD, metadata={"n": number * 1000 + turn, "fill": "x" * 4000}))
            elif (entry := journal.read(RECORD.name)) is not None:
                assert len(entry.record.metadata.get("fill", "x" * 4000)) == 4000

    journal.write(RECORD)
    assert together(6, work) == []
    assert journal.quarantined() == []
    assert [path.name for path in (journal.folder or Path()).iterdir()] == [RECORD.name]


def test_a_file_under_the_name_of_another_reservation_is_put_aside(journal: Journal) -> None:
    journal.write(RECORD)
    folder = journal.folder or Path()
    os.rename(folder / RECORD.name, folder / reservation_name("another"))
    assert journal.read(reservation_name("another")) is None
    assert journal.quarantined() == [reservation_name("another")]


def test_what_a_dead_writer_left_is_tidied_and_what_lives_is_not(journal: Journal) -> None:
    journal.write(RECORD)
    folder = journal.folder or Path()
    (folder / "old.json.1-1.tmp").write_bytes(b"x")
    os.utime(folder / "old.json.1-1.tmp", (0, 0))
    (folder / "new.json.1-2.tmp").write_bytes(b"x")
    journal.tidy()
    assert sorted(path.name for path in folder.iterdir()) == sorted([RECORD.name, "new.json.1-2.tmp"])
    assert journal.names() == [RECORD.name]


def test_in_memory_it_is_the_same_journal() -> None:
    journal = Journal(None)
    journal.write(RECORD)
    entry = journal.read(RECORD.name)
    assert entry == Entry(RECORD, RECORD.encoded())
    later = journal.hold_off(entry, 77)
    assert later.record.not_before_ms == 77
    journal.remove(entry)
    assert journal.names() == [RECORD.name]
    journal.remove(later)
    assert journal.names() == []


@pytest.mark.parametrize(("fsync", "first", "left"), [("always", 1, 1), ("left", 0, 1)])
def test_when_the_disk_is_waited_for(
    server: FaultyServer,
    connect: Open,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    fsync: str,
    first: int,
    left: int,
) -> None:
    done: list[int] = []
    monkeypatch.setattr(os, "fsync", done.append)
    client = connect(journal=Journal(tmp_path, fsync=fsync))  # type: ignore[arg-type]
    client.commit(client.reserve(ACME, TOOL, usd(1)).reservation_id or "", usd(1))
    assert len(done) == first
    done.clear()
    server.fail("commit", "refuse", "refuse", "refuse")
    with pytest.raises(AuthorityUnavailable):
        client.commit(client.reserve(ACME, TOOL, usd(1)).reservation_id or "", usd(1))
    assert len(done) == left


def test_listing_for_people_reads_only(server: FaultyServer, connect: Open, tmp_path: Path) -> None:
    client = connect(journal=tmp_path, tenant="acme")
    held = client.reserve(ACME, TOOL, usd(1)).reservation_id
    server.fail("commit", "refuse", "refuse", "refuse")
    with pytest.raises(AuthorityUnavailable):
        client.commit(held or "", usd("0.5"))
    (path,) = records(tmp_path)
    torn = path.parent / reservation_name("torn")
    torn.write_bytes(b"{")
    (found,) = list_journal(tmp_path)
    lines = {line.reservation_id: line for line in found.lines}
    assert lines[held].actual == usd("0.5")
    assert (lines[held].mode, lines[held].action) == ("commit", "tool.call:search")
    assert lines[held].scope == ACME.scope_path
    assert lines[None].problem
    assert torn.exists()
    assert list_journal(tmp_path / "nowhere") == []

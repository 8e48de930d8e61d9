"""The recovery profile of the protocol, core and durable: every scenario by its id, with processes that really die."""

from __future__ import annotations

import json
import logging
import stat
import time
from pathlib import Path
from typing import Any

import pytest

from clearance.errors import AuthorityUnavailable, InvalidRequest
from clearance.guard.desk import Desk, seat
from clearance.guard.heartbeat import Scheduler
from clearance.model.amount import usd
from clearance.remote import RemoteAuthority
from clearance.remote.journal import Journal, legacy_name
from clearance.remote.records import Origin, Record, decoded, reservation_name
from remote.conftest import ACME, TOOL, Open, end, eventually, launch, records
from remote.faulty import FaultyServer

KEY = "old-secret-key"


def spend_and_die(server: FaultyServer, journal: Path, deed: str = "spend", verb: str = "commit") -> str:
    """A child reserves, and dies while the settlement is on its way (or where `deed` says); the reservation's id."""
    child = launch("worker.py", server.url, journal, KEY, deed)
    try:
        reservation_id: str = json.loads(child.stdout.readline())["reservation_id"]  # type: ignore[union-attr]
        server.wait_for(verb)
        if deed == "spend":
            child.kill()
        child.wait(10)
    finally:
        end(child)
    return reservation_id


def restart(server: FaultyServer, journal: Path, key: str = KEY, deed: str = "5") -> dict[str, Any]:
    """A new process flushes the journal; what it says, or nothing if it died."""
    child = launch("worker.py", server.url, journal, key, deed)
    out, _ = child.communicate(timeout=30)
    answer: dict[str, Any] = json.loads(out.splitlines()[-1]) if out.strip() else {}
    return answer


def abandoned(journal: Path, server: FaultyServer, connect: Open, reservation_id: str = "rsv_1") -> Path:
    """A commit in the journal, as a process that is gone has left it."""
    client = connect(journal=journal, tenant="acme")
    client.reserve(ACME, TOOL, usd(1))
    record = Record("settle-1", usd("0.25"), "commit", reservation_id, Origin(ACME, TOOL), {"n": 1})
    client._journal.write(record)
    (path,) = records(journal)
    return path


def test_cr_core_001_lost_commit_response_reuses_the_same_key(server: FaultyServer, remote: RemoteAuthority) -> None:
    held = remote.reserve(ACME, TOOL, usd(1))
    server.fail("commit", "lost")
    answer = remote.commit(held.reservation_id or "", usd("0.25"))
    assert answer.status == "COMMITTED"
    assert answer.charged == usd("0.25").amount
    (first, one), (second, two) = server.settlements()
    assert (first, second) == ("commit", "commit")
    assert one == two is not None
    assert server.charged == usd("0.25").amount


def test_cr_core_002_expired_commit_falls_back_to_an_event(server: FaultyServer, remote: RemoteAuthority) -> None:
    with remote.guard(TOOL, "1", subject=ACME) as permit:
        server.expire()
        permit.settle("0.25")
    (first, one), (second, two) = server.settlements()
    assert (first, second) == ("commit", "event")
    assert one == two
    (event,) = server.of("event")
    assert event.body["subject"] == ACME.wire
    assert event.body["action"] == TOOL.wire
    assert event.body["actual"] == {"unit": "USD_MICROCENTS", "amount": usd("0.25").amount}
    assert event.body["metadata"] == server.of("commit")[0].body["metadata"]
    assert server.charged == usd("0.25").amount


def test_cr_core_003_heartbeat_failure_is_observable_and_not_fatal(
    server: FaultyServer, remote: RemoteAuthority, caplog: pytest.LogCaptureFixture
) -> None:
    now = [time.monotonic()]
    scheduler = Scheduler(lambda: now[0], threaded=False)
    seat(remote, Desk(scheduler))
    server.fail("extend", "refuse", "refuse", "refuse")
    with caplog.at_level(logging.WARNING), remote.guard(TOOL, "1", subject=ACME) as permit:
        scheduler.tick()
        now[0] += 1
        scheduler.tick()
        now[0] += 49
        scheduler.tick()
        assert f"the lease of {permit.id} was not extended (AuthorityUnavailable); trying again" in caplog.text
        now[0] += 3
        scheduler.tick()
        permit.settle("0.25")
    extends = server.of("extend")
    assert len(extends) == 4
    assert len({seen.key for seen in extends}) == 1
    assert [verb for verb, _ in server.settlements()] == ["commit"]
    assert server.seen[-1].verb == "commit"


@pytest.mark.parametrize("fault", ["garbage", "empty", "other2xx"])
def test_cr_core_004_an_invalid_success_stays_ambiguous(
    server: FaultyServer, remote: RemoteAuthority, fault: str
) -> None:
    held = remote.reserve(ACME, TOOL, usd(1))
    server.fail("commit", fault)
    assert remote.commit(held.reservation_id or "", usd("0.25")).status == "COMMITTED"
    (_, one), (_, two) = server.settlements()
    assert one == two
    assert server.charged == usd("0.25").amount
    assert records(remote._journal.folder or Path()) == []


def test_cr_durable_001_first_commit_is_journaled_before_it_leaves(server: FaultyServer, tmp_path: Path) -> None:
    server.fail("commit", "hang")
    reservation_id = spend_and_die(server, tmp_path)
    (path,) = records(tmp_path)
    assert path.name == reservation_name(reservation_id)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert restart(server, tmp_path)["settled"] == 1
    (first, one), (second, two) = server.settlements()
    assert (first, second) == ("commit", "commit")
    assert one == two == "settle-1"
    assert records(tmp_path) == []
    assert server.charged == usd("0.25").amount


def test_cr_durable_001_the_record_is_there_when_the_request_is(server: FaultyServer, remote: RemoteAuthority) -> None:
    """The order, seen from inside: at the moment of sending, the file exists."""
    held = remote.reserve(ACME, TOOL, usd(1))
    send, found = remote._shell.send, []

    def watched(*args: Any) -> Any:
        found.append([path.name for path in records(remote._journal.folder or Path())])
        return send(*args)

    remote._shell.send = watched  # type: ignore[method-assign]
    remote.commit(held.reservation_id or "", usd("0.25"))
    assert found == [[reservation_name(held.reservation_id or "")]]


def test_cr_durable_002_expired_replay_switches_to_event_mode_first(
    server: FaultyServer, tmp_path: Path, connect: Open
) -> None:
    path = abandoned(tmp_path, server, connect)
    server.expire()
    assert restart(server, tmp_path, deed="die-after-change:5") == {}
    assert decoded(path.read_bytes()).mode == "event"
    assert server.settlements() == [("commit", "settle-1")], "it died before the event"
    assert restart(server, tmp_path)["settled"] == 1
    assert server.settlements() == [("commit", "settle-1"), ("event", "settle-1")]
    assert records(tmp_path) == []
    assert server.charged == usd("0.25").amount


def test_cr_durable_003_the_rate_limit_floor_survives_a_restart(server: FaultyServer, tmp_path: Path) -> None:
    server.fail("commit", "429:4")
    spend_and_die(server, tmp_path, "die-after-hold_off:spend")
    told_at = server.of("commit")[0].at
    (path,) = records(tmp_path)
    assert decoded(path.read_bytes()).not_before_ms > 0
    early = restart(server, tmp_path, deed="0.3")
    assert early == {"settled": 0, "waiting": 1, "quarantined": 0}
    assert server.count()["commit"] == 1
    assert restart(server, tmp_path, deed="8")["settled"] == 1
    first, second = server.of("commit")
    assert first.key == second.key == "settle-1"
    assert second.at - told_at >= 3.9
    assert records(tmp_path) == []


def test_cr_durable_004_the_tenant_journal_survives_key_rotation(
    server: FaultyServer, tmp_path: Path, connect: Open
) -> None:
    server.fail("commit", "hang")
    spend_and_die(server, tmp_path)
    (path,) = records(tmp_path)
    for found in tmp_path.rglob("*"):
        assert KEY not in str(found)
        assert not found.is_file() or KEY.encode() not in found.read_bytes()
    server.keys = {"new-secret-key"}
    old = connect(journal=tmp_path, tenant="acme", api_key=KEY)
    assert old.flush_journal(0.2).waiting == 1, "kept through a failed authorization"
    assert restart(server, tmp_path, key="new-secret-key")["settled"] == 1
    assert not path.exists()
    assert server.of("commit")[-1].key == "settle-1"
    assert server.charged == usd("0.25").amount


def test_cr_durable_005_bad_records_are_quarantined(
    server: FaultyServer, tmp_path: Path, connect: Open, caplog: pytest.LogCaptureFixture
) -> None:
    good = abandoned(tmp_path, server, connect)
    corrupt = good.parent / reservation_name("torn")
    corrupt.write_bytes(b'{"version": 2, "mode": "com')
    newer = good.parent / reservation_name("newer")
    newer.write_bytes(good.read_bytes().replace(b'"version":2', b'"version":3'))
    assert restart(server, tmp_path) == {"settled": 1, "waiting": 0, "quarantined": 2}
    assert sorted(path.name for path in (good.parent / "quarantine").iterdir()) == sorted([corrupt.name, newer.name])
    assert records(tmp_path) == []
    assert server.settlements() == [("commit", "settle-1")]
    (good.parent / corrupt.name).write_bytes(b"\x00")
    connect(journal=tmp_path, tenant="acme").flush_journal(1)
    assert corrupt.name in caplog.text


def test_cr_durable_006_concurrent_replay_is_exactly_once(server: FaultyServer, tmp_path: Path, connect: Open) -> None:
    abandoned(tmp_path, server, connect)
    server.delay_s = 0.4
    children = [launch("worker.py", server.url, tmp_path, KEY, "5") for _ in range(2)]
    for child in children:
        child.communicate(timeout=30)
        assert child.returncode == 0
    assert 1 <= len(server.settlements()) <= 2
    assert {key for _, key in server.settlements()} == {"settle-1"}
    assert server.charged == usd("0.25").amount
    assert records(tmp_path) == []


def test_cr_durable_007_filenames_keep_any_two_ids_apart(
    server: FaultyServer, tmp_path: Path, connect: Open, caplog: pytest.LogCaptureFixture
) -> None:
    name = reservation_name("a/b")
    assert name == "v2-c14cddc033f64b9dea80ea675cf280a015e672516090a5626781153dc68fea11.json"
    assert len({reservation_name(one) for one in ("a/b", "a:b", "a_b", "ä", "A/B", "")}) == 6
    assert legacy_name("a/b") == legacy_name("a:b")
    journal = Journal(tmp_path / "j")
    mine = Record("k1", usd(1), "commit", "a/b", Origin(ACME, TOOL))
    other = Record("k2", usd(2), "commit", "a:b", Origin(ACME, TOOL))
    journal.write(other)
    legacy = tmp_path / "j" / legacy_name("a/b")
    legacy.write_bytes(mine.encoded())
    assert sorted(entry.record.key for n in journal.names() if (entry := journal.read(n))) == ["k1", "k2"]
    assert not legacy.exists(), "it has moved to the name of its own id"
    assert journal.names() == sorted([reservation_name("a/b"), reservation_name("a:b")])
    legacy.write_bytes(Record("k3", usd(3), "commit", "a:b", Origin(ACME, TOOL)).encoded())
    assert journal.read(legacy.name) is None
    assert legacy.exists(), "a collision is kept, not deleted"
    assert decoded((tmp_path / "j" / reservation_name("a:b")).read_bytes()).key == "k2"
    assert "is taken" in caplog.text


def test_cr_boundary_001_without_an_actual_nothing_is_settled(server: FaultyServer, remote: RemoteAuthority) -> None:
    held = remote.reserve(ACME, TOOL, usd(1))
    with pytest.raises(InvalidRequest, match="actual"):
        remote.commit(held.reservation_id or "", None)  # type: ignore[arg-type]
    with pytest.raises(InvalidRequest, match="actual"):
        remote.event(ACME, TOOL, None)  # type: ignore[arg-type]
    assert server.settlements() == []
    assert records(remote._journal.folder or Path()) == []


def test_replay_in_a_living_process_needs_no_restart(server: FaultyServer, tmp_path: Path, connect: Open) -> None:
    client = connect(journal=tmp_path, tenant="acme", background=True, timeout_ms=200)
    held = client.reserve(ACME, TOOL, usd(1))
    server.down = True
    with pytest.raises(AuthorityUnavailable):
        client.commit(held.reservation_id or "", usd("0.25"))
    assert server.charged == 0
    assert len(records(tmp_path)) == 1
    server.down = False
    eventually(lambda: server.charged == usd("0.25").amount and not records(tmp_path), 15)
    assert len({key for _, key in server.settlements()}) == 1


def test_a_restart_replays_by_itself(server: FaultyServer, tmp_path: Path, connect: Open) -> None:
    abandoned(tmp_path, server, connect)
    connect(journal=tmp_path, tenant="acme", background=True)
    eventually(lambda: not records(tmp_path))
    assert server.settlements() == [("commit", "settle-1")]

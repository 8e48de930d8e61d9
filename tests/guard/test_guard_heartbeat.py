"""Leases are kept while work lasts, stops are noticed, and an idle process is left alone."""

from __future__ import annotations

import gc
import itertools
import logging
import threading
import time
from typing import Any

import pytest

from clearance.errors import (
    AuthorityUnavailable,
    Killed,
    MaxExtensionsExceeded,
    Paused,
    ReservationExpired,
    ReservationFinalized,
)
from clearance.guard import open_permit
from clearance.guard.beats import Beat
from clearance.guard.desk import Desk, seat
from clearance.guard.heartbeat import POLL_INTERVAL_S, Scheduler


def extensions(authority: Any) -> list[tuple[str, int]]:
    return [(what["idempotency_key"], what["by"]) for verb, what in authority.calls if verb == "extend"]


def run_for(scheduler: Scheduler, clock: Any, seconds: float) -> None:
    end = clock.now + seconds
    while clock.now < end:
        wait = scheduler.tick()
        clock.advance(min(end - clock.now, wait if wait is not None else seconds))
    scheduler.tick()


def test_a_beat_leaves_room_for_two_attempts() -> None:
    beat = Beat(ttl_ms=60_000, lease_end=60.0)
    assert beat.next_at(0.0) == 49.0
    assert beat.extend_by_ms(49.0) == 49_000
    assert Beat(ttl_ms=1_000, lease_end=1.0).next_at(0.0) == 0.625


def test_a_beat_is_retried_while_another_attempt_fits() -> None:
    beat = Beat(ttl_ms=60_000, lease_end=60.0)
    assert beat.retry_at(49.0) == 49.0 + 11.0 / 4
    assert beat.retry_at(54.0) == 54.1
    assert beat.retry_at(54.1) is None


def test_a_lease_is_brought_back_to_its_length(authority: Any, acme: Any, timed: Scheduler, clock: Any) -> None:
    with authority.guard("tool.call:x", 1, subject=acme, ttl_ms=60_000):
        run_for(timed, clock, 48.9)
        assert extensions(authority) == []
        run_for(timed, clock, 150)
    assert [by for _, by in extensions(authority)] == pytest.approx([49_000] * 4, abs=1)
    assert len({key for key, _ in extensions(authority)}) == 4
    run_for(timed, clock, 120)
    assert len(extensions(authority)) == 4


def test_runs_are_kept_too(authority: Any, acme: Any, timed: Scheduler, clock: Any) -> None:
    with authority.run(acme, ttl_ms=1_000):
        run_for(timed, clock, 10)
    assert len(extensions(authority)) == 16
    assert timed.tick() is not None
    clock.advance(1)
    assert timed.tick() is None


def test_an_outage_is_retried_with_the_same_key(authority: Any, acme: Any, timed: Scheduler, clock: Any) -> None:
    authority.failures["extend"] = [AuthorityUnavailable("gone")] * 2
    with authority.guard("tool.call:x", 1, subject=acme):
        run_for(timed, clock, 56)
    assert len(extensions(authority)) == 3
    assert len(set(extensions(authority))) == 1


@pytest.mark.parametrize(
    "end", [ReservationExpired("x"), ReservationFinalized("x"), MaxExtensionsExceeded("x"), Killed("x")]
)
def test_a_final_refusal_ends_the_extensions_with_one_warning(
    authority: Any, acme: Any, timed: Scheduler, clock: Any, end: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    authority.failures["extend"] = [end] * 5
    with authority.guard("tool.call:x", 1, subject=acme):
        run_for(timed, clock, 300)
    assert len(extensions(authority)) == 1
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert "call_1" in caplog.text


def test_a_long_outage_ends_the_extensions_before_the_lease_ends(
    authority: Any, acme: Any, timed: Scheduler, clock: Any, caplog: pytest.LogCaptureFixture
) -> None:
    authority.failures["extend"] = [AuthorityUnavailable("gone")] * 100
    with authority.guard("tool.call:x", 1, subject=acme):
        run_for(timed, clock, 300)
    assert 1 < len(extensions(authority)) < 10
    assert "not extended any more" in caplog.text


def test_a_paused_lease_may_be_extended_after_the_resume(
    authority: Any, acme: Any, timed: Scheduler, clock: Any
) -> None:
    authority.failures["extend"] = [Paused("x")]
    with authority.guard("tool.call:x", 1, subject=acme):
        run_for(timed, clock, 110)
    assert len(extensions(authority)) == 3


def test_a_stop_marks_what_is_below_it(authority: Any, acme: Any, timed: Scheduler, clock: Any) -> None:
    told: list[Any] = []
    with authority.run(acme, on_stop=told.append) as run, authority.guard("tool.call:x", 1) as permit:
        clock.advance(POLL_INTERVAL_S)
        timed.tick()
        assert permit.stopped is None
        authority.kill("tenant:acme/agent:bot")
        clock.advance(POLL_INTERVAL_S)
        timed.tick()
        assert permit.stopped.state == run.stopped.state == "KILLED"
        with pytest.raises(Killed):
            permit.check()
        with pytest.raises(Killed):
            run.check()
        with pytest.raises(Killed):
            authority.guard("tool.call:y", 1)(lambda: pytest.fail("ran"))()
    assert told == [run.stopped]


def test_all_live_work_is_asked_about_in_one_call(authority: Any, acme: Any, timed: Scheduler, clock: Any) -> None:
    with authority.run(acme) as run:
        permits = [open_permit(authority, "tool.call:x", 1) for _ in range(3)]
        clock.advance(POLL_INTERVAL_S)
        timed.tick()
    (asked,) = [what for verb, what in authority.calls if verb == "stopped"]
    assert sorted(asked) == sorted([run.id, *(permit.id for permit in permits)])


def test_a_failing_on_stop_does_not_hide_the_stop_from_others(
    authority: Any, acme: Any, timed: Scheduler, clock: Any
) -> None:
    with authority.run(acme, on_stop=lambda stop: 1 / 0), authority.guard("tool.call:x", 1) as permit:
        authority.kill("tenant:acme")
        clock.advance(POLL_INTERVAL_S)
        timed.tick()
        assert permit.stopped is not None


def test_asking_for_stops_pauses_during_an_outage(
    authority: Any, acme: Any, timed: Scheduler, clock: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[float] = []

    def stopped(ids: Any) -> Any:
        asked.append(clock.now)
        raise AuthorityUnavailable("gone")

    monkeypatch.setattr(authority, "stopped", stopped)
    with authority.guard("tool.call:x", 1, subject=acme):
        run_for(timed, clock, 20)
    gaps = [later - earlier for earlier, later in itertools.pairwise(asked)]
    assert gaps == sorted(gaps)
    assert max(gaps) == 5.0


def test_short_calls_cost_the_scheduler_nothing(authority: Any, acme: Any, timed: Scheduler, clock: Any) -> None:
    for _ in range(50):
        authority.guard("tool.call:x", 1, subject=acme)(lambda: None)()
    clock.advance(POLL_INTERVAL_S)
    assert timed.tick() is None
    assert authority.count() == {"reserve": 50, "commit": 50}


def test_it_holds_nothing_alive(authority: Any, acme: Any, timed: Scheduler, clock: Any) -> None:
    permit = open_permit(authority, "tool.call:x", 1, subject=acme)
    run = authority.run(acme)
    run.__enter__()
    clock.advance(POLL_INTERVAL_S)
    timed.tick()
    run._step_out()
    del permit, run
    gc.collect()
    clock.advance(60)
    assert timed.tick() is None
    assert extensions(authority) == []


# --- the real thread


@pytest.fixture
def threaded(authority: Any) -> Scheduler:
    scheduler = Scheduler()
    seat(authority, Desk(scheduler))
    return scheduler


def test_the_thread_keeps_a_short_lease(authority: Any, acme: Any, threaded: Scheduler, wait_until: Any) -> None:
    with authority.guard("tool.call:x", 1, subject=acme, ttl_ms=1_000):
        wait_until(lambda: extensions(authority))
    assert 500 <= extensions(authority)[0][1] <= 900


def test_the_thread_notices_a_kill_soon_and_the_sync_work_is_marked(
    authority: Any, acme: Any, threaded: Scheduler, wait_until: Any
) -> None:
    with authority.guard("tool.call:x", 1, subject=acme) as permit:
        authority.kill("tenant:acme")
        began = time.monotonic()
        wait_until(lambda: permit.stopped)
    assert time.monotonic() - began < 1.0
    assert authority.only().status == "COMMITTED"


def test_the_thread_sleeps_with_nothing_live(authority: Any, acme: Any, threaded: Scheduler, wait_until: Any) -> None:
    with authority.guard("tool.call:x", 1, subject=acme):
        wait_until(lambda: authority.count()["stopped"])
    wait_until(lambda: threaded._sleeping)
    ticks: list[int] = []
    threaded._sweep = lambda: ticks.append(1)  # type: ignore[method-assign]
    time.sleep(2 * POLL_INTERVAL_S)
    assert ticks == []


def test_there_is_one_thread_for_everybody(authority: Any, acme: Any) -> None:
    others = [type(authority)() for _ in range(5)]
    permits = [open_permit(one, "tool.call:x", 1, subject=acme) for one in others for _ in range(20)]
    names = [thread.name for thread in threading.enumerate()]
    assert names.count("clearance-heartbeat") >= 1
    assert len({id(one._guard_desk.scheduler) for one in others}) == 1
    for permit in permits:
        permit.release()

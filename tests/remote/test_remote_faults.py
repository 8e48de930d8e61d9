"""Every way in which a network fails, at every verb that changes something, sync and async. Counted at the server."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from clearance.errors import AuthorityUnavailable, BudgetExceeded, Denied, InvalidRequest, LimitExceeded, StoreError
from clearance.model.amount import usd
from clearance.model.results import Decision, Settlement
from clearance.remote import BadAnswer, NotAuthorized, RemoteAuthority
from remote.conftest import ACME, TOOL, Open, free_port, records
from remote.faulty import FaultyServer

Ask = Callable[..., Any]


@pytest.fixture(params=["sync", "async"])
def do(request: pytest.FixtureRequest, remote: RemoteAuthority) -> Ask:
    """`do("commit", ...)` by the sync verb or by its async twin."""

    def ask(verb: str, *args: Any, **options: Any) -> Any:
        if request.param == "sync":
            return getattr(remote, verb)(*args, **options)

        async def twin() -> Any:
            try:
                return await getattr(remote, "a" + verb)(*args, **options)
            finally:
                await remote.aclose()

        return asyncio.run(twin())

    return ask


TRANSIENT = ["refuse", "lost", "half", "garbage", "empty", "other2xx", "500", "503", "502", "429:0"]


@pytest.mark.parametrize("fault", TRANSIENT)
@pytest.mark.parametrize("verb", ["reserve", "commit", "release", "extend", "event"])
def test_one_fault_costs_one_more_request_with_the_same_key(
    server: FaultyServer, do: Ask, verb: str, fault: str
) -> None:
    if verb not in ("reserve", "event"):
        held = do("reserve", ACME, TOOL, usd(1)).reservation_id
    server.fail(verb, fault)
    if verb == "reserve":
        assert do("reserve", ACME, TOOL, usd(1)).reservation_id == "rsv_1"
    elif verb == "commit":
        assert do("commit", held, usd("0.5")).charged == usd("0.5").amount
    elif verb == "release":
        assert do("release", held, reason="no").released == usd(1).amount
    elif verb == "extend":
        assert do("extend", held, 1000).remaining_ttl_ms > 59_000
    else:
        assert do("event", ACME, TOOL, usd("0.5")).charged == usd("0.5").amount
    first, second = server.of(verb)
    assert first.key == second.key is not None
    assert first.body == second.body
    assert len(server.rows) <= 1
    assert server.charged in (0, usd("0.5").amount)


@pytest.mark.parametrize("fault", ["refuse", "lost", "500", "502", "hang"])
def test_an_outage_is_told_as_one_and_within_the_deadline(server: FaultyServer, connect: Open, fault: str) -> None:
    client = connect(timeout_ms=400)
    server.fail("reserve", *[fault] * 9)
    began = time.monotonic()
    with pytest.raises(AuthorityUnavailable) as caught:
        client.reserve(ACME, TOOL, usd(1))
    assert time.monotonic() - began < 1.2
    assert not isinstance(caught.value, Denied | StoreError)
    assert "k-secret-1" not in str(caught.value) + repr(client)


@pytest.mark.parametrize("twin", ["sync", "async"])
def test_a_trickle_of_bytes_does_not_outlast_the_deadline(server: FaultyServer, connect: Open, twin: str) -> None:
    client = connect(timeout_ms=600)
    server.fail("reserve", *["trickle"] * 5)
    began = time.monotonic()

    def ask() -> Decision:
        return (
            client.reserve(ACME, TOOL, usd(1)) if twin == "sync" else asyncio.run(client.areserve(ACME, TOOL, usd(1)))
        )

    with pytest.raises(AuthorityUnavailable):
        ask()
    assert time.monotonic() - began < 1.5


def test_nobody_listens(connect: Open) -> None:
    client = connect(f"http://127.0.0.1:{free_port()}")
    began = time.monotonic()
    with pytest.raises(AuthorityUnavailable):
        client.reserve(ACME, TOOL, usd(1))
    assert time.monotonic() - began < 1


def test_outage_denial_and_bad_answer_are_three_errors(server: FaultyServer, do: Ask) -> None:
    server.fail("reserve", "503", "503", "503", "garbage", "garbage", "garbage", "409:BUDGET_EXCEEDED")
    kinds = []
    for _ in range(3):
        with pytest.raises(Exception) as caught:
            do("reserve", ACME, TOOL, usd(1))
        kinds.append(type(caught.value))
    assert kinds == [AuthorityUnavailable, BadAnswer, BudgetExceeded]
    assert not issubclass(BadAnswer, Denied | AuthorityUnavailable)
    assert not issubclass(NotAuthorized, Denied | AuthorityUnavailable)


@pytest.mark.parametrize("fault", ["409:BUDGET_EXCEEDED", "401:UNAUTHORIZED", "403:FORBIDDEN", "400:INVALID_REQUEST"])
def test_a_refusal_is_not_asked_for_again(server: FaultyServer, do: Ask, fault: str) -> None:
    server.fail("reserve", fault)
    with pytest.raises(Exception) as caught:
        do("reserve", ACME, TOOL, usd(1))
    assert not isinstance(caught.value, AuthorityUnavailable)
    assert server.count()["reserve"] == 1


def test_a_long_retry_after_is_told_and_a_short_one_kept(server: FaultyServer, do: Ask) -> None:
    server.fail("reserve", "429:60")
    with pytest.raises(LimitExceeded) as caught:
        do("reserve", ACME, TOOL, usd(1))
    assert caught.value.retry_after_ms == 60_000
    server.fail("reserve", "429:1")
    do("reserve", ACME, TOOL, usd(1))
    _, first, second = server.of("reserve")
    assert second.at - first.at >= 0.99


@pytest.mark.parametrize("fault", ["refuse", "503", "garbage", "401:UNAUTHORIZED", "429:60", "418:TEAPOT"])
def test_an_unresolved_commit_stays_in_the_journal(
    server: FaultyServer, remote: RemoteAuthority, do: Ask, tmp_path: Path, fault: str
) -> None:
    held = do("reserve", ACME, TOOL, usd(1)).reservation_id
    server.fail("commit", *[fault] * 3)
    with pytest.raises((AuthorityUnavailable, BadAnswer, NotAuthorized, LimitExceeded)):
        do("commit", held, usd("0.25"))
    assert len(records(tmp_path)) == 1
    server.faults.clear()
    if fault != "429:60":
        assert remote.flush(5)
        assert records(tmp_path) == []
        assert server.charged == usd("0.25").amount
    assert len({key for _, key in server.settlements()}) == 1


@pytest.mark.parametrize("fault", ["404:NOT_FOUND", "409:RESERVATION_FINALIZED", "400:UNIT_MISMATCH"])
def test_a_final_refusal_of_a_commit_leaves_no_record(
    server: FaultyServer, do: Ask, tmp_path: Path, fault: str
) -> None:
    held = do("reserve", ACME, TOOL, usd(1)).reservation_id
    server.fail("commit", fault)
    with pytest.raises(Exception):  # noqa: B017
        do("commit", held, usd("0.25"))
    assert records(tmp_path) == []
    assert server.count()["commit"] == 1


def test_an_overage_that_was_refused_is_kept_until_it_is_settled_otherwise(
    server: FaultyServer, do: Ask, tmp_path: Path
) -> None:
    held = do("reserve", ACME, TOOL, usd(1), overage_policy="REJECT").reservation_id
    with pytest.raises(BudgetExceeded):
        do("commit", held, usd(2))
    assert len(records(tmp_path)) == 1, "spent, and no budget shows it"
    do("commit", held, usd(1))
    assert records(tmp_path) == []


def test_the_guard_loses_nothing_of_a_refused_overage(
    server: FaultyServer, remote: RemoteAuthority, tmp_path: Path
) -> None:
    with remote.guard(TOOL, "1", subject=ACME, overage_policy="REJECT") as permit:
        permit.settle("3")
    assert server.charged == usd(3).amount
    assert records(tmp_path) == []


def test_arguments_are_refused_before_anything_is_sent(server: FaultyServer, remote: RemoteAuthority) -> None:
    for wrong in (
        lambda: remote.reserve(ACME, TOOL, usd(1), ttl_ms=1),
        lambda: remote.reserve(ACME, TOOL, "1"),  # type: ignore[arg-type]
        lambda: remote.reserve(ACME, TOOL, usd(1), idempotency_key=""),
        lambda: remote.commit("", usd(1)),
        lambda: remote.extend("r", 0),
        lambda: remote.release("x" * 129),
        lambda: remote.event(ACME, TOOL, usd(1), metadata={"x": object()}),
    ):
        with pytest.raises(InvalidRequest):
            wrong()
    assert server.seen == []


@pytest.mark.parametrize(
    "options",
    [
        {"timeout_ms": 0},
        {"timeout_ms": 10_000},
        {"timeout_ms": 2.5},
        {"api_key": ""},
        {"api_key": "a\nb"},
        {"url": "ftp://x"},
        {"url": "http://user:pw@host"},
        {"on_outage": "allow"},
        {"on_outage": {"*": 1}},
    ],
)
def test_options_are_checked(connect: Open, options: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest) as caught:
        connect(**options)
    assert "pw" not in str(caught.value)


def test_a_second_answer_of_the_same_key_is_the_first(server: FaultyServer, do: Ask) -> None:
    one: Decision = do("reserve", ACME, TOOL, usd(1), idempotency_key="mine")
    two: Decision = do("reserve", ACME, TOOL, usd(1), idempotency_key="mine")
    assert one.reservation_id == two.reservation_id
    done: Settlement = do("commit", one.reservation_id, usd("0.5"), idempotency_key="c")
    assert do("commit", one.reservation_id, usd("0.5"), idempotency_key="c").charged == done.charged
    assert server.charged == usd("0.5").amount


def test_a_journal_that_cannot_be_written_is_told_and_the_settlement_tried(
    server: FaultyServer, connect: Open, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("in the way")
    client = connect(journal=tmp_path / "file")
    held = client.reserve(ACME, TOOL, usd(1))
    assert client.commit(held.reservation_id or "", usd("0.5")).status == "COMMITTED"
    assert "the journal cannot be written" in caplog.text
    assert client.flush(1)


def test_a_bad_run_id_cannot_smuggle_a_header(server: FaultyServer, remote: RemoteAuthority) -> None:
    with pytest.raises(InvalidRequest, match="run_id"):
        remote.reserve(ACME, TOOL, usd(1), run_id="run_1\r\nX-Admin-API-Key: x")
    assert server.seen == []


def test_a_second_commit_without_a_key_does_not_charge_twice(server: FaultyServer, remote: RemoteAuthority) -> None:
    held = remote.reserve(ACME, TOOL, usd(1)).reservation_id or ""
    server.expire()
    server.fail("event", "lost", "refuse", "refuse")
    with pytest.raises(AuthorityUnavailable):
        remote.commit(held, usd("0.5"))
    assert remote.commit(held, usd("0.5")).status == "APPLIED"
    assert len({key for _, key in server.settlements()}) == 1
    assert server.charged == usd("0.5").amount


def test_a_flush_keeps_its_bound_and_leaves_the_rest(server: FaultyServer, remote: RemoteAuthority) -> None:
    held = [remote.reserve(ACME, TOOL, usd(1)).reservation_id or "" for _ in range(4)]
    server.fail("commit", *["503"] * 12)
    for one in held:
        with pytest.raises(AuthorityUnavailable):
            remote.commit(one, usd(1))
    server.faults.clear()
    server.fail("commit", *["hang"] * 50)
    remote._exchange.breaker.leave(False, False)
    began = time.monotonic()
    assert remote.flush_journal(0.5).waiting == 4
    assert time.monotonic() - began < 1.5

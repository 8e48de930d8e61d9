"""A ledger moves between the engines and is the same afterwards: every row, every balance, every answer."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.authority.kit import AGENT, BOT, TENANT, budget, events, figures, hold, run
from tests.postgres.kit import open_authority

from clearance.authority.clock import ManualClock
from clearance.authority.embedded import EmbeddedAuthority
from clearance.errors import InvalidRequest, StoreCorrupt
from clearance.model.amount import tokens
from clearance.model.caps import Caps, CapsRule
from clearance.model.period import Period
from clearance.store.move import copy_ledger, export_ledger, import_ledger, totals
from clearance.store.postgres import PostgresStore
from clearance.store.sqlite import SqliteStore


def live_a_little(authority: EmbeddedAuthority) -> str:
    """Something in every table; returns a call that is still open, reserved under the key `held`."""
    budget(authority, TENANT, 10_000, period=Period(every="day", kind="calendar"))
    budget(authority, AGENT, 5_000, overdraft_limit=100, caps=(CapsRule(caps=Caps(max_tokens=5), below_percent=1),))
    outer = run(authority, 500, BOT)
    authority.commit(hold(authority, 40, BOT, run_id=outer), tokens(35), metadata={"words": "\0 'and' \\"})
    authority.release(hold(authority, 30, BOT), reason="no use")
    authority.pause("tenant:acme/agent:other", reason="a drill", actor="ann\0")
    budget(authority, "tenant:gone", 5)
    authority.close_tenant("gone")
    return hold(authority, 20, BOT, run_id=outer, idempotency_key="held\0")


def settle(authority: EmbeddedAuthority, held: str) -> tuple[object, ...]:
    """The same answers from both ledgers, also to a retry of what was asked before the move."""
    again = hold(authority, 20, BOT, run_id=None, idempotency_key="other")
    authority.commit(held, tokens(15), idempotency_key="done")
    authority.release(again)
    return figures(authority), figures(authority, AGENT), authority.check()


@pytest.mark.parametrize("way", ["file", "direct"])
def test_sqlite_to_postgres_and_back(way: str, url: str, tmp_path: Path, clock: ManualClock) -> None:
    def move(source: EmbeddedAuthority, target: EmbeddedAuthority) -> None:
        before = totals(source._store)
        if way == "direct":
            after = copy_ledger(source._store, target._store)
        else:
            export = io.StringIO()
            export_ledger(source._store, export)
            after = import_ledger(target._store, io.StringIO(export.getvalue()))
        assert before == after == totals(target._store)

    first = EmbeddedAuthority(SqliteStore(tmp_path / "first.db"), clock=clock, background=False)
    held = live_a_little(first)
    middle = open_authority(url, clock=clock)
    move(first, middle)
    assert middle.check() == []
    assert [(e.seq, e.type, e.data) for e in events(first)] == [(e.seq, e.type, e.data) for e in events(middle)]
    last = EmbeddedAuthority(SqliteStore(tmp_path / "last.db"), clock=clock, background=False)
    move(middle, last)
    assert settle(first, held) == settle(middle, held) == settle(last, held)
    newest = [authority.events(limit=1000)[-1].type for authority in (first, middle, last)]
    assert len(set(newest)) == 1
    for authority in (first, middle, last):
        authority.close()


def test_a_full_ledger_is_not_filled_again(url: str, tmp_path: Path, clock: ManualClock) -> None:
    source = EmbeddedAuthority(SqliteStore(tmp_path / "ledger.db"), clock=clock, background=False)
    live_a_little(source)
    target = PostgresStore(url)
    before = copy_ledger(source._store, target)
    with pytest.raises(InvalidRequest, match="not empty"):
        copy_ledger(source._store, target)
    assert totals(target) == before
    target.close()
    source.close()


@pytest.mark.parametrize(
    ("spoil", "error"),
    [
        (lambda lines: lines[:-1], InvalidRequest),
        (lambda lines: lines[1:], InvalidRequest),
        (lambda lines: [*lines[:1], *lines[2:]], StoreCorrupt),
        (lambda lines: [line.replace(", 10000,", ", 10001,") for line in lines], StoreCorrupt),
        (lambda lines: [*lines[:2], "{", *lines[2:]], InvalidRequest),
    ],
    ids=["cut off", "without a head", "a row lost", "a balance changed", "not JSON"],
)  # fmt: skip
def test_a_spoiled_export_changes_nothing(
    spoil: Callable[[list[str]], list[str]], error: type[Exception], url: str, tmp_path: Path, clock: ManualClock
) -> None:
    source = EmbeddedAuthority(SqliteStore(tmp_path / "ledger.db"), clock=clock, background=False)
    live_a_little(source)
    export = io.StringIO()
    export_ledger(source._store, export)
    target = PostgresStore(url)
    with pytest.raises(error):
        import_ledger(target, spoil(export.getvalue().splitlines()))
    assert sum(totals(target).rows.values()) == 0
    target.close()
    source.close()

"""Taking from a ledger what is settled and old, beside the traffic, so that what is left still tells the balances.

`compact` removes, batch by batch, each a short transaction: used idempotency keys, lines of the log and settled
reservations from before a moment. Where a line that goes was the last word on an account, a line of the type
`budget.carried_forward` takes its place and number, with the account's figures as of then: an opening balance. Whatever
is open keeps its lines, so the log that is left can be replayed from its first line, at any time, also between two
batches and after an interruption; run it again to go on. (An interruption may leave the beginning of a run without its
end. That is no budget's figure, and the next compaction takes it.)
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from clearance.errors import InvalidRequest
from clearance.store.compaction.bench import Bench
from clearance.store.compaction.thinning import Thinning
from clearance.store.interface import Changes, NewEvent, Store
from clearance.store.sqlite import SqliteStore

DAY_MS = 86_400_000
MIN_AGE_MS = DAY_MS
"""Idempotency keys are kept at least so long (protocol section 13)."""
LINES = 500
"""Of one batch: a few milliseconds of a writer's time."""
KEYS = 2_000
COMPACTED = "ledger.compacted"


@dataclass
class Compaction:
    """What was removed, or with `dry_run` what would be."""

    older_than_ms: int
    dry_run: bool
    through_seq: int = 0
    """The last line that was old enough; everything after it is as it was."""
    lines_seen: int = 0
    lines_removed: int = 0
    lines_carried: int = 0
    """Lines that became an opening balance."""
    reservations_removed: int = 0
    keys_removed: int = 0

    @property
    def is_empty(self) -> bool:
        return not (self.lines_removed or self.lines_carried or self.reservations_removed or self.keys_removed)

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


Progress = Callable[[str, Compaction], None]
"""(what is being done, how far it is); called after every batch."""


def compact(
    store: Store,
    older_than_ms: int,
    now_ms: int,
    *,
    dry_run: bool = False,
    progress: Progress = lambda stage, done: None,
) -> Compaction:
    """Remove what is older than `older_than_ms` before `now_ms`. Safe to interrupt and to run twice at a time.

    Raises InvalidRequest for an age below a day, and StoreError kinds.
    """
    if older_than_ms < MIN_AGE_MS:
        raise InvalidRequest("older_than", "is less than idempotency keys are kept", "1d or more")
    done = Compaction(older_than_ms, dry_run)
    with bench_of(store) as bench:
        done.through_seq = _horizon(bench, now_ms - older_than_ms)
        if done.through_seq:
            # Keys first: none may ever point to a line that is gone.
            _remove_keys(bench, done, progress)
            _thin_out(bench, done, progress)
    if not (dry_run or done.is_empty):
        _record(store, done, now_ms)
    return done


def _horizon(bench: Bench, before_ms: int) -> int:
    """The last line with nothing younger at or below it; never the newest, which says where numbering goes on."""
    seq = 0
    newest = bench.newest_seq()
    while True:
        last, first_young = bench.ages(seq, before_ms)
        if first_young is not None:
            return min(first_young, newest) - 1
        if last is None:
            return max(newest - 1, 0)
        seq = last


def _remove_keys(bench: Bench, done: Compaction, progress: Progress) -> None:
    """All of them, in their own order. A key whose reservation is still open is kept with it."""
    after = b""
    while (found := bench.keys(after, done.through_seq, KEYS)) is not None:
        after, old = found
        if old and not done.dry_run:
            bench.remove_keys(old)
        done.keys_removed += len(old)
        progress("keys", done)


def _thin_out(bench: Bench, done: Compaction, progress: Progress) -> None:
    """From the youngest line that is old enough down to the first, so that the last word on an account comes first.

    These lines are history: what was read of them is still so when it is written.
    """
    thinning = Thinning()
    below = done.through_seq + 1
    while lines := bench.lines(below, LINES):
        verdict = thinning.judge(lines, bench.present(thinning.asks_about(lines)))
        if not (done.dry_run or verdict.is_empty):
            bench.replace(verdict)
        below = lines[-1].seq
        done.lines_seen += len(lines)
        done.lines_removed += len(verdict.removed)
        done.lines_carried += len(verdict.carried)
        done.reservations_removed += len(verdict.settled)
        progress("lines", done)


def _record(store: Store, done: Compaction, now_ms: int) -> None:
    """In the log itself, under no tenant: from where on it is complete."""
    event = NewEvent(COMPACTED, "", None, None, {k: v for k, v in done.as_dict().items() if k != "dry_run"})
    with store.transaction(flush=True) as transaction:
        transaction.write(Changes(events=[event]), now_ms)


def bench_of(store: Store) -> Bench:
    if isinstance(store, SqliteStore):
        from clearance.store.compaction.sqlite import SqliteBench

        return SqliteBench(store)
    from clearance.store.compaction.postgres import PostgresBench
    from clearance.store.postgres import PostgresStore

    if isinstance(store, PostgresStore):
        return PostgresBench(store)
    raise InvalidRequest("store", f"cannot compact a {type(store).__name__}", "SqliteStore or PostgresStore")


__all__ = ["COMPACTED", "DAY_MS", "MIN_AGE_MS", "Compaction", "Progress", "compact"]

"""How lines of the audit log get their numbers, so that nobody waits for anybody and no follower misses a line.

A transaction takes one number of a sequence after its locks, so the lines of one account are numbered in the order in
which they happened; each number gives 1,024 lines. Numbers may be missing (a roll-back, a batch without lines).

A transaction with a lower number may commit later than one with a higher. Before it takes its number, a writer
publishes a lower bound of it as a shared advisory lock of its transaction. A follower reads the last number given out,
then the lowest bound published, then the lines: every line up to the smaller of the two is committed or will never be.
Unlike the transaction horizon of a snapshot, this does not wait for strangers in the same database.
"""

from __future__ import annotations

LINES = 1024
"""Lines of the log that come with one number."""
_TAG = 0x0C1EA
"""The upper 24 bits of our advisory locks; a number has the lower 40."""

# The inner query is run first: what it calls may not be moved or left out.
TAKE_NUMBER = (
    "SELECT nextval('clearance.numbers'), (SELECT version FROM clearance.stops_version) FROM ("
    f"SELECT pg_advisory_xact_lock_shared(({_TAG}::bigint << 40) + last_value) FROM clearance.numbers OFFSET 0) bound"
)
LAST_NUMBER = "SELECT last_value FROM clearance.numbers"
LOWEST_BOUND = (
    "SELECT min(((classid::bigint & 255) << 32) + objid::bigint) FROM pg_catalog.pg_locks WHERE locktype = 'advisory' "
    f"AND objsubid = 1 AND classid::bigint >> 8 = {_TAG} "
    "AND database = (SELECT oid FROM pg_catalog.pg_database WHERE datname = current_database())"
)


def complete_up_to(last_number: int, lowest_bound: int | None) -> int:
    """The highest seq below which no line can appear any more."""
    number = last_number if lowest_bound is None else min(last_number, lowest_bound)
    return (number + 1) * LINES - 1

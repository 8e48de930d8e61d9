"""The tests of compaction on PostgreSQL: the fixtures of this folder give the ledger."""

from __future__ import annotations

from tests.store import test_store_compaction as compaction

old = compaction.old
globals().update({name: test for name, test in vars(compaction).items() if name.startswith("test_")})

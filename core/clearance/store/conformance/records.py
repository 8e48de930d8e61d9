"""Named documents with, perhaps, a due time."""

from __future__ import annotations

from clearance.store.conformance.kit import NOW_MS, Bench, expect, spec
from clearance.store.interface import Changes, Record


def _record(name: str, due_at_ms: int | None = None, tenant: str = "acme", kind: str = "delivery") -> Record:
    return Record(kind, name, tenant, {"n": name, "deep": [1, {"x": None}]}, due_at_ms)


@spec
def a_record_is_kept_changed_and_dropped(bench: Bench) -> None:
    bench.write(Changes(records=[_record("a", 5)]))
    with bench.store.read() as reader:
        expect("the record", reader.record("delivery", "a"), _record("a", 5))
        expect("of another kind", reader.record("webhook", "a"), None)
    with bench.store.transaction(flush=False) as tx:
        tx.write(Changes(records=[_record("a"), _record("b")], dropped_records=[("delivery", "b")]), NOW_MS)
        expect("changed", tx.record("delivery", "a"), _record("a"))
        expect("dropped at once", tx.record("delivery", "b"), None)
    bench.write(Changes(dropped_records=[("delivery", "a")]))
    with bench.store.read() as reader:
        expect("dropped", reader.record("delivery", "a"), None)


@spec
def records_are_listed_by_id(bench: Bench) -> None:
    kept = [_record("a"), _record("b", tenant="other"), _record("c"), _record("d")]
    bench.write(Changes(records=[*reversed(kept), _record("a", kind="webhook")]))
    with bench.store.read() as reader:
        expect("all", list(reader.records("delivery", None, "", 10)), kept)
        expect("a page", list(reader.records("delivery", None, "a", 2)), kept[1:3])
        expect("a tenant's", list(reader.records("delivery", "acme", "a", 10)), kept[2:])
    with bench.store.transaction(flush=False) as tx:
        expect("in a transaction", list(tx.records("delivery", "other", "", 10)), [kept[1]])


@spec
def due_records_come_oldest_first(bench: Bench) -> None:
    bench.write(Changes(records=[_record("a", 30), _record("b", 10), _record("c", 20), _record("d"), _record("e", 40)]))
    with bench.store.transaction(flush=False) as tx:
        expect("what is due", [it.id for it in tx.due_records("delivery", 30, 10)], ["b", "c", "a"])
        expect("the first of them", [it.id for it in tx.due_records("delivery", 30, 1)], ["b"])
        expect("of another kind", list(tx.due_records("webhook", 30, 10)), [])

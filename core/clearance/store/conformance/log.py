"""The audit log and the answers it keeps."""

from __future__ import annotations

from clearance.model.results import Event
from clearance.store.conformance.kit import NOW_MS, Bench, event, expect, spec
from clearance.store.interface import Answered, Changes, EventQuery, Place


@spec
def an_event_comes_back_as_it_was_written(bench: Bench) -> None:
    data = {"text": 'quotes " and \\ \0 \u00fc', "big": 2**62, "list": [1, None]}
    [seq] = bench.write(Changes(events=[event("x.y", reservation_id="rsv_1", data=data)]))
    expected = Event(seq, NOW_MS, "acme", "x.y", "tenant:acme", "rsv_1", data)
    with bench.store.transaction(flush=False) as tx:
        expect("by its seq", tx.event(seq), expected)
        expect("one that is not there", tx.event(seq + 10**6), None)
    with bench.store.read() as reader:
        expect("in the log", reader.events(EventQuery(), 10), [expected])


@spec
def seqs_rise_within_and_between_transactions(bench: Bench) -> None:
    many = Changes(events=[event(data={"n": n}) for n in range(1500)])
    first, second = bench.write(many, Changes(events=[event(data={"n": 1500})]))
    with bench.store.read() as reader:
        found = reader.events(EventQuery(), 2000)
    expect("the order", [it.data["n"] for it in found], list(range(1501)))
    seqs = [it.seq for it in found]
    expect("that seqs rise", seqs, sorted(set(seqs)))
    expect("the seqs that write returned", (seqs[0], seqs[1500]), (first, second))


@spec
def renewals_stand_before_the_events_and_the_seq_is_the_first_events(bench: Bench) -> None:
    [seq] = bench.write(Changes(renewals=[event("budget.renewed")] * 2, events=[event("x.y"), event("x.z")]))
    with bench.store.read() as reader:
        found = reader.events(EventQuery(), 10)
    expect("the order", [it.type for it in found], ["budget.renewed", "budget.renewed", "x.y", "x.z"])
    expect("the seq", seq, found[2].seq)


@spec
def write_returns_zero_without_events(bench: Bench) -> None:
    expect("the seq", bench.write(Changes()), [0])


@spec
def a_used_key_gives_its_payload_and_event(bench: Bench) -> None:
    key, place = b"\x00\xff" * 8, Place(b"\x00\xff" * 8, b"\x01\\'" * 5)
    with bench.store.transaction(flush=True) as tx:
        expect("before", tx.answered(key), None)
        seq = tx.write(Changes(events=[event(), event()], place=place), NOW_MS)
        expect("within", tx.answered(key), Answered(place.payload, seq))
        line = tx.event(seq)
        expect("its event within", line.seq if line else None, seq)
    with bench.store.transaction(flush=False) as tx:
        expect("after", tx.answered(key), Answered(place.payload, seq))
        expect("another key", tx.answered(b"x" * 16), None)


@spec
def the_log_is_filtered_and_followed(bench: Bench) -> None:
    lines = [
        event("a", scope="tenant:acme"),
        event("b", scope="tenant:acme/agent:x", reservation_id="rsv_1"),
        event("c", scope="tenant:acme/agent:xy"),
        event("a", tenant="other", scope="tenant:other"),
        event("a", scope=None),
    ]
    first, *_ = bench.write(*(Changes(events=[line]) for line in lines))

    def types(limit: int = 10, **filters: object) -> list[str]:
        with bench.store.read() as reader:
            return [it.type for it in reader.events(EventQuery(**filters), limit)]  # type: ignore[arg-type]

    expect("everything", types(), ["a", "b", "c", "a", "a"])
    expect("downwards", types(2, descending=True), ["a", "a"])
    expect("after the first", types(2, after=first), ["b", "c"])
    expect("by tenant", types(tenant="other"), ["a"])
    expect("by type", types(types=("b", "c")), ["b", "c"])
    expect("by reservation", types(reservation_id="rsv_1"), ["b"])
    expect("by scope and below", types(scope="tenant:acme"), ["a", "b", "c"])
    expect("by a scope that is another's beginning", types(scope="tenant:acme/agent:x"), ["b"])
    with bench.store.read() as reader:
        last = reader.events(EventQuery(), 10)[-1].seq
        below = [it.type for it in reader.events(EventQuery(after=last, descending=True), 2)]
    expect("downwards from the last", below, ["a", "c"])

"""Reservations: kept whole, found while open by what they hold and when they are due."""

from __future__ import annotations

from clearance.model.reservation import Reservation
from clearance.store.conformance.kit import NOW_MS, Bench, account, expect, reservation, spec
from clearance.store.interface import Changes, ReservationQuery

WORDS = {"text": 'quotes " and \\ and \u00fc \U0001f600', "zero": "\0", "deep": {"list": [1, 2.5, None, True]}}


def _committed(it: Reservation, actual: int = 7) -> Reservation:
    return it._replace(status="COMMITTED", charged=actual, actual=actual, finalized_at_ms=NOW_MS + 5)


@spec
def every_field_of_a_reservation_comes_back(bench: Bench) -> None:
    run = reservation("run_1", kind="run", held_on=(), metadata=WORDS)
    inner = reservation("rsv_1", runs=("run_1",), held_on=("run:run_1",), idempotency_key="a 'key'", metadata=WORDS)
    bench.write(Changes(accounts=[account()], opened=[run, inner]))
    with bench.store.read() as reader:
        expect("the run", reader.reservation("run_1"), run)
        expect("the call", reader.reservation("rsv_1"), inner)
        expect("an unknown one", reader.reservation("rsv_unknown"), None)
        expect("an id with a NUL", reader.reservation("rsv\0"), None)


@spec
def a_settled_reservation_keeps_its_outcome(bench: Bench) -> None:
    held = reservation("rsv_1")
    done = _committed(held)._replace(committed_metadata=WORDS)
    bench.write(Changes(accounts=[account(reserved=10)], opened=[held]), Changes(changed=[done]))
    with bench.store.transaction(flush=False) as tx:
        expect("the reservation", tx.reservation("rsv_1"), done)
        expect("what is due", list(tx.due(NOW_MS * 2, 10)), [])
        expect("what is open", list(tx.open_below(None, "*")), [])


@spec
def an_extension_moves_the_lease(bench: Bench) -> None:
    held = reservation("rsv_1")
    longer = held._replace(expires_at_ms=held.expires_at_ms + 1000, extension_count=1)
    bench.write(Changes(opened=[held]), Changes(changed=[longer]))
    with bench.store.transaction(flush=False) as tx:
        expect("the reservation", tx.reservation("rsv_1"), longer)
        expect("due before", list(tx.due(held.due_at_ms, 10)), [])
        expect("due after", [it.id for it in tx.due(longer.due_at_ms, 10)], ["rsv_1"])


@spec
def opened_and_settled_in_one_transaction(bench: Bench) -> None:
    held = reservation("rsv_1")
    with bench.store.transaction(flush=False) as tx:
        tx.write(Changes(opened=[held]), NOW_MS)
        tx.write(Changes(changed=[_committed(held)]), NOW_MS)
        expect("within", tx.reservation("rsv_1"), _committed(held))
    with bench.store.read() as reader:
        expect("after", reader.reservation("rsv_1"), _committed(held))


@spec
def due_gives_the_oldest_first_and_no_more_than_asked(bench: Bench) -> None:
    held = [reservation(f"rsv_{n}", expires_at_ms=NOW_MS + 10 - n) for n in range(6)]
    bench.write(Changes(opened=held))
    with bench.store.transaction(flush=False) as tx:
        expect("the ids", [it.id for it in tx.due(NOW_MS + 99, 4)], ["rsv_5", "rsv_4", "rsv_3", "rsv_2"])
        expect("on the very moment", [it.id for it in tx.due(held[5].due_at_ms, 9)], ["rsv_5"])
        expect("before it", list(tx.due(held[5].due_at_ms - 1, 9)), [])


@spec
def open_in_run_gives_what_is_directly_inside(bench: Bench) -> None:
    outer = reservation("run_o", kind="run")
    middle = reservation("run_m", kind="run", runs=("run_o",))
    calls = [reservation("rsv_1", runs=("run_o",)), reservation("rsv_2", runs=("run_o", "run_m"))]
    bench.write(Changes(opened=[outer, middle, *calls, reservation("rsv_3", runs=("run_o",))]))
    bench.write(Changes(changed=[_committed(reservation("rsv_3", runs=("run_o",)))]))
    with bench.store.transaction(flush=False) as tx:
        expect("in the outer run", sorted(it.id for it in tx.open_in_run("run_o")), ["rsv_1", "run_m"])
        expect("in the inner run", [it.id for it in tx.open_in_run("run_m")], ["rsv_2"])


@spec
def open_below_reaches_scopes_runs_tenants_and_everybody(bench: Bench) -> None:
    run = reservation("run_1", kind="run")
    mine = [run, reservation("rsv_in", runs=("run_1",)), reservation("rsv_out")]
    bench.write(Changes(opened=[*mine, reservation("rsv_other", tenant="other")]))
    with bench.store.transaction(flush=False) as tx:

        def below(tenant: str | None, scope: str) -> list[str]:
            return sorted(it.id for it in tx.open_below(tenant, scope))

        expect("a tenant's scope", below("acme", "tenant:acme"), ["rsv_in", "rsv_out", "run_1"])
        expect("an agent's scope", below("acme", "tenant:acme/agent:bot"), ["rsv_in", "rsv_out", "run_1"])
        expect("another agent's scope", below("acme", "tenant:acme/agent:bo"), [])
        expect("a run", below("acme", "run:run_1"), ["rsv_in", "run_1"])
        expect("everything of a tenant", below("acme", "*"), ["rsv_in", "rsv_out", "run_1"])
        expect("everything", below(None, "*"), ["rsv_in", "rsv_other", "rsv_out", "run_1"])


@spec
def what_is_open_comes_in_the_order_in_which_it_is_due(bench: Bench) -> None:
    """So that every engine ends and names the same things in the same order."""
    late, soon = NOW_MS + 90_000, NOW_MS + 30_000
    ends = {"rsv_3": soon, "rsv_1": late, "rsv_4": soon, "rsv_2": late}
    held = [reservation(name, expires_at_ms=end, runs=("run_1",)) for name, end in ends.items()]
    bench.write(Changes(opened=[*held, reservation("run_1", kind="run", expires_at_ms=late)]))
    with bench.store.transaction(flush=False) as tx:
        order = ["rsv_3", "rsv_4", "rsv_1", "rsv_2"]
        expect("below the tenant", [it.id for it in tx.open_below("acme", "tenant:acme")], [*order, "run_1"])
        expect("due", [it.id for it in tx.due(NOW_MS + 999_999, 4)], order)
        expect("in the run, by id", [it.id for it in tx.open_in_run("run_1")], sorted(order))


@spec
def lists_filter_sort_and_page(bench: Bench) -> None:
    held = [
        reservation(f"rsv_{n}", created_at_ms=NOW_MS + n // 2, estimate=n % 3, idempotency_key=f"key-{n}")
        for n in range(6)
    ]
    bench.write(Changes(opened=[*held, reservation("run_1", kind="run", tenant="other")]))
    bench.write(Changes(changed=[_committed(held[0])]))

    def ids(limit: int = 10, after: tuple[object, str] | None = None, **filters: object) -> list[str]:
        with bench.store.read() as reader:
            return [it.id for it in reader.reservations(ReservationQuery(**filters), limit, after)]  # type: ignore[arg-type]

    newest = ["rsv_4", "rsv_5", "rsv_2", "rsv_3"]
    expect("the newest first, then by id", ids(4, tenant="acme"), newest)
    expect("the next page", ids(4, (NOW_MS + 1, "rsv_3"), tenant="acme"), ["rsv_0", "rsv_1"])
    expect("by id upwards", ids(2, sort_by="reservation_id", descending=False), ["rsv_0", "rsv_1"])
    by_estimate = ids(6, tenant="acme", sort_by="reserved", descending=False)
    expect("by estimate", by_estimate, ["rsv_0", "rsv_3", "rsv_1", "rsv_4", "rsv_2", "rsv_5"])
    expect("by status", ids(status="COMMITTED"), ["rsv_0"])
    expect("by kind", ids(kind="run"), ["run_1"])
    expect("by key", ids(idempotency_key="key-3"), ["rsv_3"])
    expect("by segment", ids(segments=("agent:bot",), tenant="other"), ["run_1"])
    expect("by part of a segment", ids(segments=("agent:b",)), [])
    expect("by scope", ids(scope="tenant:other"), ["run_1"])
    expect("by a scope that looks like a pattern", ids(scope="tenant:%"), [])
    window = ids(tenant="acme", created_from_ms=NOW_MS + 1, created_to_ms=NOW_MS + 1)
    expect("by window", window, ["rsv_2", "rsv_3"])
    expect("by end", ids(finalized_from_ms=NOW_MS + 5, finalized_to_ms=NOW_MS + 5), ["rsv_0"])

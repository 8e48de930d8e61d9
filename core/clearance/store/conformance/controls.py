"""Stops and tenants."""

from __future__ import annotations

from typing import Any

from clearance.model.results import Stop
from clearance.store.conformance.kit import NOW_MS, Bench, expect, reservation, spec
from clearance.store.interface import Changes, Tenant


def _stop(scope: str, state: Any = "KILLED", tenant: str = "acme") -> Stop:
    return Stop(scope, tenant, state, "because", "ann", NOW_MS)


@spec
def a_stop_is_in_force_until_it_is_lifted(bench: Bench) -> None:
    bench.write(Changes(stops=[_stop("tenant:acme"), _stop("run:run_1", "PAUSED")]))
    with bench.store.transaction(flush=False) as tx:
        expected = {("acme", "tenant:acme"): _stop("tenant:acme"), ("acme", "run:run_1"): _stop("run:run_1", "PAUSED")}
        expect("the stops", dict(tx.stops()), expected)
        tx.write(Changes(stops=[_stop("tenant:acme", "RUNNING")]), NOW_MS)
        expect("after the resume, within", set(tx.stops()), {("acme", "run:run_1")})
    with bench.store.transaction(flush=False) as tx:
        expect("after the resume", set(tx.stops()), {("acme", "run:run_1")})
    with bench.store.read() as reader:
        states = [(stop.scope, stop.state) for stop in reader.stops()]
        expect("every stop there ever was", states, [("run:run_1", "PAUSED"), ("tenant:acme", "RUNNING")])


@spec
def a_stop_that_was_rolled_back_is_not_in_force(bench: Bench) -> None:
    try:
        with bench.store.transaction(flush=False) as tx:
            tx.write(Changes(stops=[_stop("tenant:acme")]), NOW_MS)
            tx.stops()
            raise KeyError
    except KeyError:
        pass
    with bench.store.transaction(flush=False) as tx:
        expect("the stops", dict(tx.stops()), {})


@spec
def open_stops_names_what_lies_below(bench: Bench) -> None:
    held = [reservation("rsv_1"), reservation("rsv_2", tenant="other"), reservation("rsv_3", runs=("run_1",))]
    bench.write(Changes(opened=held), Changes(stops=[_stop("run:run_1")]))
    with bench.store.read() as reader:
        names = ["rsv_1", "rsv_2", "rsv_3", "rsv_unknown"]
        expect("below the run", reader.open_stops(names), {"rsv_3": _stop("run:run_1")})
        expect("of nothing", reader.open_stops([]), {})
    bench.write(Changes(stops=[_stop("*", tenant="")]))
    with bench.store.read() as reader:
        expect("below everything", set(reader.open_stops(names)), {"rsv_1", "rsv_2", "rsv_3"})
    done = held[0]._replace(status="RELEASED", finalized_at_ms=NOW_MS)
    bench.write(Changes(changed=[done]))
    with bench.store.read() as reader:
        expect("of a settled one", reader.open_stops(["rsv_1"]), {})


@spec
def of_several_stops_the_first_by_name_is_told(bench: Bench) -> None:
    stops = [_stop("tenant:acme/agent:bot", "PAUSED"), _stop("tenant:acme"), _stop("run:run_1")]
    bench.write(Changes(opened=[reservation("rsv_1", runs=("run_1",))]), Changes(stops=stops))
    with bench.store.read() as reader:
        expect("the stop", reader.open_stops(["rsv_1"]), {"rsv_1": _stop("run:run_1")})
    with bench.store.transaction(flush=False) as tx:
        expect("the order", list(tx.stops()), [("acme", it.scope) for it in sorted(stops, key=lambda it: it.scope)])


@spec
def a_tenant_is_kept_and_changed(bench: Bench) -> None:
    full = Tenant("acme", "CLOSED", "REJECT", 3)
    with bench.store.transaction(flush=False) as tx:
        expect("before", tx.tenant("acme"), None)
        tx.write(Changes(tenants=[Tenant("acme"), Tenant("b")]), NOW_MS)
        expect("within", tx.tenant("acme"), Tenant("acme"))
    bench.write(Changes(tenants=[full]))
    with bench.store.transaction(flush=False) as tx:
        expect("after", tx.tenant("acme"), full)
    with bench.store.read() as reader:
        expect("all", reader.tenants(), [full, Tenant("b")])


@spec
def words_for_people_may_be_any_text(bench: Bench) -> None:
    reason = 'a "quoted" \\ reason, \u00fc \U0001f600'
    bench.write(Changes(stops=[Stop("tenant:acme", "acme", "KILLED", reason, "o'hara", NOW_MS)]))
    bench.write(Changes(stops=[Stop("tenant:b", "b", "KILLED", "a\0b", "x", NOW_MS)]))
    with bench.store.read() as reader:
        expect("the reason", reader.stops()[0].reason, reason)
        expect("that the other is kept", reader.stops()[1].scope, "tenant:b")


@spec
def a_stop_on_the_owner_of_a_run_reaches_what_is_done_inside(bench: Bench) -> None:
    owner, helper = ("tenant:acme/agent:owner", "tenant:acme/agent:helper")
    run = reservation("run_1", kind="run", affected_scopes=("tenant:acme", owner))
    inside = reservation("rsv_in", runs=("run_1",), affected_scopes=("tenant:acme", helper))
    outside = reservation("rsv_out", affected_scopes=("tenant:acme", helper))
    bench.write(Changes(opened=[run, inside, outside]), Changes(stops=[_stop(owner)]))
    with bench.store.transaction(flush=False) as tx:
        expect("in flight", sorted(it.id for it in tx.open_below("acme", owner)), ["rsv_in", "run_1"])
    with bench.store.read() as reader:
        expect("stopped", set(reader.open_stops(["rsv_in", "rsv_out", "run_1"])), {"rsv_in", "run_1"})

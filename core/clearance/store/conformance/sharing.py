"""Several Stores on one ledger, as several processes have them."""

from __future__ import annotations

import threading

from clearance.model.results import Stop
from clearance.store.conformance.kit import NOW_MS, Bench, account, event, expect, reservation, shared_spec, until_done
from clearance.store.interface import Changes, EventQuery, Needs, Store, Transaction


@shared_spec
def another_store_sees_every_commit_at_once(bench: Bench) -> None:
    other = bench.another() if bench.opened else (bench.store, bench.another())[1]
    for n in range(5):
        bench.write(Changes(accounts=[account(spent=n)]), store=bench.opened[n % 2])
        for store in bench.opened:
            with store.transaction(flush=False) as tx:
                found = tx.account(*account().key)
                expect(f"what was spent, round {n}", found.spent if found else None, n)
    with other.read() as reader:
        expect("read by the other", reader.accounts(None, 1, None)[0].spent, 4)


@shared_spec
def a_reopened_ledger_is_as_it_was_left(bench: Bench) -> None:
    bench.write(Changes(accounts=[account(reserved=10)], opened=[reservation("rsv_1")], events=[event()]))
    bench.store.close()
    again = bench.another()
    with again.read() as reader:
        expect("the account", reader.accounts(None, 10, None), [account(reserved=10)])
        expect("the reservation", reader.reservation("rsv_1"), reservation("rsv_1"))
        expect("the log", len(reader.events(EventQuery(), 10)), 1)


@shared_spec
def stores_never_lose_each_others_changes(bench: Bench) -> None:
    bench.write(Changes(accounts=[account(), account("tenant:acme/agent:bot")]))
    stores = [bench.store, bench.another(), bench.another()]
    keys = [account().key, account("tenant:acme/agent:bot").key]
    tenant, scopes, unit = account().tenant, [key[1] for key in keys], account().unit
    errors: list[Exception] = []

    def spend(store: Store, turn: int) -> None:
        def both(tx: Transaction) -> None:
            tx.prefetch([Needs([(tenant, scopes[:: 1 if turn % 2 else -1], (unit,))])])
            changed = []
            for key in keys:
                old = tx.account(*key)
                assert old is not None
                changed.append(old._replace(spent=old.spent + 1))
            tx.write(Changes(accounts=changed, events=[event()]), NOW_MS)

        try:
            for _ in range(20):
                until_done(store, both)
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=spend, args=(store, turn)) for turn, store in enumerate(stores)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    expect("the errors", errors, [])
    with bench.store.read() as reader:
        expect("what was spent", [it.spent for it in reader.accounts(None, 10, None)], [60, 60])
        expect("the lines of the log", len(reader.events(EventQuery(), 100)), 60)


@shared_spec
def a_stop_by_one_store_is_seen_by_the_next_transaction_of_another(bench: Bench) -> None:
    other = (bench.store, bench.another())[1]
    with other.transaction(flush=False) as tx:
        expect("before", dict(tx.stops()), {})
    stop = Stop("tenant:acme", "acme", "KILLED", "because", "ann", NOW_MS)
    bench.write(Changes(stops=[stop]))
    with other.transaction(flush=False) as tx:
        expect("after", dict(tx.stops()), {("acme", "tenant:acme"): stop})

"""All of a transaction's changes happen or none does."""

from __future__ import annotations

import threading
import time

from clearance.errors import ClearanceError
from clearance.store.conformance.kit import NOW_MS, Bench, account, event, expect, expect_error, reservation, spec
from clearance.store.interface import Changes, EventQuery, Place


@spec
def what_was_committed_is_read(bench: Bench) -> None:
    bench.write(Changes(accounts=[account()]))
    with bench.store.read() as reader:
        expect("the accounts", reader.accounts(None, 10, None), [account()])


@spec
def an_exception_undoes_everything(bench: Bench) -> None:
    bench.write(Changes(accounts=[account()]))

    def fail() -> None:
        with bench.store.transaction(flush=False) as tx:
            tx.write(
                Changes(
                    accounts=[account(spent=5), account("tenant:acme/agent:new")],
                    opened=[reservation("rsv_1")],
                    events=[event()],
                    place=Place(b"k" * 16, b"p" * 16),
                ),
                NOW_MS,
            )
            raise KeyError("stop")

    expect_error("the transaction", fail, KeyError)
    with bench.store.read() as reader:
        expect("the accounts", reader.accounts(None, 10, None), [account()])
        expect("the reservation", reader.reservation("rsv_1"), None)
        expect("the events", reader.events(EventQuery(), 10), [])
    with bench.store.transaction(flush=False) as tx:
        expect("the used key", tx.answered(b"k" * 16), None)
        expect("the account in a later transaction", tx.account(*account().key), account())


@spec
def a_transaction_reads_what_it_has_written(bench: Bench) -> None:
    bench.write(Changes(accounts=[account()]))
    with bench.store.transaction(flush=False) as tx:
        tx.write(Changes(accounts=[account(reserved=10)], opened=[reservation("rsv_1")]), NOW_MS)
        expect("the account", tx.account(*account().key), account(reserved=10))
        expect("the scope's accounts", list(tx.accounts_of("acme", "tenant:acme")), [account(reserved=10)])
        expect("the tenant's accounts", list(tx.accounts_below("acme")), [account(reserved=10)])
        expect("the reservation", tx.reservation("rsv_1"), reservation("rsv_1"))
        expect("what is due", [it.id for it in tx.due(NOW_MS + 99_999, 10)], ["rsv_1"])


@spec
def writes_counts_the_writes(bench: Bench) -> None:
    with bench.store.transaction(flush=False) as tx:
        before = tx.writes
        tx.account(*account().key)
        expect("writes after a read", tx.writes, before)
        tx.write(Changes(accounts=[account()]), NOW_MS)
        expect("writes after a write", tx.writes, before + 1)


@spec
def flushed_and_unflushed_transactions_follow_each_other(bench: Bench) -> None:
    for spent, flush in enumerate((True, False, True, False)):
        with bench.store.transaction(flush=flush) as tx:
            tx.write(Changes(accounts=[account(spent=spent)]), NOW_MS)
    with bench.store.read() as reader:
        expect("the account", reader.accounts(None, 10, None), [account(spent=3)])


@spec
def threads_take_turns(bench: Bench) -> None:
    bench.write(Changes(accounts=[account(allocated=10**6)]))

    def spend() -> None:
        for _ in range(10):
            with bench.store.transaction(flush=False) as tx:
                old = tx.account(*account().key)
                assert old is not None
                tx.write(Changes(accounts=[old._replace(spent=old.spent + 1)]), NOW_MS)

    threads = [threading.Thread(target=spend) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with bench.store.read() as reader:
        expect("what eight threads spent", reader.accounts(None, 10, None)[0].spent, 80)


@spec
def a_read_does_not_see_an_open_transaction(bench: Bench) -> None:
    bench.write(Changes(accounts=[account()]))
    seen: list[int] = []

    def look() -> None:
        with bench.store.read() as reader:
            seen.append(reader.accounts(None, 10, None)[0].spent)

    with bench.store.transaction(flush=False) as tx:
        tx.write(Changes(accounts=[account(spent=7)]), NOW_MS)
        thread = threading.Thread(target=look)
        thread.start()
        time.sleep(0.05)
    thread.join()
    # An engine whose readers wait for the writer (a ledger in memory) sees the transaction whole.
    expect("what was seen", seen[0] in (0, 7), True)


@spec
def closing_twice_is_fine_and_ends_the_use(bench: Bench) -> None:
    bench.store.close()
    bench.store.close()

    def use() -> None:
        with bench.store.transaction(flush=False) as tx:
            tx.account(*account().key)

    expect_error("a transaction after close", use, ClearanceError)


@spec
def describe_names_the_engine_and_check_finds_nothing(bench: Bench) -> None:
    bench.write(Changes(accounts=[account(reserved=10)], opened=[reservation("rsv_1")], events=[event()]))
    expect("`engine` in describe()", "engine" in bench.store.describe(), True)
    expect("check()", list(bench.store.check()), [])
    bench.store.tidy()

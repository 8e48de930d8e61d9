"""Two Stores at the same rows of one ledger at once. Only outcomes are judged, never which one was first."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from functools import partial

from clearance.model.account import Account
from clearance.model.results import Stop
from clearance.store.conformance.kit import (
    LIMIT_SECONDS,
    NOW_MS,
    Bench,
    Violation,
    account,
    event,
    expect,
    reservation,
    shared_spec,
    until_done,
)
from clearance.store.interface import AccountKey, Changes, EventQuery, Needs, Place, Record, Store, Transaction

HOLD_SECONDS = 0.06
"""For how long one stays where it is when the other cannot go on beside it."""

Pause = Callable[[], object]
Turn = Callable[[Transaction, Pause], None]
"""An operation, which may be run again; it calls the second where the other shall catch up."""


def _race(bench: Bench, first: Turn, second: Turn) -> None:
    """`second` begins when `first` pauses; `first` goes on when `second` pauses or ends, `second` when `first` ends.

    Locks may make any of this impossible, so nobody waits for longer than HOLD_SECONDS.
    """
    stores = (bench.store, bench.opened[1] if len(bench.opened) > 1 else bench.another())
    first_paused, first_ended, second_paused = threading.Event(), threading.Event(), threading.Event()
    errors: list[Exception] = []

    def lead() -> None:
        first_paused.set()
        second_paused.wait(HOLD_SECONDS)

    def run(store: Store, turn: Turn, pause: Pause, ended: Sequence[threading.Event]) -> None:
        try:
            until_done(store, lambda tx: turn(tx, pause))
        except Exception as error:
            errors.append(error)
        finally:
            for it in ended:
                it.set()

    def follow() -> None:
        second_paused.set()
        first_ended.wait(HOLD_SECONDS)

    def run_second() -> None:
        first_paused.wait(LIMIT_SECONDS)
        run(stores[1], second, follow, [second_paused])

    threads = [
        threading.Thread(target=run, args=(stores[0], first, lead, [first_paused, first_ended]), daemon=True),
        threading.Thread(target=run_second, daemon=True),
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LIMIT_SECONDS)
    if any(thread.is_alive() for thread in threads):
        raise Violation(f"two transactions at the same rows: not through after {LIMIT_SECONDS} s")
    expect("the errors", errors, [])


# -- rows that are there --------------------------------------------------------------------------------


Look = Callable[[Transaction], object]


def _settle_twice(bench: Bench, name: str, *looks: Look, held: bool = False) -> None:
    """Both find the reservation, each in its own way, and settle it if it is still open."""
    tenant = f"t-{name}"
    before, hold = account(f"tenant:{tenant}", tenant=tenant, reserved=20), reservation(name, tenant=tenant)
    bench.write(Changes(accounts=[before], opened=[hold if held else hold._replace(held_on=())]))

    def settle(tx: Transaction, pause: Pause, look: Look) -> None:
        look(tx)
        found = tx.reservation(name)
        old = tx.account(*before.key) if held else None
        pause()
        if found is None or not found.is_open:
            return
        accounts = [old._replace(reserved=old.reserved - 10, spent=old.spent + 10)] if old else []
        done = found._replace(status="COMMITTED", charged=10, actual=10, finalized_at_ms=NOW_MS)
        tx.write(Changes(accounts=accounts, changed=[done], events=[event(name, tenant)]), NOW_MS)

    _race(bench, *(partial(settle, look=look) for look in looks))
    with bench.store.transaction(flush=False) as tx:
        after = tx.account(*before.key)
        expect("what is reserved and spent", after and (after.reserved, after.spent), (10, 10) if held else (20, 0))
    _expect_lines(bench, name, 1)


def _expect_lines(bench: Bench, kind: str, count: int) -> None:
    with bench.store.read() as reader:
        expect(f"how often {kind} was done", len(reader.events(EventQuery(types=(kind,)), 10)), count)


def _by_name(tx: Transaction) -> None:
    """Nothing beforehand."""


def _by_time(tx: Transaction) -> None:
    tx.due(NOW_MS + 99_999, 10)


@shared_spec
def of_two_that_settle_a_reservation_one_does(bench: Bench) -> None:
    _settle_twice(bench, "rsv_held", _by_name, _by_name, held=True)
    _settle_twice(bench, "rsv_alone", _by_name, _by_name)


@shared_spec
def what_two_find_due_at_once_is_settled_once(bench: Bench) -> None:
    _settle_twice(bench, "rsv_due", _by_time, _by_time)


@shared_spec
def what_is_settled_while_its_scope_is_ended_is_settled_once(bench: Bench) -> None:
    _settle_twice(bench, "rsv_below", _by_name, lambda tx: tx.open_below("t-rsv_below", "tenant:t-rsv_below"))


@shared_spec
def two_that_change_a_record_see_each_other(bench: Bench) -> None:
    bench.write(Changes(records=[Record("lease", "a", "acme", {"n": 0})]))

    def count(tx: Transaction, pause: Pause) -> None:
        old = tx.record("lease", "a")
        pause()
        assert old is not None
        tx.write(Changes(records=[old._replace(body={"n": old.body["n"] + 1})]), NOW_MS)

    _race(bench, count, count)
    with bench.store.read() as reader:
        expect("the record", reader.record("lease", "a"), Record("lease", "a", "acme", {"n": 2}))


@shared_spec
def due_records_are_claimed_once(bench: Bench) -> None:
    bench.write(Changes(records=[Record("delivery", name, "acme", {}, due) for due, name in enumerate("abcd", 1)]))

    def claim(tx: Transaction, pause: Pause) -> None:
        found = list(tx.due_records("delivery", 10, 2))
        pause()
        kind = "claim:" + ",".join(it.id for it in found)
        tx.write(Changes(records=[it._replace(due_at_ms=99) for it in found], events=[event(kind)]), NOW_MS)

    _race(bench, claim, claim)
    # What a claim passed over because another had it is found later.
    for _ in range(2):
        with bench.store.transaction(flush=False) as tx:
            claim(tx, lambda: None)
    with bench.store.read() as reader:
        kinds = [it.type for it in reader.events(EventQuery(), 10)]
    claimed = [name for kind in kinds for name in kind.removeprefix("claim:").split(",") if name]
    expect("what was claimed", sorted(claimed), ["a", "b", "c", "d"])


# -- rows that are missing ------------------------------------------------------------------------------


def _make_twice(bench: Bench, find: Callable[[Transaction], object], made: Changes) -> None:
    """Both write it if they find it missing. `made` has one event, of a type of its own."""

    def make(tx: Transaction, pause: Pause) -> None:
        found = find(tx)
        pause()
        if found is None:
            tx.write(made, NOW_MS)

    _race(bench, make, make)
    _expect_lines(bench, made.events[0].type, 1)


@shared_spec
def of_two_that_find_a_budget_missing_one_makes_it(bench: Bench) -> None:
    first, second = account(), account("tenant:acme/agent:bot")
    for made, kind in ((first, "the first of the tenant"), (second, "one more of the tenant")):
        find = partial(_find_account, key=made.key)
        _make_twice(bench, find, Changes(accounts=[made], events=[event(kind)]))


def _find_account(tx: Transaction, key: AccountKey) -> Account | None:
    return tx.account(*key)


@shared_spec
def of_two_that_find_a_key_unused_one_uses_it(bench: Bench) -> None:
    place = Place(b"k" * 16, b"p" * 16)
    _make_twice(bench, lambda tx: tx.answered(place.key), Changes(events=[event("used")], place=place))


@shared_spec
def of_two_that_find_a_record_missing_one_makes_it(bench: Bench) -> None:
    made = Changes(records=[Record("lease", "a", "acme", {})], events=[event("made")])
    _make_twice(bench, lambda tx: tx.record("lease", "a"), made)


# -- a stop and a grant ---------------------------------------------------------------------------------


def _stop_and_grant(bench: Bench, name: str, *, held: bool, everybody: bool, stop_first: bool) -> None:
    """A grant that did not see the stop must be in what the stop found in flight."""
    tenant = f"t-{name}"
    budget, hold = account(f"tenant:{tenant}", tenant=tenant), reservation(name, tenant=tenant)
    stop = Stop("*" if everybody else budget.scope, "" if everybody else tenant, "KILLED", "because", "ann", NOW_MS)
    # The tenant is known: what an engine keeps for each one is there already.
    bench.write(Changes(accounts=[budget]))
    told: list[str] = []

    def halt(tx: Transaction, pause: Pause) -> None:
        told[:] = [it.id for it in tx.open_below(None if everybody else tenant, stop.scope)]
        tx.write(Changes(stops=[stop]), NOW_MS)
        pause()

    def grant(tx: Transaction, pause: Pause) -> None:
        if held:
            tx.prefetch([Needs([(tenant, [budget.scope], (budget.unit,))])])
        if (stop.tenant, stop.scope) not in tx.stops():
            old = tx.account(*budget.key) if held else None
            accounts = [old._replace(reserved=old.reserved + 10)] if old else []
            opened = hold if held else hold._replace(held_on=())
            tx.write(Changes(accounts=accounts, opened=[opened]), NOW_MS)
        pause()

    _race(bench, *((halt, grant) if stop_first else (grant, halt)))
    with bench.store.read() as reader:
        granted = [it for it in [name] if reader.reservation(it)]
    expect("what was granted, and what the stop has told of", (granted, told), (granted, granted))


@shared_spec
def a_stop_tells_of_every_grant_that_did_not_see_it(bench: Bench) -> None:
    for held in (True, False):
        for stop_first in (True, False):
            name = f"rsv_{held}_{stop_first}"
            _stop_and_grant(bench, name, held=held, everybody=False, stop_first=stop_first)


@shared_spec
def a_stop_of_everybody_tells_of_the_last_grant_before_it(bench: Bench) -> None:
    _stop_and_grant(bench, "rsv_last", held=False, everybody=True, stop_first=False)


@shared_spec
def no_grant_is_made_beside_a_stop_of_everybody(bench: Bench) -> None:
    _stop_and_grant(bench, "rsv_late", held=False, everybody=True, stop_first=True)

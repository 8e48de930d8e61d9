"""Known failures of budget keepers, third part: doors that nobody watches, limits that count the wrong thing, numbers.

F16 (an approval that resolves when the call can no longer be refused) needs approvals, which are not built yet. The
doors of a server and of the frameworks are tested with them.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
from collections.abc import Callable, Iterator
from decimal import Decimal

import pytest
from tests.failures.kit import ACTION, SCOPE, SUBJECT, fund, hold, microcents, standing
from tests.properties.replay import audit

from clearance import (
    Amount,
    Authority,
    BudgetExceeded,
    BudgetSpec,
    Denied,
    InvalidRequest,
    ReservationQuery,
    Unit,
    connect,
    credits,
    usd,
)
from clearance.connecting import LocalAuthority


@pytest.fixture
def authority() -> Iterator[LocalAuthority]:
    opened = connect("memory://")
    yield opened
    opened.close()


DOORS: dict[str, Callable[[LocalAuthority], object]] = {
    "reserve": lambda it: it.reserve(SUBJECT, ACTION, microcents(1)),
    "areserve": lambda it: asyncio.run(it.areserve(SUBJECT, ACTION, microcents(1))),
    "start_run": lambda it: it.start_run(SUBJECT, microcents(1)),
    "astart_run": lambda it: asyncio.run(it.astart_run(SUBJECT, microcents(1))),
    "guard": lambda it: it.guard(ACTION, microcents(1), subject=SUBJECT).__enter__(),
    "run": lambda it: it.run(SUBJECT, 1).__enter__(),
}
"""Every way to be allowed an action."""

NO_DOORS = {"dry_run", "decide", "commit", "release", "extend", "event", "end_run", "stopped"}
"""They allow nothing: they ask, settle, record or keep alive what was allowed before."""


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("closed_by", ["nothing left", "kill", "freeze", "no budget"])
def test_f08_every_door_is_watched(authority: LocalAuthority, door: str, closed_by: str) -> None:
    """One route, a batch or a stream, say, was never connected to the limit."""
    if closed_by != "no budget":
        fund(authority, 0 if closed_by == "nothing left" else 100)
    if closed_by == "kill":
        authority.kill(SCOPE, reason="a drill")
    if closed_by == "freeze":
        authority.freeze(SCOPE)
    with pytest.raises(Denied):
        DOORS[door](authority)
    assert authority.reservations().items == []


def test_f08_no_verb_of_the_authority_is_forgotten_here() -> None:
    """A door that is added later must be watched too."""
    verbs = {name for name, _ in inspect.getmembers(Authority, inspect.isfunction) if not name.startswith("_")}
    sync = {name for name in verbs if not (name.startswith("a") and name[1:] in verbs)}
    assert sync <= DOORS.keys() | NO_DOORS, "say of each new verb whether it allows an action"


def test_f09_a_limit_holds_as_soon_as_it_is_set(authority: LocalAuthority) -> None:
    """The limiter was built, configured and documented, and never put in the way of a call."""
    done: list[int] = []

    @authority.guard("tool.call:search", microcents(10), subject=SUBJECT, actual=microcents(10))
    def search() -> None:
        done.append(1)

    with pytest.raises(Denied):
        search()
    assert done == []
    fund(authority, 25)
    search()
    search()
    with pytest.raises(BudgetExceeded):
        search()
    assert len(done) == 2


def test_f15_a_limit_of_three_calls_is_three_calls(authority: LocalAuthority) -> None:
    """The limit counted steps of the framework: a hundred and fifty turns bought eighteen."""
    authority.set_budget(BudgetSpec(scope="tenant:acme/agent:bot", allocated=credits(3)))
    done: list[int] = []

    @authority.guard("tool.call:deploy", credits(1), subject=SUBJECT, actual=credits(1))
    def deploy(number: int) -> None:
        done.append(number)

    for number in range(3):
        deploy(number)
    for number in range(3, 6):
        with pytest.raises(BudgetExceeded):
            deploy(number)
    assert done == [0, 1, 2]


@pytest.mark.parametrize(
    "value",
    [
        float("nan"),
        float("inf"),
        -1.0,
        1.5,
        -1,
        2**63,
        "NaN",
        "Infinity",
        "-1",
        "1e999999",
        True,
        None,
        Decimal("-0.01"),
    ],
    ids=repr,
)
def test_f17_no_number_that_is_not_an_amount_gets_in(authority: LocalAuthority, value: object) -> None:
    """Not-a-number compares false with every limit, and a negative cost earns money."""
    fund(authority, 100)
    held = hold(authority, 10)
    before, log = standing(authority), authority.events()
    for attempt in (
        lambda: Amount(unit=Unit.USD_MICROCENTS, amount=value),  # type: ignore[arg-type]
        lambda: usd(value),  # type: ignore[arg-type]
        lambda: authority.guard(ACTION, value, subject=SUBJECT).__enter__(),  # type: ignore[arg-type]
        lambda: authority.commit(held, value),  # type: ignore[arg-type]
        lambda: authority.event(SUBJECT, ACTION, value),  # type: ignore[arg-type]
        lambda: authority.reserve(SUBJECT, ACTION, value),  # type: ignore[arg-type]
        lambda: authority.fund(SCOPE, "CREDIT", value),  # type: ignore[arg-type]
    ):
        with pytest.raises(InvalidRequest):
            attempt()
    assert standing(authority) == before
    assert authority.events() == log


def fails(authority: LocalAuthority) -> None:
    with authority.guard(ACTION, microcents(10), subject=SUBJECT):
        raise KeyError("the work failed")


def test_f02_no_way_out_of_a_guard_leaves_a_hold_behind(authority: LocalAuthority) -> None:
    """A path that forgets to settle leaks its hold, until everybody is refused at a fraction of the budget."""
    fund(authority, 10)

    @authority.guard(ACTION, microcents(10), subject=SUBJECT, actual=microcents(0))
    def returns() -> None:
        return None

    @authority.guard(ACTION, microcents(10), subject=SUBJECT, actual=microcents(0))
    def streams() -> Iterator[int]:
        yield from range(3)

    def abandons() -> None:
        stream = streams()
        next(stream)
        stream.close()  # type: ignore[attr-defined]

    for _ in range(5):
        for way_out in (returns, lambda: list(streams()), abandons, lambda: fails(authority)):
            with contextlib.suppress(KeyError):
                way_out()
            assert authority.reservations(ReservationQuery(status="ACTIVE")).items == []
            assert authority.balance(SCOPE).reserved == 0
            authority.fund(SCOPE, "RESET_SPENT", microcents(10))
    assert audit(authority) == []

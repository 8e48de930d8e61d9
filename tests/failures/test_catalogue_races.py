"""Known failures of budget keepers, first part: many callers, replicas and retries.

F4 and F7 are shown with several authorities on one file, as several processes have them; with servers and PostgreSQL
they need the same tests there.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest
from tests.failures.kit import ACTION, SCOPE, at_once, fund, granted, hold, microcents, spend, standing
from tests.properties.replay import audit

from clearance import AlreadyExists, BudgetExceeded, BudgetSpec, ManualClock, Subject, connect
from clearance.authority.embedded import EmbeddedAuthority
from clearance.store.sqlite import SqliteStore


def replicas(path: Path, count: int) -> list[EmbeddedAuthority]:
    clock = ManualClock()
    return [EmbeddedAuthority(SqliteStore(path), clock=clock, background=False) for _ in range(count)]


def close(authorities: list[EmbeddedAuthority]) -> None:
    for authority in authorities:
        authority.close()


def test_f01_callers_that_ask_at_once_cannot_pass_one_check_together(tmp_path: Path) -> None:
    """Checking and counting in two steps lets everybody through who asks in between."""
    (authority,) = replicas(tmp_path / "ledger.db", 1)
    fund(authority, 10)
    ends = at_once(40, lambda _: hold(authority, 1))
    assert len(granted(ends)) == 10
    assert all(isinstance(end, str | BudgetExceeded) for end in ends)
    assert standing(authority) == (0, 10, 0)
    authority.close()


def test_f03_a_retried_reserve_holds_once_however_often_it_is_sent(tmp_path: Path) -> None:
    """The retry finds its reservation, but the counter is moved again, and nobody ever moves it back."""
    (authority,) = replicas(tmp_path / "ledger.db", 1)
    fund(authority, 100)
    ends = at_once(20, lambda _: hold(authority, 60, key="the same"))
    assert len(set(granted(ends))) == 1
    assert len(granted(ends)) == 20
    assert standing(authority) == (40, 60, 0)
    authority.release(granted(ends)[0])
    assert standing(authority) == (100, 0, 0)
    authority.close()


def test_f04_processes_that_start_together_do_not_add_up_what_was_spent(tmp_path: Path) -> None:
    """Each process seeds the shared counter at its start by adding to it; with N of them the spend counts N times."""
    first, *others = replicas(tmp_path / "ledger.db", 8)
    fund(first, 100)
    spend(first, 30)
    held = hold(first, 20)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda one: fund(one, 100), [first, *others]))
    assert [standing(one) for one in (first, *others)] == [(50, 20, 30)] * 8
    others[0].release(held)
    close([first, *others])
    again = replicas(tmp_path / "ledger.db", 2)
    assert [standing(one) for one in again] == [(70, 0, 30)] * 2
    close(again)


def test_f07_replicas_share_one_cap(tmp_path: Path) -> None:
    """A limit kept in each replica's memory is N limits."""
    authorities = replicas(tmp_path / "ledger.db", 4)
    fund(authorities[0], 100)
    done = at_once(40, lambda number: spend(authorities[number % 4], 5))
    assert len(granted(done)) == 20
    assert [standing(one) for one in authorities] == [(0, 0, 100)] * 4
    assert audit(authorities[0]) == []
    close(authorities)


def test_f10_nothing_in_a_process_remembers_a_limit_that_the_ledger_has_lifted(tmp_path: Path) -> None:
    """A second cap, cached in the process and never reset, goes on refusing after the budget was raised or renewed."""
    clock = ManualClock()
    spender = EmbeddedAuthority(SqliteStore(tmp_path / "ledger.db"), clock=clock, background=False)
    operator = EmbeddedAuthority(SqliteStore(tmp_path / "ledger.db"), clock=clock, background=False)
    operator.set_budget(
        BudgetSpec.model_validate({"scope": SCOPE, "allocated": microcents(10), "period": {"every": "hour"}})
    )
    spend(spender, 10)
    with pytest.raises(BudgetExceeded):
        hold(spender, 1)
    operator.fund(SCOPE, "CREDIT", microcents(5))
    spend(spender, 5)
    with pytest.raises(BudgetExceeded):
        hold(spender, 1)
    clock.advance(3_600_000)
    spend(spender, 15)
    assert standing(operator) == (0, 0, 15)
    close([spender, operator])


def test_f14_the_first_use_of_a_budget_is_locked_like_every_other(tmp_path: Path) -> None:
    """A row that is not there yet cannot be locked, so the first two spenders both pass."""
    authorities = replicas(tmp_path / "ledger.db", 4)
    spec = BudgetSpec(scope=SCOPE, allocated=microcents(10))
    made = at_once(8, lambda number: authorities[number % 4].set_budget(spec, must_be_new=True))
    assert len(granted(made)) == 1
    assert sum(isinstance(end, AlreadyExists) for end in made) == 7
    # The agent's own scope has no row at all, the tenant's has just been made.
    assert len(granted(at_once(8, lambda number: hold(authorities[number % 4], 10)))) == 1
    assert standing(authorities[0]) == (0, 10, 0)
    close(authorities)


def test_f18_a_hundred_and_one_agents_launched_at_once_stay_inside_the_cap(tmp_path: Path) -> None:
    """A cap that is compared with yesterday's spend: twenty dollars allowed, forty spent, 101 agents running."""
    bill: list[int] = []
    with closing(connect(tmp_path / "ledger.db")) as authority:
        fund(authority, 200)

        def agent(number: int) -> None:
            subject = Subject(tenant="acme", agent=f"agent-{number}")
            with authority.guard(ACTION, microcents(10), subject=subject, actual=microcents(10)):
                bill.append(10)

        ends = at_once(101, agent)
        assert len(granted(ends)) == len(bill) == 20
        assert sum(bill) == 200
        assert standing(authority) == (0, 0, 200)

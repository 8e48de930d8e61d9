"""Many at once with one key: one effect, one answer."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from tests.authority.kit import ACME, CALL, TENANT, budget, events, figures, hold

from clearance.authority.embedded import EmbeddedAuthority
from clearance.errors import ClearanceError, IdempotencyMismatch
from clearance.model.amount import tokens

CALLERS = 16


def at_once(call: Callable[[int], Any]) -> list[Any]:
    """What each of the callers got, errors included."""
    barrier = threading.Barrier(CALLERS)

    def one(number: int) -> Any:
        barrier.wait()
        try:
            return call(number)
        except ClearanceError as error:
            return error

    with ThreadPoolExecutor(CALLERS) as pool:
        return list(pool.map(one, range(CALLERS)))


@pytest.mark.parametrize(
    ("verb", "told", "after"),
    [
        ("reserve", "reservation.created", (990, 10, 0, 0)),
        ("event", "spend.recorded", (990, 0, 10, 0)),
        ("fund", "budget.funded", (1010, 0, 0, 0)),
        ("dry_run", "decision.previewed", (1000, 0, 0, 0)),
        ("decide", "decision.previewed", (1000, 0, 0, 0)),
    ],
)
def test_duplicates_have_one_effect(authority: EmbeddedAuthority, verb: str, told: str, after: tuple[int, ...]) -> None:
    budget(authority)
    ask = (TENANT, "CREDIT", tokens(10)) if verb == "fund" else (ACME, CALL, tokens(10))
    found = at_once(lambda _: getattr(authority, verb)(*ask, idempotency_key="k"))
    assert all(answer == found[0] for answer in found)
    assert len(events(authority, told)) == 1
    assert figures(authority) == after


@pytest.mark.parametrize("verb", ["commit", "release", "extend"])
def test_duplicates_on_a_reservation_have_one_effect(authority: EmbeddedAuthority, verb: str) -> None:
    budget(authority)
    held = hold(authority, 100)
    ask = {"commit": (held, tokens(60)), "release": (held,), "extend": (held, 1000)}[verb]
    found = at_once(lambda _: getattr(authority, verb)(*ask, idempotency_key="k"))
    assert all(answer == found[0] for answer in found)
    assert (
        figures(authority) == {"commit": (940, 0, 60, 0), "release": (1000, 0, 0, 0), "extend": (900, 100, 0, 0)}[verb]
    )


def test_of_different_payloads_under_one_key_one_wins(authority: EmbeddedAuthority) -> None:
    budget(authority)
    found = at_once(lambda number: authority.event(ACME, CALL, tokens(number + 1), idempotency_key="k"))
    refused = [answer for answer in found if isinstance(answer, IdempotencyMismatch)]
    assert len(refused) == CALLERS - 1
    assert len(events(authority, "spend.recorded")) == 1


def test_the_last_money_goes_to_exactly_as_many_as_it_pays_for(authority: EmbeddedAuthority) -> None:
    budget(authority, TENANT, 75)
    found = at_once(lambda _: hold(authority, 10))
    assert sum(isinstance(answer, str) for answer in found) == 7
    assert figures(authority) == (5, 70, 0, 0)


def test_of_a_commit_and_a_release_at_once_one_happens(authority: EmbeddedAuthority) -> None:
    budget(authority)
    held = hold(authority, 100)
    found = at_once(lambda number: authority.commit(held, tokens(60)) if number % 2 else authority.release(held))
    assert sum(not isinstance(answer, ClearanceError) for answer in found) == 1
    assert figures(authority) in ((940, 0, 60, 0), (1000, 0, 0, 0))

"""What the tests of the failure catalogue share."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TypeVar

from clearance import Action, Amount, BudgetSpec, Subject, Unit
from clearance.authority.embedded import EmbeddedAuthority
from clearance.errors import ClearanceError
from clearance.model.account import OveragePolicy

R = TypeVar("R")

SCOPE = "tenant:acme"
SUBJECT = Subject(tenant="acme", agent="bot")
ACTION = Action(kind="llm.completion", name="model")


def microcents(amount: int) -> Amount:
    return Amount(unit=Unit.USD_MICROCENTS, amount=amount)


def fund(authority: EmbeddedAuthority, amount: int, scope: str = SCOPE, policy: OveragePolicy | None = None) -> None:
    authority.set_budget(BudgetSpec(scope=scope, allocated=microcents(amount), overage_policy=policy))


def hold(authority: EmbeddedAuthority, amount: int, key: str | None = None) -> str:
    return authority.reserve(SUBJECT, ACTION, microcents(amount), idempotency_key=key).reservation_id or ""


def spend(authority: EmbeddedAuthority, amount: int) -> None:
    authority.commit(hold(authority, amount), microcents(amount))


def standing(authority: EmbeddedAuthority, scope: str = SCOPE) -> tuple[int, int, int]:
    """(remaining, reserved, spent) of a budget."""
    balance = authority.balance(scope)
    return balance.remaining, balance.reserved, balance.spent


def at_once(count: int, work: Callable[[int], R]) -> list[R | ClearanceError]:
    """What `count` threads that begin together got, an answer or an error of ours each."""
    gate = threading.Barrier(count)
    ends: list[R | ClearanceError] = []

    def one(number: int) -> None:
        gate.wait()
        try:
            ends.append(work(number))
        except ClearanceError as error:
            ends.append(error)

    threads = [threading.Thread(target=one, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return ends


def granted(ends: list[R | ClearanceError]) -> list[R]:
    return [end for end in ends if not isinstance(end, ClearanceError)]

"""The one piece of work that everything measures: hold an estimate on four budgets, then settle what it cost."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.samples import Limit, timed
from clearance import BudgetSpec, Subject, action, connect, usd
from clearance.connecting import LocalAuthority
from clearance.guard.process import new_key

SUBJECT = Subject(tenant="acme", workspace="production", app="support", agent="triage")
ACTION = action("llm.completion:gpt-4o")
ESTIMATE = usd("0.02")
ACTUAL = usd("0.0137")
PLENTY = usd(10**9)

DURABILITY = ("process", "settlements", "power")
MEMORY = "memory://"


@contextmanager
def folder() -> Iterator[Path]:
    """A folder for ledgers, on the file system of TMPDIR."""
    with tempfile.TemporaryDirectory(prefix="clearance-bench-", ignore_cleanup_errors=True) as name:
        yield Path(name)


def open_ledger(path: Path | str, durability: str) -> LocalAuthority:
    """With a budget on each of the subject's four scopes, so large that nothing is refused."""
    authority = connect(path, durability=durability)
    authority.apply_budgets([BudgetSpec(scope=scope, allocated=PLENTY) for scope in SUBJECT.scopes])
    return authority


def keys(count: int) -> list[str]:
    """Such as guards make."""
    return [new_key() for _ in range(count)]


def lifecycle(authority: LocalAuthority, key: str) -> None:
    decision = authority.reserve(SUBJECT, ACTION, ESTIMATE, idempotency_key=key)
    authority.commit(str(decision.reservation_id), ACTUAL, idempotency_key=key)


async def alifecycle(authority: LocalAuthority, key: str) -> None:
    decision = await authority.areserve(SUBJECT, ACTION, ESTIMATE, idempotency_key=key)
    await authority.acommit(str(decision.reservation_id), ACTUAL, idempotency_key=key)


def one_caller(authority: LocalAuthority, limit: Limit) -> list[int]:
    """Times of lifecycles, one after the other; the keys are made beforehand."""
    made = keys(limit.most)
    return timed(lambda number: lifecycle(authority, made[number]), limit)


def warm_up(authority: LocalAuthority, count: int) -> None:
    for key in keys(count):
        lifecycle(authority, key)

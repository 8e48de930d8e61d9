"""The contestants: one model call, one tool call and one run of an agent, plain and governed in every way."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, cast

from benchmarks.langchain_measure import Turn, async_turn, crowd_turn, sync_turn
from benchmarks.langchain_objects import (
    ASKED,
    QUESTION,
    EmptyMiddleware,
    InstantModel,
    NoAuthority,
    agent,
    async_tool,
    sync_tool,
)
from benchmarks.workload import MEMORY, SUBJECT, alifecycle, keys, lifecycle, open_ledger
from clearance.authority.interface import Authority
from clearance.connecting import LocalAuthority
from clearance_langchain import ClearanceCallbackHandler, ClearanceMiddleware, guard

ARGUMENTS = {"word": "word"}


class Key(NamedTuple):
    """Who takes a turn: in what way it is governed, and by which authority."""

    how: str
    authority: str


PLAIN, EMPTY = Key("plain", "-"), Key("empty middleware", "-")
TWO_CALLS, GUARD, HANDLER, MIDDLEWARE = "reserve + commit alone", "guard", "handler", "middleware"
NONE, IN_MEMORY, FILE, FLUSHED = "no-op", "memory", "file, `process`", "file, `settlements`"


@dataclass
class Stage:
    """What all contestants share: the authorities, by their names in the table, and one loop."""

    authorities: dict[str, Authority]
    runner: asyncio.Runner

    def close(self) -> None:
        for authority in self.authorities.values():
            if isinstance(authority, LocalAuthority):
                authority.close()

    @property
    def ledgers(self) -> dict[str, LocalAuthority]:
        return {name: it for name, it in self.authorities.items() if isinstance(it, LocalAuthority)}


def stage(place: Path, runner: asyncio.Runner) -> Stage:
    authorities: dict[str, Authority] = {
        NONE: cast(Authority, NoAuthority()),
        IN_MEMORY: open_ledger(MEMORY, "process"),
        FILE: open_ledger(place / "process.db", "process"),
        FLUSHED: open_ledger(place / "settlements.db", "settlements"),
    }
    return Stage(authorities, runner)


# --- one call of a model or of a tool


def sync_calls(on: Stage, model: bool) -> dict[Key, Turn]:
    plain: Any = InstantModel() if model else sync_tool()
    asked: Any = QUESTION if model else ARGUMENTS
    found: dict[Key, Turn] = {PLAIN: sync_turn(lambda: plain.invoke(asked))}
    for name, authority in on.authorities.items():
        found[Key(GUARD, name)] = sync_turn(_invoking(guard(plain, authority, SUBJECT), asked))
        found[Key(HANDLER, name)] = sync_turn(_invoking(plain, asked, **_handled(authority)))
    for name, ledger in on.ledgers.items():
        found[Key(TWO_CALLS, name)] = sync_turn(lambda ledger=ledger: lifecycle(ledger, keys(1)[0]))  # type: ignore[misc]
    return found


def async_calls(on: Stage, model: bool) -> dict[Key, Turn]:
    plain: Any = InstantModel() if model else async_tool()
    asked: Any = QUESTION if model else ARGUMENTS
    steps: dict[Key, Callable[[], Awaitable[object]]] = {PLAIN: lambda: plain.ainvoke(asked)}
    for name, authority in on.authorities.items():
        steps[Key(GUARD, name)] = _ainvoking(guard(plain, authority, SUBJECT), asked)
        steps[Key(HANDLER, name)] = _ainvoking(plain, asked, **_handled(authority))
    for name, ledger in on.ledgers.items():
        steps[Key(TWO_CALLS, name)] = lambda ledger=ledger: alifecycle(ledger, keys(1)[0])  # type: ignore[misc]
    return {key: async_turn(on.runner, step) for key, step in steps.items()}


def _handled(authority: Authority) -> dict[str, Any]:
    return {"config": {"callbacks": [ClearanceCallbackHandler(authority, SUBJECT)]}}


# --- one run of an agent


Gates = Callable[[bool], list[Any]]
"""asynchronous -> middleware of somebody else."""


def sync_runs(on: Stage, others: dict[Key, Gates]) -> dict[Key, Turn]:
    agents = _agents(on, others, asynchronous=False)
    return {key: sync_turn(_invoking(it, ASKED)) for key, it in agents.items()}


def async_runs(on: Stage, others: dict[Key, Gates]) -> dict[Key, Turn]:
    agents = _agents(on, others, asynchronous=True)
    return {key: async_turn(on.runner, _ainvoking(it, ASKED)) for key, it in agents.items()}


def crowds(on: Stage, others: dict[Key, Gates], at_once: int) -> dict[Key, Turn]:
    agents = _agents(on, others, asynchronous=True)
    return {key: crowd_turn(on.runner, _ainvoking(it, ASKED), at_once) for key, it in agents.items()}


def _agents(on: Stage, others: dict[Key, Gates], asynchronous: bool) -> dict[Key, Any]:
    found = {PLAIN: agent(asynchronous=asynchronous), EMPTY: agent(EmptyMiddleware(), asynchronous=asynchronous)}
    for name, authority in on.authorities.items():
        ours = ClearanceMiddleware(authority, SUBJECT)
        found[Key(MIDDLEWARE, name)] = agent(ours, asynchronous=asynchronous)
        found[Key(GUARD, name)] = agent(asynchronous=asynchronous, governed=_guarding(authority))
    for key, gates in others.items():
        found[key] = agent(*gates(asynchronous), asynchronous=asynchronous)
    return found


def _guarding(authority: Authority) -> Callable[[Any], Any]:
    return lambda it: guard(it, authority, SUBJECT)


def _invoking(called: Any, asked: Any, **options: Any) -> Callable[[], object]:
    return lambda: called.invoke(asked, **options)


def _ainvoking(called: Any, asked: Any, **options: Any) -> Callable[[], Awaitable[object]]:
    return lambda: called.ainvoke(asked, **options)

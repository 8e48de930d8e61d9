"""What governing a LangChain object adds to its calls, next to another library's middleware on the same agent."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import ExitStack
from importlib.metadata import PackageNotFoundError, version
from itertools import product
from math import isnan, nan
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.results import Goal, Row, Say, Section, at_least, at_most, cell, shown
from benchmarks.samples import Limit
from benchmarks.sizes import Sizes
from benchmarks.workload import folder

if TYPE_CHECKING:
    from benchmarks.langchain_calls import Gates, Key
    from benchmarks.langchain_measure import Cost, Turn

HOW = (
    "A chat model and a tool that answer at once in this process. *Added* is what a governed call takes longer than "
    "the same call of the plain object in the same round, for a run of an agent divided by its three governed calls "
    "(two of the model, one of the tool). CPU is that of the whole process, means of a round. Of the authorities "
    "`no-op` allows everything and keeps nothing, so its rows are the adapter's own share; `memory` and `file` are "
    "embedded, with four budgeted scopes, and `settlements`, the default, waits at each commit until the disk has it. "
    "*reserve + commit alone* are the authority's two calls without LangChain, *empty middleware* is what LangChain "
    "itself takes for middleware that wraps and does nothing. Of many runs at once, on one event loop, the time of one "
    "is that of all divided by their number. `langchain-runcycles` (its gates for models and tools on the same agent, "
    "both reserving and committing, the model's cost from the reported usage) asks a server for each decision: ours, "
    "on this machine, its ledger a file that does not wait for the disk, one budgeted scope. Its CPU is without "
    "the server's. `file, process` beside it is the same ledger inside the agent's process, with four budgeted scopes."
)
AT_ONCE = (1, 10, 50)
ADDED_US, LESS, FLAT = 500.0, 10.0, 1.2
A_TURN, RUNS_A_TURN = 10, 5
"""Calls of one contestant in one round, and runs of agents."""
SHARE = 0.45
"""Of the time that other benchmarks may take for the rounds of one contestant, here those of all."""
PEER = "langchain-runcycles"
EMBEDDED = ("memory", "file, `process`", "file, `settlements`")
SERVER = "a server's file"


def run(sizes: Sizes, say: Say) -> Section:
    # Only here, as LangChain is large: the other benchmarks should not run beside it.
    from benchmarks import langchain_calls as calls
    from benchmarks.langchain_objects import CALLS_OF_A_RUN

    section = Section("langchain", "LangChain", HOW)
    with folder() as place, ExitStack() as stack:
        runner = stack.enter_context(asyncio.Runner())
        on = calls.stage(place, runner)
        stack.callback(on.close)
        others, absent = _others(place, runner, stack)
        single: dict[str, Callable[[], dict[Key, Turn]]] = {
            "model, sync": lambda: calls.sync_calls(on, model=True),
            "model, async": lambda: calls.async_calls(on, model=True),
            "tool, sync": lambda: calls.sync_calls(on, model=False),
            "tool, async": lambda: calls.async_calls(on, model=False),
        }
        for what, make in single.items():
            say(what)
            section.rows += _rows(what, 1, 1, _measured(make(), sizes, A_TURN))
        for what, runs in (("agent, sync", calls.sync_runs), ("agent, async", calls.async_runs)):
            say(what)
            section.rows += _rows(what, 1, CALLS_OF_A_RUN, _measured(runs(on, others), sizes, RUNS_A_TURN))
        for at_once in (it for it in AT_ONCE if it <= max(sizes.callers)):
            say(f"{at_once} at once")
            found = _measured(calls.crowds(on, others, at_once), sizes, max(at_once, RUNS_A_TURN))
            section.rows += _rows("agents, async", at_once, CALLS_OF_A_RUN, found)
    for why in absent:
        row: Row = dict.fromkeys(section.rows[0])
        section.rows.append(row | {"what": "agent", "governed by": f"{PEER}: {why}"})
    section.goals += [*_low(section), *_less(section), *_flat(section)]
    return section


def _others(place: Path, runner: asyncio.Runner, stack: ExitStack) -> tuple[dict[Key, Gates], list[str]]:
    """The peer's middleware, or why there is none."""
    from benchmarks.langchain_calls import Key
    from benchmarks.peer_langchain_runcycles import Peer

    try:
        name = f"{PEER} {version(PEER)}"
        peer = Peer(place, stack)
        stack.callback(lambda: runner.run(peer.aclose()))
        runner.run(peer.try_out())
    except PackageNotFoundError:
        return {}, ["is not installed; `make bench` installs it"]
    except Exception as error:  # a peer that changed or fails must not end the run
        return {}, [f"did not run: {type(error).__name__}: {str(error)[:80]}"]
    return {Key(name, SERVER): peer.middleware}, []


def _measured(turns: dict[Key, Turn], sizes: Sizes, most: int) -> dict[Key, Cost]:
    from benchmarks.langchain_measure import contest

    return contest(turns, Limit(most, sizes.seconds / 5), sizes.seconds * sizes.rounds * SHARE)


def _rows(what: str, at_once: int, calls: int, found: dict[Key, Cost]) -> list[Row]:
    plain = next(iter(found.values()))
    rows: list[Row] = []
    for key, cost in found.items():
        row: Row = {"what": what, "governed by": key.how, "authority": key.authority, "at once": at_once}
        row |= {"p50 us": cost.wall, "added us a call": None, "added CPU us a call": None}
        if cost is not plain and key.how != "reserve + commit alone":
            wall, cpu = cost.added(plain)
            row |= {"added us a call": wall / calls, "added CPU us a call": cpu / calls}
        rows.append(row)
    return rows


# --- goals


def _low(section: Section) -> list[Goal]:
    goals = []
    for authority in EMBEDDED:
        worst = max(_all(section, "added us a call", how="guard", authority=authority), default=None)
        alone = max(_all(section, "p50 us", how="reserve + commit alone", authority=authority), default=0.0)
        text = (
            f"`guard`, {authority}: at most {ADDED_US:g} us added a call at p50 (the worst of model, tool, sync, async)"
        )
        goal = at_most(text, worst, ADDED_US, " us")
        goals.append(Goal(text, f"{goal.measured}; its two authority calls alone take {cell(alone)} us", goal.met))
    return goals


def _less(section: Section) -> list[Goal]:
    goals = []
    for authority in EMBEDDED:
        text = f"agent with `guard`, {authority}: at least {LESS:g} times less added than by {PEER}, sync and async"
        goal = at_least(text, _times_less(section, "guard", authority), LESS, " times")
        middleware = shown(_times_less(section, "middleware", authority), " times")
        goals.append(Goal(text, f"{goal.measured}; with the middleware {middleware}", goal.met))
    return goals


def _times_less(section: Section, how: str, authority: str) -> float | None:
    """None where noise was larger than what was added."""
    ratios = []
    for what in ("agent, sync", "agent, async"):
        theirs = _all(section, "added us a call", what=what, authority=SERVER)
        ours = _all(section, "added us a call", what=what, how=how, authority=authority)
        ratios += [its / our if min(its, our) > 0 else nan for its, our in zip(theirs, ours, strict=False)]
    return min(ratios) if ratios and not any(map(isnan, ratios)) else None


def _flat(section: Section) -> list[Goal]:
    goals = []
    for how, authority in product(("guard", "middleware"), EMBEDDED):
        added = _all(section, "added us a call", what="agents, async", how=how, authority=authority)
        ratio = added[-1] / added[0] if len(added) > 1 and min(added) > 0 else None
        text = f"agents with `{how}`, {authority}: added time a call of {AT_ONCE[-1]} at once within 20 % of that of 1"
        goals.append(at_most(text, ratio, FLAT, " times"))
    return goals


def _all(section: Section, figure: str, what: str = "", how: str = "", authority: str = "") -> list[float]:
    wanted = {"what": what, "governed by": how, "authority": authority}
    rows = (row for row in section.rows if all(not value or row[name] == value for name, value in wanted.items()))
    return [float(value) for row in rows if isinstance(value := row[figure], int | float)]

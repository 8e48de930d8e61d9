"""What the hooks of a host cost: the dispatch alone, and one tool call with the Clearance plugin and a real ledger."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from time import perf_counter_ns
from typing import Any

from benchmarks.results import Row, Say, Section, at_most
from benchmarks.samples import Limit, Measure, Samples, contest, timed
from benchmarks.sizes import Sizes
from benchmarks.workload import MEMORY, SUBJECT, open_ledger
from clearance.connecting import LocalAuthority
from clearance_hooks import (
    AfterToolCall,
    BeforeToolCall,
    ClearancePlugin,
    HookContext,
    Runner,
    Settings,
    hookimpl,
    inline,
)
from clearance_hooks.capabilities import MINIHOST

HOW = (
    "One `before_tool_call` with two arguments, to handlers that do nothing; all take turns. *Inline* handlers run in "
    "the host's thread, the others on a thread of their own with a deadline, async ones on the host's loop. The last "
    "row of each host is a whole tool call with the Clearance plugin, gate and end, on a ledger in memory."
)
GOAL_US = 50.0
SYNC, THREE, INLINE, ASYNC = "sync handler", "3 sync handlers", "inline handler", "async handler"
CTX = HookContext(run_id="bench", host="bench")


class Plain:
    @hookimpl
    def before_tool_call(self, event: BeforeToolCall) -> None: ...


class Inline:
    @hookimpl
    @inline
    def before_tool_call(self, event: BeforeToolCall) -> None: ...


class Async:
    @hookimpl
    async def before_tool_call(self, event: BeforeToolCall) -> None: ...


def run(sizes: Sizes, say: Say) -> Section:
    section = Section("hooks", "Hooks of agent hosts", HOW)
    authority = open_ledger(MEMORY, "process")
    runners = {
        INLINE: _runner(Inline()),
        SYNC: _runner(Plain()),
        THREE: _runner(Plain(), Plain(), Plain()),
        ASYNC: _runner(Async()),
    }
    guarded = _guarded(authority)
    try:
        for host, measures in (("sync", _sync(runners, guarded)), ("async", _async(runners, guarded))):
            say(f"{host} host")
            found = contest(measures, sizes.rounds, sizes.one_round)
            section.rows += [_row(host, what, samples) for what, samples in found.items()]
            handlers = SYNC if host == "sync" else ASYNC
            goal = f"at most {GOAL_US:.0f} us for one {handlers} in a {host} host (p50)"
            section.goals.append(at_most(goal, found[handlers].p50, GOAL_US, " us"))
    finally:
        for runner in (*runners.values(), guarded):
            runner.close()
        authority.close()
    return section


def _runner(*plugins: object) -> Runner:
    runner = Runner()
    for number, plugin in enumerate(plugins):
        runner.register(plugin, id=f"plugin-{number}")
    return runner


def _guarded(authority: LocalAuthority) -> Runner:
    runner = Runner()
    runner.register(ClearancePlugin(Settings(subject=SUBJECT), MINIHOST, authority=authority), priority=-1000)
    return runner


def _row(host: str, what: str, samples: Samples) -> Row:
    return {"host": host, "what": what, "p50 us": samples.p50, "p99 us": samples.p99}


def _tool(number: int) -> BeforeToolCall:
    return BeforeToolCall(tool="search", params={"text": "x", "limit": 5}, tool_call_id=str(number))


def _sync(runners: dict[str, Runner], guarded: Runner) -> dict[str, Measure]:
    def gate(runner: Runner) -> Measure:
        return lambda limit: timed(lambda number: runner.before_tool_call(_tool(number), CTX), limit)

    def whole(number: int) -> None:
        guarded.before_tool_call(_tool(number), CTX)
        guarded.after_tool_call(AfterToolCall(tool="search", tool_call_id=str(number)), CTX)

    return {
        **{name: gate(runner) for name, runner in runners.items()},
        "a tool call with Clearance": lambda limit: timed(whole, limit),
    }


def _async(runners: dict[str, Runner], guarded: Runner) -> dict[str, Measure]:
    def gate(runner: Runner) -> Measure:
        return _awaited(lambda number: runner.abefore_tool_call(_tool(number), CTX))

    async def whole(number: int) -> None:
        await guarded.abefore_tool_call(_tool(number), CTX)
        await guarded.aafter_tool_call(AfterToolCall(tool="search", tool_call_id=str(number)), CTX)

    return {**{name: gate(runner) for name, runner in runners.items()}, "a tool call with Clearance": _awaited(whole)}


def _awaited(step: Callable[[int], Awaitable[Any]]) -> Measure:
    async def work(limit: Limit) -> list[int]:
        times: list[int] = []
        end = perf_counter_ns() + int(limit.seconds * 1e9)
        for number in range(limit.most):
            began = perf_counter_ns()
            if began > end:
                break
            await step(number)
            times.append(perf_counter_ns() - began)
        return times

    return lambda limit: asyncio.run(work(limit))

"""Who has gone away leaves nothing held and pays nothing; many wait; who hangs keeps only himself waiting."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hooks_plugins import CTX, TOOL, seen_ends, tool_plugin
from hooks_world import SyncDriver

from clearance.authority.budgets import BudgetSpec
from clearance.connecting import LocalAuthority, connect
from clearance.model.amount import usd
from clearance.model.subject import Subject
from clearance.pricing import PriceBook
from clearance.store.interface import ReservationQuery
from clearance_hooks import (
    AfterToolCall,
    AgentEnd,
    Approved,
    BeforeAgentRun,
    BeforeModelCall,
    BeforeModelResolve,
    BeforePromptBuild,
    BeforeToolCall,
    ClearancePlugin,
    MiniHost,
    ModelReply,
    Patch,
    RequireApproval,
    Runner,
    RunVerdict,
    Settings,
    hookimpl,
    load,
)
from clearance_hooks.capabilities import HERMES, MINIHOST
from clearance_hooks.errors import Blocked
from clearance_hooks.settings import ToolTerms
from clearance_hooks.testing import SCENARIOS
from clearance_hooks.workers import MAX_THREADS

BOOK = PriceBook({"big": {"input": "10", "output": "10"}})


@pytest.fixture
def authority() -> Iterator[LocalAuthority]:
    made = connect("memory://")
    assert isinstance(made, LocalAuthority)
    made.set_budget(BudgetSpec(scope="tenant:acme", allocated="50.00"))
    yield made
    assert made.check() == []
    made.close()


@pytest.fixture
def plugin(authority: LocalAuthority) -> Iterator[ClearancePlugin]:
    settings = Settings(subject=Subject(tenant="acme"), run_budget=usd("1.00"), settle_window_ms=100)
    made = ClearancePlugin(settings, MINIHOST, authority=authority, prices=BOOK)
    yield made
    made.close()


def held(authority: LocalAuthority) -> int:
    return len(authority.reservations(ReservationQuery(status="ACTIVE"), limit=200).items)


GATES = {
    "abefore_agent_run": BeforeAgentRun(),
    "abefore_model_resolve": BeforeModelResolve(requested_model="big"),
    "abefore_prompt_build": BeforePromptBuild(),
    "abefore_model_call": BeforeModelCall(call_id="c", model="big", est_input_tokens=10, max_output_tokens=10),
    "abefore_tool_call": BeforeToolCall(tool="send", tool_call_id="t"),
}


@pytest.mark.parametrize("gate", GATES)
def test_a_gate_that_reaches_the_ledger_after_its_cancelled_run_has_ended_leaves_nothing(
    gate: str, runner: Runner, plugin: ClearancePlugin, authority: LocalAuthority
) -> None:
    runner.register(plugin, timeout_ms=30_000)
    entered, go = threading.Event(), threading.Event()
    entering = plugin._turns._entered

    def slow(*args: Any) -> Any:
        entered.set()
        go.wait(10)
        return entering(*args)

    plugin._turns._entered = slow  # type: ignore[method-assign]

    async def cancelled() -> None:
        task = asyncio.create_task(getattr(runner, gate)(GATES[gate], CTX))
        await asyncio.to_thread(entered.wait, 10)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await runner.aagent_end(AgentEnd(success=False), CTX)
        go.set()

    asyncio.run(cancelled())
    deadline = time.monotonic() + 5
    while held(authority) or not authority.reservations().items:
        assert time.monotonic() < deadline, "it is still held"
        time.sleep(0.01)
    assert authority.balance("tenant:acme").spent == 0


def test_observers_are_told_although_the_host_is_cancelled_while_others_are(runner: Runner) -> None:
    entered = asyncio.Event()

    class Slow:
        @hookimpl
        async def after_tool_call(self) -> None:
            entered.set()
            await asyncio.sleep(10)

    ends = seen_ends(runner)
    runner.register(Slow(), id="slow", priority=-5)

    async def cancelled() -> None:
        task = asyncio.create_task(runner.aafter_tool_call(AfterToolCall(tool="send", tool_call_id="t1"), CTX))
        await entered.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(cancelled())
    deadline = time.monotonic() + 5
    while not ends:
        assert time.monotonic() < deadline, "nobody was told"
        time.sleep(0.01)


# --- many at once


def test_more_runs_than_threads_wait_for_their_turn(runner: Runner, ask: Callable[..., Any]) -> None:
    class Busy:
        @hookimpl
        def before_tool_call(self) -> None:
            time.sleep(0.01)

    runner.register(Busy(), id="busy", timeout_ms=20_000)
    found: list[Any] = []
    threads = [
        threading.Thread(target=lambda: found.append(ask("before_tool_call", TOOL, CTX).block))
        for _ in range(3 * MAX_THREADS)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [None] * 3 * MAX_THREADS


def test_hung_handlers_of_one_plugin_take_no_thread_from_another(runner: Runner) -> None:
    let_go = threading.Event()
    ends = seen_ends(runner)
    runner.register(tool_plugin(lambda event: let_go.wait(120)), id="hangs", timeout_ms=1)
    try:
        for _ in range(MAX_THREADS + 1):
            assert runner.before_tool_call(TOOL, CTX).block is not None
        assert len(ends) == MAX_THREADS + 1
        runner.registry.unregister("hangs")
        runner.register(tool_plugin(lambda event: None), id="fine")
        assert runner.before_tool_call(TOOL, CTX).block is None
    finally:
        let_go.set()


def test_who_is_asked_last_is_told_of_the_end_first(runner: Runner) -> None:
    order: list[str] = []

    class Watcher:
        def __init__(self, name: str) -> None:
            self.name = name

        @hookimpl
        def agent_end(self) -> None:
            order.append(self.name)

    runner.register(Watcher("other"), id="other")
    runner.register(Watcher("clearance"), id="clearance", priority=-1000)
    runner.agent_end(AgentEnd(), CTX)
    assert order == ["clearance", "other"]


@pytest.mark.parametrize("error", [KeyboardInterrupt, GeneratorExit, SystemExit])
def test_an_async_handler_that_raises_no_exception_denies_once(error: Any, runner: Runner) -> None:
    asked: list[int] = []

    class Once:
        @hookimpl
        async def before_tool_call(self) -> None:
            asked.append(1)
            if len(asked) == 1:
                raise error

    runner.register(Once(), id="once", timeout_ms=5_000)
    blocks = [runner.before_tool_call(TOOL, CTX).block for _ in range(2)]
    assert [block and block.code for block in blocks] == ["HOOK_FAILED", None]


# --- what a person sees


@pytest.mark.parametrize("patcher_at", [5, -5])
def test_a_person_sees_the_arguments_that_the_tool_gets(
    patcher_at: int, runner: Runner, ask: Callable[..., Any]
) -> None:
    seen: list[Any] = []
    numbers = iter(range(9))

    def approver(wanted: RequireApproval, event: BeforeToolCall) -> Approved:
        seen.append(dict(event.params))
        event.params.clear()  # type: ignore[attr-defined]
        return Approved(by="ann")

    runner.register(tool_plugin(lambda event: Patch({"to": next(numbers)})), id="patcher", priority=patcher_at)
    runner.register(tool_plugin(lambda event: None if event.approved_by else RequireApproval("ok?")), id="asker")
    verdict = ask("before_tool_call", TOOL, CTX, approver)
    assert (verdict.block, [verdict.params]) == (None, seen)
    assert verdict.params == ({"to": 0} if patcher_at > 0 else TOOL.params)


# --- settings


@pytest.mark.parametrize(
    ("tool", "calls"), [("pay_bob", 0), ("pay_small_bob", 5), ("pay_me", 9), ("send", 3), ("Pay_bob", 3)]
)
def test_terms_of_a_tool_are_those_of_its_name_or_of_the_longest_pattern(tool: str, calls: int) -> None:
    limits = {"pay_*": 0, "*": 3, "pay_small_*": 5, "pay_me": 9}
    tools = {name: ToolTerms(max_calls=most) for name, most in limits.items()}
    assert Settings(subject=Subject(tenant="acme"), tools=tools).tool(tool).max_calls == calls


def test_a_refused_run_raises_where_the_settings_ask_for_it(authority: LocalAuthority) -> None:
    settings = Settings(subject=Subject(tenant="nobody"), deny_style="error")
    runner = Runner()
    runner.register(ClearancePlugin(settings, MINIHOST, authority=authority, prices=BOOK))
    host = MiniHost(runner, model=lambda request: ModelReply("done"), model_name="big")
    with pytest.raises(Blocked):
        host.run("go")
    host.close()


@pytest.mark.parametrize(("host", "setting"), [(MINIHOST, "enforce: per_turn"), (HERMES, "deny_style: error")])
def test_a_setting_that_a_host_does_not_obey_is_refused(host: Any, setting: str, tmp_path: Path) -> None:
    settings = f'{{tenant: acme, authority: {{url: "memory://"}}, {setting}}}'
    (tmp_path / "host.yaml").write_text(f"plugins: {{entries: {{clearance: {{config: {settings}}}}}}}")
    config = load(tmp_path / "host.yaml", host, environ={})
    entry = config.entry("clearance")
    assert entry is not None
    assert setting.partition(":")[0] in str([*config.problems, *entry.problems])


# --- the kit


@pytest.mark.parametrize(
    ("left_out", "scenario"),
    [("before_agent_run", "the host asks before a run"), ("after_tool_call", "the end of every call is told")],
)
def test_the_kit_finds_a_host_that_leaves_a_hook_out(
    left_out: str, scenario: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Runner, left_out, lambda *args: RunVerdict())
    found = next(it for it in SCENARIOS if it.name == scenario)
    assert found.failure(SyncDriver(), str(tmp_path)) is not None

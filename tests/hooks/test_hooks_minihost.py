"""The contract's scenarios against MiniHost, sync and async, with the real OpenAI client and a provider that counts."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hooks_world import AsyncAsking, AsyncDriver, SyncDriver

from clearance.authority.budgets import BudgetSpec
from clearance.connecting import LocalAuthority, connect
from clearance.model.amount import usd
from clearance.model.subject import Subject
from clearance.pricing import PriceBook, Usage
from clearance.simulator import Simulator, ToolCall, sequence
from clearance_hooks import (
    Block,
    Caps,
    ClearancePlugin,
    MiniHost,
    ModelReply,
    ModelRequest,
    Runner,
    Settings,
    ToolRequest,
    hookimpl,
)
from clearance_hooks.capabilities import MINIHOST
from clearance_hooks.settings import ToolTerms
from clearance_hooks.testing import Scenario
from clearance_hooks.testing.for_pytest import parametrized


@parametrized(SyncDriver())
def test_minihost_sync(scenario: Scenario, tmp_path: Path) -> None:
    scenario.run(SyncDriver(), tmp_path)


@parametrized(AsyncDriver())
def test_minihost_async(scenario: Scenario, tmp_path: Path) -> None:
    scenario.run(AsyncDriver(), tmp_path)


# --- one id of a run, used several times at once

PRICE = PriceBook({"m": {"input": "1", "output": "1", "max_output_tokens": 100}})
ANSWERED = Usage(input_tokens=10, output_tokens=10)
COST = 20 * 100


def armed(authority: Any, **options: Any) -> Runner:
    settings = Settings(subject=Subject(tenant="acme"), run_budget=usd("1.00"), settle_window_ms=100, **options)
    plugin = ClearancePlugin(settings, MINIHOST, authority=authority, prices=PRICE)
    runner = Runner()
    runner.register(plugin, priority=-1000, timeout_ms=30_000)
    return runner


def funded() -> LocalAuthority:
    authority = connect("memory://")
    assert isinstance(authority, LocalAuthority)
    authority.set_budget(BudgetSpec(scope="tenant:acme", allocated="5.00"))
    return authority


@pytest.mark.parametrize("hosts", [1, 8], ids=["one host", "a host each"])
def test_threads_that_use_one_run_id_share_its_limits_and_pay_for_each_call(hosts: int) -> None:
    """The model gives its tool calls the same ids in each of them."""
    authority, together = funded(), threading.Barrier(8)
    tool_runs: list[int] = []
    requests: list[int] = []

    def model(request: ModelRequest) -> ModelReply:
        requests.append(1)
        used = sum(message["role"] == "tool" for message in request.messages)
        if used == 0:
            together.wait(20)
        calls = (ToolRequest("send", {"n": used}, f"call_{used}"),) if used < 3 else ()
        return ModelReply("done", calls, ANSWERED, "m")

    runner = armed(authority, tools={"send": ToolTerms(max_calls=5)})
    tools = {"send": lambda n: tool_runs.append(n)}  # called with arguments by name
    made = [MiniHost(runner, model=model, tools=tools, model_name="m") for _ in range(hosts)]
    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(lambda number: made[number % hosts].run("go", run_id="same"), range(8)))
    made[0].close()
    assert [result.text for result in results] == ["done"] * 8
    assert (len(tool_runs), len(requests)) == (5, 8 * 4)
    assert authority.balance("tenant:acme").spent == len(requests) * COST
    assert authority.check() == []
    authority.close()


def test_tasks_that_use_one_run_id_share_its_limits(tmp_path: Path) -> None:
    ledger = f"sqlite:///{tmp_path}/ledger.db"
    authority = connect(ledger)
    authority.set_budget(BudgetSpec(scope="tenant:acme", allocated="5.00"))
    config = {"authority": {"url": ledger}, "tenant": "acme", "run_budget": "2.00", "tools": {"echo": {"max_calls": 3}}}
    path = tmp_path / "host.json"
    path.write_text(json.dumps({"plugins": {"entries": {"clearance": {"timeout_ms": 30_000, "config": config}}}}))
    ran: list[str] = []

    async def play(base_url: str) -> list[str]:
        model = AsyncAsking(base_url)
        tools = {"echo": lambda text: ran.append(text)}
        host = MiniHost(path, model=model, tools=tools, model_name="gpt-4o-mini", max_output_tokens=100)
        try:
            found = await asyncio.gather(*(host.arun("go", run_id="same") for _ in range(6)))
        finally:
            host.close()
            await model.close()
        return [result.text for result in found]

    def script(request: Any) -> Any:
        return sequence([ToolCall("echo", {"text": "x"}), "done"][len(request.tool_results) :])(request)

    with Simulator(script=script) as provider:
        assert asyncio.run(play(provider.base_url)) == ["done"] * 6
        assert (provider.stats()["requests"], len(ran)) == (12, 3)
        assert authority.balance("tenant:acme").spent == provider.stats()["cost"]
    authority.close()


def test_a_task_that_is_cancelled_while_its_run_is_opened_leaves_nothing_held() -> None:
    authority = funded()
    entered, go = threading.Event(), threading.Event()
    start_run = authority.start_run

    def slow(*args: Any, **options: Any) -> Any:
        entered.set()
        go.wait(10)
        return start_run(*args, **options)

    authority.start_run = slow  # type: ignore[method-assign]
    host = MiniHost(armed(authority), model=lambda request: ModelReply("done"), model_name="m")

    async def cancelled() -> None:
        task = asyncio.create_task(host.arun("go", run_id="r"))
        await asyncio.to_thread(entered.wait, 10)
        task.cancel()
        await asyncio.sleep(0.05)
        go.set()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(cancelled())
    deadline = time.monotonic() + 10
    while authority.balance("tenant:acme").reserved or not authority.reservations().items:
        assert time.monotonic() < deadline, "the run is still held"
        time.sleep(0.01)
    assert authority.balance("tenant:acme").spent == 0
    authority.close()


# --- what models and plugins may say


@pytest.mark.parametrize(
    ("params", "runs", "said"),
    [
        (None, 1, "ran"),
        ({}, 1, "ran"),
        ([1, 2], 0, "Not allowed: The arguments of the tool send are a list, not a mapping from names to values."),
        ("x", 0, "Not allowed: The arguments of the tool send are a str, not a mapping from names to values."),
    ],
)
def test_arguments_of_any_kind_end_no_run(params: Any, runs: int, said: str) -> None:
    authority, ran, told = funded(), [], []

    def model(request: ModelRequest) -> ModelReply:
        told.extend(message["content"] for message in request.messages if message["role"] == "tool")
        calls = () if told else (ToolRequest("send", params, "t"),)
        return ModelReply("done", calls, ANSWERED, "m")

    def send() -> str:
        ran.append(1)
        return "ran"

    host = MiniHost(armed(authority), model=model, tools={"send": send}, model_name="m")
    assert host.run("go").text == "done"
    host.close()
    assert (len(ran), told) == (runs, [said])
    authority.close()


def test_a_limit_of_no_output_at_all_is_kept() -> None:
    seen: list[int | None] = []

    class Nothing:
        @hookimpl
        def before_model_call(self) -> Caps:
            return Caps(max_output_tokens=0)

    def model(request: ModelRequest) -> ModelReply:
        seen.append(request.max_output_tokens)
        return ModelReply("done")

    runner = Runner()
    runner.register(Nothing())
    host = MiniHost(runner, model=model, max_output_tokens=50)
    host.run("go")
    host.close()
    assert seen == [0]


def test_a_broken_file_makes_no_request_and_says_why(tmp_path: Path) -> None:
    asked: list[Any] = []
    model: Callable[[ModelRequest], Any] = lambda request: asked.append(request)  # noqa: E731
    (tmp_path / "host.yaml").write_text("plugins: {entires: {clearance: {}}}")
    host = MiniHost(tmp_path / "host.yaml", model=model)
    result = host.run("go")
    host.close()
    assert isinstance(result.blocked, Block)
    assert (result.blocked.code, asked) == ("GUARD_NOT_ARMED", [])
    assert "plugins.entires: is not known here; did you mean entries?" in result.text

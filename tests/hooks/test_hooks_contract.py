"""The runner: order, merging, copies, deadlines, and what becomes of handlers that misbehave. Sync and async."""

from __future__ import annotations

import asyncio
import gc
import logging
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from hooks_plugins import CTX, MODEL, NO, TOOL, boom, seen_ends, tool_plugin

from clearance.errors import AuthorityUnavailable
from clearance.model.action import Action
from clearance.model.amount import usd
from clearance_hooks import (
    AfterToolCall,
    Allow,
    Approved,
    BeforeAgentRun,
    BeforeModelCall,
    BeforeModelResolve,
    BeforePromptBuild,
    BeforeToolCall,
    Block,
    Caps,
    HookContext,
    ModelOverride,
    Patch,
    PromptPatch,
    RequireApproval,
    Runner,
    hookimpl,
    inline,
)
from clearance_hooks.capabilities import Capabilities
from clearance_hooks.workers import MAX_THREADS

# --- order and merging


def test_the_higher_priority_is_asked_first_and_ties_by_registration(runner: Runner, ask: Any) -> None:
    order: list[str] = []
    for name, priority in (("low", -5), ("one", 0), ("two", 0), ("high", 9)):
        runner.register(tool_plugin(lambda event, name=name: order.append(name)), id=name, priority=priority)
    ask("before_tool_call", TOOL, CTX)
    assert order == ["high", "one", "two", "low"]


def test_the_first_block_stops_and_the_observers_are_told(runner: Runner, ask: Any) -> None:
    asked: list[str] = []
    runner.register(tool_plugin(lambda event: NO), id="no", priority=1)
    runner.register(tool_plugin(lambda event: asked.append("later")), id="later")
    ends = seen_ends(runner)
    verdict = ask("before_tool_call", TOOL, CTX)
    assert verdict.block == NO
    assert asked == []
    assert [(end.outcome, end.tool_call_id, end.error) for end in ends] == [("blocked", "t1", "NO")]


def test_no_opinion_and_allow_do_not_hide_a_later_block(runner: Runner, ask: Any) -> None:
    runner.register(tool_plugin(lambda event: Allow()), id="yes", priority=2)
    runner.register(tool_plugin(lambda event: None), id="none", priority=1)
    runner.register(tool_plugin(lambda event: NO), id="no")
    assert ask("before_tool_call", TOOL, CTX).block == NO


def test_what_a_handler_does_to_its_event_the_others_do_not_see(runner: Runner, ask: Any) -> None:
    later: list[Any] = []

    def spoil(event: BeforeToolCall) -> None:
        event.params["list"].append("spoilt")

    runner.register(tool_plugin(spoil), id="spoil", priority=1)
    runner.register(tool_plugin(lambda event: later.append(event.params)), id="later")
    verdict = ask("before_tool_call", TOOL, CTX)
    assert later == [{"to": "a", "list": [1]}]
    assert dict(verdict.params) == {"to": "a", "list": [1]}


def test_the_last_patch_wins_until_an_approval_freezes_the_arguments(runner: Runner, ask: Any) -> None:
    shown: list[Any] = []

    def approve(wanted: RequireApproval, event: BeforeToolCall) -> Approved:
        return Approved("alice")

    runner.register(tool_plugin(lambda event: Patch({"to": "b"})), id="one", priority=3)
    runner.register(
        tool_plugin(lambda event: shown.append(event.params) or (None if event.approved_by else RequireApproval("?"))),
        id="two",
        priority=2,
    )
    runner.register(tool_plugin(lambda event: None if event.approved_by else Patch({"to": "c"})), id="three")
    verdict = ask("before_tool_call", TOOL, CTX, approve)
    assert (verdict.block, dict(verdict.params)) == (None, {"to": "b"})
    assert shown[0] == {"to": "b"}


def test_caps_take_the_lower_limit_and_later_handlers_see_the_chosen_model(runner: Runner, ask: Any) -> None:
    seen: list[str | None] = []

    class One:
        @hookimpl
        def before_model_call(self, event: BeforeModelCall) -> Caps:
            return Caps(model="small", max_output_tokens=500)

    class Two:
        @hookimpl
        def before_model_call(self, event: BeforeModelCall) -> Caps:
            seen.append(event.model)
            return Caps(max_output_tokens=20)

    runner.register(One(), id="one", priority=1)
    runner.register(Two(), id="two")
    verdict = ask("before_model_call", MODEL, CTX)
    assert (verdict.block, verdict.model, verdict.max_output_tokens) == (None, "small", 20)
    assert seen == ["small"]


def test_overrides_take_the_first_and_prompt_patches_are_joined(runner: Runner, ask: Any) -> None:
    class One:
        @hookimpl
        def before_model_resolve(self) -> ModelOverride:
            return ModelOverride(model="a")

        @hookimpl
        def before_prompt_build(self) -> PromptPatch:
            return PromptPatch(system_append="one", tools_allow=("x", "y"))

    class Two:
        @hookimpl
        def before_model_resolve(self) -> ModelOverride:
            return ModelOverride(model="b", provider="p")

        @hookimpl
        def before_prompt_build(self) -> PromptPatch:
            return PromptPatch(system_append="two", tools_allow=("y", "z"))

    runner.register(One(), id="one")
    runner.register(Two(), id="two")
    assert ask("before_model_resolve", BeforeModelResolve(), CTX) == ModelOverride("a", "p")
    assert ask("before_prompt_build", BeforePromptBuild(), CTX) == PromptPatch(
        system_append="one\ntwo", tools_allow=("y",)
    )


def test_the_first_estimate_wins(runner: Runner) -> None:
    class Costs:
        @hookimpl
        def estimate_cost(self, action: Action) -> Any:
            return usd("0.10") if action.name == "send" else None

    runner.register(Costs())
    assert runner.estimate_cost(Action(kind="tool.call", name="send")) == usd("0.10")
    assert runner.estimate_cost(Action(kind="tool.call", name="other")) is None


def test_a_host_that_cannot_apply_what_a_plugin_wants_blocks() -> None:
    runner = Runner(capabilities=Capabilities(id="weak", name="Weak", model_call=True))

    class Downgrading:
        @hookimpl
        def before_model_call(self) -> Caps:
            return Caps(model="small")

    runner.register(Downgrading())
    verdict = runner.before_model_call(MODEL, CTX)
    assert verdict.block is not None
    assert verdict.block.code == "CANNOT_APPLY"
    assert "Weak cannot change the model" in verdict.block.message


# --- handlers that misbehave


def down(event: Any) -> Any:
    raise AuthorityUnavailable("nobody there")


BAD: dict[str, tuple[Callable[[Any], Any], str]] = {
    "raises": (boom, "HOOK_FAILED"),
    "reaches nobody": (down, "AUTHORITY_UNAVAILABLE"),
    "answers a dict": (lambda event: {"block": True}, "HOOK_FAILED"),
    "answers of another hook": (lambda event: ModelOverride("x"), "HOOK_FAILED"),
    "exits": (lambda event: sys.exit(3), "HOOK_FAILED"),
}


@pytest.mark.parametrize("how", BAD)
def test_a_gate_that_misbehaves_denies_and_says_how(
    how: str, runner: Runner, ask: Any, caplog: pytest.LogCaptureFixture
) -> None:
    function, code = BAD[how]
    runner.register(tool_plugin(function), id="bad")
    with caplog.at_level(logging.ERROR):
        verdict = ask("before_tool_call", TOOL, CTX)
    assert verdict.block is not None
    assert verdict.block.code == code
    assert "plugin 'bad'" in caplog.text
    assert "secret prompt" not in caplog.text + verdict.block.message
    assert runner.counts == {code: 1}


class Leaves(BaseException):
    pass


@pytest.mark.parametrize("kind", ["inline", "async", "thread"])
@pytest.mark.parametrize("error", [SystemExit, Leaves])
def test_a_handler_that_would_end_the_host_denies_and_the_next_is_asked_as_before(
    kind: str, error: type[BaseException], runner: Runner, ask: Any, caplog: pytest.LogCaptureFixture
) -> None:
    class Leaving:
        @hookimpl
        def before_tool_call(self) -> None:
            raise error(3)

    class Inline:
        @hookimpl
        @inline
        def before_tool_call(self) -> None:
            raise error(3)

    class Async:
        @hookimpl
        async def before_tool_call(self) -> None:
            raise error(3)

        @hookimpl
        async def before_agent_run(self) -> Block:
            return NO

    runner.register({"inline": Inline, "async": Async, "thread": Leaving}[kind](), id="leaves")
    for _ in range(2):
        assert ask("before_tool_call", TOOL, CTX).block.code == "HOOK_FAILED"
    assert f"raised {error.__name__} in test_hooks_contract.py:" in caplog.text
    if kind == "async":
        assert ask("before_agent_run", BeforeAgentRun(), CTX).block == NO


def test_a_failing_plugin_with_on_error_allow_is_left_out_logged_and_counted(
    runner: Runner, ask: Any, caplog: pytest.LogCaptureFixture
) -> None:
    runner.register(tool_plugin(boom), id="bad", on_error="allow")
    assert ask("before_tool_call", TOOL, CTX).block is None
    assert "on_error: allow" in caplog.text
    assert runner.counts == {"HOOK_FAILED": 1, "allowed_on_error": 1}


def test_a_block_is_never_allowed_by_on_error(runner: Runner, ask: Any) -> None:
    runner.register(tool_plugin(lambda event: NO), id="no", on_error="allow")
    assert ask("before_tool_call", TOOL, CTX).block == NO


@pytest.mark.parametrize("kind", ["sync", "async", "blocks the loop"])
def test_a_handler_that_hangs_denies_within_its_deadline(kind: str, runner: Runner, ask: Any) -> None:
    let_go = threading.Event()

    class Hanging:
        @hookimpl
        def before_tool_call(self) -> None:
            let_go.wait(60)

    class AsyncHanging:
        @hookimpl
        async def before_tool_call(self) -> None:
            await asyncio.sleep(60)

    class Blocking:
        @hookimpl
        def before_tool_call(self) -> None:
            time.sleep(0.8)

    plugin = {"sync": Hanging, "async": AsyncHanging, "blocks the loop": Blocking}[kind]()
    runner.register(plugin, id="slow", timeout_ms=100)
    began = time.monotonic()
    verdict = ask("before_tool_call", TOOL, CTX)
    took_s = time.monotonic() - began
    let_go.set()
    assert verdict.block is not None
    assert verdict.block.code == "HOOK_TIMEOUT"
    assert "within 100 ms" in verdict.block.message
    assert took_s < 0.7


@pytest.mark.parametrize("again_s", [0, 30])
def test_a_handler_that_ignores_its_cancellation_still_denies(runner: Runner, ask: Any, again_s: float) -> None:
    class Stubborn:
        @hookimpl
        async def before_tool_call(self) -> None:
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                await asyncio.sleep(again_s)

    runner.register(Stubborn(), id="slow", timeout_ms=100)
    began = time.monotonic()
    verdict = ask("before_tool_call", TOOL, CTX)
    assert verdict.block is not None
    assert verdict.block.code == "HOOK_TIMEOUT"
    assert time.monotonic() - began < 5


def test_a_host_that_gives_up_at_once_leaves_no_handler_behind(runner: Runner) -> None:
    class Async:
        @hookimpl
        async def before_tool_call(self) -> None:
            await asyncio.sleep(60)

    runner.register(Async(), id="slow")

    async def host() -> None:
        task = asyncio.ensure_future(runner.abefore_tool_call(TOOL, CTX))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(host())
    ctx = HookContext(run_id="r", deadline=time.monotonic() - 1)
    block = asyncio.run(runner.abefore_tool_call(TOOL, ctx)).block
    assert block is not None
    assert block.code == "HOOK_TIMEOUT"
    gc.collect()


def test_the_deadline_of_the_host_goes_before_that_of_the_plugin(runner: Runner, ask: Any) -> None:
    runner.register(tool_plugin(lambda event: time.sleep(0.5)), id="slow")
    ctx = HookContext(run_id="r", deadline=time.monotonic() + 0.05)
    began = time.monotonic()
    assert ask("before_tool_call", TOOL, ctx).block.code == "HOOK_TIMEOUT"
    assert time.monotonic() - began < 0.45


def test_many_hung_handlers_deny_and_do_not_make_threads_without_end(runner: Runner) -> None:
    let_go = threading.Event()
    runner.register(tool_plugin(lambda event: let_go.wait(30)), id="slow", timeout_ms=1)
    before = threading.active_count()
    codes = [runner.before_tool_call(TOOL, CTX).block for _ in range(MAX_THREADS + 5)]
    made = threading.active_count() - before
    let_go.set()
    assert all(block is not None and block.code == "HOOK_TIMEOUT" for block in codes)
    assert made <= MAX_THREADS


def test_observers_that_fail_stop_nobody_and_none_is_left_out(runner: Runner, ask: Any) -> None:
    class Failing:
        @hookimpl
        def after_tool_call(self) -> None:
            raise RuntimeError

    runner.register(Failing(), id="failing", priority=5)
    ends = seen_ends(runner)
    ask("after_tool_call", AfterToolCall(tool="send"), CTX)
    assert len(ends) == 1
    assert runner.counts == {"HOOK_FAILED": 1}


def test_a_modifying_hook_that_fails_is_left_out(runner: Runner, ask: Any) -> None:
    class Failing:
        @hookimpl
        def before_model_resolve(self) -> Any:
            return "big"

    class Fine:
        @hookimpl
        def before_model_resolve(self) -> ModelOverride:
            return ModelOverride("small")

    runner.register(Failing(), id="failing", priority=1)
    runner.register(Fine(), id="fine")
    assert ask("before_model_resolve", BeforeModelResolve(), CTX) == ModelOverride("small")

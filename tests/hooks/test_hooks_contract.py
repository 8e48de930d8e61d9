"""The runner: order, merging, copies, deadlines, and what becomes of handlers that misbehave. Sync and async."""

from __future__ import annotations

import asyncio
import logging
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from clearance.errors import AuthorityUnavailable, InvalidRequest
from clearance.model.action import Action
from clearance.model.amount import usd
from clearance_hooks import (
    AfterToolCall,
    Allow,
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

CTX = HookContext(run_id="r1", host="test")
TOOL = BeforeToolCall(tool="send", params={"to": "a", "list": [1]}, tool_call_id="t1")
MODEL = BeforeModelCall(call_id="c1", model="big", max_output_tokens=100)
NO = Block("NO", "not today")


@pytest.fixture
def runner() -> Iterator[Runner]:
    made = Runner()
    yield made
    made.close()


@pytest.fixture(params=["sync", "async"])
def ask(request: pytest.FixtureRequest, runner: Runner) -> Callable[..., Any]:
    """Call a hook of the runner, by its sync or its async method."""

    def call(hook: str, *args: Any) -> Any:
        if request.param == "sync":
            return getattr(runner, hook)(*args)
        return asyncio.run(getattr(runner, "a" + hook)(*args))

    return call


def tool_plugin(answer: Callable[[BeforeToolCall], Any]) -> Any:
    class Plugin:
        @hookimpl
        def before_tool_call(self, event: BeforeToolCall) -> Any:
            return answer(event)

    return Plugin()


def seen_ends(runner: Runner) -> list[AfterToolCall]:
    found: list[AfterToolCall] = []

    class Watcher:
        @hookimpl
        def after_tool_call(self, event: AfterToolCall) -> None:
            found.append(event)

    runner.register(Watcher(), id="watcher")
    return found


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

    def approve(wanted: RequireApproval, event: BeforeToolCall) -> str:
        return "alice"

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


def boom(event: Any) -> Any:
    raise ValueError("the secret prompt")


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


# --- approvals


def approving(runner: Runner) -> list[str | None]:
    seen: list[str | None] = []

    def wants(event: BeforeToolCall) -> Any:
        seen.append(event.approved_by)
        return None if event.approved_by else RequireApproval("Send?", timeout_ms=100)

    runner.register(tool_plugin(wants), id="careful")
    return seen


def test_an_approved_call_is_asked_again_with_the_name(runner: Runner, ask: Any) -> None:
    seen = approving(runner)
    assert ask("before_tool_call", TOOL, CTX, lambda wanted, event: "alice").block is None
    assert seen == [None, "alice"]


@pytest.mark.parametrize(
    "approver",
    [None, lambda wanted, event: None, lambda wanted, event: True, boom, lambda wanted, event: time.sleep(0.4)],
    ids=["nobody", "no", "no name", "fails", "too late"],
)
def test_without_a_name_in_time_the_call_is_blocked(approver: Any, runner: Runner, ask: Any) -> None:
    approving(runner)
    ends = seen_ends(runner)
    verdict = ask("before_tool_call", TOOL, CTX, approver)
    assert verdict.block.code == "APPROVAL_REQUIRED"
    assert [end.outcome for end in ends] == ["denied"]


def test_an_async_approver_is_awaited(runner: Runner, ask: Any) -> None:
    approving(runner)

    async def approver(wanted: RequireApproval, event: BeforeToolCall) -> str:
        await asyncio.sleep(0)
        return "bob"

    assert ask("before_tool_call", TOOL, CTX, approver).block is None


# --- registration


def test_registering_again_changes_nothing(runner: Runner) -> None:
    calls: list[int] = []
    assert runner.register(tool_plugin(lambda event: calls.append(1)), id="one")
    for _ in range(4):
        assert not runner.register(tool_plugin(lambda event: calls.append(2)), id="one")
    runner.before_tool_call(TOOL, CTX)
    assert calls == [1]


def test_a_misspelt_hook_is_refused_with_the_right_name(runner: Runner) -> None:
    class Misspelt:
        @hookimpl
        def before_tool_cal(self) -> None: ...

    with pytest.raises(InvalidRequest, match="did you mean before_tool_call"):
        runner.register(Misspelt(), id="misspelt")
    assert runner.registry.ids == ()


def test_a_wrong_argument_is_refused(runner: Runner) -> None:
    class Wrong:
        @hookimpl
        def before_tool_call(self, evnt: Any) -> None: ...

    with pytest.raises(InvalidRequest, match="evnt"):
        runner.register(Wrong(), id="wrong")
    assert runner.registry.ids == ()


def test_a_wrapper_is_refused(runner: Runner) -> None:
    class Wrapping:
        @hookimpl(wrapper=True)
        def before_tool_call(self, event: Any) -> Iterator[None]:
            yield

    with pytest.raises(InvalidRequest, match="wrapper"):
        runner.register(Wrapping(), id="wrapping")
    assert runner.before_tool_call(TOOL, CTX).block is None


def test_what_was_told_before_is_told_to_those_who_come_later(runner: Runner) -> None:
    found: list[tuple[str, str]] = []

    class Late:
        @hookimpl
        def kill_switch_changed(self, state: str, scope: str) -> None:
            found.append((state, scope))

    runner.tell("kill_switch_changed", state="KILLED", scope="tenant:acme", reason="test")
    runner.register(Late())
    assert found == [("KILLED", "tenant:acme")]


def test_an_inline_handler_runs_in_the_hosts_own_thread(runner: Runner) -> None:
    where: list[str] = []

    class Inline:
        @hookimpl
        @inline
        def before_tool_call(self) -> None:
            where.append(threading.current_thread().name)

    class Threaded:
        @hookimpl
        def before_tool_call(self) -> None:
            where.append(threading.current_thread().name)

    runner.register(Inline(), id="inline", priority=1)
    runner.register(Threaded(), id="threaded")
    runner.before_tool_call(TOOL, CTX)
    assert where == [threading.current_thread().name, "clearance-hook"]


def test_handlers_see_the_context_variables_of_the_host(runner: Runner, ask: Any) -> None:
    from contextvars import ContextVar

    variable: ContextVar[str] = ContextVar("variable", default="unset")
    seen: list[str] = []
    runner.register(tool_plugin(lambda event: seen.append(variable.get())), id="reads")
    variable.set("set")
    ask("before_tool_call", TOOL, CTX)
    assert seen == ["set"]


def test_a_runner_works_in_a_forked_child(runner: Runner) -> None:
    import os

    runner.register(tool_plugin(lambda event: NO), id="no")
    assert runner.before_tool_call(TOOL, CTX).block == NO  # its threads are running now
    pid = os.fork()
    if pid == 0:
        block = runner.before_tool_call(TOOL, CTX).block
        os._exit(0 if block == NO else 1)
    assert os.waitpid(pid, 0)[1] == 0


def test_the_run_gate_takes_a_block(runner: Runner, ask: Any) -> None:
    class No:
        @hookimpl
        async def before_agent_run(self) -> Block:
            return NO

    runner.register(No())
    assert ask("before_agent_run", BeforeAgentRun(), CTX).block == NO

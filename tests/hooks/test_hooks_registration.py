"""Which plugins a runner takes, and in which surroundings their handlers run."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest
from hooks_plugins import CTX, NO, TOOL, tool_plugin

from clearance.errors import InvalidRequest
from clearance_hooks import (
    BeforeAgentRun,
    Block,
    Runner,
    hookimpl,
    inline,
)
from clearance_hooks.registry import Registry


def test_registering_again_changes_nothing(runner: Runner) -> None:
    calls: list[int] = []
    assert runner.register(tool_plugin(lambda event: calls.append(1)), id="one")
    for _ in range(4):
        assert not runner.register(tool_plugin(lambda event: calls.append(2)), id="one")
    runner.before_tool_call(TOOL, CTX)
    assert calls == [1]


def test_what_another_thread_registers_meanwhile_is_kept_apart() -> None:
    told: list[str] = []

    class Told:
        def __init__(self, name: str) -> None:
            self.id = name

        @hookimpl
        def kill_switch_changed(self) -> None:
            told.append(self.id)

    class Busy(Registry):
        def register(self, plugin: object, **terms: Any) -> bool:
            done = super().register(plugin, **terms)
            return super().register(Told("meanwhile")) and done

    runner = Runner(Busy())
    runner.tell("kill_switch_changed", state="KILLED", scope="*", reason="test")
    assert runner.register(Told("one"))
    assert (runner.registry.ids, told) == (("one", "meanwhile"), ["one"])
    runner.close()


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


@pytest.mark.parametrize("plugin", [None, 42, "guard", object()])
def test_what_handles_no_hook_is_no_plugin(plugin: Any, runner: Runner) -> None:
    with pytest.raises(InvalidRequest, match="handles no hook"):
        runner.register(plugin, id="none")
    assert runner.registry.ids == ()
    assert runner.register(tool_plugin(lambda event: NO), id="none")
    assert runner.before_tool_call(TOOL, CTX).block == NO


def test_a_handler_without_its_mark_is_refused(runner: Runner) -> None:
    class Unmarked:
        @hookimpl
        def before_agent_run(self) -> None: ...

        def before_tool_call(self, event: Any) -> Block:
            return NO

    with pytest.raises(InvalidRequest, match="before_tool_call that is not marked; allowed: @hookimpl"):
        runner.register(Unmarked(), id="unmarked")
    assert runner.registry.ids == ()


def test_one_plugin_is_not_registered_under_two_ids(runner: Runner) -> None:
    plugin = tool_plugin(lambda event: NO)
    runner.register(plugin, id="one")
    with pytest.raises(InvalidRequest, match="registered already"):
        runner.register(plugin, id="two")


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

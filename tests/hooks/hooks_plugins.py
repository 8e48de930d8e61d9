"""Small plugins, and what they are asked about."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from clearance_hooks import (
    AfterToolCall,
    BeforeModelCall,
    BeforeToolCall,
    Block,
    HookContext,
    Runner,
    hookimpl,
)

CTX = HookContext(run_id="r1", host="test")
TOOL = BeforeToolCall(tool="send", params={"to": "a", "list": [1]}, tool_call_id="t1")
MODEL = BeforeModelCall(call_id="c1", model="big", max_output_tokens=100)
NO = Block("NO", "not today")


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


def boom(event: Any, *more: Any) -> Any:
    raise ValueError("the secret prompt")

"""Who may say yes, and which arguments a tool may be asked about. Sync and async."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import Any

import pytest
from hooks_plugins import CTX, TOOL, boom, seen_ends, tool_plugin

from clearance.errors import InvalidRequest
from clearance_hooks import (
    Approved,
    BeforeToolCall,
    Patch,
    RequireApproval,
    Runner,
)


def approving(runner: Runner) -> list[str | None]:
    seen: list[str | None] = []

    def wants(event: BeforeToolCall) -> Any:
        seen.append(event.approved_by)
        return None if event.approved_by else RequireApproval("Send?", timeout_ms=100)

    runner.register(tool_plugin(wants), id="careful")
    return seen


def test_an_approved_call_is_asked_again_with_the_name(runner: Runner, ask: Any) -> None:
    seen = approving(runner)
    assert ask("before_tool_call", TOOL, CTX, lambda wanted, event: Approved("alice")).block is None
    assert seen == [None, "alice"]


@pytest.mark.parametrize(
    "approver",
    [None, boom, lambda wanted, event: time.sleep(0.4), lambda wanted, event: Approved(by=" ")],
    ids=["nobody", "fails", "too late", "names nobody"],
)
def test_without_a_yes_in_time_the_call_is_blocked(approver: Any, runner: Runner, ask: Any) -> None:
    seen = approving(runner)
    ends = seen_ends(runner)
    verdict = ask("before_tool_call", TOOL, CTX, approver)
    assert verdict.block.code == "APPROVAL_REQUIRED"
    assert [end.outcome for end in ends] == ["denied"]
    assert seen == [None]


class YesMan:
    def __bool__(self) -> bool:
        return True

    def __str__(self) -> str:
        return "yes"


@pytest.mark.parametrize("answer", [None, False])
def test_none_and_false_are_a_no(answer: Any, runner: Runner, ask: Any, caplog: pytest.LogCaptureFixture) -> None:
    seen = approving(runner)
    verdict = ask("before_tool_call", TOOL, CTX, lambda wanted, event: answer)
    assert (verdict.block.code, seen, caplog.text) == ("APPROVAL_REQUIRED", [None], "")


@pytest.mark.parametrize("answer", ["no", "", "yes", "alice", True, 1, {"by": "alice"}, ["alice"], YesMan()])
def test_whatever_is_no_approved_is_a_no_and_is_logged(
    answer: Any, runner: Runner, ask: Any, caplog: pytest.LogCaptureFixture
) -> None:
    seen = approving(runner)
    verdict = ask("before_tool_call", TOOL, CTX, lambda wanted, event: answer)
    assert (verdict.block.code, seen) == ("APPROVAL_REQUIRED", [None])
    said = f"the approver answered a {type(answer).__name__}; not approved, which only Approved(by=...) is"
    assert said in caplog.text


def test_an_async_object_is_awaited_and_a_coroutine_in_a_sync_answer_is_a_no(runner: Runner, ask: Any) -> None:
    approving(runner)

    class Desk:
        async def __call__(self, wanted: RequireApproval, event: BeforeToolCall) -> Approved:
            return Approved("bob")

    desk = Desk()
    assert ask("before_tool_call", TOOL, CTX, desk).block is None
    assert ask("before_tool_call", TOOL, CTX, lambda *asked: desk(*asked)).block.code == "APPROVAL_REQUIRED"


@pytest.mark.parametrize("name", ["", " ", True, 7])
def test_a_host_cannot_say_that_nobody_has_approved(name: Any) -> None:
    with pytest.raises(InvalidRequest, match="names nobody"):
        BeforeToolCall(tool="send", approved_by=name)


# --- arguments


@pytest.mark.parametrize(
    ("params", "said"),
    [
        ([1], "are a list, not a mapping from names to values"),
        ("text", "are a str, not a mapping"),
        (7, "are a int, not a mapping"),
        ({1: "a"}, "have a name that is not text"),
        ({"lock": threading.Lock()}, "cannot be copied and written down (TypeError)"),
    ],
)
def test_arguments_that_are_none_are_refused_in_words(params: Any, said: str, runner: Runner, ask: Any) -> None:
    asked: list[Any] = []
    runner.register(tool_plugin(lambda event: asked.append(event)), id="asked")
    ends = seen_ends(runner)
    verdict = ask("before_tool_call", BeforeToolCall(tool="send", params=params, tool_call_id="t"), CTX)
    assert verdict.block.code == "BAD_ARGUMENTS"
    assert f"The arguments of the tool send {said}" in verdict.block.message
    assert (asked, [end.outcome for end in ends]) == ([], ["blocked"])


def test_no_arguments_are_an_empty_mapping(runner: Runner, ask: Any) -> None:
    seen: list[Any] = []
    runner.register(tool_plugin(lambda event: seen.append(event.params)), id="sees")
    verdict = ask("before_tool_call", BeforeToolCall(tool="send", params=None), CTX)  # type: ignore[arg-type]
    assert (verdict.block, verdict.params, seen) == (None, {}, [{}])


def test_a_patch_that_cannot_be_copied_is_a_failure_of_its_plugin(runner: Runner, ask: Any) -> None:
    runner.register(tool_plugin(lambda event: Patch({"lock": threading.Lock()})), id="bad")
    assert ask("before_tool_call", TOOL, CTX).block.code == "HOOK_FAILED"


def test_an_async_approver_is_awaited(runner: Runner, ask: Any) -> None:
    approving(runner)

    async def approver(wanted: RequireApproval, event: BeforeToolCall) -> Approved:
        await asyncio.sleep(0)
        return Approved("bob")

    assert ask("before_tool_call", TOOL, CTX, approver).block is None

"""Asks a person where a plugin wants one to agree, and takes nothing but a named yes for one."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

from clearance_hooks import results as re
from clearance_hooks.dispatch import APPROVAL_REQUIRED, Dispatch, Dispatcher, Failure, Invoke
from clearance_hooks.events import BeforeToolCall, HookContext, isolated
from clearance_hooks.registry import Impl

log = logging.getLogger("clearance.hooks")

Approver = Callable[[re.RequireApproval, BeforeToolCall], "re.Approved | Awaitable[re.Approved | None] | None"]
"""Asks a person. `Approved(by="ann")` is a yes; None and False are a no, and so is everything else, which is logged."""


def asked_tool_call(
    dispatcher: Dispatcher, event: BeforeToolCall, ctx: HookContext, approver: Approver | None
) -> Dispatch[re.ToolVerdict]:
    """The plugins' verdict, after a person's yes where they want one. One that still has `approval` got no yes."""
    verdict = yield from dispatcher.tool_call(event, ctx)
    if verdict.approval is None or approver is None:
        return verdict
    event = replace(event, params=verdict.params)
    impl = _handler_of(approver, verdict.approval)
    who = _approved_by((yield Invoke(impl, {"wanted": verdict.approval, "event": isolated(event)})))
    if who is None:
        return verdict
    return (yield from dispatcher.tool_call(replace(event, approved_by=who), ctx))


def not_approved(verdict: re.ToolVerdict, approver: Approver | None) -> re.ToolVerdict:
    """The Block in the place of an approval that nobody has given."""
    assert verdict.approval is not None
    why = "nobody can be asked here" if approver is None else "it was not given"
    message = f"{verdict.approval.title}: this needs a person's approval, and {why}."
    return replace(verdict, block=re.Block(APPROVAL_REQUIRED, message), approval=None)


def _handler_of(approver: Approver, wanted: re.RequireApproval) -> Impl:
    def ask(wanted: re.RequireApproval, event: BeforeToolCall) -> Any:
        return approver(wanted, event)

    async def aask(wanted: re.RequireApproval, event: BeforeToolCall) -> Any:
        answer = approver(wanted, event)
        return await answer if inspect.isawaitable(answer) else answer

    is_async = inspect.iscoroutinefunction(approver) or inspect.iscoroutinefunction(type(approver).__call__)
    return Impl(
        plugin="approver",
        hook="before_tool_call",
        function=aask if is_async else ask,
        argnames=("wanted", "event"),
        priority=0,
        on_error="deny",
        timeout_s=wanted.timeout_ms / 1000,
        is_async=is_async,
        is_inline=False,
    )


def _approved_by(answer: Any) -> str | None:
    """Who has approved. A text is no yes, whatever it says: it may as well be "no"."""
    if isinstance(answer, re.Approved):
        return answer.by
    if isinstance(answer, Failure):
        log.warning("the approver %s; not approved", answer.why)
    elif answer is not None and answer is not False:
        if inspect.iscoroutine(answer):
            answer.close()
        kind = type(answer).__name__
        log.warning("the approver answered a %s; not approved, which only Approved(by=...) is", kind)
    return None

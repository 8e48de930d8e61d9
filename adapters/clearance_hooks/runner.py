"""Calls the handlers of a hook, one after the other, each within its deadline, in sync and in async hosts."""

from __future__ import annotations

import asyncio
import logging
import time
from concurrent.futures import Future
from dataclasses import replace
from typing import Any, TypeVar

from clearance.model.action import Action
from clearance.model.amount import Amount
from clearance_hooks import results as re
from clearance_hooks.approving import Approver, asked_tool_call, not_approved
from clearance_hooks.capabilities import MINIHOST, Capabilities
from clearance_hooks.dispatch import APPROVAL_REQUIRED, Dispatch, Dispatcher, Failure, Invoke, model_ended, tool_ended
from clearance_hooks.events import (
    AfterModelCall,
    AfterToolCall,
    AgentEnd,
    BeforeAgentRun,
    BeforeModelCall,
    BeforeModelResolve,
    BeforePromptBuild,
    BeforeToolCall,
    Caller,
    HookContext,
)
from clearance_hooks.failures import crowded, late, raised
from clearance_hooks.registry import Impl, Registry, name_of
from clearance_hooks.specs import HOOKS
from clearance_hooks.workers import Job, Late, LoopThread, Pools, Workers, within

T = TypeVar("T")
log = logging.getLogger("clearance.hooks")

MAX_HISTORY = 100


class Runner:
    """What a host holds: one method a hook, with an `a` twin for async hosts. Thread-safe.

    A gate never raises for what a plugin does: a handler that raises, takes too long or answers nonsense blocks,
    unless its entry says `on_error: allow`. When a gate blocks, the runner tells the observers of `after_...` itself,
    so that whoever held something for the call gives it back.
    """

    def __init__(self, registry: Registry | None = None, capabilities: Capabilities = MINIHOST) -> None:
        self.registry = registry or Registry()
        self.capabilities = capabilities
        self._dispatcher = Dispatcher(self.registry, capabilities)
        self._pools = Pools()
        self._loop = LoopThread()
        self._history: list[tuple[str, dict[str, Any]]] = []

    @property
    def counts(self) -> dict[str, int]:
        """How often handlers failed, by code."""
        return self._dispatcher.counts

    def register(self, plugin: object, **terms: Any) -> bool:
        """`Registry.register`; what the plugin has missed of historic hooks is told to it now."""
        if not self.registry.register(plugin, **terms):
            return False
        new = name_of(plugin, terms.get("id"))
        for hook, arguments in list(self._history):
            for impl in self.registry.impls(hook):
                if impl.plugin == new:
                    self._drive(_one(impl, arguments))
        return True

    def close(self) -> None:
        """End the threads that wait for handlers to run; a runner that is used again makes new ones."""
        self._pools.close()
        self._loop.close()

    # --- gates

    def before_agent_run(self, event: BeforeAgentRun, ctx: HookContext) -> re.RunVerdict:
        return self._drive(self._dispatcher.agent_run(event, ctx))

    async def abefore_agent_run(self, event: BeforeAgentRun, ctx: HookContext) -> re.RunVerdict:
        return await self._adrive(self._dispatcher.agent_run(event, ctx))

    def before_model_call(self, event: BeforeModelCall, ctx: HookContext) -> re.ModelVerdict:
        try:
            return self._drive(self._dispatcher.model_call(event, ctx))
        except BaseException:
            self._interrupted("after_model_call", model_ended(event, "blocked"), ctx)
            raise

    async def abefore_model_call(self, event: BeforeModelCall, ctx: HookContext) -> re.ModelVerdict:
        try:
            return await self._adrive(self._dispatcher.model_call(event, ctx))
        except BaseException:
            self._interrupted("after_model_call", model_ended(event, "blocked"), ctx)
            raise

    def before_tool_call(
        self, event: BeforeToolCall, ctx: HookContext, approver: Approver | None = None
    ) -> re.ToolVerdict:
        """The verdict, after asking `approver` where a person must agree; without one such a call is blocked."""
        try:
            verdict = self._drive(asked_tool_call(self._dispatcher, event, ctx, approver))
            if verdict.approval is None:
                return verdict
            self.after_tool_call(tool_ended(event, "denied", APPROVAL_REQUIRED), ctx)
            return not_approved(verdict, approver)
        except BaseException:
            self._interrupted("after_tool_call", tool_ended(event, "blocked"), ctx)
            raise

    async def abefore_tool_call(
        self, event: BeforeToolCall, ctx: HookContext, approver: Approver | None = None
    ) -> re.ToolVerdict:
        try:
            verdict = await self._adrive(asked_tool_call(self._dispatcher, event, ctx, approver))
            if verdict.approval is None:
                return verdict
            await self.aafter_tool_call(tool_ended(event, "denied", APPROVAL_REQUIRED), ctx)
            return not_approved(verdict, approver)
        except BaseException:
            self._interrupted("after_tool_call", tool_ended(event, "blocked"), ctx)
            raise

    # --- modifying hooks

    def before_model_resolve(self, event: BeforeModelResolve, ctx: HookContext) -> re.ModelOverride:
        return self._drive(self._dispatcher.model_resolve(event, ctx))

    async def abefore_model_resolve(self, event: BeforeModelResolve, ctx: HookContext) -> re.ModelOverride:
        return await self._adrive(self._dispatcher.model_resolve(event, ctx))

    def before_prompt_build(self, event: BeforePromptBuild, ctx: HookContext) -> re.PromptPatch:
        return self._drive(self._dispatcher.prompt_build(event, ctx))

    async def abefore_prompt_build(self, event: BeforePromptBuild, ctx: HookContext) -> re.PromptPatch:
        return await self._adrive(self._dispatcher.prompt_build(event, ctx))

    def estimate_cost(self, action: Action) -> Amount | None:
        """What a plugin says that this action will cost at most; None when no plugin does."""
        cost: Amount | None = self._drive(self._dispatcher.cost(action))
        return cost

    # --- observers

    def after_model_call(self, event: AfterModelCall, ctx: HookContext) -> None:
        self.tell("after_model_call", event=event, ctx=ctx)

    async def aafter_model_call(self, event: AfterModelCall, ctx: HookContext) -> None:
        await self.atell("after_model_call", event=event, ctx=ctx)

    def after_tool_call(self, event: AfterToolCall, ctx: HookContext) -> None:
        self.tell("after_tool_call", event=event, ctx=ctx)

    async def aafter_tool_call(self, event: AfterToolCall, ctx: HookContext) -> None:
        await self.atell("after_tool_call", event=event, ctx=ctx)

    def agent_end(self, event: AgentEnd, ctx: HookContext) -> None:
        self.tell("agent_end", event=event, ctx=ctx)

    async def aagent_end(self, event: AgentEnd, ctx: HookContext) -> None:
        await self.atell("agent_end", event=event, ctx=ctx)

    def tell(self, hook: str, **arguments: Any) -> None:
        """Any observing hook, by name: `runner.tell("session_started", event=..., ctx=...)`."""
        self._remember(hook, arguments)
        steps = self._dispatcher.observing(hook, **arguments)
        try:
            self._drive(steps)
        except BaseException:
            self._tell_rest(steps)
            raise

    async def atell(self, hook: str, **arguments: Any) -> None:
        self._remember(hook, arguments)
        steps = self._dispatcher.observing(hook, **arguments)
        try:
            await self._adrive(steps)
        except BaseException:
            self._tell_rest(steps)
            raise

    def _remember(self, hook: str, arguments: dict[str, Any]) -> None:
        if HOOKS[hook].historic:
            self._history = [*self._history, (hook, arguments)][-MAX_HISTORY:]

    def _interrupted(self, hook: str, event: Any, ctx: HookContext) -> None:
        """The host was cancelled while it asked; whoever held something for the call must give it back."""
        self._tell_rest(self._dispatcher.observing(hook, event=event, ctx=ctx))

    def _tell_rest(self, steps: Dispatch[None]) -> None:
        """Who has not been told yet is told all the same; the host was cancelled and waits for nobody."""
        for invoke in steps:
            impl, timeout_s = invoke.impl, invoke.impl.timeout_s
            arguments = _wanted(invoke, timeout_s, Caller())
            if impl.is_inline:
                _log_failed(impl, _inline(impl, arguments))
            elif impl.is_async:
                started = self._loop.start(impl.function(**arguments), timeout_s)
                started.add_done_callback(lambda future, impl=impl: _log_failed(impl, _answer_of(future)))  # type: ignore[misc]
            elif not self._pools.of(impl.plugin).submit(Job(_logging, {"impl": impl, "arguments": arguments})):
                log.error("%s could not be told of an interrupted call: too much is waiting", impl)

    # --- the two ways of calling

    def _drive(self, steps: Dispatch[T]) -> T:
        try:
            invoke = next(steps)
            while True:
                invoke = steps.send(self._call(invoke))
        except StopIteration as end:
            verdict: T = end.value
            return verdict

    async def _adrive(self, steps: Dispatch[T]) -> T:
        try:
            invoke = next(steps)
            while True:
                invoke = steps.send(await self._acall(invoke))
        except StopIteration as end:
            verdict: T = end.value
            return verdict

    def _call(self, invoke: Invoke) -> Any:
        impl, timeout_s, caller = invoke.impl, _timeout_s(invoke), Caller()
        arguments = _wanted(invoke, timeout_s, caller)
        if impl.is_inline:
            return _inline(impl, arguments)
        if impl.is_async:
            try:
                return self._loop.run(impl.function(**arguments), timeout_s)
            except TimeoutError:
                return late(timeout_s)
            except Exception as error:
                return raised(error)
        job, pool, is_done = Job(impl.function, arguments), self._pools.of(impl.plugin), False
        if not pool.submit(job):
            return crowded(pool.busy)
        try:
            is_done = job.wait(timeout_s)
        finally:
            caller.gone = not is_done
            is_unasked = not is_done and _withdrawn(impl, job, pool)
        if is_done:
            return _result(job)
        return crowded(pool.busy) if is_unasked else late(timeout_s)

    async def _acall(self, invoke: Invoke) -> Any:
        impl, timeout_s, caller = invoke.impl, _timeout_s(invoke), Caller()
        arguments = _wanted(invoke, timeout_s, caller)
        if impl.is_inline:
            return _inline(impl, arguments)
        if impl.is_async:
            return await _awaited(impl, arguments, timeout_s)
        job, pool = Job(impl.function, arguments), self._pools.of(impl.plugin)
        future = job.future()
        if not pool.submit(job):
            return crowded(pool.busy)
        is_cancelled = True
        try:
            await asyncio.wait((future,), timeout=timeout_s)
            is_cancelled = False
        finally:
            # Also who was answered and cancelled at once is gone: it has not seen the answer.
            caller.gone = is_cancelled or not future.done()
            is_unasked = caller.gone and _withdrawn(impl, job, pool)
        if future.done():
            return _result(job)
        return crowded(pool.busy) if is_unasked else late(timeout_s)


def _withdrawn(impl: Impl, job: Job, pool: Workers) -> bool:
    """A gate that nobody waits for is not asked; an observer is told later, whoever hangs."""
    return HOOKS[impl.hook].mode != "observe" and pool.withdraw(job)


def _logging(impl: Impl, arguments: dict[str, Any]) -> None:
    _log_failed(impl, _inline(impl, arguments))


def _log_failed(impl: Impl, answer: Any) -> None:
    if isinstance(answer, Failure):
        log.error("%s %s; the others are told all the same", impl, answer.why)


def _answer_of(future: Future[Any]) -> Any:
    if future.cancelled():
        return None
    error = future.exception()
    return None if error is None else raised(error)


async def _awaited(impl: Impl, arguments: dict[str, Any], timeout_s: float) -> Any:
    before = _cancelling()
    try:
        return await within(impl.function(**arguments), timeout_s)
    except Late:
        return late(timeout_s)
    except asyncio.CancelledError as error:
        if _cancelling() > before:
            raise  # the host's own task was cancelled
        return raised(error)
    except Exception as error:
        return raised(error)


def _cancelling() -> int:
    task = asyncio.current_task()
    return 0 if task is None else task.cancelling()


def _inline(impl: Impl, arguments: dict[str, Any]) -> Any:
    try:
        return impl.function(**arguments)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # also an exit: a plugin must not take the host with it
        return raised(error)


def _one(impl: Impl, arguments: dict[str, Any]) -> Dispatch[None]:
    answer = yield Invoke(impl, arguments)
    if isinstance(answer, Failure):
        log.error("%s %s", impl, answer.why)


def _wanted(invoke: Invoke, timeout_s: float, caller: Caller) -> dict[str, Any]:
    """A handler may take fewer arguments than the hook has. Its context says when nobody waits for it any more."""
    given = {name: invoke.arguments[name] for name in invoke.impl.argnames}
    if "ctx" in given and not invoke.impl.is_inline:
        given["ctx"] = replace(given["ctx"], deadline=time.monotonic() + timeout_s, caller=caller)
    return given


def _timeout_s(invoke: Invoke) -> float:
    ctx = invoke.arguments.get("ctx")
    if ctx is None or ctx.deadline is None:
        return invoke.impl.timeout_s
    left_s: float = ctx.deadline - time.monotonic()
    return max(0.0, min(invoke.impl.timeout_s, left_s))


def _result(job: Job) -> Any:
    return job.value if job.error is None else raised(job.error)

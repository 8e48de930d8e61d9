"""The hooks that a host calls, as pluggy specifications, and how the answers of each are treated."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

import pluggy

from clearance.model.action import Action
from clearance.model.amount import Amount
from clearance_hooks import events as ev
from clearance_hooks import results as re

PROJECT = "clearance_hooks"
ENTRY_POINTS = "clearance_hooks.plugins"

hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)

F = TypeVar("F", bound=Callable[..., Any])
_INLINE = "clearance_hooks_inline"


def inline(function: F) -> F:
    """Mark a sync handler that never waits: it runs in the host's own thread, without a deadline."""
    setattr(function, _INLINE, True)
    return function


def is_inline(function: object) -> bool:
    return getattr(function, _INLINE, False) is True


class HookSpecs:
    """A handler may take any subset of the arguments, and may be sync or async."""

    # --- the host

    @hookspec
    def host_started(self, host: str, config: Any) -> None:
        """The host is up. Told again to plugins that come later."""

    @hookspec
    def host_stopping(self, deadline: float) -> None:
        """The host goes down at `deadline`, in seconds of `time.monotonic()`."""

    @hookspec
    def kill_switch_changed(self, state: str, scope: str, reason: str) -> None:
        """KILLED, PAUSED or RUNNING. Told again to plugins that come later."""

    # --- one turn

    @hookspec
    def before_model_resolve(self, event: ev.BeforeModelResolve, ctx: ev.HookContext) -> re.ModelOverride | None:
        """Which model is to serve this run? The first that names one wins, for each field."""

    @hookspec
    def before_prompt_build(self, event: ev.BeforePromptBuild, ctx: ev.HookContext) -> re.PromptPatch | None:
        """Add to the prompt, or show the model fewer tools."""

    @hookspec
    def before_agent_run(self, event: ev.BeforeAgentRun, ctx: ev.HookContext) -> re.Allow | re.Block | None:
        """May this attempt of the run begin?"""

    @hookspec
    def before_model_call(self, event: ev.BeforeModelCall, ctx: ev.HookContext) -> re.Allow | re.Block | re.Caps | None:
        """May this request be made? Each handler sees the model that those before it have chosen."""

    @hookspec
    def after_model_call(self, event: ev.AfterModelCall, ctx: ev.HookContext) -> None:
        """It has ended, or was blocked."""

    @hookspec
    def before_tool_call(
        self, event: ev.BeforeToolCall, ctx: ev.HookContext
    ) -> re.Allow | re.Block | re.Patch | re.RequireApproval | None:
        """May this tool run? Each handler sees the arguments that those before it have set."""

    @hookspec
    def after_tool_call(self, event: ev.AfterToolCall, ctx: ev.HookContext) -> None:
        """It has ended, or was blocked, or its approval was denied."""

    @hookspec
    def agent_end(self, event: ev.AgentEnd, ctx: ev.HookContext) -> None:
        """This attempt of the run is over."""

    # --- around it

    @hookspec
    def subagent_started(self, event: ev.SubagentStarted, ctx: ev.HookContext) -> None: ...

    @hookspec
    def subagent_ended(self, event: ev.SubagentEnded, ctx: ev.HookContext) -> None: ...

    @hookspec
    def session_started(self, event: ev.SessionStarted, ctx: ev.HookContext) -> None: ...

    @hookspec
    def session_ended(self, event: ev.SessionEnded, ctx: ev.HookContext) -> None: ...

    @hookspec
    def estimate_cost(self, action: Action) -> Amount | None:
        """What will this action cost at most? The first answer wins."""


Mode = Literal["gate", "modify", "observe", "first"]


@dataclass(frozen=True, slots=True)
class Hook:
    """How a hook is dispatched.

    Attributes:
        mode: a gate fails closed and stops at the first Block; a modifying hook that fails is left out; observers are
            told whatever happens; of `first` the first answer counts.
        answers: the types that a handler may return beside None.
        after: the observing hook that is told when this gate has blocked.
        historic: what was told is told again to plugins that come later.
    """

    name: str
    mode: Mode
    answers: tuple[type, ...] = ()
    after: str | None = None
    historic: bool = False


HOOKS: dict[str, Hook] = {
    hook.name: hook
    for hook in (
        Hook("host_started", "observe", historic=True),
        Hook("host_stopping", "observe"),
        Hook("kill_switch_changed", "observe", historic=True),
        Hook("before_model_resolve", "modify", (re.ModelOverride,)),
        Hook("before_prompt_build", "modify", (re.PromptPatch,)),
        Hook("before_agent_run", "gate", (re.Allow, re.Block)),
        Hook("before_model_call", "gate", (re.Allow, re.Block, re.Caps), after="after_model_call"),
        Hook("after_model_call", "observe"),
        Hook("before_tool_call", "gate", (re.Allow, re.Block, re.Patch, re.RequireApproval), after="after_tool_call"),
        Hook("after_tool_call", "observe"),
        Hook("agent_end", "observe"),
        Hook("subagent_started", "observe"),
        Hook("subagent_ended", "observe"),
        Hook("session_started", "observe"),
        Hook("session_ended", "observe"),
        Hook("estimate_cost", "first", (Amount,)),
    )
}
GATES = tuple(name for name, hook in HOOKS.items() if hook.mode == "gate")

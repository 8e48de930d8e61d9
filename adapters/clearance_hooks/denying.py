"""What stands in for a guard that is enabled and cannot work: it refuses everything, and says why."""

from __future__ import annotations

from clearance_hooks.events import BeforeAgentRun, BeforeModelCall, BeforeToolCall
from clearance_hooks.results import Block
from clearance_hooks.specs import hookimpl, inline

NOT_ARMED = "GUARD_NOT_ARMED"


class DenyingPlugin:
    """Every gate blocks. `reason` is one sentence without secrets; `text` is the whole of what is said."""

    def __init__(self, id: str, reason: str, text: str = "") -> None:
        self.id = id
        self.reason = reason
        self.text = text or f"The plugin {id} is enabled, but cannot work: {reason}"
        self._block = Block(NOT_ARMED, self.text)

    @hookimpl
    @inline
    def before_agent_run(self, event: BeforeAgentRun) -> Block:
        return self._block

    @hookimpl
    @inline
    def before_model_call(self, event: BeforeModelCall) -> Block:
        return self._block

    @hookimpl
    @inline
    def before_tool_call(self, event: BeforeToolCall) -> Block:
        return self._block

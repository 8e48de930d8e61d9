"""Hooks around every run, model call and tool call of an agent host, and the Clearance plugin for them.

    runner = load_runner("host.yaml", capabilities_of("minihost"))     # what the operator has enabled
    verdict = runner.before_tool_call(BeforeToolCall(tool="search", params={...}, tool_call_id="1"), ctx)
    if verdict.block: ...

A host holds a `Runner` and calls its methods (each has an `a` twin); `MiniHost` shows the order. Plugins implement the
hooks of `HookSpecs` with `@hookimpl`. Ready-made adapters are in `clearance_hooks.hosts`, and `clearance_hooks.testing`
is what any host can test itself with.
"""

from clearance_hooks.activation import PluginInfo, activate, inspect, load_runner, shut_down, statuses
from clearance_hooks.capabilities import HOSTS, Capabilities, capabilities_of
from clearance_hooks.denying import DenyingPlugin
from clearance_hooks.events import (
    AfterModelCall,
    AfterToolCall,
    AgentEnd,
    BeforeAgentRun,
    BeforeModelCall,
    BeforeModelResolve,
    BeforePromptBuild,
    BeforeToolCall,
    HookContext,
    SessionEnded,
    SessionStarted,
    SubagentEnded,
    SubagentStarted,
)
from clearance_hooks.hostconfig import HostConfig, load
from clearance_hooks.minihost import MiniHost, ModelReply, ModelRequest, RunResult, ToolRequest
from clearance_hooks.plugin import ClearancePlugin
from clearance_hooks.registry import Registry
from clearance_hooks.results import (
    Allow,
    Approved,
    Block,
    Caps,
    ModelOverride,
    ModelVerdict,
    Patch,
    PromptPatch,
    RequireApproval,
    RunVerdict,
    ToolVerdict,
)
from clearance_hooks.runner import Runner
from clearance_hooks.settings import Settings
from clearance_hooks.specs import HookSpecs, hookimpl, inline
from clearance_hooks.summary import RunSummary

__all__ = [
    "HOSTS",
    "AfterModelCall",
    "AfterToolCall",
    "AgentEnd",
    "Allow",
    "Approved",
    "BeforeAgentRun",
    "BeforeModelCall",
    "BeforeModelResolve",
    "BeforePromptBuild",
    "BeforeToolCall",
    "Block",
    "Capabilities",
    "Caps",
    "ClearancePlugin",
    "DenyingPlugin",
    "HookContext",
    "HookSpecs",
    "HostConfig",
    "MiniHost",
    "ModelOverride",
    "ModelReply",
    "ModelRequest",
    "ModelVerdict",
    "Patch",
    "PluginInfo",
    "PromptPatch",
    "Registry",
    "RequireApproval",
    "RunResult",
    "RunSummary",
    "RunVerdict",
    "Runner",
    "SessionEnded",
    "SessionStarted",
    "Settings",
    "SubagentEnded",
    "SubagentStarted",
    "ToolRequest",
    "ToolVerdict",
    "activate",
    "capabilities_of",
    "hookimpl",
    "inline",
    "inspect",
    "load",
    "load_runner",
    "shut_down",
    "statuses",
]

"""Adapters for agent hosts in Python. Each imports its host only when it is imported itself."""

from __future__ import annotations

from clearance_hooks.plugin import PLUGIN_ID, ClearancePlugin
from clearance_hooks.runner import Runner


def deny_style(runner: Runner) -> str:
    """`completion`: a refused model call answers with the reason as its text. `error`: the host's own way to fail."""
    plugin = runner.registry.plugin(PLUGIN_ID)
    return plugin.settings.deny_style if isinstance(plugin, ClearancePlugin) else "completion"

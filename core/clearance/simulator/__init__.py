"""A model provider on your own machine, for testing agents without a network and without a bill.

    from clearance.simulator import Simulator

    with Simulator() as sim:
        client = OpenAI(base_url=sim.base_url, api_key="sim")

See `Simulator` for faults, scripts and counts. Runs as a process of its own too: `python -m clearance.simulator`.
Needs the extra `clearance[demo]`.
"""

from clearance.simulator.prices import Price
from clearance.simulator.records import ModelStats, Outcome, RequestRecord, SimulatedUsage, Stats
from clearance.simulator.script import (
    Message,
    Reply,
    Script,
    ScriptedRequest,
    Tool,
    ToolCall,
    always,
    calls_tool_forever,
    default_script,
    sequence,
)
from clearance.simulator.simulator import Simulator

__all__ = [
    "Message",
    "ModelStats",
    "Outcome",
    "Price",
    "Reply",
    "RequestRecord",
    "Script",
    "ScriptedRequest",
    "SimulatedUsage",
    "Simulator",
    "Stats",
    "Tool",
    "ToolCall",
    "always",
    "calls_tool_forever",
    "default_script",
    "sequence",
]

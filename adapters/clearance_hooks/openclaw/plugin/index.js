// The OpenClaw side of Clearance. It decides nothing: it forwards trimmed hook events to the authority and obeys.
// Without an answer that says ALLOW nothing happens. See docs/hosts/openclaw.md.
import { ask } from "./asking.js";
import { checked } from "./checking.js";
import { trimmedContext, trimmedEvent } from "./trimming.js";

const ID = "clearance";
const FIRST = 1000;
const LAST = -1000; // nobody blocks after the authority has reserved
const MARGIN_MS = 500;
const GATES = ["before_agent_run", "before_tool_call"];
const OPINIONS = ["before_model_resolve", "before_prompt_build"];
const OBSERVERS = ["after_tool_call", "model_call_ended", "llm_output", "agent_end", "subagent_spawned"];
const DRAIN_MS = 1000;
const MAX_WAITING = 256;

// A host loads a plugin several times in one process; what was said and what is under way is known once.
const shared = (globalThis[Symbol.for("clearance.openclaw")] ??= {
  said: new Set(),
  seen: new WeakSet(),
  lines: new Map(),
  waiting: new Set(),
});

export default {
  id: ID,
  name: "Clearance",
  description: "Every turn and tool call of this host is admitted by the Clearance authority first.",
  register(api) {
    let guard;
    try {
      guard = checked(api, ID);
    } catch {
      guard = { problem: "its configuration cannot be read" };
    }
    const timeoutMs = (guard.timeoutMs ?? 5000) + MARGIN_MS;
    for (const hook of GATES) on(api, hook, (event, ctx) => gate(api, guard, hook, event, ctx), LAST, timeoutMs);
    for (const hook of OPINIONS) on(api, hook, (event, ctx) => opinion(api, guard, hook, event, ctx), FIRST, timeoutMs);
    for (const hook of OBSERVERS) on(api, hook, (event, ctx) => observe(api, guard, hook, event, ctx), LAST);
    on(api, "gateway_stop", drained, LAST);
    // Without its grant this is the first that a plugin hears of a turn that it could not gate.
    if (guard.problem) on(api, "model_call_started", (_, ctx) => endTurn(api, ctx), FIRST);
    announce(api, guard);
  },
};

function on(api, hook, handler, priority, timeoutMs) {
  try {
    api.on(hook, handler, timeoutMs === undefined ? { priority } : { priority, timeoutMs });
  } catch (error) {
    say(api, "error", `Clearance cannot gate ${hook} in this host (${error?.name ?? "error"})`);
  }
}

function announce(api, guard) {
  if (guard.problem) say(api, "error", `Clearance is enabled, but cannot work, so everything is denied: ${guard.problem}`);
  else say(api, "info", `Clearance is armed with ${guard.origin}; it gates: turn, tool`);
}

function say(api, level, text) {
  if (shared.said.has(text) || shared.said.size > 1000) return;
  shared.said.add(text);
  try {
    api.logger?.[level]?.(text);
  } catch {
    // A logger that fails must not disarm the gates.
  }
}

// --- gates

async function gate(api, guard, hook, event, ctx) {
  try {
    if (guard.problem) {
      if (hook === "before_tool_call") endTurn(api, ctx);
      return denial(hook, "GUARD_NOT_ARMED", `Clearance is enabled, but cannot work: ${guard.problem}`);
    }
    const answer = await inLine(event, ctx, () => forwarded(guard, hook, event, ctx), guard.timeoutMs);
    if (answer?.decision === "ALLOW") return allowed(guard, hook, answer, event, ctx);
    if (answer?.stop === true && hook === "before_tool_call") endTurn(api, ctx);
    return isDenial(hook, answer?.result) ? answer.result : denial(hook, "BAD_ANSWER", "The authority gave no answer that can be read.");
  } catch (error) {
    say(api, "error", `Clearance gets no answer from ${guard.origin}; everything is denied (${reasonOf(error)})`);
    return denial(hook, "AUTHORITY_UNAVAILABLE", `The authority could not be asked (${reasonOf(error)}), so nothing may happen.`);
  }
}

function allowed(guard, hook, answer, event, ctx) {
  if (hook === "before_agent_run") return { outcome: "pass" };
  const approval = answer.result?.requireApproval;
  if (!approval) return undefined;
  const onResolution = (decision) => {
    if (decision === "allow-once" || decision === "allow-always") return;
    const ended = { ...event, params: undefined, clearanceStatus: decision === "deny" ? "denied" : decision };
    return observe(undefined, guard, "after_tool_call", ended, ctx);
  };
  return { requireApproval: { ...approval, onResolution } };
}

const isDenial = (hook, result) =>
  hook === "before_agent_run"
    ? result?.outcome === "block" && typeof result.reason === "string"
    : result?.block === true && typeof result.blockReason === "string";

const denial = (hook, code, message) =>
  hook === "before_agent_run"
    ? { outcome: "block", reason: code, message, category: "cost_limit" }
    : { block: true, blockReason: `${message} (${code})` };

// --- opinions: what cannot be asked here is refused by the gate that follows

async function opinion(api, guard, hook, event, ctx) {
  if (guard.problem) return undefined;
  try {
    const answer = await inLine(event, ctx, () => forwarded(guard, hook, event, ctx), guard.timeoutMs);
    return answer?.decision === "ALLOW" ? answer.result : undefined;
  } catch {
    return undefined;
  }
}

// --- observers

async function observe(api, guard, hook, event, ctx) {
  if (guard.problem || (typeof event === "object" && event !== null && shared.seen.has(event))) return;
  if (typeof event === "object" && event !== null) shared.seen.add(event);
  if (shared.waiting.size >= MAX_WAITING) {
    if (api) say(api, "warn", "Clearance cannot tell the authority of all that has ended; leases end the rest");
    return;
  }
  const told = inLine(event, ctx, () => forwarded(guard, hook, event, ctx), guard.timeoutMs).catch((error) => {
    if (api) say(api, "warn", `Clearance could not tell the authority of ${hook} (${reasonOf(error)}); leases end what is open`);
  });
  shared.waiting.add(told);
  try {
    await told;
  } finally {
    shared.waiting.delete(told);
  }
}

async function drained() {
  let timer;
  const enough = new Promise((resolve) => (timer = setTimeout(resolve, DRAIN_MS)));
  await Promise.race([Promise.all(shared.waiting), enough]);
  clearTimeout(timer);
}

// What belongs to one run reaches the authority in the order in which it happened: a retry must not overtake the end of
// the attempt before it.
function inLine(event, ctx, work, mostMs) {
  const run = ctx?.runId ?? event?.runId;
  if (typeof run !== "string") return work();
  const before = shared.lines.get(run);
  const now = before === undefined ? work() : settledWithin(before, mostMs).then(work);
  const line = now.then(noop, noop).then(() => {
    if (shared.lines.get(run) === line) shared.lines.delete(run);
  });
  shared.lines.set(run, line);
  return now;
}

function settledWithin(promise, mostMs) {
  let timer;
  const late = new Promise((_, reject) => (timer = setTimeout(() => reject(new Error("timeout")), mostMs)));
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}

const noop = () => {};

function forwarded(guard, hook, event, ctx) {
  return ask(guard, {
    hook,
    event: trimmedEvent(hook, event ?? {}),
    ctx: { ...trimmedContext(ctx ?? {}), ...guard.host },
    config: guard.config,
    timeout_ms: guard.timeoutMs,
  });
}

const reasonOf = (error) => error?.code ?? error?.message?.slice(0, 240) ?? "error";

// --- a turn that must end: hooks cannot refuse the model call that follows a refused tool, the host can end the turn

async function endTurn(api, ctx) {
  const sessionId = ctx?.sessionId;
  if (typeof sessionId !== "string") return;
  try {
    const host = await import("openclaw/plugin-sdk/agent-harness");
    host.abortAgentHarnessRun(sessionId);
  } catch (error) {
    say(api, "warn", `Clearance refuses the tools of a turn that must end, but cannot end it in this host (${reasonOf(error)})`);
  }
}

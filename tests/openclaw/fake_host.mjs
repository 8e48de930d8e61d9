// A host that calls hooks as OpenClaw does, for one plugin, in this process. Reads a play from stdin, tells on stdout.
//
// play: {plugin, config, entry, id, loads, providers, model, steps}; a step is one of
//   {turn: {baseUrl, model, tool, marks, ...}}  a whole turn with a provider, see `attempted`
//   {fire: {hook, event, ctx, times}}          one hook, as captured
//   {together: [fire, ...]}                    several at once
//   {wait: ms}
import { appendFileSync, readFileSync } from "node:fs";
import { randomUUID } from "node:crypto";
import { pathToFileURL } from "node:url";

const play = JSON.parse(readFileSync(0, "utf8"));
const logged = [];
const answers = [];
const log = (level) => (text) => logged.push([level, String(text)]);
const registrations = [];
let handlers = [];

const config = {
  agents: { defaults: { model: { primary: `sim/${play.model ?? "gpt-4o"}` } } },
  models: { providers: Object.fromEntries((play.providers ?? ["sim"]).map((name) => [name, {}])) },
  plugins: { entries: { [play.id ?? "clearance"]: play.entry } },
};

async function load() {
  for (let number = 0; number < (play.loads ?? 1); number++) {
    // Each load evaluates the module anew, as a host that loads a plugin twice does.
    const module = await import(`${pathToFileURL(play.plugin)}?load=${number}`);
    const api = {
      id: "clearance",
      registrationMode: (play.modes ?? ["full", "discovery", "tool-discovery"])[number % (play.modes?.length ?? 3)],
      config: play.noConfig ? undefined : config,
      pluginConfig: play.entry?.config,
      logger: play.brokenLogger ? null : { debug: log("debug"), info: log("info"), warn: log("warn"), error: log("error") },
      on: (hook, handler, options) => {
        if (play.refuses?.includes(hook)) throw new Error("no such hook");
        if (play.grant === false && !["before_tool_call", "after_tool_call", "model_call_ended", "gateway_stop"].includes(hook)) return;
        handlers.push({ hook, handler, ...options });
        registrations.push({ hook, priority: options?.priority, timeoutMs: options?.timeoutMs, load: number });
      },
    };
    if (module.default.register(api) !== undefined) throw new Error("register must be synchronous");
  }
}

const of = (hook) => handlers.filter((it) => it.hook === hook).sort((a, b) => (b.priority ?? 0) - (a.priority ?? 0));
const within = (promise, ms) =>
  Promise.race([promise, new Promise((_, no) => setTimeout(() => no(new Error("hook timeout")), ms ?? 15000).unref())]);

async function gate(hook, event, ctx, isBlock) {
  for (const { handler, timeoutMs } of of(hook)) {
    let answer;
    try {
      answer = await within(handler(structuredClone(event), ctx), timeoutMs);
    } catch (error) {
      return { outcome: "block", block: true, reason: "HOOK_FAILED", message: String(error), blockReason: String(error) };
    }
    if (isBlock(answer)) return answer;
    if (answer?.requireApproval) return answer;
  }
  return undefined;
}

const beforeRun = (event, ctx) => gate("before_agent_run", event, ctx, (it) => it?.outcome === "block");
const beforeTool = (event, ctx) => gate("before_tool_call", event, ctx, (it) => it?.block === true);
const observe = (hook, event, ctx) => of(hook).map(({ handler }) => Promise.resolve(handler(event, ctx)).catch(() => {}));

async function firstDefined(hook, event, ctx) {
  const found = {};
  for (const { handler } of of(hook)) {
    const answer = await handler(event, ctx);
    for (const [name, value] of Object.entries(answer ?? {})) found[name] ??= value;
  }
  return found;
}

async function turn(it) {
  const runId = it.runId ?? randomUUID();
  let text = "";
  for (let attempt = 1; attempt <= (it.attempts ?? 1); attempt++) {
    const done = await attempted(it, runId);
    text = done.text;
    if (!done.failed) break;
  }
  return text;
}

async function attempted(it, runId) {
  const ctx = { runId, agentId: "main", sessionKey: "agent:main:main", sessionId: "s1", modelProviderId: "sim", modelId: it.model };
  const prompt = it.prompt ?? "hello";
  const chosen = await firstDefined("before_model_resolve", { prompt }, ctx);
  ctx.modelId = chosen.modelOverride ?? it.model;
  await firstDefined("before_prompt_build", { prompt, messages: [] }, ctx);
  const stop = await beforeRun({ prompt, messages: [], systemPrompt: "a secret system prompt" }, ctx);
  if (stop) {
    answers.push(stop);
    return { text: `${stop.message} (${stop.reason})`, failed: false };
  }
  const messages = [{ role: "user", content: prompt }];
  const usage = { input: 0, output: 0, cacheRead: 0, cacheWrite: 0, total: 0 };
  let said = { text: "", failed: false };
  for (let call = 1; call <= 12; call++) {
    const body = { model: ctx.modelId, messages, tools: [{ type: "function", function: { name: it.tool, parameters: SCHEMA } }] };
    const raw = JSON.stringify(body);
    const common = { runId, callId: `${runId}:model:${call}`, provider: "sim", model: ctx.modelId };
    observe("model_call_started", common, ctx);
    const response = await fetch(`${it.baseUrl}/chat/completions`, { method: "POST", body: raw, headers: { "content-type": "application/json", authorization: "Bearer sim" } });
    const answer = await response.json();
    const ended = { ...common, durationMs: 1, requestPayloadBytes: raw.length };
    if (!response.ok) {
      observe("model_call_ended", { ...ended, outcome: "error", errorCategory: "Error" }, ctx);
      said = { text: `HTTP ${response.status}`, failed: true };
      break;
    }
    observe("model_call_ended", { ...ended, outcome: "completed", responseStreamBytes: 100 }, ctx);
    const told = answer.usage;
    const cached = told?.prompt_tokens_details?.cached_tokens ?? 0;
    usage.input += told.prompt_tokens - cached;
    usage.cacheRead += cached;
    usage.output += told.completion_tokens;
    const message = answer.choices[0].message;
    messages.push(message);
    if (!message.tool_calls?.length) {
      said = { text: message.content, failed: false };
      break;
    }
    for (const wanted of message.tool_calls) messages.push(await tool(it, wanted, runId, ctx));
  }
  usage.total = usage.input + usage.output + usage.cacheRead;
  const events = [() => observe("agent_end", { runId, messages, success: !said.failed, durationMs: 1 }, ctx)];
  if (!it.noUsage && usage.total) events.push(() => observe("llm_output", { runId, provider: "sim", model: ctx.modelId, assistantTexts: [said.text], usage }, ctx));
  if (it.usageFirst) events.reverse();
  await Promise.all(events.flatMap((fire) => fire()));
  return said;
}

async function tool(it, wanted, runId, ctx) {
  const call = { toolName: wanted.function.name, params: JSON.parse(wanted.function.arguments), runId, toolCallId: wanted.id };
  const toolCtx = { ...ctx, toolName: call.toolName, toolCallId: wanted.id, abortSignal: new AbortController().signal };
  const verdict = await beforeTool(call, toolCtx);
  let result;
  if (verdict?.block || verdict?.requireApproval) {
    answers.push(verdict);
    const decision = it.approve ?? "deny";
    if (verdict.requireApproval) await verdict.requireApproval.onResolution(decision);
    const reason = verdict.blockReason ?? "not approved";
    if (!verdict.requireApproval || decision !== "allow-once") {
      if (it.tellsRefusals !== false) observe("after_tool_call", { ...call, error: reason, result: { details: { status: "blocked", deniedReason: "plugin-before-tool-call" } } }, toolCtx);
      return { role: "tool", tool_call_id: wanted.id, content: reason };
    }
  }
  appendFileSync(it.marks, `${JSON.stringify(call.params)}\n`);
  result = `echo: ${call.params.text ?? ""}`;
  observe("after_tool_call", { ...call, result: { content: [{ type: "text", text: result }], details: { status: "completed" } }, durationMs: 1 }, toolCtx);
  return { role: "tool", tool_call_id: wanted.id, content: result };
}

const SCHEMA = { type: "object", properties: { text: { type: "string" } } };

async function fire({ hook, event, ctx, times = 1 }) {
  const context = { ...ctx, abortSignal: new AbortController().signal };
  for (let number = 0; number < times; number++) {
    if (hook === "before_agent_run") answers.push((await beforeRun(event, context)) ?? { outcome: "pass" });
    else if (hook === "before_tool_call") answers.push((await beforeTool(event, context)) ?? {});
    else if (hook.startsWith("before_")) answers.push(await firstDefined(hook, event, context));
    else await Promise.all(observe(hook, event, context));
  }
}

await load();
const texts = [];
for (const step of play.steps ?? []) {
  if (step.turn) texts.push(await turn(step.turn));
  if (step.fire) await fire(step.fire);
  if (step.together) await Promise.all(step.together.map(fire));
  if (step.wait) await new Promise((resolve) => setTimeout(resolve, step.wait));
}
await Promise.all(observe("gateway_stop", {}, {}));
process.stdout.write(JSON.stringify({ texts, answers, logged, registrations }));
process.exit(0);

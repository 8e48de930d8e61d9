// What leaves the process: ids, names, sizes and counts. No prompts, no messages, no answers, no results.
import { createHash } from "node:crypto";

const MAX_TEXT = 256;
const MAX_VALUE_CHARS = 1024;
const MAX_PARAMS_BYTES = 32768;
const CONTEXT = ["runId", "agentId", "sessionKey", "sessionId", "modelProviderId", "modelId", "senderId", "trigger", "requesterSessionKey", "childSessionKey"];
const EVENT = ["runId", "callId", "toolName", "toolCallId", "toolKind", "provider", "model", "outcome", "failureKind", "childSessionKey"];
const COUNTS = ["durationMs", "requestPayloadBytes", "responseStreamBytes"];
const USAGE = ["input", "output", "cacheRead", "cacheWrite", "total"];

export function trimmedContext(ctx) {
  const kept = { ...texts(ctx, CONTEXT) };
  if (typeof ctx.trace?.traceId === "string") kept.trace = { traceId: ctx.trace.traceId.slice(0, 64) };
  return kept;
}

export function trimmedEvent(hook, event) {
  const kept = { ...texts(event, EVENT), ...numbers(event, COUNTS) };
  if (hook === "before_tool_call") kept.params = boundedParams(event.params);
  if (hook === "after_tool_call") Object.assign(kept, toolEnd(event));
  if (hook === "agent_end") Object.assign(kept, { success: event.success === true, httpStatus: httpStatus(event) });
  if (hook === "llm_output" && event.usage) kept.usage = numbers(event.usage, USAGE);
  return kept;
}

// The host tells the status of a failed provider request in words only; the words stay here.
function httpStatus(event) {
  const last = Array.isArray(event.messages) ? event.messages.at(-1) : undefined;
  for (const text of [last?.errorMessage, event.error]) {
    const found = /^(\d{3})\b|\bHTTP (\d{3})\b/.exec(typeof text === "string" ? text : "");
    if (found) return Number(found[1] ?? found[2]);
  }
  return undefined;
}

function toolEnd(event) {
  const details = event.result?.details;
  if (typeof event.clearanceStatus === "string") return { status: event.clearanceStatus, unapproved: true };
  const status = typeof details?.status === "string" ? details.status.slice(0, 32) : undefined;
  return { status, failed: Boolean(event.error) };
}

function texts(from, names) {
  const kept = {};
  for (const name of names) if (typeof from[name] === "string") kept[name] = from[name].slice(0, MAX_TEXT);
  return kept;
}

function numbers(from, names) {
  const kept = {};
  for (const name of names) if (Number.isSafeInteger(from[name]) && from[name] >= 0) kept[name] = from[name];
  return kept;
}

// The authority keeps a hash and the size of the arguments; long texts travel as their own hash.
function boundedParams(params) {
  if (typeof params !== "object" || params === null) return {};
  let text;
  try {
    text = JSON.stringify(params, (_, value) =>
      typeof value === "string" && value.length > MAX_VALUE_CHARS ? { sha256: sha256(value), chars: value.length } : value,
    );
  } catch {
    return { unreadable: true };
  }
  if (Buffer.byteLength(text) > MAX_PARAMS_BYTES) return { sha256: sha256(text), bytes: Buffer.byteLength(text) };
  return JSON.parse(text);
}

const sha256 = (text) => createHash("sha256").update(text).digest("hex");

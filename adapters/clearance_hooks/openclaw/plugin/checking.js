// Is the plugin properly armed? Reads what OpenClaw hands it and nothing else.

const DEFAULT_MS = 5000;
const LOOPBACK = ["127.0.0.1", "localhost", "[::1]"];
const VARIABLE = /\$\{([A-Z_][A-Z0-9_]*)\}/;

// Either { problem } or all that a request needs. The problem names places and variables, never values.
export function checked(api, id) {
  const config = api.pluginConfig;
  if (typeof config !== "object" || config === null) return { problem: `plugins.entries.${id}.config is missing` };
  const { authority, timeout_ms: timeoutMs = DEFAULT_MS, ...rest } = config;
  const problem =
    unresolved(config, "config") ?? wrongAuthority(authority) ?? wrongTimeout(timeoutMs) ?? missingGrant(api.config, id);
  if (problem) return { problem };
  const url = new URL(authority.url);
  return { url, origin: url.origin, token: authority.token, timeoutMs, config: rest, host: hostFacts(api.config) };
}

function unresolved(value, place) {
  if (typeof value === "string") {
    const found = VARIABLE.exec(value);
    return found ? `${place} needs the variable ${found[1]}, and ${found[1]} is not set` : undefined;
  }
  if (typeof value !== "object" || value === null) return undefined;
  for (const [name, inner] of Object.entries(value)) {
    const problem = unresolved(inner, `${place}.${name}`);
    if (problem) return problem;
  }
  return undefined;
}

function wrongAuthority(authority) {
  if (typeof authority !== "object" || authority === null) return "config.authority is missing; allowed: url and token";
  const unknown = Object.keys(authority).find((name) => name !== "url" && name !== "token");
  if (unknown) return `config.authority.${unknown} is unknown; allowed: url, token`;
  if (typeof authority.url !== "string" || !authority.url.trim()) return "config.authority.url is missing";
  let url;
  try {
    url = new URL(authority.url);
  } catch {
    return "config.authority.url is no URL; allowed: such as http://127.0.0.1:7878";
  }
  if (url.protocol !== "http:" && url.protocol !== "https:") return "config.authority.url is not http or https";
  if (url.username || url.password) return "config.authority.url has a password; the key belongs in config.authority.token";
  if (url.protocol === "http:" && !LOOPBACK.includes(url.hostname))
    return "config.authority.url would send the key in the clear; allowed: http on this machine, else https";
  if (typeof authority.token !== "string" || !authority.token.trim())
    return "config.authority.token is missing; allowed: an API key, best as ${CLEARANCE_API_KEY}";
  if (!/^[\x21-\x7e]+$/.test(authority.token)) return "config.authority.token has characters that no key has";
  return undefined;
}

// The host gives a gate 15 s; ours must be over before that.
function wrongTimeout(ms) {
  const fits = Number.isInteger(ms) && ms >= 100 && ms <= 14000;
  return fits ? undefined : "config.timeout_ms is refused; allowed: 100 to 14000";
}

// Without this grant OpenClaw leaves the gate of the turn out and says so in its diagnostics only.
function missingGrant(config, id) {
  const granted = config?.plugins?.entries?.[id]?.hooks?.allowConversationAccess === true;
  return granted ? undefined : `plugins.entries.${id}.hooks.allowConversationAccess is not true, so turns cannot be gated`;
}

function hostFacts(config) {
  const primary = config?.agents?.defaults?.model?.primary ?? config?.agents?.defaults?.model;
  return {
    defaultModel: typeof primary === "string" ? primary : undefined,
    providers: Object.keys(config?.models?.providers ?? {}).slice(0, 64),
  };
}

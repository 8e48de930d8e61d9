// One HTTP request to the authority, on connections that stay open, within a deadline.
import http from "node:http";
import https from "node:https";

const PATH = "/v1/x-clearance/hooks/openclaw";
const MAX_ANSWER_BYTES = 65536;
const MAX_REASON_CHARS = 200;
const agents = {
  "http:": new http.Agent({ keepAlive: true, maxSockets: 64, noDelay: true }),
  "https:": new https.Agent({ keepAlive: true, maxSockets: 64, noDelay: true }),
};

export async function ask(guard, content) {
  const body = Buffer.from(JSON.stringify(content));
  const end = performance.now() + guard.timeoutMs;
  try {
    return await once(guard, body, guard.timeoutMs);
  } catch (error) {
    // The server may have closed the idle connection just then; nothing of this request was read.
    if (!error.stale) throw error;
    return once(guard, body, Math.max(1, end - performance.now()));
  }
}

function once(guard, body, withinMs) {
  return new Promise((resolve, reject) => {
    const { url } = guard;
    const request = (url.protocol === "https:" ? https : http).request({
      agent: agents[url.protocol],
      host: url.hostname.replace(/^\[|\]$/g, ""),
      port: url.port || undefined,
      path: PATH,
      method: "POST",
      headers: { "content-type": "application/json", "content-length": body.length, "x-cycles-api-key": guard.token },
    });
    const timer = setTimeout(() => request.destroy(failure("timeout")), withinMs);
    const finish = (settle, value) => {
      clearTimeout(timer);
      settle(value);
    };
    request.on("error", (error) => {
      error.stale = request.reusedSocket && error.code === "ECONNRESET";
      finish(reject, error);
    });
    request.on("response", (response) => read(response, request, (value) => finish(resolve, value), (error) => finish(reject, error)));
    request.end(body);
  });
}

function read(response, request, resolve, reject) {
  const parts = [];
  let size = 0;
  response.on("data", (part) => {
    size += part.length;
    if (size > MAX_ANSWER_BYTES) request.destroy(failure("the answer is too long"));
    else parts.push(part);
  });
  response.on("error", reject);
  response.on("end", () => {
    let answer;
    try {
      answer = JSON.parse(Buffer.concat(parts).toString("utf8"));
    } catch {
      return reject(failure(`HTTP ${response.statusCode} without JSON`));
    }
    if (response.statusCode === 200) return resolve(answer);
    const why = typeof answer?.message === "string" ? `: ${answer.message.slice(0, MAX_REASON_CHARS)}` : "";
    return reject(failure(`HTTP ${response.statusCode}${why}`));
  });
}

const failure = (message) => new Error(message);

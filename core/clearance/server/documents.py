"""Health, and the description of this API for programs and people."""

from __future__ import annotations

from functools import lru_cache

from pydantic_core import to_json

from clearance.server.context import Server
from clearance.server.errors import Refused
from clearance.server.http import Call, Reply


async def health(server: Server, call: Call) -> Reply:
    """UP when the ledger can be read and the server takes requests."""
    if server.watch.closing.is_set():
        raise Refused(503, "INTERNAL_ERROR", "shutting down")
    server.watch.last_seq()
    return Reply({"status": "UP"})


async def liveness(server: Server, call: Call) -> Reply:
    return Reply({"status": "UP"})


async def openapi_json(server: Server, call: Call) -> Reply:
    return Reply(_openapi())


@lru_cache(maxsize=1)
def _openapi() -> bytes:
    # Imported at first use: a server that nobody asks does not pay for it, and the table of routes knows this module.
    from clearance.server.openapi import document

    return to_json(document())


async def page(server: Server, call: Call) -> Reply:
    policy = b"default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'"
    headers = [(b"content-type", b"text/html; charset=utf-8"), (b"content-security-policy", policy)]
    return Reply(_PAGE.encode(), headers=headers)


_PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>Clearance API</title>
<style>
 body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#1a1a1a;background:#fff}
 @media(prefers-color-scheme:dark){body{color:#e6e6e6;background:#16181c}pre{background:#22252b!important}}
 summary{cursor:pointer;padding:.3rem 0} b{display:inline-block;width:4.5rem;font-family:monospace}
 pre{background:#f2f2f2;padding:.8rem;overflow:auto;border-radius:.4rem;font-size:.85rem} code{font-size:.95rem}
</style>
<h1>Clearance API</h1>
<p>Speaks the Cycles protocol. The whole description: <a href="/openapi.json">/openapi.json</a>.</p>
<main id="list">Loading ...</main>
<script>
 const el = (tag, text) => { const e = document.createElement(tag); e.textContent = text ?? ""; return e };
 fetch("/openapi.json").then(r => r.json()).then(doc => {
  const list = document.getElementById("list"); list.textContent = "";
  for (const [path, methods] of Object.entries(doc.paths)) for (const [method, op] of Object.entries(methods)) {
   const d = el("details"), s = el("summary");
   s.append(el("b", method.toUpperCase()), el("code", path), document.createTextNode("  " + (op.summary ?? "")));
   d.append(s);
   const ref = op.requestBody?.content["application/json"].schema.$ref;
   if (ref) d.append(el("p", "Body"), el("pre", JSON.stringify(doc.components.schemas[ref.split("/").pop()], null, 2)));
   d.append(el("p", "Answers: " + Object.keys(op.responses).join(", ")));
   list.append(d);
  }
 });
</script></html>
"""

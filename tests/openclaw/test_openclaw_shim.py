"""The plugin for OpenClaw: what it registers, what it lets out, and that it denies whatever goes wrong."""

from __future__ import annotations

import json
import re
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from tests.openclaw.shim_world import Played, Served, entry, play

from clearance.store.interface import ReservationQuery
from clearance_hooks.openclaw import PLUGIN

HOOKS = [json.loads(line) for line in (Path(__file__).parent / "captured_turn.jsonl").read_text().splitlines()]
SECRETS = ("THE PROMPT", "THE SYSTEM PROMPT", "THE RESULT", "THE ANSWER")
RUN = next(it for it in HOOKS if it["hook"] == "before_agent_run")
TOOL = next(it for it in HOOKS if it["hook"] == "before_tool_call")
DENIED_RUN, DENIED_TOOL = ("outcome", "block"), ("block", True)


def config(served: Served, **more: Any) -> dict[str, Any]:
    authority = {"url": served.url, "token": served.token}
    return {"authority": authority, "run_budget": "1.00", "settle_window_ms": 200, **more}


def fires(*hooks: dict[str, Any], times: int = 1) -> list[dict[str, Any]]:
    return [{"fire": {**hook, "times": times}} for hook in hooks]


def rows(served: Served, kind: str) -> list[Any]:
    found: list[Any] = served.authority.reservations(ReservationQuery(kind=kind), limit=200).items
    return found


def at_rest(served: Served) -> int:
    """Microcents spent, once nothing is held."""
    end = time.monotonic() + 10
    while served.authority.reservations(ReservationQuery(status="ACTIVE")).items:
        assert time.monotonic() < end, "something is still held"
        time.sleep(0.02)
    return served.authority.balance("tenant:acme").spent


def both_gates(given: dict[str, Any], **more: Any) -> Played:
    done = play(given, *fires(RUN, TOOL), **more)
    assert len(done.answers) == 2
    return done


def assert_denied(done: Played, *words: str) -> None:
    run, tool = done.answers
    assert (run["outcome"], tool["block"]) == ("block", True)
    for word in words:
        assert word in run["message"]
        assert word in tool["blockReason"]


# --- a captured turn


def test_a_captured_turn_is_charged_its_usage(served: Served) -> None:
    done = play(entry(config(served)), *fires(*HOOKS))
    assert done.answers[-2:] == [{"outcome": "pass"}, {}]
    # gpt-4o: 200 tokens of input at 2.50, 22 from the cache at 1.25, 44 of output at 10.00 USD per million
    assert at_rest(served) == 200 * 250 + 22 * 125 + 44 * 1000


def test_the_end_of_a_turn_may_come_in_any_order(served: Served) -> None:
    order = {"agent_end": 9, "llm_output": 8, "after_tool_call": 7, "model_call_ended": 6}
    play(entry(config(served)), *fires(*sorted(HOOKS, key=lambda it: order.get(it["hook"], 0))))
    assert at_rest(served) == 200 * 250 + 22 * 125 + 44 * 1000


def test_loaded_five_times_it_holds_once_and_says_it_once(served: Served) -> None:
    done = play(entry(config(served, tools={"exec": {"cost": "0.05"}})), *fires(*HOOKS), loads=5)
    assert len(done.lines("info")) == 1
    assert "armed" in done.lines("info")[0]
    assert len([it for it in done.registrations if it["hook"] == "before_tool_call"]) == 5
    assert (len(rows(served, "run")), len(rows(served, "call"))) == (1, 1)
    assert at_rest(served) == 200 * 250 + 22 * 125 + 44 * 1000 + 5_000_000


def test_observers_told_five_times_charge_once(served: Served) -> None:
    ends = ("after_tool_call", "llm_output", "agent_end", "model_call_ended")
    steps = [{"fire": {**it, "times": 5 if it["hook"] in ends else 1}} for it in HOOKS]
    play(entry(config(served)), *steps)
    assert at_rest(served) == 200 * 250 + 22 * 125 + 44 * 1000


def test_ends_told_again_charge_once(served: Served) -> None:
    """As other objects, which only the authority can recognise."""
    twice = [it for it in HOOKS for _ in range(2 if it["hook"] in ("llm_output", "after_tool_call") else 1)]
    order = {"agent_end": 9}
    play(entry(config(served)), *fires(*sorted(twice, key=lambda it: order.get(it["hook"], 0))))
    assert at_rest(served) == 200 * 250 + 22 * 125 + 44 * 1000


# --- what it registers


def test_it_is_armed_in_every_registration_mode(served: Served) -> None:
    modes = ["full", "discovery", "tool-discovery", "setup-only", "setup-runtime", "cli-metadata"]
    done = play(entry(config(served)), loads=len(modes), modes=modes)
    for load in range(len(modes)):
        hooks = {it["hook"]: it for it in done.registrations if it["load"] == load}
        assert {"before_agent_run", "before_tool_call", "before_model_resolve"} <= set(hooks)
        assert hooks["before_tool_call"]["priority"] == -1000
        assert 5_000 < hooks["before_agent_run"]["timeoutMs"] < 15_000


def test_registering_never_throws(served: Served) -> None:
    for given in (None, [], "text", 5):
        assert_denied(both_gates(entry(given)), "config")  # type: ignore[arg-type]
    broken = both_gates(entry(config(served)), brokenLogger=True, refuses=["llm_output", "gateway_stop"])
    assert broken.answers == [{"outcome": "pass"}, {}]


def test_the_manifest_wedges_nobodys_installation() -> None:
    manifest = json.loads((PLUGIN / "openclaw.plugin.json").read_text())
    package = json.loads((PLUGIN / "package.json").read_text())
    assert manifest["id"] == package["name"] == "clearance"
    assert "required" not in json.dumps(manifest)
    assert manifest["configSchema"]["additionalProperties"] is True
    assert not any("type" in it for it in manifest["configSchema"]["properties"].values())
    assert "dependencies" not in package


def test_it_needs_nothing_and_reads_no_environment() -> None:
    for file in PLUGIN.glob("*.js"):
        text = file.read_text()
        assert "process." not in text
        imported = re.findall(r'from "([^"]+)"', text)
        assert all(name.startswith(("node:", "./")) for name in imported), file.name


# --- when it is not properly armed


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"authority": {"url": "http://127.0.0.1:1", "token": "${CLEARANCE_API_KEY}"}}, "CLEARANCE_API_KEY is not set"),
        ({"authority": {"url": "${WHERE}", "token": "t"}}, "WHERE is not set"),
        ({"run_budget": "${HOW_MUCH}"}, "HOW_MUCH is not set"),
        ({"authority": {"url": "http://127.0.0.1:1", "token": " "}}, "token is missing"),
        ({"authority": {"url": "http://10.0.0.1:1", "token": "t"}}, "in the clear"),
        ({"authority": {"url": "ftp://127.0.0.1", "token": "t"}}, "not http"),
        ({"authority": {"url": "http://me:secret@127.0.0.1", "token": "t"}}, "password"),
        ({"authority": {"url": "nowhere", "token": "t"}}, "no URL"),
        ({"authority": {"uri": "http://127.0.0.1:1", "token": "t"}}, "config.authority.uri is unknown"),
        ({"authority": None}, "authority is missing"),
        ({"timeout_ms": 20_000}, "100 to 14000"),
        ({"run_bugdet": "1.00"}, "did you mean run_budget"),
        ({"run_budget": None}, "run_budget"),
        ({"enforce": "per_call"}, "cannot enforce per_call"),
        ({"tenant": "other"}, "tenant of this API key"),
    ],
)
def test_a_wrong_configuration_denies_and_names_the_place(served: Served, change: dict[str, Any], named: str) -> None:
    done = both_gates(entry(config(served, **change)))
    assert_denied(done, named)
    assert "secret" not in json.dumps([done.answers, done.logged])
    assert rows(served, "run") == []


def test_without_the_grant_every_tool_is_denied(served: Served) -> None:
    for hooks in ({}, {"allowConversationAccess": False}, {"allowConversationAccess": "true"}):
        done = play(entry(config(served), hooks), *fires(RUN, TOOL), grant=False)
        assert done.answers[1]["block"] is True
        assert "plugins.entries.clearance.hooks.allowConversationAccess" in done.answers[1]["blockReason"]
        assert "allowConversationAccess" in done.lines("error")[0]


def test_a_tool_of_a_run_that_nobody_admitted_is_denied(served: Served) -> None:
    done = play(entry(config(served)), *fires(TOOL))
    assert "RUN_NOT_ADMITTED" in done.answers[0]["blockReason"]
    assert rows(served, "run") == []


# --- when the authority does not answer


def test_nobody_listens(served: Served) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{probe.getsockname()[1]}"
    done = both_gates(entry({**config(served), "authority": {"url": url, "token": "t"}}))
    assert_denied(done, "ECONNREFUSED")
    assert done.answers[0]["reason"] == "AUTHORITY_UNAVAILABLE"


def test_a_wrong_key_is_denied_and_not_shown(served: Served) -> None:
    given = config(served, authority={"url": served.url, "token": "cyc_live_wrong"})
    done = both_gates(entry(given))
    assert_denied(done, "401")
    assert "cyc_live_wrong" not in json.dumps([done.answers, done.logged])


class Answering(BaseHTTPRequestHandler):
    answer: tuple[int, bytes] = (200, b"{}")
    wait_s = 0.0
    bodies: list[bytes] = []  # noqa: RUF012
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        self.bodies.append(self.rfile.read(int(self.headers["Content-Length"])))
        time.sleep(self.wait_s)
        if self.wait_s:
            self.bodies.append(b"")
        status, body = self.answer
        self.wfile.write(b"HTTP/1.1 %d X\r\nContent-Length: %d\r\n\r\n" % (status, len(body)) + body)

    def log_message(self, *_: Any) -> None: ...


@contextmanager
def authority_that(answer: tuple[int, bytes], wait_s: float = 0.0) -> Iterator[tuple[str, list[bytes]]]:
    kind = type("Kind", (Answering,), {"answer": answer, "wait_s": wait_s, "bodies": []})
    server = ThreadingHTTPServer(("127.0.0.1", 0), kind)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}", kind.bodies  # type: ignore[attr-defined]
    server.shutdown()
    thread.join(5)
    server.server_close()


@pytest.mark.parametrize(
    "answer",
    [
        (200, b""),
        (200, b"null"),
        (200, b"[]"),
        (200, b"{}"),
        (200, b'{"decision": "allow"}'),
        (200, b'{"decision": "DENY"}'),
        (200, b'{"decision": "DENY", "result": {"outcome": "pass"}}'),
        (200, b"ALLOW"),
        (200, b'{"decision":"' + b"x" * 100_000 + b'"}'),
        (204, b'{"decision": "ALLOW"}'),
        (302, b'{"decision": "ALLOW"}'),
        (500, b'{"decision": "ALLOW"}'),
    ],
)
def test_only_a_clear_yes_allows(served: Served, answer: tuple[int, bytes]) -> None:
    with authority_that(answer) as (url, _):
        done = both_gates(entry({**config(served), "authority": {"url": url, "token": "t"}}))
    assert_denied(done)


def test_a_slow_authority_is_not_waited_for(served: Served) -> None:
    with authority_that((200, b'{"decision": "ALLOW"}'), wait_s=3.0) as (url, _):
        began = time.monotonic()
        done = both_gates(entry({**config(served, timeout_ms=200), "authority": {"url": url, "token": "t"}}))
        took_s = time.monotonic() - began
    assert_denied(done, "timeout")
    assert done.answers[0]["reason"] == "AUTHORITY_UNAVAILABLE"
    assert took_s < 2.5


def test_what_belongs_to_one_run_arrives_in_its_order(served: Served) -> None:
    """A retry that overtook the end of the attempt before it would be taken for the same attempt."""
    ended = {"hook": "agent_end", "event": {"success": False}, "ctx": RUN["ctx"]}
    other = {**RUN, "ctx": {**RUN["ctx"], "runId": "another"}}
    with authority_that((200, b'{"decision": "ALLOW"}'), wait_s=0.3) as (url, bodies):
        given = entry({**config(served), "authority": {"url": url, "token": "t"}})
        done = play(given, {"together": [ended, RUN, other]})
    assert done.answers == [{"outcome": "pass"}] * 2
    hooks = [(json.loads(it)["hook"], json.loads(it)["ctx"]["runId"]) if it else "answered" for it in bodies]
    first = hooks.index("answered")
    assert sorted(hooks[:first]) == [("agent_end", "run-1"), ("before_agent_run", "another")]
    assert ("before_agent_run", "run-1") in hooks[first:]


def test_no_prompt_answer_or_result_leaves_the_process(served: Served) -> None:
    big = {**TOOL, "event": {**TOOL["event"], "params": {"path": "/w/x", "content": "SECRET " * 50_000}}}
    long = {**TOOL, "event": {**TOOL["event"], "params": {"path": "/w/x", "content": "SECRET " * 500}}}
    with authority_that((200, b'{"decision": "ALLOW"}')) as (url, bodies):
        done = play(entry({**config(served), "authority": {"url": url, "token": "t"}}), *fires(*HOOKS, big, long))
    registered = {it["hook"] for it in done.registrations}
    assert len(bodies) == sum(it["hook"] in registered for it in (*HOOKS, big, long)) > 8
    for body in bodies:
        assert len(body) < 2_000
        assert not any(secret.encode() in body for secret in (*SECRETS[:2], SECRETS[3], "SECRET "))
        if b"before_tool_call" not in body:  # the arguments of a tool are hashed by the authority
            assert SECRETS[2].encode() not in body

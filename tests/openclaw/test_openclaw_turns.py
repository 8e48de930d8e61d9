"""Turns of OpenClaw against a served ledger: retries, kills, approvals, sub-agents, a restart of the authority."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.openclaw.shim_world import Played, Served, entry, play, serving
from tests.openclaw.test_openclaw_shim import HOOKS, RUN, TOOL, at_rest, config, fires, rows

from clearance.authority.budgets import BudgetSpec
from clearance.model.amount import usd
from clearance.model.caps import Caps, CapsRule
from clearance.simulator import Reply, Simulator, ToolCall, calls_tool_forever, sequence

SPENT = 200 * 250 + 22 * 125 + 44 * 1000
"""Of the captured turn."""


@pytest.fixture
def provider() -> Iterator[Simulator]:
    with Simulator(script=sequence([ToolCall("echo", {"text": "hi"}), "done"], then="done")) as found:
        yield found


@pytest.fixture
def turn(served: Served, provider: Simulator, tmp_path: Path) -> Callable[..., Played]:
    def run(settings: dict[str, Any] | None = None, **step: Any) -> Played:
        common = {"baseUrl": provider.base_url, "model": "gpt-4o", "tool": "echo", "marks": str(tmp_path / "marks")}
        return play(entry(config(served, **(settings or {}))), {"turn": {**common, **step}})

    return run


def marks(tmp_path: Path) -> int:
    file = tmp_path / "marks"
    return len(file.read_text().splitlines()) if file.exists() else 0


def caps(served: Served, rule: Caps) -> None:
    spec = BudgetSpec(scope="tenant:acme", allocated=usd("5.00"), caps=(CapsRule(caps=rule),))
    served.authority.set_budget(spec)


# --- attempts


def test_an_attempt_that_was_refused_with_429_is_free_and_the_next_one_is_held_again(
    served: Served, provider: Simulator
) -> None:
    failed = {"hook": "agent_end", "event": {"success": False, "error": "request failed (HTTP 429)"}, "ctx": RUN["ctx"]}
    call = {"hook": "model_call_ended", "ctx": RUN["ctx"], "event": {"outcome": "error", "requestPayloadBytes": 40_000}}
    play(entry(config(served)), *fires(RUN, call, failed, *HOOKS))
    assert at_rest(served) == SPENT
    assert len(rows(served, "run")) == 2


def test_an_attempt_that_failed_otherwise_is_charged_what_went_over_the_wire(served: Served) -> None:
    failed = {"hook": "agent_end", "event": {"success": False, "error": "request failed (HTTP 500)"}, "ctx": RUN["ctx"]}
    event = {"outcome": "error", "requestPayloadBytes": 40_000, "responseStreamBytes": 10}
    call = {"hook": "model_call_ended", "ctx": RUN["ctx"], "event": event}
    for order in ((RUN, call, failed), (RUN, failed, call)):
        before = served.authority.balance("tenant:acme").spent
        steps = [{"fire": {**it, "times": 3 if it is call else 1}} for it in order]
        play(entry(config(served)), *steps, {"wait": 300})
        assert at_rest(served) - before == 40_000 * 250 + 10 * 1000


def test_each_attempt_of_a_run_is_charged_its_own_usage(served: Served) -> None:
    play(entry(config(served)), *fires(*HOOKS, *HOOKS))
    assert at_rest(served) == 2 * SPENT
    assert len(rows(served, "run")) == 2


def test_a_turn_that_told_nothing_is_charged_its_budget(served: Served) -> None:
    ended = {"hook": "agent_end", "event": {"success": True}, "ctx": RUN["ctx"]}
    play(entry(config(served, run_budget="0.25")), *fires(RUN, ended))
    assert at_rest(served) == usd("0.25").amount


def test_usage_before_the_end_is_as_good(
    served: Served, provider: Simulator, turn: Callable[..., Played], tmp_path: Path
) -> None:
    assert turn(usageFirst=True).texts == ["done"]
    assert (at_rest(served), marks(tmp_path)) == (provider.stats()["cost"], 1)


def test_a_retry_does_not_overtake_the_end_of_the_attempt_before(served: Served) -> None:
    ended = {"hook": "agent_end", "event": {"success": False}, "ctx": RUN["ctx"]}
    play(entry(config(served, run_budget="0.25")), *fires(RUN), {"together": [ended, RUN]}, *fires(ended))
    assert len(rows(served, "run")) == 2
    at_rest(served)


# --- models


def test_a_model_without_a_price_is_refused(served: Served) -> None:
    unknown = {**RUN, "ctx": {**RUN["ctx"], "modelId": "nobodys-model"}}
    done = play(entry(config(served)), *fires(unknown))
    assert done.answers[0]["reason"] == "PRICE_UNKNOWN"
    assert rows(served, "run") == []


def test_the_model_is_the_configured_one_where_the_host_says_none(served: Served) -> None:
    ctx = {name: value for name, value in RUN["ctx"].items() if not name.startswith("model")}
    told = {"hook": "llm_output", "event": {"usage": {"input": 100, "output": 10, "total": 110}}, "ctx": ctx}
    ended = {"hook": "agent_end", "event": {"success": True}, "ctx": ctx}
    done = play(entry(config(served)), *fires({**RUN, "ctx": ctx}, told, ended), model="gpt-4o-mini")
    assert done.answers == [{"outcome": "pass"}]
    assert at_rest(served) == 100 * 15 + 10 * 60


def test_a_model_that_the_caps_forbid_is_refused_where_the_override_did_not_take(served: Served) -> None:
    caps(served, Caps(models=("gpt-4o-mini",)))
    done = play(entry(config(served)), *fires(RUN))
    assert done.answers[0]["reason"] == "MODEL_NOT_ALLOWED"
    assert "gpt-4o-mini" in done.answers[0]["message"]
    assert rows(served, "run") == []


def test_another_providers_model_is_named_with_its_provider(served: Served) -> None:
    resolve = next(it for it in HOOKS if it["hook"] == "before_model_resolve")
    caps(served, Caps(models=("other/gpt-4o-mini",)))
    done = play(entry(config(served)), *fires(resolve), providers=["sim", "other"])
    assert done.answers == [{"modelOverride": "gpt-4o-mini", "providerOverride": "other"}]
    caps(served, Caps(models=("openai/gpt-4o-mini",)))
    done = play(entry(config(served)), *fires(resolve), providers=["sim", "other"])
    assert done.answers == [{"modelOverride": "openai/gpt-4o-mini"}]


def test_an_allowlist_hides_the_other_tools_and_the_hint_names_the_share(served: Served) -> None:
    build = next(it for it in HOOKS if it["hook"] == "before_prompt_build")
    caps(served, Caps(tool_allowlist=("read",)))
    done = play(entry(config(served, budget_hint=True)), *fires(build))
    assert done.answers[0]["toolsAllow"] == ["read"]
    assert "more than 75%" in done.answers[0]["appendSystemContext"]
    assert rows(served, "run") == []


# --- the stop button


def test_a_kill_in_mid_turn_stops_every_tool(served: Served, tmp_path: Path, turn: Callable[..., Played]) -> None:
    def script(request: Any) -> Reply:
        if request.number == 3:
            served.authority.kill("tenant:acme", reason="runaway", actor="me")
        return calls_tool_forever("echo", {"text": "x"})(request)

    with Simulator(script=script) as runaway:
        done = turn(baseUrl=runaway.base_url)
        assert marks(tmp_path) == 2
        assert "runaway" in done.answers[0]["blockReason"]
        assert "cannot end it in this host" in done.lines("warn")[0]
        before = len(runaway.requests)
        again = turn(baseUrl=runaway.base_url)
        assert again.answers[0]["reason"] == "KILLED"
        assert (marks(tmp_path), len(runaway.requests)) == (2, before)


def test_a_kill_is_seen_when_the_gate_of_an_open_attempt_is_asked_again(served: Served) -> None:
    done = play(entry(config(served)), *fires(RUN, times=2))
    assert [it["outcome"] for it in done.answers] == ["pass", "pass"]
    served.authority.kill("tenant:acme", reason="x", actor="me")
    done = play(entry(config(served)), *fires(RUN))
    assert done.answers[0]["reason"] == "KILLED"


# --- approvals


def test_an_approved_tool_runs_and_is_charged(
    served: Served, tmp_path: Path, turn: Callable[..., Played], provider: Simulator
) -> None:
    done = turn({"tools": {"echo": {"approval": True, "cost": "0.05"}}}, approve="allow-once")
    assert done.answers[0]["requireApproval"]["allowedDecisions"] == ["allow-once", "deny"]
    assert (marks(tmp_path), at_rest(served)) == (1, provider.stats()["cost"] + 5_000_000)


@pytest.mark.parametrize("tells_refusals", [True, False])
@pytest.mark.parametrize("decision", ["deny", "timeout", "cancelled"])
def test_an_unapproved_tool_does_not_run_and_costs_nothing(
    served: Served,
    tmp_path: Path,
    turn: Callable[..., Played],
    provider: Simulator,
    decision: str,
    tells_refusals: bool,
) -> None:
    terms = {"echo": {"approval": True, "cost": "0.05"}}
    turn({"tools": terms}, approve=decision, tellsRefusals=tells_refusals)
    assert (marks(tmp_path), at_rest(served)) == (0, provider.stats()["cost"])


# --- runs below runs, and the server's own end


def test_a_sub_agent_spends_from_the_run_that_started_it(served: Served) -> None:
    child = {"runId": "run-2", "agentId": "helper", "sessionKey": "child", "modelId": "gpt-4o"}
    spawned = {
        "hook": "subagent_spawned",
        "event": {"childSessionKey": "child", "runId": "run-2", "agentId": "helper"},
        "ctx": {"requesterSessionKey": RUN["ctx"]["sessionKey"], "childSessionKey": "child", "runId": "run-2"},
    }
    told = {"hook": "llm_output", "event": {"model": "gpt-4o", "usage": {"input": 100, "output": 10}}, "ctx": child}
    ended = {"hook": "agent_end", "event": {"success": True}, "ctx": child}
    rest = HOOKS[HOOKS.index(RUN) + 1 :]
    play(entry(config(served)), *fires(RUN, spawned, {**RUN, "ctx": child}, told, ended, *rest))
    assert at_rest(served) == SPENT + 100 * 250 + 10 * 1000
    runs = {row.subject.get("agent"): row for row in rows(served, "run")}
    assert list(runs["helper"].held_on) in ([], [f"run:{runs['main'].id}"])


def test_after_a_restart_of_the_authority_tools_of_the_turn_before_are_denied(served: Served) -> None:
    first = play(entry(config(served)), *fires(RUN))
    assert first.answers == [{"outcome": "pass"}]
    served.stop()
    with serving(served.authority) as again:
        done = play(entry(config(again)), *fires(TOOL, *HOOKS))
    assert "RUN_NOT_ADMITTED" in done.answers[0]["blockReason"]
    assert done.answers[-2:] == [{"outcome": "pass"}, {}]
    # Of the turn that was open when the server ended nobody will tell the usage: it is charged its budget.
    assert at_rest(served) == SPENT + usd("1.00").amount

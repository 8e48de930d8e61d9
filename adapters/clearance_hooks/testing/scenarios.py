"""The scenarios that every host is put through. The function's name, in words, is what must hold."""

from __future__ import annotations

import time
from collections.abc import Callable

from clearance.model.caps import Caps
from clearance.simulator import Reply, ScriptedRequest, ToolCall, calls_tool_forever, sequence
from clearance_hooks.testing.stage import CHEAPER_MODEL, MODEL, SCOPE, TOOL, Driver, Scenario, Stage, Violation

PROMPT = "please run the echo tool"
ONE_TOOL = (ToolCall(TOOL, {"text": "hello"}), "done")
DEADLINE_MS = 400

Check = Callable[[Stage, Driver], None]
SCENARIOS: list[Scenario] = []


def scenario(*needs: str) -> Callable[[Check], Check]:
    def add(check: Check) -> Check:
        SCENARIOS.append(Scenario(check.__name__.replace("_", " "), check, needs))
        return check

    return add


@scenario("tool")
def an_allowed_turn_runs_and_is_charged_what_it_cost(stage: Stage, host: Driver) -> None:
    stage.script = sequence(ONE_TOOL)
    reply = host.turn(stage, PROMPT)
    stage.expect(requests=2, tool_runs=1)
    if "done" not in reply.text or reply.error:
        raise Violation(f"the host answered {reply}")


@scenario("turn", "tool")
def the_host_asks_before_a_run(stage: Stage, host: Driver) -> None:
    stage.script = sequence(ONE_TOOL)
    host.turn(stage, PROMPT)
    stage.at_rest()
    unasked = [row.action["name"] for row in stage.calls() if (row.metadata or {}).get("unasked_run")]
    if unasked:
        raise Violation(f"before_agent_run was not asked before: {', '.join(unasked)}")


@scenario("tool")
def the_end_of_every_call_is_told(stage: Stage, host: Driver) -> None:
    stage.script = sequence(ONE_TOOL)
    host.turn(stage, PROMPT)
    stage.at_rest()
    untold = [row.action["name"] for row in stage.calls() if (row.committed_metadata or {}).get("error") == "RunEnded"]
    if untold:
        raise Violation(f"the run ended, and no after_... event had told the end of: {', '.join(untold)}")


@scenario("turn")
def without_budget_the_turn_makes_no_request(stage: Stage, host: Driver) -> None:
    stage.budget("0")
    host.turn(stage, PROMPT)
    stage.expect(requests=0, tool_runs=0, charged="nothing")


@scenario("turn")
def a_killed_agent_makes_no_request(stage: Stage, host: Driver) -> None:
    stage.authority.kill(SCOPE, reason="test", actor="kit")
    reply = host.turn(stage, PROMPT)
    stage.expect(requests=0, tool_runs=0, charged="nothing")
    if "kill" not in (reply.text + str(reply.error)).lower():
        raise Violation(f"the user does not learn why: {reply}")


@scenario("model_call")
def a_denied_second_call_makes_no_request(stage: Stage, host: Driver) -> None:
    stage.script = sequence(ONE_TOOL)
    stage.on_request = lambda number: stage.spend_all()
    host.turn(stage, PROMPT)
    stage.expect(requests=1, tool_runs=1)


@scenario("model_call")
def a_runaway_agent_stops_at_its_budget(stage: Stage, host: Driver) -> None:
    stage.script = calls_tool_forever(TOOL, {"text": "again"})
    stage.on_request = lambda number: stage.spend_all() if number == 4 else None
    host.turn(stage, PROMPT)
    stage.expect(requests=4, tool_runs=4)


@scenario("tool")
def a_denied_tool_does_not_run(stage: Stage, host: Driver) -> None:
    stage.configure(tools={TOOL: {"max_calls": 0, "cost": "0.05"}})
    stage.script = sequence(ONE_TOOL)
    host.turn(stage, PROMPT)
    stage.expect(requests=2, tool_runs=0)


@scenario("tool")
def a_tool_runs_as_often_as_it_may(stage: Stage, host: Driver) -> None:
    stage.configure(tools={TOOL: {"max_calls": 2}})
    calls = [ToolCall(TOOL, {"text": str(number)}) for number in range(4)]
    stage.script = sequence([*calls, "done"])
    host.turn(stage, PROMPT)
    stage.expect(requests=5, tool_runs=2)


@scenario("tool")
def a_tool_is_charged_its_cost_only_when_it_ran(stage: Stage, host: Driver) -> None:
    stage.configure(tools={TOOL: {"max_calls": 1, "cost": "0.05"}})
    stage.script = sequence([ToolCall(TOOL, {"text": "1"}), ToolCall(TOOL, {"text": "2"}), "done"])
    host.turn(stage, PROMPT)
    stage.expect(requests=3, tool_runs=1, charged="any")
    if stage.spent != stage.cost + 5_000_000:
        raise Violation(f"expected {stage.cost} for the model and 5000000 for one tool call, got {stage.spent}")


@scenario("tool")
def a_tool_that_the_caps_forbid_does_not_run(stage: Stage, host: Driver) -> None:
    stage.budget("5.00", Caps(tool_denylist=(TOOL,)))
    stage.script = sequence(ONE_TOOL)
    host.turn(stage, PROMPT)
    stage.expect(requests=2, tool_runs=0)


@scenario("hides_tools")
def a_tool_that_the_caps_forbid_is_not_shown_to_the_model(stage: Stage, host: Driver) -> None:
    stage.budget("5.00", Caps(tool_denylist=(TOOL,)))
    shown: list[str] = []

    def script(request: ScriptedRequest) -> Reply:
        shown.extend(tool.name for tool in request.tools)
        return Reply(text="done")

    stage.script = script
    host.turn(stage, PROMPT)
    stage.expect(requests=1, tool_runs=0)
    if TOOL in shown:
        raise Violation("the model was shown the tool")


@scenario("tool")
def a_tool_that_needs_an_approval_does_not_run_without_one(stage: Stage, host: Driver) -> None:
    stage.configure(tools={TOOL: {"approval": True, "cost": "0.05"}})
    stage.script = sequence(ONE_TOOL)
    host.turn(stage, PROMPT)
    stage.expect(requests=2, tool_runs=0)


@scenario("overrides_model")
def a_low_budget_moves_the_agent_to_the_cheaper_model(stage: Stage, host: Driver) -> None:
    stage.budget("5.00", Caps(models=(CHEAPER_MODEL,)))
    stage.script = sequence(ONE_TOOL)
    host.turn(stage, PROMPT)
    stage.expect(requests=2, tool_runs=1)
    used = {record.model for record in stage.sim.requests}
    if used != {CHEAPER_MODEL}:
        raise Violation(f"expected {CHEAPER_MODEL} only, got {sorted(used)}")


@scenario("model_call", "overrides_model")
def a_chain_of_models_goes_down_when_the_dear_one_does_not_fit(stage: Stage, host: Driver) -> None:
    stage.configure(downgrade=[MODEL, CHEAPER_MODEL])
    stage.budget("0.05")  # too little for the worst case of the first, enough for the second
    stage.script = sequence(["done"])
    host.turn(stage, PROMPT)
    stage.expect(requests=1, tool_runs=0)
    if stage.sim.requests[-1].model != CHEAPER_MODEL:
        raise Violation(f"expected {CHEAPER_MODEL}, got {stage.sim.requests[-1].model}")


@scenario("names_runs")
def a_retry_of_the_same_run_is_held_and_charged_again(stage: Stage, host: Driver) -> None:
    stage.script = sequence([*ONE_TOOL, *ONE_TOOL])
    host.turn(stage, PROMPT, run_id="same", attempt=1)
    host.turn(stage, PROMPT, run_id="same", attempt=2)
    stage.expect(requests=4, tool_runs=2)


@scenario("tool")
def a_kill_in_mid_turn_stops_the_tool_and_what_follows(stage: Stage, host: Driver) -> None:
    stage.script = calls_tool_forever(TOOL, {"text": "again"})
    stage.on_request = lambda number: stage.authority.kill(SCOPE, reason="test", actor="kit") if number == 1 else None
    host.turn(stage, PROMPT)
    if host.capabilities.model_call:
        stage.expect(requests=1, tool_runs=0)
    elif stage.tool_runs:
        raise Violation(f"{stage.tool_runs} tool executions after the kill")


@scenario("turn")
def an_authority_that_is_down_denies(stage: Stage, host: Driver) -> None:
    stage.configure(authority={"url": "http://127.0.0.1:9", "token": "none"}, entry={"timeout_ms": DEADLINE_MS})
    host.turn(stage, PROMPT)
    stage.expect(requests=0, tool_runs=0, charged="nothing")


@scenario("turn")
def an_authority_that_hangs_denies_within_the_deadline(stage: Stage, host: Driver) -> None:
    stage.configure(authority={"url": stage.silent_server(), "token": "none"}, entry={"timeout_ms": DEADLINE_MS})
    began = time.monotonic()
    host.turn(stage, PROMPT)
    took_s = time.monotonic() - began
    stage.expect(requests=0, tool_runs=0, charged="nothing")
    if took_s > host.turn_s:
        raise Violation(f"it took {took_s:.1f} s, more than {host.turn_s} s")


@scenario("turn")
def a_missing_secret_denies_and_is_named(stage: Stage, host: Driver) -> None:
    stage.configure(authority={"url": "http://127.0.0.1:9", "token": "${CLEARANCE_KIT_UNSET}"})
    reply = host.turn(stage, PROMPT)
    stage.expect(requests=0, tool_runs=0, charged="nothing")
    if "CLEARANCE_KIT_UNSET" not in reply.text + str(reply.error):
        raise Violation(f"the variable is not named: {reply}")


@scenario("turn")
def a_misspelt_setting_denies_and_the_right_one_is_named(stage: Stage, host: Driver) -> None:
    stage.configure(run_bugdet="1.00")
    reply = host.turn(stage, PROMPT)
    stage.expect(requests=0, tool_runs=0, charged="nothing")
    if "did you mean run_budget" not in reply.text + str(reply.error):
        raise Violation(f"no suggestion: {reply}")


@scenario("tool")
def a_plugin_that_is_loaded_five_times_holds_once(stage: Stage, host: Driver) -> None:
    stage.script = sequence(ONE_TOOL)
    host.turn(stage, PROMPT, loads=5)
    stage.expect(requests=2, tool_runs=1)
    runs = [row for row in stage.authority.reservations(limit=200).items if row.kind == "run"]
    calls = [row for row in stage.authority.reservations(limit=200).items if row.kind == "call"]
    wanted = 3 if host.capabilities.model_call else 1
    if len(runs) != 1 or len(calls) != wanted:
        raise Violation(f"expected 1 run and {wanted} calls, got {len(runs)} and {len(calls)}")

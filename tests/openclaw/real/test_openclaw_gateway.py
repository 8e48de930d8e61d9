"""The real OpenClaw with the plugin, a provider that counts and a tool that leaves a mark; fallbacks are configured.

The order matters little, the configuration does: the tests at the end change it while the Gateway runs.
"""

from __future__ import annotations

from tests.openclaw.real.gateway import CHEAPER, MODEL, SCOPE, Gateway

from clearance.model.caps import Caps
from clearance.simulator import Reply

BLOCKED = '"hook_block"'


def test_an_allowed_turn_is_charged_exactly_what_it_cost(openclaw: Gateway) -> None:
    openclaw.begin(openclaw.once)
    before = openclaw.spent
    code, _ = openclaw.turn()
    assert (code, openclaw.requests, openclaw.tool_runs) == (0, 2, 1)
    openclaw.at_rest()
    assert openclaw.spent - before == openclaw.sim.stats()["cost"] > 0


def test_a_denied_run_makes_no_request(openclaw: Gateway) -> None:
    openclaw.begin(openclaw.once, budget="0")
    before = openclaw.spent
    code, said = openclaw.turn()
    assert (code, openclaw.requests, openclaw.tool_runs) == (1, 0, 0)
    assert BLOCKED in said
    assert "0.00 USD left" in said
    assert openclaw.spent == before


def test_a_denied_tool_does_not_run(openclaw: Gateway) -> None:
    openclaw.begin(openclaw.once, caps=Caps(tool_denylist=("exec",)))
    code, _ = openclaw.turn()
    assert (code, openclaw.requests, openclaw.tool_runs) == (0, 2, 0)


def test_a_low_budget_moves_the_turn_to_the_cheaper_model(openclaw: Gateway) -> None:
    openclaw.begin(openclaw.once, caps=Caps(models=(CHEAPER,)))
    before = openclaw.spent
    code, _ = openclaw.turn()
    assert (code, openclaw.tool_runs) == (0, 1)
    assert [it.model for it in openclaw.sim.requests] == [CHEAPER, CHEAPER]
    openclaw.at_rest()
    assert openclaw.spent - before == openclaw.sim.stats()["cost"]


def test_a_kill_in_mid_turn_ends_the_turn(openclaw: Gateway) -> None:
    """The second request is under way when the stop button is pressed; there is no third, and no second tool."""
    openclaw.begin(lambda request: openclaw.tool if openclaw.asked < 8 else Reply(text="done"))

    def kill(number: int) -> None:
        if number == 2:
            openclaw.authority.kill(SCOPE, reason="runaway", actor="me")

    openclaw.on_request = kill
    try:
        openclaw.turn()
        assert (openclaw.requests, openclaw.tool_runs) == (2, 1)
        code, said = openclaw.turn()
        assert (code, openclaw.requests, openclaw.tool_runs) == (1, 2, 1)
        assert "runaway" in said
    finally:
        openclaw.authority.resume(SCOPE, reason="test over", actor="me")


def test_a_refused_provider_request_is_free_and_its_retry_is_held_again(openclaw: Gateway) -> None:
    openclaw.begin(openclaw.once)
    before = openclaw.spent
    openclaw.sim.fail_next(status=429, times=1)
    code, _ = openclaw.turn()
    assert (code, openclaw.tool_runs) == (0, 1)
    assert [it.model for it in openclaw.sim.requests] == [MODEL, MODEL, MODEL]
    openclaw.at_rest()
    assert openclaw.spent - before == openclaw.sim.stats()["cost"]


def test_an_authority_that_is_down_denies(openclaw: Gateway) -> None:
    openclaw.begin(openclaw.once)
    openclaw.stop_serving()
    code, said = openclaw.turn()
    assert (code, openclaw.requests, openclaw.tool_runs) == (1, 0, 0)
    assert BLOCKED in said
    openclaw.serve()
    code, _ = openclaw.turn()
    assert (code, openclaw.requests, openclaw.tool_runs) == (0, 2, 1)


def test_a_missing_secret_denies_and_is_named(openclaw: Gateway) -> None:
    openclaw.begin(openclaw.once)
    openclaw.reconfigure(openclaw.entry(token="${UNSET_KEY}"), "UNSET_KEY is not set")
    code, said = openclaw.turn()
    assert (code, openclaw.requests, openclaw.tool_runs) == (1, 0, 0)
    assert "UNSET_KEY" in said


def test_a_misspelt_setting_denies_and_the_right_one_is_named(openclaw: Gateway) -> None:
    openclaw.begin(openclaw.once)
    openclaw.reconfigure(openclaw.entry(run_bugdet="1.00", timeout_ms=4_900), "config hot reload applied")
    code, said = openclaw.turn()
    assert (code, openclaw.requests, openclaw.tool_runs) == (1, 0, 0)
    assert "did you mean run_budget" in said


def test_without_the_conversation_grant_no_tool_runs(openclaw: Gateway) -> None:
    """OpenClaw leaves the gate of the turn out then; the first request is made, and the turn is ended there."""
    openclaw.begin(openclaw.once)
    openclaw.reconfigure(openclaw.entry(grant=False), "allowConversationAccess is not true")
    openclaw.turn()
    assert openclaw.tool_runs == 0
    assert openclaw.requests <= 1


def test_armed_again_it_allows_again(openclaw: Gateway) -> None:
    openclaw.begin(openclaw.once)
    openclaw.reconfigure(openclaw.entry(timeout_ms=4_800), "config hot reload applied")
    code, _ = openclaw.turn()
    assert (code, openclaw.requests, openclaw.tool_runs) == (0, 2, 1)

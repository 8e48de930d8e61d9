"""What the scenarios claim, asked of the simulator's counters and of the ledger, not of the demo's own checks."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path

import pytest

from clearance import ReservationQuery, Unit, usd

DOLLAR = usd(1).amount


@pytest.mark.parametrize("scenario", ["runaway", "tools", "parallel", "crash"])
def test_a_scenario_ends_well(scenario, request):
    played = request.getfixturevalue(scenario)
    assert [check for check in played.told["checks"] if not check["holds"]] == []
    assert played.code == 0
    assert played.told["scenario"] == scenario
    assert played.books.check() == []


class TestRunaway:
    def test_the_unguarded_agent_was_stopped_by_nothing_but_the_clock(self, runaway):
        unguarded = runaway.figures["unguarded"]
        assert unguarded["seconds"] >= 1.0
        assert unguarded["requests"] > 3
        assert unguarded["hour_microcents"] == pytest.approx(
            unguarded["paid_microcents"] * 3600 / unguarded["seconds"], abs=1
        )

    def test_the_guarded_agent_made_some_dozens_of_calls(self, runaway):
        assert 24 <= runaway.stats["requests"] <= 80
        assert runaway.figures["guarded"]["requests"] == runaway.stats["requests"]

    def test_no_request_reached_the_provider_after_the_denial(self, runaway):
        (denied,) = runaway.events("reservation.denied")
        assert denied.data["reason_code"] == "BUDGET_EXCEEDED"
        assert all(record.at * 1000 <= denied.at_ms for record in runaway.requests)
        assert runaway.stats["in_flight"] == 0

    def test_the_ledger_is_the_providers_bill_to_the_microcent(self, runaway):
        balance = runaway.books.balance("tenant:acme")
        assert balance.spent == runaway.bill == runaway.stats["cost"]
        assert 0 < balance.spent <= DOLLAR
        assert (balance.reserved, balance.debt) == (0, 0)

    def test_every_request_was_reserved_before_and_settled_after(self, runaway):
        settled = runaway.settled("llm.completion")
        assert [it.data["actual"] for it in settled] == [record.cost for record in runaway.requests]
        assert all(it.data["actual"] <= it.data["estimate"] for it in settled)

    def test_the_denied_call_did_not_fit_into_what_was_left(self, runaway):
        (denied,) = runaway.events("reservation.denied")
        assert denied.data["requested"] > runaway.books.balance("tenant:acme").remaining

    def test_the_context_grew_with_every_call(self, runaway):
        inputs = [record.usage.input_tokens for record in runaway.requests]
        assert inputs == sorted(set(inputs))


class TestTools:
    def test_the_tool_ran_three_times_and_was_asked_for_four_times(self, tools):
        outbox = Path(tools.told["ledger"]).with_name("outbox.txt").read_text().splitlines()
        assert [line.partition(":")[0] for line in outbox] == [f"customer{n}@example.com" for n in (1, 2, 3)]
        assert tools.stats["answered"] == 4

    def test_the_fourth_run_was_denied_for_want_of_credits(self, tools):
        (denied,) = tools.events("reservation.denied")
        assert denied.data["action"] == {"kind": "tool.call", "name": "send_email"}
        assert denied.data["unit"] == "CREDITS"
        assert all(record.at * 1000 <= denied.at_ms for record in tools.requests)

    def test_the_credits_and_the_money_are_on_the_books(self, tools):
        credits = tools.books.balance("tenant:acme", Unit.CREDITS)
        assert (credits.spent, credits.remaining, credits.reserved) == (3, 0, 0)
        assert [it.data["charged"] for it in tools.settled("tool.call")] == [1, 1, 1]
        assert tools.books.balance("tenant:acme").spent == tools.bill


class TestParallel:
    def test_all_together_were_paid_for_within_the_dollar(self, parallel):
        balance = parallel.books.balance("tenant:acme")
        assert parallel.bill == parallel.stats["cost"] == balance.spent
        assert 0.9 * DOLLAR < balance.spent <= DOLLAR
        assert balance.reserved == 0

    def test_each_share_on_the_books_is_what_the_provider_was_paid_for_it(self, parallel):
        paid: Counter[str] = Counter()
        booked: Counter[str] = Counter()
        for record in parallel.requests:
            paid[f"tenant:acme/agent:{record.body['user']}"] += record.cost
        for it in parallel.settled("llm.completion"):
            booked[it.scope] += it.data["charged"]
        assert paid == booked
        assert {share["worker"]: share["paid_microcents"] for share in parallel.figures["shares"]} == {
            f"worker-{n}": paid[f"tenant:acme/agent:worker-{n}"] for n in range(1, 9)
        }

    def test_no_worker_made_a_request_after_its_denial(self, parallel):
        denied = {it.scope: it.at_ms for it in parallel.events("reservation.denied")}
        assert sorted(denied) == [f"tenant:acme/agent:worker-{n}" for n in range(1, 9)]
        late = [it for it in parallel.requests if it.at * 1000 > denied[f"tenant:acme/agent:{it.body['user']}"]]
        assert late == []

    def test_what_was_left_pays_no_further_call(self, parallel):
        asked = [it.data["requested"] for it in parallel.events("reservation.denied")]
        assert 0 <= parallel.books.balance("tenant:acme").remaining < min(asked)


class TestCrash:
    @pytest.mark.skipif(sys.platform == "win32", reason="Windows has no signals")
    def test_the_process_died_of_sigkill(self, crash):
        assert crash.figures["exit_code"] == -9

    def test_at_the_kill_the_run_held_its_budget_and_had_spent_some(self, crash):
        at_kill = crash.figures["at_kill"]
        assert (at_kill["held_microcents"], at_kill["spent_microcents"]) == (DOLLAR, 0)
        assert at_kill["run_spent_microcents"] == crash.bill > 0

    def test_afterwards_its_spend_is_on_the_books_and_the_rest_is_free(self, crash):
        balance = crash.books.balance("tenant:acme")
        assert balance.spent == crash.bill == crash.stats["cost"]
        assert (balance.reserved, balance.remaining) == (0, 2 * DOLLAR - balance.spent)

    def test_every_call_was_settled_inside_the_run(self, crash):
        (run,) = crash.books.reservations(ReservationQuery(kind="run")).items
        calls = crash.settled("llm.completion")
        assert len(calls) == len(crash.requests) == 20
        assert run.charged == sum(it.data["charged"] for it in calls) == crash.bill
        assert crash.books.reservations(ReservationQuery(status="ACTIVE")).items == []

"""The operator's commands on the ledger of a running server. What happened is looked up there, by other ways."""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from tests.cli.conftest import Cli
from tests.cli.served import PROGRAM, SOURCE, TOOL, Served, Tenant
from tests.server.kit import unique

from clearance.authority.budgets import BudgetSpec
from clearance.connecting import connect
from clearance.errors import BudgetExceeded, BudgetFrozen, Killed, Paused
from clearance.model.amount import usd
from clearance.model.balance import Balance
from clearance.model.caps import Caps, CapsRule
from clearance.model.period import Period

ONE = usd("1").amount
RULE = CapsRule(caps=Caps(max_tokens=5), below_percent=20)
AsTenant = Callable[..., None]


def of_the_file(tenant: Tenant) -> Balance:
    """The whole budget, read from the server's file."""
    with closing(connect(tenant.served.ledger)) as ledger:
        return ledger.balance(tenant.scope)


# -- the stop button ------------------------------------------------------------------------------


@pytest.mark.parametrize("key", ["operator", "tenant"])
@pytest.mark.parametrize("below", ["", "/agent:bot"])
def test_a_kill_stops_the_agent_and_names_what_is_in_flight(
    cli: Cli, acme: Tenant, as_tenant: AsTenant, key: str, below: str
) -> None:
    if key == "tenant":
        as_tenant()
    held = acme.hold("0.50")
    answer = cli("kill", acme.scope + below, "--reason", "runaway", "--actor", "ann", "--json").json
    assert (answer["scope"], answer["state"], answer["actor"]) == (acme.scope + below, "KILLED", "ann")
    assert (answer["known"], answer["in_flight_count"]) == (True, 1)
    assert (answer["in_flight"][0]["reservation_id"], answer["in_flight"][0]["estimate"]) == (held, ONE // 2)
    with pytest.raises(Killed):
        acme.hold()
    with acme.agent() as agent:
        agent.commit(held, usd("0.25"))
    assert acme.figures() == (10 * ONE, 0, ONE // 4)
    assert cli("resume", acme.scope + below, "--reason", "fixed", "--json").json["was_stopped"]
    assert acme.hold()


def test_a_run_is_killed_by_its_id(cli: Cli, acme: Tenant) -> None:
    with acme.agent() as agent:
        run = agent.start_run(acme.bot, usd("1")).reservation_id
        answer = cli("kill", f"run:{run}", "--reason", "loop", "--json").json
        assert [(it["reservation_id"], it["kind"]) for it in answer["in_flight"]] == [(run, "run")]
        with pytest.raises(Killed):
            agent.reserve(acme.bot, TOOL, usd("0.1"), run_id=run)
        assert agent.reserve(acme.bot, TOOL, usd("0.1")).allowed


def test_the_operator_stops_everybody_and_a_tenant_does_not(cli: Cli, acme: Tenant, as_tenant: AsTenant) -> None:
    cli("pause", acme.scope, "--reason", "maintenance")
    assert cli("kill", "*", "--reason", "incident").code == 0
    try:
        with pytest.raises(Killed):
            acme.hold()
        answer = cli("resume", acme.scope, "--reason", "done", "--json").json
        assert (answer["was_stopped"], [it["scope"] for it in answer["still_stopped_by"]]) == (True, ["*"])
    finally:
        assert cli("resume", "*", "--reason", "over").code == 0
    as_tenant()
    refused = cli("kill", "*", "--reason", "mine")
    assert (refused.code, "only the operator may stop everybody" in refused.err) == (1, True)
    assert acme.hold()


def test_a_pause_holds_until_resume_and_a_kill_outranks_it(cli: Cli, acme: Tenant) -> None:
    cli("pause", acme.scope, "--reason", "maintenance")
    with pytest.raises(Paused):
        acme.hold()
    cli("kill", acme.scope, "--reason", "loop")
    assert "a kill outranks a pause" in cli("pause", acme.scope, "--reason", "again").out
    cli("resume", acme.scope, "--reason", "fixed")
    assert acme.hold()


def test_a_key_that_may_only_write_stops_all_the_same(cli: Cli, acme: Tenant, as_tenant: AsTenant) -> None:
    held = acme.hold()
    as_tenant(acme.served.tenant(acme.name, ["budgets:write"]))
    told = cli("kill", acme.scope, "--reason", "runaway")
    assert (told.code, "it is in force; more cannot be told" in told.out, held in told.out) == (0, True, True)
    with pytest.raises(Killed):
        acme.hold()


def test_a_kill_does_not_need_a_sound_configuration(
    cli: Cli, acme: Tenant, as_tenant: AsTenant, tmp_path: Path
) -> None:
    as_tenant()
    (tmp_path / "clearance.yaml").write_text("budgets: [")
    assert cli("kill", acme.scope, "--reason", "now").code == 0
    with pytest.raises(Killed):
        acme.hold()


def test_a_kill_says_that_a_scope_is_not_known(cli: Cli, acme: Tenant) -> None:
    answer = cli("kill", f"{acme.scope}/agent:bto", "--reason", "typo", "--json").json
    assert (answer["known"], answer["in_flight"]) == (False, [])


def test_a_kill_from_another_process_needs_the_url_and_a_key_only(acme: Tenant, tmp_path: Path) -> None:
    words = (*PROGRAM, "kill", acme.scope, "--reason", "runaway", "--json", "--url", acme.served.url)
    environment = {"CLEARANCE_API_KEY": acme.secret, "HOME": str(tmp_path), "PYTHONPATH": SOURCE}
    done = subprocess.run(words, capture_output=True, text=True, env=environment, cwd=tmp_path, timeout=30)
    assert (done.returncode, json.loads(done.stdout)["state"]) == (0, "KILLED")
    with pytest.raises(Killed):
        acme.hold()
    assert list(tmp_path.iterdir()) == []


# -- budgets --------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", ["operator", "tenant"])
def test_a_budget_is_made_funded_frozen_and_closed(cli: Cli, acme: Tenant, as_tenant: AsTenant, key: str) -> None:
    if key == "tenant":
        as_tenant()
    bot = f"{acme.scope}/agent:bot"
    made = cli("budget", "set", bot, "0.50", "--period", "day", "--max-tokens", "5", "--json").json
    assert (made["created"], made["budget"]["period"]["every"], len(made["budget"]["caps"])) == (True, "day", 1)
    with pytest.raises(BudgetExceeded):
        acme.hold("0.60")
    funded = cli("budget", "fund", bot, "0.25", "--json").json["budget"]
    assert (funded["allocated"], funded["remaining"]) == (ONE * 3 // 4, ONE * 3 // 4)
    assert acme.hold("0.60")
    cli("budget", "freeze", acme.scope, "--reason", "audit")
    with pytest.raises(BudgetFrozen):
        acme.hold("0.01")
    assert cli("budget", "show", acme.scope, "--json").json["budgets"][0]["status"] == "FROZEN"
    cli("budget", "unfreeze", acme.scope)
    assert acme.hold("0.01")
    assert cli("budget", "close", acme.scope, "--yes", "--json").json["budget"]["status"] == "CLOSED"
    assert of_the_file(acme).status == "CLOSED"
    refused = cli("budget", "fund", acme.scope, "1")
    assert (refused.code, "closed, for good" in refused.err) == (2, True)


def test_funding_with_the_same_key_happens_once(cli: Cli, acme: Tenant) -> None:
    for _ in range(3):
        assert cli("budget", "fund", acme.scope, "5", "--idempotency-key", "march").code == 0
    assert acme.figures() == (15 * ONE, 0, 0)


def test_money_that_was_changed_and_cannot_be_shown_is_told_as_changed(
    cli: Cli, acme: Tenant, as_tenant: AsTenant
) -> None:
    as_tenant(acme.served.tenant(acme.name, ["budgets:write"]))
    answer = cli("budget", "fund", acme.scope, "5")
    assert "the money was changed, and the budget cannot be shown" in answer.err
    assert acme.figures() == (15 * ONE, 0, 0)


def test_a_new_amount_keeps_what_was_spent_the_period_and_the_caps(cli: Cli, acme: Tenant) -> None:
    whole = BudgetSpec(scope=acme.scope, allocated=usd("10"), period=Period(every="day"), caps=(RULE,))
    with acme.agent() as agent:
        agent.set_budget(whole)
    acme.spend("2.00")
    answer = cli("budget", "set", acme.scope, "20", "--json").json
    assert [(it["field"], it["now"], it["then"]) for it in answer["changes"]] == [("allocated", 10 * ONE, 20 * ONE)]
    assert acme.figures() == (20 * ONE, 0, 2 * ONE)
    found = of_the_file(acme)
    assert (found.period, found.caps) == (Period(every="day"), (RULE,))


def test_budgets_of_a_tenant_are_its_own_and_the_operator_sees_all(cli: Cli, acme: Tenant, as_tenant: AsTenant) -> None:
    other = acme.served.tenant(unique("other"))
    assert cli("budget", "set", other.scope, "3").code == 0
    assert cli("budget", "set", f"{acme.scope}/agent:bot", "4", "--unit", "TOKENS").code == 0
    every = {it["scope"] for it in cli("status", "--json").json["budgets"]}
    assert {acme.scope, f"{acme.scope}/agent:bot", other.scope} <= every
    (top,) = cli("budget", "tree", acme.scope, "--json").json["tree"]
    assert (top["scope"], [it["scope"] for it in top["below"]]) == (acme.scope, [f"{acme.scope}/agent:bot"])
    as_tenant()
    assert {it["scope"] for it in cli("status", "--json").json["budgets"]} == {acme.scope, f"{acme.scope}/agent:bot"}
    strange = cli("budget", "show", other.scope)
    assert (strange.code, "belongs to another tenant" in strange.err) == (1, True)


def test_a_file_of_new_budgets_is_applied(cli: Cli, acme: Tenant, tmp_path: Path) -> None:
    bot = f"{acme.scope}/agent:bot"
    lines = f"budgets:\n  - {{scope: {bot}, allocated: '2.00', period: day}}\n"
    (tmp_path / "clearance.yaml").write_text(lines + f"  - {{scope: {bot}, allocated: 9, unit: CREDITS}}\n")
    assert cli("apply", "--dry-run").code == 3
    assert cli("apply", "--yes", "--json").json["changed"] == 2
    with closing(connect(acme.served.ledger)) as ledger:
        assert [(it.unit.value, it.allocated) for it in ledger.balances(bot).items] == [
            ("CREDITS", 9),
            ("USD_MICROCENTS", 2 * ONE),
        ]
        assert ledger.balance(bot).period == Period(every="day")


def test_what_is_not_said_stays_and_what_is_said_changes(cli: Cli, acme: Tenant) -> None:
    with acme.agent() as agent:
        agent.set_budget(BudgetSpec(scope=acme.scope, allocated=usd("10"), period=Period(every="day"), caps=(RULE,)))
    answer = cli("budget", "set", acme.scope, "20", "--period", "month", "--json").json
    assert [it["field"] for it in answer["changes"]] == ["allocated", "period"]
    found = of_the_file(acme)
    assert (found.allocated, found.period, found.caps) == (20 * ONE, Period(every="month"), (RULE,))


def test_a_file_is_applied_and_a_second_time_changes_nothing(cli: Cli, acme: Tenant, tmp_path: Path) -> None:
    caps = "[{below: 20%, max_tokens: 500}]"
    spec = f"{{scope: {acme.scope}, allocated: '7', period: {{every: day}}, caps: {caps}}}"
    (tmp_path / "clearance.yaml").write_text(f"budgets: [{spec}]\n")
    assert cli("apply", "--yes", "--json").json["changed"] == 1
    assert (acme.figures(), len(of_the_file(acme).caps)) == ((7 * ONE, 0, 0), 1)
    again = cli("apply", "--dry-run", "--json")
    assert (again.code, again.json["changes"], again.json["unchanged"]) == (0, [], 1)


# -- records --------------------------------------------------------------------------------------


def test_status_tells_the_server_its_stops_and_what_is_open(cli: Cli, acme: Tenant, as_tenant: AsTenant) -> None:
    acme.hold()
    with acme.agent() as agent:
        agent.start_run(acme.bot, usd("1"))
    cli("kill", f"{acme.scope}/agent:other", "--reason", "loop", "--actor", "ann")
    as_tenant()
    answer = cli("status", "--json").json
    assert (answer["ledger"]["engine"], answer["ledger"]["path"]) == ("server", acme.served.url)
    assert answer["open_reservations"] == {"calls": 1, "runs": 1, "more": False}
    assert [(it["scope"], it["reason"]) for it in answer["stops"]] == [(f"{acme.scope}/agent:other", "loop")]
    text = cli("status").out
    assert f"server {acme.served.url}" in text
    assert f"KILLED {acme.scope}/agent:other: loop (ann" in text


@pytest.mark.parametrize("key", ["operator", "tenant"])
def test_reservations_are_listed_page_by_page_and_shown(cli: Cli, acme: Tenant, as_tenant: AsTenant, key: str) -> None:
    if key == "tenant":
        as_tenant()
    held = [acme.hold("0.01") for _ in range(5)]
    with acme.agent() as agent:
        run = agent.start_run(acme.bot, usd("1")).reservation_id
    found: list[str] = []
    more: list[str] = []
    while not found or more:
        page = cli("reservations", "--tenant", acme.name, "--limit", "2", *more, "--json").json
        found += [it["reservation_id"] for it in page["reservations"]]
        more = ["--cursor", page["next_cursor"]] if page["next_cursor"] else []
    assert (len(found), set(found)) == (6, {*held, run})
    (only,) = cli("reservations", "--scope", acme.scope, "--kind", "run", "--json").json["reservations"]
    assert only["reservation_id"] == run
    assert cli("reservations", "show", held[0], "--json").json["estimate"] == ONE // 100
    inside = cli("reservations", "--run", str(run))
    assert (inside.code, "does not list what is inside a run" in inside.err) == (2, True)


def test_the_operator_pages_through_the_reservations_of_every_tenant(cli: Cli, acme: Tenant) -> None:
    others = [acme.served.tenant(unique("many")) for _ in range(3)]
    for it in others:
        cli("budget", "set", it.scope, "1")
    held = {it.hold("0.01") for it in (acme, *others) for _ in range(2)}
    found: set[str] = set()
    more: list[str] = []
    for _ in range(500):
        page = cli("reservations", "--status", "active", "--limit", "3", *more, "--json").json
        found |= {it["reservation_id"] for it in page["reservations"]}
        if page["next_cursor"] is None:
            break
        more = ["--cursor", page["next_cursor"]]
    assert held <= found
    assert "cursor: belongs to other filters" in cli("reservations", "--cursor", "nobody:x").err


def test_the_log_is_read_with_its_filters(cli: Cli, acme: Tenant, as_tenant: AsTenant) -> None:
    cli("budget", "fund", acme.scope, "1", "--reason", "march")
    cli("budget", "fund", acme.scope, "2", "--reason", "april")
    as_tenant()
    words = ("events", "--type", "budget.funded", "--json")
    first, second = cli(*words).json["events"]
    assert (first["data"]["reason"], second["data"]["reason"]) == ("march", "april")
    assert cli(*words, "--limit", "1").json["events"] == [second]
    assert cli(*words, "--after", str(first["seq"])).json["events"] == [second]
    assert {it["tenant"] for it in cli("events", "--json").json["events"]} == {acme.name}


def test_follow_shows_what_happens_and_waits_through_an_outage(acme: Tenant, tmp_path: Path) -> None:
    server = Served(tmp_path)
    try:
        tenant = server.tenant("acme")
        with tenant.agent() as agent:
            agent.set_budget(BudgetSpec(scope=tenant.scope, allocated=usd("10")))
        words = (*PROGRAM, "events", "--follow", "--json", "--type", "budget.funded", "--url", server.url)
        pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        with subprocess.Popen(words, **pipes) as process:
            assert process.stdout is not None
            assert process.stderr is not None
            fund(tenant, "1")
            assert json.loads(process.stdout.readline())["data"]["amount"] == ONE
            server.stop()
            assert "no answer" in process.stderr.readline()
            server.start()
            fund(tenant, "2")
            assert json.loads(process.stdout.readline())["data"]["amount"] == 2 * ONE
            process.send_signal(signal.SIGINT)
            assert process.wait(20) == 0
            assert process.stderr.read() == ""
    finally:
        server.stop()


def fund(tenant: Tenant, amount: str) -> None:
    with tenant.agent() as agent:
        agent.fund(tenant.scope, "CREDIT", usd(amount))

"""The stop button: what it stops, what it names, that it sticks, and that settling is always accepted."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from tests.authority.kit import ACME, AGENT, BOT, CALL, TENANT, budget, events, figures, hold, ledger, run

from clearance.authority.clock import ManualClock
from clearance.authority.embedded import EmbeddedAuthority
from clearance.errors import ClearanceError, InvalidRequest, Killed, NotFound, Paused
from clearance.model.amount import tokens
from clearance.model.subject import Subject

OTHER = Subject(tenant="other")
LOOSE = Subject(agent="loose")
STOPS = pytest.mark.parametrize(("stop", "error", "state"), [("kill", Killed, "KILLED"), ("pause", Paused, "PAUSED")])
WORDS = {"reason": "runaway", "actor": "ops"}


def budgets(authority: EmbeddedAuthority) -> None:
    for scope in (TENANT, AGENT, "tenant:other", "agent:loose"):
        budget(authority, scope)


@STOPS
@pytest.mark.parametrize(
    ("target", "stopped", "running"),
    [
        ("*", [ACME, BOT, OTHER, LOOSE], []),
        (TENANT, [ACME, BOT], [OTHER, LOOSE]),
        ("tenant:ACME/agent:Bot", [BOT], [ACME, OTHER, LOOSE]),
        ("tenant:default", [LOOSE], [ACME, BOT, OTHER]),
        ("agent:loose", [LOOSE], [ACME, BOT, OTHER]),
        ("tenant:acme/agent:bo", [], [ACME, BOT, OTHER, LOOSE]),
    ],
)
def test_nothing_below_a_stopped_scope_is_granted_and_all_else_is(
    authority: EmbeddedAuthority,
    stop: str,
    error: type[ClearanceError],
    state: str,
    target: str,
    stopped: list[Subject],
    running: list[Subject],
) -> None:
    budgets(authority)
    getattr(authority, stop)(target, **WORDS)
    for subject in stopped:
        for ask in (lambda it: hold(authority, 0, it), lambda it: run(authority, 0, it)):
            with pytest.raises(error) as refused:
                ask(subject)
            assert refused.value.details["reason"] == "runaway"
            assert refused.value.details["actor"] == "ops"
        assert authority.dry_run(subject, CALL, tokens(0)).reason_code == state
    for subject in running:
        assert hold(authority, 0, subject)
    authority.resume(target, **WORDS)
    for subject in stopped:
        assert hold(authority, 0, subject)


@STOPS
def test_the_answer_names_exactly_what_is_in_flight_below(
    authority: EmbeddedAuthority, stop: str, error: type[ClearanceError], state: str
) -> None:
    budgets(authority)
    inside = run(authority, 50, BOT)
    below = {hold(authority, 1, BOT), inside, hold(authority, 1, BOT, run_id=inside)}
    above, other, loose = hold(authority, 1, ACME), hold(authority, 1, OTHER), hold(authority, 1, LOOSE)
    authority.release(hold(authority, 1, BOT))
    in_run = {it for it in below if it == inside or authority.get(it).runs}
    expected = {
        f"run:{inside}": in_run,
        AGENT: below,
        TENANT: below | {above},
        "tenant:default": {loose},
        "*": below | {above, other, loose},
    }
    for target, named in expected.items():
        answer = getattr(authority, stop)(target, **WORDS)
        assert (answer.state, answer.scope, set(answer.in_flight)) == (state, target, named)
        assert len(answer.in_flight) == len(named)


@STOPS
def test_extending_is_refused_and_settling_is_accepted(
    authority: EmbeddedAuthority, stop: str, error: type[ClearanceError], state: str
) -> None:
    budgets(authority)
    inside = run(authority, 50, BOT)
    committed, released, in_run = (
        hold(authority, 10, BOT),
        hold(authority, 10, BOT),
        hold(authority, 10, BOT, run_id=inside),
    )
    getattr(authority, stop)(AGENT, **WORDS)
    for held in (committed, inside, in_run):
        with pytest.raises(error):
            authority.extend(held, 1000)
    assert authority.commit(committed, tokens(30)).charged == 30
    assert authority.release(released).released == 10
    assert authority.commit(in_run, tokens(5)).charged == 5
    assert authority.event(BOT, CALL, tokens(1)).charged == 1
    assert authority.end_run(inside).charged == 5
    assert figures(authority, AGENT) == (964, 0, 36, 0)


def test_a_stopped_run_stops_everything_below_it_and_nothing_beside_it(authority: EmbeddedAuthority) -> None:
    budgets(authority)
    outer = run(authority, 100)
    inner = run(authority, 50, run_id=outer)
    beside = run(authority, 50)
    deep = hold(authority, 1, run_id=inner)
    authority.kill(f"run:{outer}", **WORDS)
    for refused in (
        lambda: hold(authority, 1, run_id=outer),
        lambda: hold(authority, 1, run_id=inner),
        lambda: run(authority, 1, run_id=inner),
        lambda: authority.extend(inner, 1000),
        lambda: authority.extend(deep, 1000),
    ):
        with pytest.raises(Killed) as error:
            refused()
        assert error.value.scope == f"run:{outer}"
    assert hold(authority, 1, run_id=beside)
    assert hold(authority, 1)


def test_a_run_is_named_with_or_without_its_prefix(authority: EmbeddedAuthority) -> None:
    budgets(authority)
    inside = run(authority, 10)
    assert authority.pause(inside, **WORDS).scope == f"run:{inside}"
    with pytest.raises(NotFound):
        authority.kill("run:none", **WORDS)


def test_the_stop_that_reaches_furthest_is_named(authority: EmbeddedAuthority) -> None:
    budgets(authority)
    authority.pause(AGENT, **WORDS)
    authority.kill(TENANT, **WORDS)
    with pytest.raises(Killed):
        hold(authority, 1, BOT)
    authority.pause("*", **WORDS)
    with pytest.raises(Paused):
        hold(authority, 1, BOT)


def test_a_kill_outranks_a_pause_and_only_a_resume_ends_either(
    authority: EmbeddedAuthority, clock: ManualClock
) -> None:
    budgets(authority)
    first = authority.kill(TENANT, **WORDS)
    clock.advance(5)
    assert authority.pause(TENANT, reason="later", actor="else") == first
    assert authority.kill(TENANT, reason="later", actor="else") == first
    assert authority.resume(TENANT, reason="fixed", actor="ops").state == "RUNNING"
    assert authority.pause(TENANT, **WORDS).state == "PAUSED"
    assert authority.kill(TENANT, **WORDS).state == "KILLED"
    told = [event.type for event in events(authority, "control.killed", "control.paused", "control.resumed")]
    assert told == ["control.killed", "control.resumed", "control.paused", "control.killed"]


def test_resuming_what_runs_changes_nothing(authority: EmbeddedAuthority) -> None:
    before = ledger(authority)
    assert authority.resume(TENANT, **WORDS).state == "RUNNING"
    assert (ledger(authority), authority.stops()) == (before, [])


@pytest.mark.parametrize("target", ["*", TENANT, AGENT, "run"])
def test_a_stop_outlives_the_process(
    tmp_path: Path, open_ledger: Callable[[Path], EmbeddedAuthority], target: str
) -> None:
    authority = open_ledger(tmp_path / "ledger.db")
    budgets(authority)
    inside = run(authority, 50, BOT)
    authority.kill(f"run:{inside}" if target == "run" else target, **WORDS)
    authority.close()
    again = open_ledger(tmp_path / "ledger.db")
    with pytest.raises(Killed):
        hold(again, 1, BOT, run_id=inside)
    (stop,) = again.stops()
    assert (stop.state, stop.reason, stop.actor) == ("KILLED", "runaway", "ops")


def test_a_stop_by_another_process_is_seen_by_the_next_hold(
    tmp_path: Path, open_ledger: Callable[[Path], EmbeddedAuthority]
) -> None:
    worker, operator = open_ledger(tmp_path / "ledger.db"), open_ledger(tmp_path / "ledger.db")
    budgets(worker)
    held = hold(worker, 1, BOT)
    assert operator.kill(TENANT, **WORDS).in_flight == (held,)
    with pytest.raises(Killed):
        hold(worker, 1, BOT)
    operator.resume(TENANT, **WORDS)
    assert hold(worker, 1, BOT)


def test_stopped_tells_which_open_reservations_lie_below_a_stop(authority: EmbeddedAuthority) -> None:
    budgets(authority)
    inside = run(authority, 50, BOT)
    call, beside, settled = hold(authority, 1, BOT, run_id=inside), hold(authority, 1, ACME), hold(authority, 1, BOT)
    asked = [inside, call, beside, settled, "rsv_none"]
    assert authority.stopped(asked) == {}
    authority.commit(settled, tokens(1))
    authority.kill(f"run:{inside}", **WORDS)
    assert {it: stop.state for it, stop in authority.stopped(asked).items()} == {inside: "KILLED", call: "KILLED"}
    authority.pause("*", **WORDS)
    assert set(authority.stopped(asked)) == {inside, call, beside}
    authority.resume("*", **WORDS)
    authority.resume(f"run:{inside}", **WORDS)
    assert authority.stopped(asked) == {}


def test_the_log_keeps_who_why_and_what_was_in_flight(authority: EmbeddedAuthority) -> None:
    budgets(authority)
    held = hold(authority, 1)
    authority.kill(TENANT, **WORDS)
    (told,) = events(authority, "control.killed")
    assert (told.scope, told.data) == (
        TENANT,
        {"reason": "runaway", "actor": "ops", "in_flight": [held], "in_flight_count": 1},
    )


@pytest.mark.parametrize("verb", ["kill", "pause", "resume"])
@pytest.mark.parametrize(
    ("target", "words", "field"),
    [
        (TENANT, {"reason": "", "actor": "a"}, "reason"),
        (TENANT, {"reason": "  ", "actor": "a"}, "reason"),
        (TENANT, {"reason": "x" * 513, "actor": "a"}, "reason"),
        (TENANT, {"reason": None, "actor": "a"}, "reason"),
        (TENANT, {"reason": "\ud800", "actor": "a"}, "reason"),
        (TENANT, {"reason": "r", "actor": "x" * 129}, "actor"),
        (TENANT, {"reason": "r", "actor": 5}, "actor"),
        ("", {"reason": "r"}, "scope"),
        ("**", {"reason": "r"}, "scope"),
        ("acme", {"reason": "r"}, "scope"),
        (None, {"reason": "r"}, "scope"),
        ("run:", {"reason": "r"}, "run"),
        ("run:" + "x" * 129, {"reason": "r"}, "run"),
    ],
)
def test_a_stop_needs_a_scope_a_reason_and_an_actor(
    authority: EmbeddedAuthority, verb: str, target: str, words: dict[str, str], field: str
) -> None:
    with pytest.raises(InvalidRequest) as refused:
        getattr(authority, verb)(target, **words)
    assert refused.value.field == field
    assert (authority.stops(), authority.events()) == ([], [])


def test_a_kill_on_the_owner_of_a_run_reaches_whoever_acts_inside(authority: EmbeddedAuthority) -> None:
    budget(authority, TENANT, 1000)
    owner, helper = Subject(tenant="acme", agent="owner"), Subject(tenant="acme", agent="helper")
    whole = authority.start_run(owner, tokens(100))
    inside = authority.reserve(helper, CALL, tokens(10), run_id=whole.reservation_id)
    outside = authority.reserve(helper, CALL, tokens(10))
    assert inside.reservation_id
    assert outside.reservation_id
    stop = authority.kill("tenant:acme/agent:owner", reason="test", actor="me")
    assert set(stop.in_flight) == {whole.reservation_id, inside.reservation_id}
    assert set(authority.stopped([inside.reservation_id, outside.reservation_id])) == {inside.reservation_id}
    with pytest.raises(Killed):
        authority.reserve(helper, CALL, tokens(10), run_id=whole.reservation_id)
    with pytest.raises(Killed):
        authority.extend(inside.reservation_id, 1000)
    assert authority.reserve(helper, CALL, tokens(10)).allowed

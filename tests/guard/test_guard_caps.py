"""Caps are applied, not suggested."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from clearance.errors import CapsViolated
from clearance.guard.capskeeper import CapsKeeper
from clearance.model.action import action
from clearance.model.caps import Caps

SEARCH, MODEL = action("tool.call:search"), action("llm.completion:gpt")


@pytest.mark.parametrize(
    ("caps", "what", "allowed"),
    [
        (Caps(tool_allowlist=("search",)), SEARCH, True),
        (Caps(tool_allowlist=("mail",)), SEARCH, False),
        (Caps(tool_denylist=("search",)), SEARCH, False),
        (Caps(tool_allowlist=("mail",)), MODEL, True),
        (Caps(tool_denylist=("search",)), action("toolbox:search"), True),
    ],
)
def test_tool_lists_decide_about_tools_only(clock: Any, caps: Caps, what: Any, allowed: bool) -> None:
    keeper = CapsKeeper(clock)
    if allowed:
        keeper.admit("run_1", what, caps)
    else:
        with pytest.raises(CapsViolated, match="search"):
            keeper.admit("run_1", what, caps)


def test_n_more_steps_after_the_first_answer(clock: Any) -> None:
    keeper, caps = CapsKeeper(clock), Caps(max_steps_remaining=2)
    for _ in range(3):
        keeper.admit("run_1", MODEL, caps)
    for _ in range(2):
        with pytest.raises(CapsViolated, match="no steps left"):
            keeper.admit("run_1", MODEL, caps)
    keeper.admit("run_2", MODEL, caps)


def test_steps_that_the_authority_counts_down_itself_are_not_counted_twice(clock: Any) -> None:
    keeper = CapsKeeper(clock)
    for left in (2, 1, 0):
        keeper.admit("run_1", MODEL, Caps(max_steps_remaining=left))
    with pytest.raises(CapsViolated):
        keeper.admit("run_1", MODEL, Caps(max_steps_remaining=0))


def test_an_answer_without_the_cap_lifts_it(clock: Any) -> None:
    keeper = CapsKeeper(clock)
    keeper.admit("run_1", MODEL, Caps(max_steps_remaining=0))
    keeper.admit("run_1", MODEL, None)
    keeper.admit("run_1", MODEL, Caps(max_steps_remaining=0))


def test_cooldown_counts_from_the_last_admission(clock: Any) -> None:
    keeper, caps = CapsKeeper(clock), Caps(cooldown_ms=1000)
    keeper.admit("run_1", MODEL, None)
    clock.advance(0.25)
    with pytest.raises(CapsViolated) as refused:
        keeper.admit("run_1", MODEL, caps)
    assert refused.value.retry_after_ms == 750
    clock.advance(0.75)
    keeper.admit("run_1", MODEL, caps)


def test_its_memory_is_bounded(clock: Any) -> None:
    keeper = CapsKeeper(clock, max_places=2)
    for run in ("a", "b", "c"):
        keeper.admit(run, MODEL, Caps(max_steps_remaining=0))
    keeper.admit("a", MODEL, Caps(max_steps_remaining=0))
    with pytest.raises(CapsViolated):
        keeper.admit("c", MODEL, Caps(max_steps_remaining=0))


def test_steps_are_counted_once_among_threads(clock: Any) -> None:
    keeper, caps, admitted = CapsKeeper(clock), Caps(max_steps_remaining=99), []

    def work() -> None:
        for _ in range(50):
            try:
                keeper.admit("run_1", MODEL, caps)
                admitted.append(1)
            except CapsViolated:
                pass

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(admitted) == 100


def test_a_violation_releases_and_the_body_does_not_run(authority: Any, acme: Any) -> None:
    authority.caps = Caps(tool_denylist=("search",))
    with pytest.raises(CapsViolated):
        authority.guard("tool.call:search", 5, subject=acme)(lambda: pytest.fail("ran"))()
    assert (authority.only().status, authority.only().reason) == ("RELEASED", "CapsViolated")


def test_steps_are_counted_per_run(authority: Any, acme: Any) -> None:
    authority.caps = Caps(max_steps_remaining=0, max_tokens=100)
    work = authority.guard("llm.completion:x", 5)(lambda: 1)
    for _ in range(2):
        with authority.run(acme):
            work()
            with pytest.raises(CapsViolated):
                work()
    assert authority.open() == []


def test_the_other_caps_are_there_for_the_caller(authority: Any, acme: Any) -> None:
    authority.caps = Caps(max_tokens=100, models=("small",))
    with authority.guard("llm.completion:x", 5, subject=acme) as permit:
        assert permit.caps == authority.caps


def test_observing_only_reports_a_violation(authority: Any, acme: Any) -> None:
    authority.caps = Caps(tool_denylist=("search",))
    assert authority.guard("tool.call:search", 5, subject=acme, dry_run="observe")(lambda: 42)() == 42
    assert authority.only().status == "COMMITTED"

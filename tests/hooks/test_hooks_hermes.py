"""The Hermes adapter with a turn that was recorded from the real one (hermes-agent 0.19, one tool call)."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from clearance.authority.budgets import BudgetSpec
from clearance.connecting import LocalAuthority, connect
from clearance.model.amount import usd
from clearance.model.caps import Caps, CapsRule
from clearance.model.subject import Subject
from clearance.pricing import PriceBook, Usage
from clearance.store.interface import ReservationQuery
from clearance_hooks import ClearancePlugin, Runner, Settings, hookimpl
from clearance_hooks.capabilities import HERMES
from clearance_hooks.hosts.hermes import HermesBridge
from clearance_hooks.settings import ToolTerms

RECORDED = [json.loads(line) for line in (Path(__file__).parent / "hermes_turn.jsonl").read_text().splitlines()]
RESPONSES = [it["event"]["response"] for it in RECORDED if it["hook"] == "llm_response"]
BOOK = PriceBook({"gpt-4o": {"input": "2.5", "output": "10"}, "small": {"input": "1", "output": "1"}})
COST = sum(
    BOOK.price(
        "gpt-4o", Usage(found["usage"]["prompt_tokens"], output_tokens=found["usage"]["completion_tokens"])
    ).amount
    for found in RESPONSES
)


def as_object(value: Any) -> Any:
    """The provider client's objects, as Hermes has them."""
    if isinstance(value, dict):
        return SimpleNamespace(**{key: as_object(inner) for key, inner in value.items() if key != "__type__"})
    return [as_object(inner) for inner in value] if isinstance(value, list) else value


class Replay:
    """Plays the recorded turn through one or more bridges, as Hermes does: nested execution, hooks one by one."""

    def __init__(
        self, authority: LocalAuthority, *, bridges: int = 1, runner: Runner | None = None, **options: Any
    ) -> None:
        self.authority = authority
        self.requests: list[dict[str, Any]] = []
        self.tool_runs = 0
        self.answers: list[Any] = []
        if runner is None:
            settings = Settings(subject=Subject(tenant="acme"), settle_window_ms=100, **options)
            plugin = ClearancePlugin(settings, HERMES, authority=authority, prices=BOOK)
            runner = Runner(capabilities=HERMES)
            runner.register(plugin, priority=-1000)
        self.runner = runner
        self.bridges = [HermesBridge(runner) for _ in range(bridges)]

    def play(self, fail: Callable[[], Exception] | None = None) -> None:
        responses = iter(RESPONSES)
        blocked = False
        for it in RECORDED:
            event = dict(it["event"])
            if it["hook"] == "llm_execution":
                self.answers.append(self._execute(event, as_object(next(responses)), fail))
            elif it["hook"] == "pre_tool_call":
                found = [bridge.pre_tool_call(**event) for bridge in self.bridges]
                blocked = any(found)
                self.tool_runs += not blocked
            elif it["hook"] == "post_tool_call":
                status = "blocked" if blocked else event["status"]
                for bridge in self.bridges:
                    bridge.post_tool_call(**{**event, "status": status})
            elif it["hook"] != "llm_response":
                for bridge in self.bridges:
                    getattr(bridge, it["hook"])(**event)

    def _execute(self, event: dict[str, Any], response: Any, fail: Callable[[], Exception] | None) -> Any:
        def provider(request: dict[str, Any]) -> Any:
            self.requests.append(request)
            if fail is not None:
                raise fail()
            return response

        call: Callable[[Any], Any] = provider
        for bridge in self.bridges:
            call = _nested(bridge, call, event)
        try:
            return call(event["request"])
        except Exception as error:
            return error

    @property
    def spent(self) -> int:
        return self.authority.balance("tenant:acme").spent

    def held(self) -> int:
        return len(self.authority.reservations(ReservationQuery(status="ACTIVE")).items)


def _nested(bridge: HermesBridge, call: Callable[[Any], Any], event: dict[str, Any]) -> Callable[[Any], Any]:
    rest = {key: value for key, value in event.items() if key != "request"}
    return lambda request: bridge.llm_execution(next_call=call, request=request, **rest)


@pytest.fixture
def authority() -> Iterator[LocalAuthority]:
    made = connect("memory://")
    assert isinstance(made, LocalAuthority)
    made.set_budget(BudgetSpec(scope="tenant:acme", allocated=usd("5")))
    yield made
    assert made.check() == []
    made.close()


def test_the_recorded_turn_is_charged_exactly(authority: LocalAuthority) -> None:
    replay = Replay(authority, run_budget=usd("3"))
    replay.play()
    assert (len(replay.requests), replay.tool_runs, replay.spent, replay.held()) == (2, 1, COST, 0)
    assert replay.answers[1].choices[0].message.content == "done"


def test_loaded_five_times_each_call_is_held_once(authority: LocalAuthority) -> None:
    replay = Replay(authority, bridges=5, tools={"echo": ToolTerms(cost=usd("0.05"))})
    replay.play()
    assert (len(replay.requests), replay.tool_runs, replay.spent) == (2, 1, COST + 5_000_000)
    assert len(authority.reservations(ReservationQuery(kind="call")).items) == 3


def test_a_refused_turn_makes_no_request_and_says_why(authority: LocalAuthority) -> None:
    authority.kill("tenant:acme", reason="mails everybody", actor="me")
    replay = Replay(authority)
    replay.play()
    assert (replay.requests, replay.tool_runs, replay.spent) == ([], 0, 0)
    answer = replay.answers[0]
    assert "mails everybody" in answer.choices[0].message.content
    assert (answer.choices[0].finish_reason, answer.usage.total_tokens) == ("stop", 0)


def test_a_refused_tool_does_not_run_and_is_not_charged(authority: LocalAuthority) -> None:
    replay = Replay(authority, tools={"echo": ToolTerms(cost=usd("0.05"), max_calls=0)})
    replay.play()
    assert (len(replay.requests), replay.tool_runs, replay.spent) == (2, 0, COST)


def test_a_tool_that_needs_an_approval_is_refused(authority: LocalAuthority) -> None:
    replay = Replay(authority, tools={"echo": ToolTerms(approval=True)})
    replay.play()
    assert replay.tool_runs == 0


@pytest.mark.parametrize("bridges", [1, 5])
def test_caps_reach_the_request(bridges: int, authority: LocalAuthority) -> None:
    caps = Caps(models=("small",), max_tokens=9, tool_denylist=("echo",))
    authority.set_budget(BudgetSpec(scope="tenant:acme", allocated=usd("5"), caps=(CapsRule(caps=caps),)))
    replay = Replay(authority, bridges=bridges)
    replay.play()
    assert [(it["model"], it["max_completion_tokens"], "tools" in it) for it in replay.requests] == [
        ("small", 9, False)
    ] * 2


class Refused(Exception):
    """As Hermes wraps what the provider's client raised."""

    def __init__(self, status_code: int) -> None:
        super().__init__("wrapped")
        self.original = type("ProviderError", (Exception,), {"status_code": status_code})()


@pytest.mark.parametrize(("status", "is_charged"), [(429, False), (500, True)])
def test_an_error_of_the_provider_passes_unchanged(status: int, is_charged: bool, authority: LocalAuthority) -> None:
    error = Refused(status)
    replay = Replay(authority)
    replay.play(fail=lambda: error)
    assert replay.answers == [error, error]
    assert (replay.spent > 0) is is_charged


def test_a_gate_that_fails_denies_and_raises_nothing(authority: LocalAuthority) -> None:
    class Broken(Runner):
        def before_agent_run(self, event: Any, ctx: Any) -> Any:
            raise RuntimeError("a fault of ours")

    replay = Replay(authority, runner=Broken(capabilities=HERMES))
    replay.play()
    assert (replay.requests, replay.tool_runs) == ([], 0)
    assert "RuntimeError" in replay.answers[0].choices[0].message.content


def test_events_without_what_they_should_have_raise_nothing(authority: LocalAuthority) -> None:
    runner = Runner(capabilities=HERMES)

    class Watching:
        @hookimpl
        def after_tool_call(self) -> None:
            raise ValueError

    runner.register(Watching())
    bridge = HermesBridge(runner)
    assert bridge.pre_llm_call() is None
    assert bridge.pre_tool_call() is None
    bridge.post_tool_call()
    bridge.on_session_end()
    assert bridge.llm_execution(lambda request: "answer", {}) == "answer"
    assert bridge.llm_execution(lambda request: "answer", None).choices[0].finish_reason == "stop"

"""The Clearance plugin on a real ledger: what is held and what is charged, in whatever order the host tells it."""

from __future__ import annotations

import asyncio
import logging
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from clearance.authority.budgets import BudgetSpec
from clearance.connecting import LocalAuthority, connect, default_prices
from clearance.errors import Killed
from clearance.model.amount import credits, usd
from clearance.model.caps import Caps, CapsRule
from clearance.model.subject import Subject
from clearance.pricing import PriceBook, Usage
from clearance.store.interface import ReservationQuery
from clearance_hooks import (
    AfterModelCall,
    AfterToolCall,
    AgentEnd,
    Approved,
    BeforeAgentRun,
    BeforeModelCall,
    BeforeModelResolve,
    BeforePromptBuild,
    BeforeToolCall,
    Block,
    ClearancePlugin,
    HookContext,
    Runner,
    Settings,
    hookimpl,
)
from clearance_hooks.capabilities import MINIHOST, OPENCLAW, Capabilities
from clearance_hooks.settings import Downgrade, ToolTerms

ACME = Subject(tenant="acme")
CTX = HookContext(run_id="r1", host="test", agent_id="bot")
BOOK = PriceBook({"big": {"input": "10", "output": "10"}, "small": {"input": "1", "output": "1"}})
"""A token of `big` costs 1000 microcents, one of `small` 100."""
CALL = BeforeModelCall(call_id="c1", model="big", est_input_tokens=100, max_output_tokens=100)
ESTIMATE = 200 * 1000
USED = Usage(input_tokens=10, output_tokens=20)
ACTUAL = 30 * 1000
DONE = AfterModelCall(call_id="c1", usage=USED, model="big")
TOOL = BeforeToolCall(tool="send", params={"to": "secret@example.org"}, tool_call_id="t1")
TOOL_DONE = AfterToolCall(tool="send", tool_call_id="t1")
COST = 5_000_000


class Desk:
    """A runner with the plugin on a ledger in memory, and questions to the ledger."""

    def __init__(self, authority: Any, **options: Any) -> None:
        self.authority = authority
        capabilities: Capabilities = options.pop("capabilities", MINIHOST)
        clock = options.pop("clock", time.monotonic)
        timeout_ms = options.pop("timeout_ms", 60_000)  # a busy machine is no hung handler
        settings = Settings(**{"subject": ACME, "settle_window_ms": 60_000, **options})
        self.plugin = ClearancePlugin(settings, capabilities, authority=authority, prices=BOOK, clock=clock)
        self.runner = Runner(capabilities=capabilities)
        self.runner.register(self.plugin, priority=-1000, timeout_ms=timeout_ms)
        self.plugin.bind(self.runner)

    def budget(self, amount: Any = "1.00", caps: Caps | None = None) -> None:
        rules = () if caps is None else (CapsRule(caps=caps),)
        self.authority.set_budget(BudgetSpec(scope="tenant:acme", allocated=amount, caps=rules))

    @property
    def spent(self) -> int:
        return int(self.authority.balance("tenant:acme").spent)

    def held(self) -> int:
        return len(self.authority.reservations(ReservationQuery(status="ACTIVE"), limit=200).items)

    def calls(self) -> list[Any]:
        found: list[Any] = self.authority.reservations(ReservationQuery(kind="call"), limit=200).items
        return found

    def begin(self, ctx: HookContext = CTX) -> Block | None:
        return self.runner.before_agent_run(BeforeAgentRun(), ctx).block

    def end(self, ctx: HookContext = CTX) -> None:
        self.runner.agent_end(AgentEnd(), ctx)

    def close(self) -> None:
        self.plugin.close()
        self.runner.close()


Make = Callable[..., Desk]


@pytest.fixture
def make() -> Iterator[Make]:
    made: list[Desk] = []

    def desk(authority: Any = None, **options: Any) -> Desk:
        made.append(Desk(authority or connect("memory://"), **options))
        made[-1].budget()
        return made[-1]

    yield desk
    for it in made:
        it.close()
        assert it.authority.check() == []
        assert it.held() == 0
        it.authority.close()


def wait_until(true: Callable[[], bool], timeout_s: float = 5.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not true():
        assert time.monotonic() < deadline, "it never became true"
        time.sleep(0.005)


# --- one run


def test_a_run_holds_and_charges_what_it_used(make: Make) -> None:
    desk = make(run_budget=usd("0.50"), tools={"send": ToolTerms(cost=usd("0.05"))})
    assert desk.begin() is None
    assert desk.runner.before_model_call(CALL, CTX).block is None
    assert desk.authority.balance("tenant:acme").reserved == 50_000_000
    desk.runner.after_model_call(DONE, CTX)
    assert desk.runner.before_tool_call(TOOL, CTX).block is None
    desk.runner.after_tool_call(TOOL_DONE, CTX)
    desk.end()
    assert desk.spent == ACTUAL + COST
    assert desk.held() == 0


def test_the_summary_says_what_the_run_did(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    desk = make(run_budget=usd("0.50"), tools={"send": ToolTerms(max_calls=0)})
    desk.begin()
    desk.runner.before_model_call(CALL, CTX)
    desk.runner.after_model_call(DONE, CTX)
    desk.runner.before_tool_call(TOOL, CTX)
    with caplog.at_level(logging.INFO, "clearance.hooks"):
        desk.end()
    assert "run r1: 1 model calls, 0 tool calls, 1 refused (TOOL_LIMIT); 0.0003 of 0.50 USD" in caplog.text
    summary = desk.plugin.summary("r1")
    assert summary is not None
    assert (summary.spent, summary.blocked, summary.budget) == (ACTUAL, {"TOOL_LIMIT": 1}, 50_000_000)


def test_without_enough_for_the_run_budget_the_run_is_blocked(make: Make) -> None:
    desk = make(run_budget=usd("2.00"))
    block = desk.begin()
    assert block is not None
    assert block.code == "BUDGET_EXCEEDED"
    assert desk.held() == 0


def test_a_run_cannot_spend_more_than_its_budget(make: Make) -> None:
    desk = make(run_budget=usd("0.003"))  # one estimate of 0.002, not two
    desk.begin()
    assert desk.runner.before_model_call(CALL, CTX).block is None
    second = BeforeModelCall(call_id="c2", model="big", est_input_tokens=100, max_output_tokens=100)
    block = desk.runner.before_model_call(second, CTX).block
    assert block is not None
    assert block.code == "BUDGET_EXCEEDED"
    desk.runner.after_model_call(DONE, CTX)
    desk.end()
    assert desk.spent == ACTUAL


def test_the_agent_of_the_host_narrows_the_subject_and_cannot_change_the_tenant(make: Make) -> None:
    desk = make()
    ctx = HookContext(run_id="r", host="test", agent_id="my bot!", tenant="other")
    desk.runner.before_tool_call(TOOL, ctx)
    (call,) = desk.calls()
    assert call.subject == {"tenant": "acme", "agent": "my-bot-"}


def test_the_host_adds_no_level_in_between_which_would_leave_out_a_budget(make: Make) -> None:
    desk = make(subject=Subject(tenant="acme", agent="bot"))
    desk.runner.before_tool_call(TOOL, HookContext(run_id="r", workspace="elsewhere", agent_id="x", toolset="mail"))
    (call,) = desk.calls()
    assert call.subject == {"tenant": "acme", "agent": "bot", "toolset": "mail"}


def test_a_tool_without_a_cost_is_checked_where_there_is_only_a_budget_of_credits(make: Make) -> None:
    authority = connect("memory://")
    authority.set_budget(BudgetSpec(scope="tenant:acme/agent:bot", allocated=credits(5)))
    desk = make(authority)
    desk.budget(credits(5))
    assert desk.runner.before_tool_call(TOOL, CTX).block is None
    desk.runner.after_tool_call(TOOL_DONE, CTX)
    desk.end()


def test_no_arguments_are_kept(make: Make) -> None:
    desk = make()
    desk.runner.before_tool_call(TOOL, CTX)
    (call,) = desk.calls()
    kept = str([event.as_dict() for event in desk.authority.events()]) + str(call)
    assert call.metadata["arguments_bytes"] == 28
    assert "secret@example.org" not in kept


# --- whatever the order


def test_usage_that_comes_after_the_end_of_the_run_is_charged(make: Make) -> None:
    desk = make(run_budget=usd("0.50"))
    desk.begin()
    desk.runner.before_model_call(CALL, CTX)
    desk.end()
    assert desk.plugin.summaries == type(desk.plugin.summaries)(maxlen=100)  # it waits
    desk.runner.after_model_call(DONE, CTX)
    assert (desk.spent, desk.held()) == (ACTUAL, 0)


def test_an_end_that_is_told_twice_is_charged_once(make: Make) -> None:
    desk = make()
    desk.begin()
    desk.runner.before_model_call(CALL, CTX)
    for _ in range(3):
        desk.runner.after_model_call(DONE, CTX)
    desk.end()
    desk.end()
    assert desk.spent == ACTUAL


def test_an_end_that_comes_while_the_gate_still_asks_settles_when_it_has_asked(make: Make) -> None:
    slow = Slow(connect("memory://"), "reserve")
    desk = make(slow)
    desk.begin()
    gate = threading.Thread(target=desk.runner.before_model_call, args=(CALL, CTX))
    gate.start()
    assert slow.entered.wait(5)
    desk.runner.after_model_call(DONE, CTX)
    slow.go.set()
    gate.join(5)
    desk.end()
    assert (desk.spent, desk.held()) == (ACTUAL, 0)


def test_after_the_settle_window_the_estimate_is_charged_and_late_usage_is_not_charged_again(make: Make) -> None:
    desk = make(settle_window_ms=50)
    desk.begin()
    desk.runner.before_model_call(CALL, CTX)
    desk.end()
    wait_until(lambda: desk.held() == 0)
    assert desk.spent == ESTIMATE
    desk.runner.after_model_call(DONE, CTX)
    assert desk.spent == ESTIMATE


def test_a_run_that_nobody_ends_is_ended_when_it_was_idle_for_long(make: Make) -> None:
    now = [1000.0]
    desk = make(clock=lambda: now[0], idle_run_ms=60_000, run_budget=usd("0.50"))
    desk.begin()
    now[0] += 61
    desk.plugin._turns.sweep()
    assert (desk.held(), desk.spent) == (0, 0)


def test_a_retry_with_the_same_run_id_is_a_run_of_its_own(make: Make) -> None:
    desk = make(run_budget=usd("0.50"))
    for attempt in (1, 2):
        ctx = HookContext(run_id="r1", attempt=attempt, host="test")
        desk.begin(ctx)
        desk.runner.before_model_call(CALL, ctx)
        desk.runner.after_model_call(DONE, ctx)
        desk.end(ctx)
    assert desk.spent == 2 * ACTUAL
    assert len({row.runs for row in desk.calls()}) == 2


def test_the_same_call_asked_again_is_held_once(make: Make) -> None:
    desk = make()
    desk.begin()
    assert [desk.runner.before_tool_call(TOOL, CTX).block for _ in range(5)] == [None] * 5
    assert len(desk.calls()) == 1


def test_another_call_with_an_id_that_is_in_flight_is_blocked(make: Make) -> None:
    desk = make()
    desk.runner.before_tool_call(TOOL, CTX)
    other = BeforeToolCall(tool="send", params={"to": "b"}, tool_call_id="t1")
    block = desk.runner.before_tool_call(other, CTX).block
    assert block is not None
    assert block.code == "DUPLICATE_CALL_ID"


def test_an_id_that_is_used_again_later_is_held_again(make: Make) -> None:
    desk = make(tools={"send": ToolTerms(cost=usd("0.05"))})
    for _ in range(3):
        desk.runner.before_tool_call(TOOL, CTX)
        desk.runner.after_tool_call(TOOL_DONE, CTX)
    desk.end()
    assert desk.spent == 3 * COST


# --- how calls end


@pytest.mark.parametrize(
    ("ended", "charged"),
    [
        (DONE, ACTUAL),
        (AfterModelCall(call_id="c1"), ESTIMATE),
        (AfterModelCall(call_id="c1", usage=USED), ACTUAL),
        (AfterModelCall(call_id="c1", usage=USED, model="small"), 30 * 100),
        (AfterModelCall(call_id="c1", usage=USED, model="nobody knows it"), ACTUAL),
        (AfterModelCall(call_id="c1", outcome="error", status_code=429), 0),
        (AfterModelCall(call_id="c1", outcome="error", status_code=500), ESTIMATE),
        (AfterModelCall(call_id="c1", outcome="error", status_code=429, usage=USED), ACTUAL),
        (AfterModelCall(call_id="c1", outcome="error"), ESTIMATE),
        (AfterModelCall(call_id="c1", outcome="cancelled"), ESTIMATE),
        (AfterModelCall(call_id="c1", outcome="blocked"), 0),
    ],
)
def test_a_model_call_is_charged_by_how_it_ended(ended: AfterModelCall, charged: int, make: Make) -> None:
    desk = make()
    desk.begin()
    desk.runner.before_model_call(CALL, CTX)
    desk.runner.after_model_call(ended, CTX)
    desk.end()
    assert desk.spent == charged


@pytest.mark.parametrize(
    ("outcome", "charged"), [("ok", COST), ("error", COST), ("cancelled", COST), ("blocked", 0), ("denied", 0)]
)
def test_a_tool_call_is_charged_by_how_it_ended(outcome: Any, charged: int, make: Make) -> None:
    desk = make(tools={"send": ToolTerms(cost=usd("0.05"))})
    desk.runner.before_tool_call(TOOL, CTX)
    desk.runner.after_tool_call(AfterToolCall(tool="send", tool_call_id="t1", outcome=outcome), CTX)
    desk.end()
    assert desk.spent == charged


def test_a_gate_that_blocks_after_the_plugin_has_held_gives_it_back(make: Make) -> None:
    desk = make(tools={"send": ToolTerms(cost=usd("0.05"), max_calls=1)})

    class Late:
        blocking = True

        @hookimpl
        def before_tool_call(self) -> Block | None:
            return Block("LATE") if self.blocking else None

    late = Late()
    desk.runner.register(late, id="late", priority=-2000)
    assert desk.runner.before_tool_call(TOOL, CTX).block is not None
    assert desk.held() == 1  # the run
    late.blocking = False
    assert desk.runner.before_tool_call(TOOL, CTX).block is None  # what was blocked does not count as a call
    desk.runner.after_tool_call(TOOL_DONE, CTX)
    desk.end()
    assert desk.spent == COST


# --- slow and absent authorities


class Slow:
    """An authority, one of whose verbs waits until it may go on."""

    def __init__(self, inner: LocalAuthority, verb: str) -> None:
        self.go, self.entered = threading.Event(), threading.Event()
        real = getattr(inner, verb)

        def waiting(*args: Any, **options: Any) -> Any:
            self.entered.set()
            self.go.wait(10)
            return real(*args, **options)

        setattr(inner, verb, waiting)
        self.inner = inner

    def __new__(cls, inner: LocalAuthority, verb: str) -> Any:
        made = object.__new__(cls)
        made.__init__(inner, verb)  # type: ignore[misc]
        inner.go, inner.entered = made.go, made.entered  # type: ignore[attr-defined]
        return inner


def test_what_a_slow_authority_grants_after_the_deadline_is_given_back(make: Make) -> None:
    slow = Slow(connect("memory://"), "reserve")
    desk = make(slow, timeout_ms=100, tools={"send": ToolTerms(cost=usd("0.05"))})
    desk.begin()
    for block in (desk.runner.before_model_call(CALL, CTX).block, desk.runner.before_tool_call(TOOL, CTX).block):
        assert block is not None
        assert block.code == "HOOK_TIMEOUT"
    slow.go.set()
    wait_until(lambda: [row.status for row in desk.calls()] == ["RELEASED"] * 2)
    desk.end()
    assert desk.spent == 0


@pytest.mark.parametrize("capabilities", [MINIHOST, OPENCLAW], ids=["calls", "whole turns"])
@pytest.mark.parametrize("ends", [True, False], ids=["ended before", "never ended"])
def test_a_run_that_a_slow_authority_opens_after_the_deadline_is_ended(
    capabilities: Capabilities, ends: bool, make: Make
) -> None:
    slow = Slow(connect("memory://"), "start_run")
    desk = make(slow, timeout_ms=100, run_budget=usd("0.50"), capabilities=capabilities)
    block = desk.begin()
    assert block is not None
    assert block.code == "HOOK_TIMEOUT"
    if ends:
        desk.end()
    slow.go.set()
    wait_until(lambda: len(desk.authority.reservations(ReservationQuery(kind="run")).items) == 1 and desk.held() == 0)
    assert desk.spent == 0


def test_a_call_is_given_back_that_was_held_after_a_run_which_opened_too_late(make: Make) -> None:
    slow = Slow(connect("memory://"), "start_run")
    desk = make(slow, timeout_ms=100)
    block = desk.runner.before_model_call(CALL, CTX).block
    assert block is not None
    assert block.code == "HOOK_TIMEOUT"
    slow.go.set()
    wait_until(lambda: [row.status for row in desk.calls()] == ["RELEASED"])
    desk.end()
    assert (desk.spent, desk.held()) == (0, 0)


@pytest.mark.parametrize("kind", ["model", "tool"])
def test_an_interrupted_host_leaves_nothing_held(kind: str, make: Make) -> None:
    slow = Slow(connect("memory://"), "reserve")
    desk = make(slow)
    desk.begin()

    def press_ctrl_c() -> None:
        assert slow.entered.wait(5)
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        threading.Thread(target=press_ctrl_c).start()
        with pytest.raises(KeyboardInterrupt):
            getattr(desk.runner, f"before_{kind}_call")(CALL if kind == "model" else TOOL, CTX)
    finally:
        signal.signal(signal.SIGINT, before)
    slow.go.set()
    wait_until(lambda: [row.status for row in desk.calls()] == ["RELEASED"])
    desk.end()
    assert desk.spent == 0


def test_a_cancelled_host_leaves_nothing_held(make: Make) -> None:
    slow = Slow(connect("memory://"), "reserve")
    desk = make(slow)
    desk.begin()

    async def host() -> None:
        task = asyncio.create_task(desk.runner.abefore_model_call(CALL, CTX))
        await asyncio.to_thread(slow.entered.wait, 5)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(host())
    slow.go.set()
    wait_until(lambda: [row.status for row in desk.calls()] == ["RELEASED"])
    desk.end()
    assert desk.spent == 0


# --- models


def test_a_budget_that_is_low_moves_the_call_down_the_chain(make: Make) -> None:
    desk = make(run_budget=usd("0.01"), downgrade=Downgrade(("big", "small"), below_percent=90))
    desk.begin()
    first = desk.runner.before_model_call(CALL, CTX)
    second = desk.runner.before_model_call(
        BeforeModelCall(call_id="c2", model="big", est_input_tokens=100, max_output_tokens=100), CTX
    )
    assert (first.model, second.model) == (None, "small")
    assert sorted(row.action["name"] for row in desk.calls()) == ["big", "small"]


@pytest.mark.parametrize("place", [0, 1])
def test_a_model_without_a_price_in_the_chain_is_passed_over(
    place: int, make: Make, caplog: pytest.LogCaptureFixture
) -> None:
    models = ["big", "small"]
    models.insert(place + 1, "unheard-of")
    chain = Downgrade(tuple(models), below_percent=90)
    desk = make(run_budget=usd("0.003"), downgrade=chain)
    desk.begin()
    assert desk.runner.before_model_call(CALL, CTX).model is None
    for number in (2, 3):
        asked = BeforeModelCall(call_id=f"c{number}", model="big", est_input_tokens=100, max_output_tokens=100)
        assert desk.runner.before_model_call(asked, CTX).model == "small"
    said = "the model 'unheard-of' has no price; it is passed over for the next that may be used"
    assert [record.getMessage() for record in caplog.records].count(said) == (1 if place == 0 else 0)


def test_a_chain_of_models_without_a_price_is_refused_for_the_first_reason(make: Make) -> None:
    desk = make(downgrade=Downgrade(("big", "unheard-of", "nobody-knows")))
    desk.budget("0.00001")
    block = desk.runner.before_model_call(CALL, CTX).block
    assert block is not None
    assert block.code == "BUDGET_EXCEEDED"


def test_no_run_is_sent_to_a_model_without_a_price(make: Make) -> None:
    chain = Downgrade(("big", "unheard-of", "small"), below_percent=100)
    desk = make(run_budget=usd("0.50"), downgrade=chain)
    desk.begin()
    desk.runner.before_model_call(CALL, CTX)
    asked = BeforeModelResolve(requested_model="big")
    assert desk.runner.before_model_resolve(asked, CTX).model == "small"
    desk.budget(caps=Caps(models=("unheard-of", "small")))
    assert desk.runner.before_model_resolve(asked, HookContext(run_id="r2", host="test")).model == "small"


def test_what_fits_nowhere_in_the_chain_is_blocked(make: Make) -> None:
    desk = make(downgrade=Downgrade(("big", "small")))
    desk.budget("0.00001")
    block = desk.runner.before_model_call(CALL, CTX).block
    assert block is not None
    assert block.code == "BUDGET_EXCEEDED"
    assert desk.calls() == []


def test_a_model_without_a_price_is_blocked(make: Make) -> None:
    desk = make()
    block = desk.runner.before_model_call(BeforeModelCall(call_id="c", model="unheard-of"), CTX).block
    assert block is not None
    assert block.code == "PRICE_UNKNOWN"


def test_prices_are_those_of_the_settings_else_of_the_book_that_all_share(make: Make) -> None:
    authority = make().authority

    def prices(settings: Settings) -> Any:
        return ClearancePlugin(settings, MINIHOST, authority=authority).ready().prices

    assert prices(Settings(subject=ACME)) is default_prices()
    own = prices(Settings(subject=ACME, prices={"mine": {"input": "1", "output": "1"}}))
    assert own.price("mine", USED) == usd("0.00003")


def test_a_call_whose_model_nobody_names_is_blocked(make: Make) -> None:
    desk = make()
    block = desk.runner.before_model_call(BeforeModelCall(call_id="c"), CTX).block
    assert block is not None
    assert block.code == "PRICE_UNKNOWN"


def test_caps_limit_the_output_and_choose_the_model(make: Make) -> None:
    desk = make()
    desk.budget(caps=Caps(max_tokens=7, models=("small",)))
    verdict = desk.runner.before_model_call(CALL, CTX)
    assert (verdict.block, verdict.model, verdict.max_output_tokens) == (None, "small", 7)
    assert desk.runner.before_model_resolve(BeforeModelResolve(requested_model="big"), CTX).model == "small"


def test_a_host_of_whole_turns_gets_its_model_when_the_turn_begins(make: Make) -> None:
    chain = Downgrade(("big", "small"), below_percent=50)
    desk = make(capabilities=OPENCLAW, run_budget=usd("0.50"), downgrade=chain)
    asked = BeforeModelResolve(requested_model="big")
    assert desk.runner.before_model_resolve(asked, CTX).model is None
    spent = Usage(input_tokens=30_000)  # 0.30 USD
    desk.runner.after_model_call(AfterModelCall(call_id="turn", usage=spent, model="big"), CTX)
    assert desk.runner.before_model_resolve(asked, CTX).model == "small"


def test_usage_of_a_whole_turn_may_come_after_its_end(make: Make) -> None:
    desk = make(capabilities=OPENCLAW, run_budget=usd("0.50"))
    desk.begin()
    desk.end()
    assert desk.held() == 1  # it waits
    desk.runner.after_model_call(AfterModelCall(call_id="turn", usage=USED, model="big"), CTX)
    assert (desk.spent, desk.held()) == (ACTUAL, 0)


def test_a_whole_turn_without_usage_is_charged_what_it_held(make: Make) -> None:
    desk = make(capabilities=OPENCLAW, run_budget=usd("0.50"), settle_window_ms=50)
    desk.begin()
    desk.runner.after_model_call(AfterModelCall(call_id="turn", model="big"), CTX)
    desk.end()
    wait_until(lambda: desk.held() == 0)
    assert desk.spent == 50_000_000


def test_a_whole_turn_that_was_certainly_free_is_charged_nothing(make: Make) -> None:
    desk = make(capabilities=OPENCLAW, run_budget=usd("0.50"))
    desk.begin()
    desk.runner.after_model_call(AfterModelCall(call_id="turn", outcome="error", status_code=429), CTX)
    desk.end()
    assert (desk.spent, desk.held()) == (0, 0)


def test_a_run_that_is_refused_has_no_outlook_and_no_error(make: Make) -> None:
    desk = make(run_budget=usd("9"))
    assert desk.runner.before_model_resolve(BeforeModelResolve(requested_model="big"), CTX).model is None
    assert desk.runner.counts == {}
    assert desk.begin() is not None


def test_a_host_of_whole_turns_is_charged_by_the_usage_that_it_tells(make: Make) -> None:
    desk = make(capabilities=OPENCLAW, run_budget=usd("0.50"))
    desk.begin()
    assert desk.authority.balance("tenant:acme").reserved == 50_000_000
    desk.runner.after_model_call(AfterModelCall(call_id="turn", usage=USED, model="big"), CTX)
    desk.runner.after_model_call(AfterModelCall(call_id="turn", usage=USED, model="big"), CTX)
    desk.end()
    assert (desk.spent, desk.held()) == (ACTUAL, 0)


# --- tools, approvals, prompt


def test_a_run_may_make_so_many_tool_calls(make: Make) -> None:
    desk = make(max_tool_calls=2)
    found = []
    for number in range(3):
        call = BeforeToolCall(tool=f"tool{number}", tool_call_id=str(number))
        found.append(desk.runner.before_tool_call(call, CTX).block)
    assert found[:2] == [None, None]
    assert found[2] is not None
    assert found[2].message == "A run may make 2 tool calls."


def test_a_tool_that_the_budget_wants_approved_waits_for_a_person(make: Make) -> None:
    desk = make()
    desk.budget(caps=Caps(approval_tools=("send",)))
    asked: list[Any] = []

    def approver(wanted: Any, event: Any) -> Approved:
        asked.append((wanted.title, desk.calls()))
        return Approved("alice")

    refused = desk.runner.before_tool_call(TOOL, CTX).block
    assert refused is not None
    assert refused.code == "APPROVAL_REQUIRED"
    assert desk.runner.before_tool_call(TOOL, CTX, approver).block is None
    assert asked[0][0] == "Run send?"
    open_calls = [row for row in desk.calls() if row.status == "ACTIVE"]
    assert len(open_calls) == 1
    assert open_calls[0].metadata["approved_by"] == "alice"


def test_the_hint_is_stable_text_and_forbidden_tools_are_hidden(make: Make) -> None:
    desk = make(budget_hint=True, run_budget=usd("0.50"))
    desk.budget(caps=Caps(tool_denylist=("send",)))
    first = desk.runner.before_prompt_build(BeforePromptBuild(tools=("send", "look")), CTX)
    assert first.tools_allow == ("look",)
    assert "more than 75% is left" in first.system_append
    desk.runner.before_model_call(CALL, CTX)
    assert desk.runner.before_prompt_build(BeforePromptBuild(tools=("send", "look")), CTX) == first


# --- one run in several threads


def at_once(work: Callable[[int], None], threads: int = 8) -> None:
    ready = threading.Barrier(threads)

    def started(number: int) -> None:
        ready.wait(10)
        work(number)

    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(started, range(threads)))


@pytest.mark.parametrize("limits", [{"max_tool_calls": 5}, {"tools": {"send": ToolTerms(max_calls=5)}}])
def test_threads_that_share_a_run_make_no_more_calls_than_it_may(limits: dict[str, Any], make: Make) -> None:
    desk = make(run_budget=usd("0.50"), **limits)
    allowed: list[str] = []
    began = threading.Barrier(8)

    def work(number: int) -> None:
        assert desk.begin() is None
        began.wait(10)
        for step in range(3 + number):  # some are done long before the others
            call = BeforeToolCall(tool="send", params={}, tool_call_id=f"{number}:{step}")
            if desk.runner.before_tool_call(call, CTX).block is None:
                allowed.append(call.tool_call_id)
                desk.runner.after_tool_call(AfterToolCall(tool="send", tool_call_id=call.tool_call_id), CTX)
        desk.end()

    at_once(work)
    assert len(allowed) == 5
    assert [row.runs for row in desk.calls()] == [desk.calls()[0].runs] * 5
    assert len(desk.authority.reservations(ReservationQuery(kind="run")).items) == 1
    assert desk.held() == 0


# --- kill, sub-agents, threads


def test_a_kill_is_told_to_the_other_plugins_and_refuses_what_follows(make: Make) -> None:
    desk = make()
    told = threading.Event()

    class Watcher:
        @hookimpl
        def kill_switch_changed(self, state: str) -> None:
            if state == "KILLED":
                told.set()

    desk.runner.register(Watcher())
    desk.begin()
    desk.authority.kill("tenant:acme", reason="test", actor="me")
    block = desk.runner.before_tool_call(TOOL, CTX).block
    assert block is not None
    assert block.code == Killed.code
    assert "test" in block.message
    assert told.wait(5)
    desk.authority.resume("tenant:acme", reason="over", actor="me")


def test_a_sub_agent_spends_from_the_run_that_started_it(make: Make) -> None:
    desk = make(run_budget=usd("0.0033"))
    child = HookContext(run_id="r2", host="test", parent_run_id="r1", agent_id="helper")
    desk.begin()
    desk.runner.before_model_call(CALL, CTX)
    desk.runner.after_model_call(DONE, CTX)
    assert desk.begin(child) is None
    assert desk.runner.before_model_call(CALL, child).block is None
    block = desk.runner.before_model_call(CALL, CTX).block
    assert block is not None
    assert block.code == "BUDGET_EXCEEDED"
    desk.runner.after_model_call(DONE, child)
    desk.end(child)
    desk.end()
    assert desk.spent == 2 * ACTUAL


def test_the_sub_agents_end_with_the_run_that_started_them(make: Make) -> None:
    desk = make(run_budget=usd("0.50"))
    child = HookContext(run_id="r2", host="test", parent_run_id="r1")
    desk.begin()
    desk.begin(child)
    desk.end()
    assert desk.held() == 0


def test_many_runs_at_a_time_are_charged_exactly(make: Make) -> None:
    desk = make(run_budget=usd("0.01"))

    def work(number: int) -> None:
        ctx = HookContext(run_id=f"run-{number}", host="test")
        assert desk.begin(ctx) is None
        for call in range(5):
            event = BeforeModelCall(call_id=str(call), model="big", est_input_tokens=100, max_output_tokens=100)
            assert desk.runner.before_model_call(event, ctx).block is None
            desk.runner.after_model_call(AfterModelCall(call_id=str(call), usage=USED, model="big"), ctx)
        desk.end(ctx)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(16)))
    assert desk.spent == 16 * 5 * ACTUAL
    assert len(desk.plugin.summaries) == 16


def test_a_stopping_host_ends_everything(make: Make) -> None:
    desk = make(run_budget=usd("0.50"))
    desk.begin()
    desk.runner.before_model_call(CALL, CTX)
    desk.runner.tell("host_stopping", deadline=time.monotonic() + 1)
    assert (desk.held(), desk.spent) == (0, ESTIMATE)

"""Denials are not tried again, attempts are counted each, and nothing is counted twice."""

from __future__ import annotations

import copy
import os
import pickle
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from langchain.agents.middleware import ModelFallbackMiddleware, ModelRetryMiddleware, SummarizationMiddleware
from langchain.chat_models import init_chat_model
from langchain_core.callbacks import AsyncCallbackHandler
from langchain_core.exceptions import ModelError
from langchain_core.language_models import FakeListLLM
from langchain_core.messages import AIMessage, HumanMessage
from langchain_world import ACME, World
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.types import RetryPolicy

import clearance_langchain
from clearance.connecting import connect
from clearance.errors import AuthorityUnavailable, BudgetExceeded, Denied, InvalidRequest, Killed
from clearance.model.amount import usd
from clearance_langchain import ClearanceCallbackHandler, govern_process, guard, is_guarded, stop_governing_process
from clearance_langchain.errors import fit

by_how = pytest.mark.parametrize("how", ["handler", "guard"])


def governed(world: World, how: str, model: Any) -> tuple[Any, dict[str, Any]]:
    return (model, {"callbacks": [world.handler()]}) if how == "handler" else (world.guard(model), {})


def denials(world: World) -> int:
    return sum(event.type == "reservation.denied" for event in world.authority.events(limit=100))


# --- the error


def test_a_denial_is_clearances_and_langchains_error(world: World) -> None:
    world.authority.kill("tenant:acme", reason="test")
    with pytest.raises(Killed) as caught:
        world.guard(world.model()).invoke("hi")
    error = caught.value
    assert isinstance(error, Denied)
    assert isinstance(error, ModelError)
    assert isinstance(error, PermissionError)
    assert error.is_retryable is False
    assert (error.reason_code, error.scope) == ("KILLED", "tenant:acme")
    assert type(error).__name__ == "Killed"


def test_a_denial_can_be_pickled_and_stays_one() -> None:
    error = fit(BudgetExceeded("too little", scope="tenant:acme", details={"remaining": 1}))
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), again.message, again.details) == (type(error), "too little", {"remaining": 1})
    assert isinstance(again, ModelError)


def test_an_outage_is_not_made_a_denial() -> None:
    error = AuthorityUnavailable("nobody there")
    assert fit(error) is error
    assert not isinstance(error, ModelError)
    assert fit(fit(BudgetExceeded("x"))).message == "x"


# --- retries


@pytest.mark.parametrize("how", ["handler", "guard", "middleware"])
def test_retry_middleware_does_not_try_a_denial_again(world: World, how: str) -> None:
    world.authority.kill("tenant:acme", reason="test")
    retry = ModelRetryMiddleware(max_retries=3, initial_delay=0, on_failure="error")
    ours = [world.middleware(on_deny="raise")] if how == "middleware" else []
    model, config = (world.model(), {}) if how == "middleware" else governed(world, how, world.model())
    with pytest.raises(Killed):
        world.agent(model, middleware=[retry, *ours]).invoke({"messages": "hi"}, config)
    assert (world.requests, denials(world)) == (0, 1)


@by_how
def test_a_graphs_retry_policy_does_not_try_a_denial_again(world: World, how: str) -> None:
    world.authority.kill("tenant:acme", reason="test")
    model, config = governed(world, how, world.model())
    graph = StateGraph(MessagesState)
    node: Any = lambda state: {"messages": [model.invoke("hi")]}  # noqa: E731
    graph.add_node("talk", node, retry_policy=RetryPolicy(max_attempts=3, initial_interval=0.01))
    graph.add_edge(START, "talk")
    graph.add_edge("talk", END)
    with pytest.raises(Killed):
        graph.compile().invoke({"messages": []}, config)
    assert denials(world) == 1


@by_how
def test_with_retry_asks_each_time_unless_told_otherwise(world: World, how: str) -> None:
    world.authority.kill("tenant:acme", reason="test")
    model, config = governed(world, how, world.model())
    with pytest.raises(Killed):
        model.with_retry(stop_after_attempt=3, wait_exponential_jitter=False).invoke("hi", config)
    assert (world.requests, denials(world)) == (0, 3)
    with pytest.raises(Killed):
        model.with_retry(retry_if_exception_type=(ConnectionError,)).invoke("hi", config)
    assert denials(world) == 4


@pytest.mark.parametrize("how", ["handler", "guard", "middleware"])
def test_each_attempt_is_reserved(world: World, how: str) -> None:
    world.sim.fail_next(500, times=2)
    retry = ModelRetryMiddleware(max_retries=3, initial_delay=0, jitter=False)
    ours = [world.middleware()] if how == "middleware" else []
    model, config = (world.model(), {}) if how == "middleware" else governed(world, how, world.model())
    world.agent(model, middleware=[retry, *ours]).invoke({"messages": "hi"}, config)
    assert (world.requests, len(world.all("COMMITTED"))) == (3, 3)
    estimates = sorted(it.estimate for it in world.all())
    assert world.spent() == 2 * estimates[0] + world.cost


def test_a_guarded_model_has_no_retries_of_its_own_that_nobody_sees(world: World) -> None:
    world.sim.fail_next(500, times=10)
    for model, requests in (
        (world.guard(world.model(max_retries=2)), 1),
        (world.guard(world.model(max_retries=1), sdk_retries=True), 2),
    ):
        before = world.requests
        with pytest.raises(Exception, match="500"):
            model.invoke("hi")
        assert world.requests - before == requests


# --- fallbacks


@by_how
@pytest.mark.parametrize("is_async", [False, True])
def test_a_fallback_is_one_more_call(world: World, how: str, is_async: bool) -> None:
    world.sim.fail_next(500, model="gpt-5.2")
    model, config = governed(world, how, world.model(model="gpt-5.2").with_fallbacks([world.model()]))
    if is_async:
        world.run(model.ainvoke("hi", config))
    else:
        model.invoke("hi", config)
    dear = next(it for it in world.all() if it.action["name"] == "gpt-5.2")
    assert world.requests == len(world.all()) == 2
    assert world.spent() == dear.estimate + world.cost


def test_guard_goes_into_fallbacks_and_bindings(world: World) -> None:
    made = world.guard(world.model().bind(stop=["x"]).with_fallbacks([world.model().bind_tools([world.tool()])]))
    assert is_guarded(made.runnable.bound)
    assert is_guarded(made.fallbacks[0].bound)
    world.authority.kill("tenant:acme", reason="test")
    with pytest.raises(Killed):
        made.invoke("hi")
    assert (world.requests, denials(world)) == (0, 2)


def test_a_denial_of_the_dear_model_leads_to_the_cheap_one(make_world: Callable[..., World]) -> None:
    world = make_world(budget="0.0002")
    agent = world.agent(
        world.model(model="gpt-5.2"),
        middleware=[ModelFallbackMiddleware(world.model()), world.middleware(on_deny="raise")],
    )
    agent.invoke({"messages": "hi"})
    assert [request.model for request in world.sim.requests] == ["gpt-4o-mini"]
    assert world.spent() == world.cost


# --- once


def _three(world: World) -> dict[str, Any]:
    handler = world.handler()
    return {"callbacks": [handler, handler, world.handler()]}


@pytest.mark.parametrize("is_async", [False, True])
def test_handlers_guard_and_middleware_together_count_once(world: World, is_async: bool) -> None:
    agent = world.agent(
        world.guard(world.guard(world.model())), world.guard([world.tool()]), middleware=[world.middleware()]
    )
    govern_process(world.authority, ACME)
    try:
        if is_async:
            world.run(agent.ainvoke({"messages": "hi"}, _three(world)))
        else:
            agent.invoke({"messages": "hi"}, _three(world))
    finally:
        stop_governing_process()
    assert len(world.all()) == world.requests + len(world.tool_runs) == 3
    assert world.spent() == world.cost


def test_handlers_of_two_authorities_count_for_both(make_world: Callable[..., World]) -> None:
    one = make_world()
    two = World(one.stage, connect("memory://"))
    two.budget()
    one.model().invoke("hi", {"callbacks": [one.handler(), two.handler()]})
    assert one.spent() == two.spent() == one.cost
    two.authority.close()


def test_a_model_inside_a_guarded_tool_is_counted_by_the_handler(world: World) -> None:
    inner = world.model()
    tool = world.guard(world.tool(work=lambda word: str(inner.invoke(word).content)))
    tool.invoke({"word": "x"}, {"callbacks": [world.handler()]})
    assert len(world.all()) == 2
    assert world.spent() == world.cost > 0


def test_metadata_from_outside_does_not_pass_for_a_guard(world: World) -> None:
    config: Any = {"callbacks": [world.handler()], "metadata": {"clearance_governed": "0123456789abcdef"}}
    world.model(metadata={"clearance_governed": True}).invoke("hi", config)
    assert len(world.all()) == 1


def test_hidden_calls_of_other_middleware_are_seen_where_guarded_or_handled(world: World) -> None:
    summary = SummarizationMiddleware(model=world.guard(world.model()), trigger=("messages", 3), keep=("messages", 1))
    agent = world.agent(world.model(), middleware=[summary, world.middleware()])
    history = [HumanMessage("one"), AIMessage("two"), HumanMessage("three"), AIMessage("four"), HumanMessage("five")]
    agent.invoke({"messages": history})
    assert world.requests == len(world.all()) == 2
    assert world.spent() == world.cost


# --- the process


@pytest.fixture
def process(world: World) -> Iterator[World]:
    govern_process(world.authority)
    yield world
    stop_governing_process()


@pytest.mark.parametrize("where", ["here", "callbacks=[]", "raw thread", "batch"])
def test_the_process_wide_handler_cannot_be_gone_round(process: World, where: str) -> None:
    model = process.model()
    caught: list[BaseException] = []

    def work() -> None:
        try:
            if where == "batch":
                model.batch(["hi", "ho"])
            else:
                model.invoke("hi", {"callbacks": []} if where == "callbacks=[]" else None)
        except Denied as error:
            caught.append(error)

    if where == "raw thread":
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
    else:
        work()
    assert [error.reason_code for error in caught] == ["SUBJECT_MISSING"]  # type: ignore[attr-defined]
    assert process.requests == 0


def test_the_process_wide_handler_finds_the_run(process: World) -> None:
    with process.authority.run(ACME, budget=usd("0.5")):
        process.model().invoke("hi")
    assert process.spent() == process.cost > 0


def test_the_environment_variable_alone_governs_a_process(world: World, tmp_path: Any) -> None:
    code = (
        "import clearance_langchain\n"
        "from langchain_core.language_models import FakeListLLM\n"
        "FakeListLLM(responses=['x']).invoke('hi')\n"
    )
    env = {
        **os.environ,
        "CLEARANCE_LANGCHAIN": "1",
        "CLEARANCE_URL": str(tmp_path / "ledger.db"),
        "PYTHONPATH": os.pathsep.join(sys.path),
    }
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert "PriceUnknown" in done.stderr or "SubjectMissing" in done.stderr


# --- what guard takes and gives


def test_guarded_objects_keep_their_class_and_are_copies(world: World) -> None:
    model, tool = world.model(), world.tool()
    guarded, guarded_tool = world.guard(model), world.guard(tool)
    assert isinstance(guarded, type(model))
    assert type(guarded).__qualname__ == type(model).__qualname__
    assert isinstance(guarded_tool, type(tool))
    assert not is_guarded(model)
    assert not is_guarded(tool)
    assert is_guarded(copy.copy(guarded))
    assert is_guarded(guarded.model_copy(update={"temperature": 1}))
    assert guarded.lc_id() == model.lc_id()
    assert guarded._llm_type == model._llm_type


def test_guarding_again_replaces_the_settings(world: World) -> None:
    world.guard(world.guard(world.model(), None), ACME).invoke("hi")
    assert len(world.all()) == 1


def test_functions_become_tools_and_the_providers_own_tools_stay(world: World) -> None:
    def add(a: int, b: int) -> int:
        """Add."""
        return a + b

    search = {"type": "web_search"}
    made, same = world.guard([add, search])
    assert made.invoke({"a": 1, "b": 2}) == 3
    assert same is search
    assert world.only().action["name"] == "add"


@pytest.mark.parametrize(
    ("obj", "hint"),
    [
        (FakeListLLM(responses=["x"]), "ClearanceCallbackHandler"),
        (init_chat_model(configurable_fields=("model",)), "configurable"),
        (5, "cannot be guarded"),
        ("model", "cannot be guarded"),
    ],
)
def test_what_cannot_be_guarded_is_refused_with_a_reason(world: World, obj: Any, hint: str) -> None:
    with pytest.raises(InvalidRequest, match=hint):
        guard(obj, world.authority, ACME)


def test_a_wrong_option_or_subject_is_refused(world: World) -> None:
    with pytest.raises(TypeError):
        guard(world.model(), world.authority, ACME, tool_price={})  # type: ignore[call-overload]
    with pytest.raises(InvalidRequest, match="subject"):
        world.handler("tenant:acme")  # type: ignore[arg-type]
    with pytest.raises(InvalidRequest, match="on_deny"):
        world.middleware(on_deny="shrug")


def test_the_handler_is_sync_raising_and_inline() -> None:
    """Anything else fails open somewhere: errors of async handlers are swallowed in sync calls."""
    assert ClearanceCallbackHandler.raise_error is True
    assert ClearanceCallbackHandler.run_inline is True
    assert not issubclass(ClearanceCallbackHandler, AsyncCallbackHandler)


def test_the_public_names() -> None:
    assert all(hasattr(clearance_langchain, name) for name in clearance_langchain.__all__)
    with pytest.raises(AttributeError):
        clearance_langchain.nothing  # noqa: B018

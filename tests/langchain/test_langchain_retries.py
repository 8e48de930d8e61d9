"""Denials are not tried again, and each attempt and each fallback is a call of its own."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import Any

import pytest
from langchain.agents.middleware import ModelFallbackMiddleware, ModelRetryMiddleware
from langchain_core.exceptions import ModelError
from langchain_world import World
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.types import RetryPolicy

from clearance.errors import AuthorityUnavailable, BudgetExceeded, Denied, Killed
from clearance_langchain import is_guarded
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

"""Batches that fail, other people's handlers, and kills in flight: nothing stays open."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.messages import HumanMessage
from langchain_world import ACME, LONG, World, drain, governed, settled_as_estimated

from clearance.errors import BudgetExceeded, Killed
from clearance.simulator import Reply, ScriptedRequest

pytestmark = [
    pytest.mark.filterwarnings("ignore::langchain_core._api.beta_decorator.LangChainBetaWarning"),
    pytest.mark.filterwarnings("ignore:Unexpected type for token usage"),  # LangChain's, for two prompts at once
]

by_how = pytest.mark.parametrize("how", ["handler", "guard", "both"])


@by_how
def test_a_prompt_that_fails_among_three(make_world: Callable[..., World], how: str) -> None:
    def second_fails(request: ScriptedRequest) -> Reply:
        return Reply(status=400) if request.user_text == "ho" else Reply(text="well")

    world = make_world(second_fails)
    model, config = governed(world, how)
    prompts = [[HumanMessage(word)] for word in ("hi", "ho", "hu")]
    with pytest.raises(Exception, match="400"):
        model.generate(prompts, callbacks=config["callbacks"])
    assert (world.requests, world.open()) == (2, 0)
    assert world.spent() >= world.cost > 0
    statuses = sorted(it.status for it in world.all())
    assert statuses == (["COMMITTED", "RELEASED", "RELEASED"] if how == "handler" else ["COMMITTED", "RELEASED"])


@pytest.mark.parametrize("is_async", [False, True])
def test_a_second_prompt_that_is_denied_frees_the_first(make_world: Callable[..., World], is_async: bool) -> None:
    world = make_world(budget="0.00005")
    prompts = [[HumanMessage("hi")], [HumanMessage("ho")]]
    model, config = governed(world, "handler")
    callbacks = config["callbacks"]
    given: dict[str, Any] = {"messages": prompts, "callbacks": callbacks}
    with pytest.raises(BudgetExceeded):
        _ = world.run(model.agenerate(**given)) if is_async else model.generate(**given)
    assert (world.requests, world.open(), world.spent()) == (0, 0, 0)
    assert [it.status for it in world.all()] == ["RELEASED"]


# --- other people's handlers


class Breaks(BaseCallbackHandler):
    raise_error = True
    run_inline = True

    def __init__(self, event: str) -> None:
        self._event = event

    def on_chat_model_start(self, *args: Any, **kwargs: Any) -> None:
        if self._event == "start":
            raise RuntimeError("their bug")

    def on_llm_end(self, *args: Any, **kwargs: Any) -> None:
        if self._event == "end":
            raise RuntimeError("their bug")


@by_how
@pytest.mark.parametrize("event", ["start", "end"])
@pytest.mark.parametrize("first", [False, True])
def test_a_handler_of_somebody_else_that_raises(world: World, how: str, event: str, first: bool) -> None:
    model, config = governed(world, how)
    ours = config["callbacks"]
    callbacks = [Breaks(event), *ours] if first else [*ours, Breaks(event)]
    with world.authority.run(ACME), pytest.raises(RuntimeError, match="their bug"):
        world.agent(model).invoke({"messages": "hi"}, {"callbacks": callbacks})
    assert world.open() == 0
    assert world.spent() >= world.cost


# --- stopped while it runs


@pytest.mark.parametrize("how", ["guard", "both"])
@pytest.mark.parametrize("path", ["ainvoke", "agent", "stream"])
def test_a_kill_ends_a_call_in_flight(make_world: Callable[..., World], how: str, path: str) -> None:
    world = make_world(LONG)
    model, config = governed(world, how, "+slow-5000" if path != "stream" else "+drip-50")

    async def work() -> None:
        if path == "ainvoke":
            await model.ainvoke("hi", config)
        elif path == "agent":
            await world.agent(model).ainvoke({"messages": "hi"}, config)
        else:
            async for _ in model.astream("hi", config):
                pass

    begun = time.monotonic()
    threading.Timer(0.2, lambda: world.authority.kill("tenant:acme", reason="enough")).start()
    with pytest.raises(Killed):
        world.run(work())
    assert time.monotonic() - begun < 3.0
    world.rest()
    settled_as_estimated(world)


@by_how
@pytest.mark.parametrize("path", ["stream", "astream", "executor"])
def test_a_kill_ends_a_stream_in_flight(make_world: Callable[..., World], how: str, path: str) -> None:
    world = make_world(LONG)
    model, config = governed(world, how, "+drip-50")

    ways: dict[str, Callable[[], Any]] = {
        "stream": lambda: list(model.stream("hi", config)),
        "astream": lambda: world.run(drain(model.astream("hi", config))),
        "executor": lambda: world.executor(model, [world.tool()]).invoke({"input": "hi"}, config),
    }
    threading.Timer(0.2, lambda: world.authority.kill("tenant:acme", reason="enough")).start()
    begun = time.monotonic()
    with pytest.raises(Killed):
        ways[path]()
    assert time.monotonic() - begun < 3.0
    settled_as_estimated(world)


def test_under_a_handler_a_call_that_does_not_stream_ends_by_itself_and_is_the_last(world: World) -> None:
    model, config = governed(world, "handler", "+slow-500")
    threading.Timer(0.1, lambda: world.authority.kill("tenant:acme", reason="enough")).start()
    with pytest.raises(Killed):
        world.run(world.executor(model, [world.tool()], stream_runnable=False).ainvoke({"input": "hi"}, config))
    assert (world.requests, world.tool_runs) == (1, [])
    assert world.spent() == world.cost

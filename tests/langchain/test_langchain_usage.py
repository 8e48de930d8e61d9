"""What a call has cost, in every shape in which LangChain tells it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from langchain_core.caches import InMemoryCache
from langchain_core.messages import HumanMessage
from langchain_world import MODEL, PRICES, World

from clearance.errors import Denied, PriceUnknown
from clearance.pricing import PriceBook, Usage

by_how = pytest.mark.parametrize("how", ["handler", "guard", "both"])
BOOK = PriceBook({"fake": {"input": "1.00", "cached_input": "0.10", "output": "10.00"}})
PER_TOKEN = 100  # microcents at 1 USD a million


def governed(world: World, how: str, model: Any, **options: Any) -> tuple[Any, dict[str, Any]]:
    callbacks = [world.handler(**options)] if how in ("handler", "both") else []
    return (model if how == "handler" else world.guard(model, **options)), {"callbacks": callbacks}


@by_how
@pytest.mark.parametrize("api", [{}, {"use_responses_api": True}], ids=["chat", "responses"])
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("faults", ["", "+cached-1", "+reasoning-20"])
def test_cached_and_reasoning_tokens_are_priced_apart(
    world: World, how: str, api: dict[str, Any], stream: bool, faults: str
) -> None:
    model, config = governed(world, how, world.model(faults, **api))
    if stream:
        list(model.stream("hello there, my friend", config))
    else:
        model.invoke("hello there, my friend", config)
    (request,) = world.sim.requests
    assert world.spent() == world.cost == request.cost
    if "cached" in faults:
        assert request.usage.cached_input_tokens == 1
    if "reasoning" in faults:
        assert request.usage.reasoning_tokens == 20


@by_how
def test_several_answers_have_one_usage(world: World, how: str) -> None:
    model, config = governed(world, how, world.model(n=3))
    model.invoke("hi", config)
    assert world.spent() == world.cost > 0


@by_how
def test_the_model_that_served_sets_the_price(make_world: Callable[..., World], how: str) -> None:
    from clearance.simulator import Reply

    world = make_world(lambda request: Reply(text="hello", model="gpt-5.2-2026-01-01"))
    model, config = governed(world, how, world.model())
    model.invoke("hi", config)
    (request,) = world.sim.requests
    usage = Usage(input_tokens=request.usage.input_tokens, output_tokens=request.usage.output_tokens)
    assert world.spent() == PRICES.book.price("gpt-5.2", usage).amount


@by_how
def test_a_served_name_without_a_price_falls_back_to_the_one_asked_for(
    make_world: Callable[..., World], how: str
) -> None:
    from clearance.simulator import Reply

    world = make_world(lambda request: Reply(text="hello", model="somebodys-finetune"))
    model, config = governed(world, how, world.model())
    model.invoke("hi", config)
    (request,) = world.sim.requests
    usage = Usage(input_tokens=request.usage.input_tokens, output_tokens=request.usage.output_tokens)
    assert world.spent() == PRICES.book.price(MODEL, usage).amount


@by_how
def test_a_stream_that_does_not_tell_its_usage_is_charged_as_estimated(world: World, how: str) -> None:
    model, config = governed(world, how, world.model(stream_usage=False))
    list(model.stream("hi", config))
    assert world.spent() == world.only().estimate >= world.cost


def test_guard_can_make_streams_tell_their_usage(world: World) -> None:
    model = world.guard(world.model(stream_usage=False), stream_usage=True)
    list(model.stream("hi"))
    model.invoke("hi")
    assert world.spent() == world.cost


@by_how
def test_an_answer_without_usage_is_charged_as_estimated(world: World, how: str) -> None:
    model, config = governed(world, how, world.model("+nousage"))
    model.invoke("hi", config)
    assert world.spent() == world.only().estimate


@by_how
def test_an_unknown_model_is_denied(world: World, how: str) -> None:
    model, config = governed(world, how, world.model(model="nobody-knows"), prices=PriceBook())
    with pytest.raises(PriceUnknown):
        model.invoke("hi", config)
    assert world.requests == 0


@by_how
def test_an_answer_from_langchains_cache_is_free(world: World, how: str) -> None:
    model, config = governed(world, how, world.model(cache=InMemoryCache()))
    for _ in range(3):
        model.invoke("hi", config)
    assert world.requests == 1
    assert world.spent() == world.cost


def test_a_cached_answer_is_not_denied_to_a_guarded_model_and_a_denial_is_not_cached(world: World) -> None:
    model = world.guard(world.model(cache=InMemoryCache()))
    world.authority.pause("tenant:acme", reason="test")
    with pytest.raises(Denied):
        model.invoke("hi")
    world.authority.resume("tenant:acme", reason="test")
    model.invoke("hi")
    world.authority.pause("tenant:acme", reason="test")
    model.invoke("hi")
    assert world.requests == 1


@by_how
@pytest.mark.parametrize(
    "text", ["hello " * 200, "こんにちは" * 100, "\U0001f600" * 100, ""], ids=["english", "japanese", "emoji", "empty"]
)
def test_no_call_costs_more_than_was_held(world: World, how: str, text: str) -> None:
    model, config = governed(world, how, world.model().bind_tools([world.tool()]))
    model.invoke([HumanMessage(text)], config)
    it = world.only()
    assert it.actual is not None
    assert it.actual <= it.estimate

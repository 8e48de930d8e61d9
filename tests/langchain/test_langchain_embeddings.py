"""Embeddings, which no handler hears of."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from langchain_core.embeddings import DeterministicFakeEmbedding, Embeddings
from langchain_openai import OpenAIEmbeddings
from langchain_world import ACME, World

from clearance.errors import BudgetExceeded, InvalidRequest, Killed, PriceUnknown, SubjectMissing
from clearance.pricing import PriceBook, Usage
from clearance_langchain import guard_embeddings

PRICES = PriceBook({"text-embedding-3-small": {"input": "0.02", "output": "0"}})
WAYS: dict[str, Callable[[World, Embeddings], Any]] = {
    "documents": lambda world, made: made.embed_documents(["hello", "there"]),
    "query": lambda world, made: made.embed_query("hello"),
    "async documents": lambda world, made: world.run(made.aembed_documents(["hello", "there"])),
    "async query": lambda world, made: world.run(made.aembed_query("hello")),
}
by_way = pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)


@pytest.fixture
def embeddings(world: World) -> OpenAIEmbeddings:
    return world.embeddings()


@by_way
def test_a_call_is_charged_no_less_than_it_costs(world: World, embeddings: OpenAIEmbeddings, way: Any) -> None:
    way(world, guard_embeddings(embeddings, world.authority, ACME, prices=PRICES))
    assert world.requests == 1
    it = world.only()
    assert it.action == {"kind": "llm.embedding", "name": "text-embedding-3-small"}
    (request,) = world.sim.requests
    cost = PRICES.price("text-embedding-3-small", Usage(input_tokens=request.usage.input_tokens)).amount
    assert world.spent() == it.estimate >= cost > 0


@by_way
def test_a_killed_scope_embeds_nothing(world: World, embeddings: OpenAIEmbeddings, way: Any) -> None:
    world.authority.kill("tenant:acme", reason="test")
    with pytest.raises(Killed):
        way(world, guard_embeddings(embeddings, world.authority, ACME, prices=PRICES))
    assert world.requests == 0


def test_the_public_list_prices_openais_embeddings(world: World, embeddings: OpenAIEmbeddings) -> None:
    guard_embeddings(embeddings, world.authority, ACME, prices=PriceBook()).embed_query("hello")
    (request,) = world.sim.requests
    assert world.spent() == world.only().estimate >= request.usage.input_tokens * 2 > 0


def test_the_budget_and_the_subject_hold(make_world: Callable[..., World], embeddings: OpenAIEmbeddings) -> None:
    world = make_world(budget="0.00000001")
    with pytest.raises(BudgetExceeded):
        guard_embeddings(embeddings, world.authority, ACME, prices=PRICES).embed_query(
            "a long text, longer than the budget" * 9
        )
    with pytest.raises(SubjectMissing):
        guard_embeddings(embeddings, world.authority, prices=PRICES).embed_query("hello")
    assert world.requests == 0


def test_an_error_of_the_provider_is_settled(world: World, embeddings: OpenAIEmbeddings) -> None:
    made = guard_embeddings(embeddings, world.authority, ACME, prices=PRICES)
    for status, spent in ((429, 0), (500, 1)):
        world.sim.fail_next(status)
        with pytest.raises(Exception, match=str(status)):
            made.embed_query("hello")
        assert bool(world.spent()) == bool(spent)


def test_other_attributes_are_those_inside(world: World, embeddings: OpenAIEmbeddings) -> None:
    made: Any = guard_embeddings(embeddings, world.authority, ACME, prices=PRICES)
    assert isinstance(made, Embeddings)
    assert made.model == "text-embedding-3-small"


def test_what_has_no_price_or_is_none(world: World) -> None:
    with pytest.raises(PriceUnknown):
        guard_embeddings(DeterministicFakeEmbedding(size=4), world.authority, ACME).embed_query("hello")
    with pytest.raises(InvalidRequest):
        guard_embeddings("embeddings", world.authority)  # type: ignore[arg-type]

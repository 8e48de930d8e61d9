"""Embeddings of memory and knowledge are reserved, each call of an embedder once."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import pytest
from crew_paths import plain
from crew_world import World
from crewai import Memory
from crewai.knowledge.source.string_knowledge_source import StringKnowledgeSource
from crewai.rag.embeddings.factory import build_embedder

from clearance.errors import BudgetFrozen, InvalidRequest, PriceUnknown
from clearance_crewai import guard_embedder

MakeWorld = Callable[..., World]
# Chroma says so of keys that are given and not named.
pytestmark = pytest.mark.filterwarnings("ignore:Direct api_key configuration:DeprecationWarning")
EMBEDDER = "text-embedding-3-small"


def openai(world: World, model: str = EMBEDDER) -> Any:
    return {
        "provider": "openai",
        "config": {"model_name": model, "api_key": "sim", "api_base": world.sim.base_url},
    }


def vectors(texts: list[str]) -> list[list[float]]:
    return [[float(len(text)), 1.0, 0.0, 0.5] for text in texts]


def memory(world: World, embedder: Any) -> Memory:
    return Memory(llm=world.llm(), embedder=embedder, storage=f"{os.environ['HOME']}/embeddings-{id(world)}")


def embeddings(world: World) -> list[Any]:
    return [call for call in world.calls() if call.action["kind"] == "llm.embedding"]


def embedded(world: World) -> int:
    """Requests, by the provider."""
    return sum(request.endpoint == "embeddings" for request in world.sim.requests)


def test_embeddings_of_memory_are_reserved_each(make_world: MakeWorld) -> None:
    world = make_world(plain)

    result = world.kickoff(world.crew(memory=memory(world, openai(world))))

    calls = embeddings(world)
    assert len(calls) == embedded(world) >= 2
    assert {(call.action["name"], call.status, call.committed_metadata["settled_as"]) for call in calls} == {
        (EMBEDDER, "COMMITTED", "estimate")
    }
    (line,) = [line for line in result.clearance.by("kind", "model") if line.kind == "llm.embedding"]
    assert (line.calls, line.actual) == (len(calls), sum(call.actual for call in calls))
    assert line.actual >= sum(it.cost or 0 for it in world.sim.requests if it.endpoint == "embeddings") > 0


def test_a_denied_embedding_of_memory_makes_no_request(make_world: MakeWorld) -> None:
    world = make_world(plain)
    kept = memory(world, openai(world))

    world.authority.freeze("tenant:acme", reason="audit")
    with pytest.raises(BudgetFrozen), world.run():
        kept.recall("words", depth="shallow")

    assert world.requests == 0


def test_an_embedder_without_a_price_is_not_asked(make_world: MakeWorld) -> None:
    world = make_world(plain)
    kept = memory(world, openai(world, "embed-of-mars"))

    with pytest.raises(PriceUnknown, match="embed-of-mars"), world.run():
        kept.recall("words", depth="shallow")

    assert world.requests == 0


def test_a_function_of_ones_own_is_checked_at_no_cost(make_world: MakeWorld) -> None:
    world = make_world(plain)

    world.kickoff(world.crew(memory=memory(world, vectors)))

    assert {call.action["name"] for call in embeddings(world)} == {"vectors"}
    assert {call.estimate for call in embeddings(world)} == {0}


def test_a_function_of_ones_own_has_the_price_of_the_model_that_it_is_said_to_be(make_world: MakeWorld) -> None:
    world = make_world(plain)

    with world.run() as run:
        memory(world, guard_embedder(vectors, EMBEDDER)).recall("some words", depth="shallow")

    (call,) = embeddings(world)
    assert call.action["name"] == EMBEDDER
    assert run.report().spent().amount == call.actual > 0


def test_embeddings_of_knowledge_are_reserved_and_refused(make_world: MakeWorld) -> None:
    world = make_world(plain)
    source = StringKnowledgeSource(content="Lamps are bright.")

    with world.run():
        crew = world.crew(knowledge_sources=[source], embedder=openai(world))
        stored = len(embeddings(world))
        assert stored == embedded(world) > 0
        crew.query_knowledge(["What are lamps?"])
    assert len(embeddings(world)) == embedded(world) == stored + 1

    requests = world.requests
    world.authority.freeze("tenant:acme", reason="audit")
    with world.run(on_deny="finish") as run:
        crew.query_knowledge(["What are lamps?"])
    assert isinstance(run.denial, BudgetFrozen)  # CrewAI may have swallowed it; the run has not
    assert world.requests == requests


def test_a_guarded_embedder_is_reserved_in_a_run_only(world: World) -> None:
    guarded = guard_embedder(build_embedder(openai(world)))

    with world.run():
        assert len(guarded(["a", "b"])) == 2
        assert len(guarded.embed_query(["a"])) == 1
    inside = len(embeddings(world))
    guarded(["a"])

    assert (inside, len(embeddings(world)), embedded(world)) == (2, 2, 3)
    assert guarded.model_name == EMBEDDER
    with pytest.raises(InvalidRequest, match="embedder: dict cannot be called"):
        guard_embedder(openai(world))

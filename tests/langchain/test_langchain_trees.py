"""Names of tenants in trees of runs: what each run of a tree names, that trees are apart, and that nothing is left."""

from __future__ import annotations

import asyncio
import gc
import subprocess
import sys
import threading
from collections.abc import Callable
from typing import Any

import pytest
from langchain_core.callbacks import AsyncCallbackHandler
from langchain_core.language_models import FakeListLLM
from langchain_core.runnables import Runnable, RunnableConfig, RunnableLambda, RunnablePassthrough
from langchain_world import INNER, KEPT, OUTER, World, graph_of, scopes, started

from clearance.errors import SubjectMissing
from clearance.guard import acting_as
from clearance.model.subject import Subject
from clearance_langchain import runtrees

# --- who is named how


def test_the_outermost_goes_before_those_between_and_each_narrows(two: World) -> None:
    model = two.guard(two.model(), None)
    chain: Any = RunnableLambda(lambda _: model.invoke("hi", {"metadata": {"toolset": "t", "agent": "late"}}))
    for metadata in ({"agent": "bot"}, {"tenant": "globex", "workflow": "w"}, {"app": "between"}):
        inner = chain.with_config(metadata=metadata)
        chain = RunnableLambda(lambda x, inner=inner: inner.invoke(x))  # type: ignore[misc]
    chain.invoke("hi", OUTER)
    # From the outside in: app, then workflow, then agent, and the tool set of the call itself.
    assert scopes(two) == {"tenant:acme/app:between/workflow:w/agent:bot/toolset:t"}


def test_what_is_configured_outermost_goes_before_the_metadata_beside_it(two: World) -> None:
    model = two.guard(two.model(), None)
    inner = RunnableLambda(lambda _: model.invoke("hi")).with_config(configurable={"tenant": "acme"})
    config: Any = {"configurable": {"tenant": "globex"}, "metadata": {"tenant": "acme"}}
    graph = graph_of(lambda state: {"messages": [inner.invoke("hi")]})
    graph.invoke({"messages": []}, config)
    RunnableLambda(lambda _: graph.invoke({"messages": []}, config)).invoke("hi")
    assert [it.scope_path for it in two.all()] == ["tenant:globex", "tenant:globex"]


def test_acting_as_inside_goes_before_what_the_chains_have_named(two: World) -> None:
    model = two.guard(two.model(), None)

    def step(_: Any) -> Any:
        with acting_as(Subject(tenant="globex")):
            return model.invoke("hi")

    RunnableLambda(step).invoke("hi", OUTER)
    assert scopes(two) == {"tenant:globex"}


def test_nobody_named_anywhere_is_denied(two: World) -> None:
    model = two.guard(two.model(), None)
    inner = RunnableLambda(lambda _: model.invoke("hi")).with_config(metadata={"agent": "x"})
    with pytest.raises(SubjectMissing):
        RunnableLambda(lambda x: inner.invoke(x)).invoke("hi", {"metadata": {"team": "acme"}})
    assert two.requests == 0


def test_below_a_root_that_names_nobody_each_branch_has_its_own_tenant(two: World) -> None:
    model = two.guard(two.model(), None)
    inner = RunnableLambda(lambda _: model.invoke("hi")).with_config(metadata={"agent": "x"})
    branch = RunnableLambda(lambda x: inner.invoke(x))

    def server(_: Any) -> None:
        for tenant in ("acme", "globex", "acme"):
            branch.invoke("hi", {"metadata": {"tenant": tenant}})

    RunnableLambda(server).invoke("hi")
    found = sorted(it.scope_path for it in two.all())
    assert found == ["tenant:acme/agent:x", "tenant:acme/agent:x", "tenant:globex/agent:x"]


# --- trees apart


def nested(world: World) -> Runnable[Any, Any]:
    """A chain around a chain around one guarded model."""
    model = world.guard(world.model(), None)
    inner = RunnableLambda(lambda x: model.invoke(x)).with_config(metadata={"agent": "x"})
    return RunnableLambda(lambda x: inner.invoke(x))


def named(tenant: str) -> Any:
    return {"metadata": {"tenant": tenant}}


def test_a_handler_of_requests_serves_two_tenants_one_after_another(two: World) -> None:
    chain = nested(two)
    for tenant in ("acme", "globex", "acme"):
        chain.invoke("hi", named(tenant))
    assert len(two.all("COMMITTED")) == two.requests == 3
    assert sorted(it.scope_path for it in two.all()) == [KEPT, KEPT, "tenant:globex/agent:x"]


def test_after_a_stream_left_in_the_middle_the_next_tenant_is_itself(two: World) -> None:
    model = two.guard(two.model(), None)
    chain = RunnablePassthrough() | model
    left = chain.stream("hi", named("acme"))
    next(left)
    chain.invoke("hi", named("globex"))
    left.close()  # type: ignore[attr-defined]
    assert {it.scope_path for it in two.all()} == {"tenant:acme", "tenant:globex"}


def test_trees_in_threads_and_tasks_do_not_see_one_another(two: World) -> None:
    chain, each = nested(two), 8
    gate = threading.Barrier(2 * each)

    def work(tenant: str) -> None:
        gate.wait()
        chain.invoke("hi", named(tenant))

    threads = [threading.Thread(target=work, args=(tenant,)) for tenant in ("acme", "globex") * each]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    async def tasks() -> None:
        await asyncio.gather(*(chain.ainvoke("hi", named(tenant)) for tenant in ("acme", "globex") * each))

    two.run(tasks())
    found = [it.scope_path for it in two.all()]
    assert {path: found.count(path) for path in set(found)} == {KEPT: 2 * each, "tenant:globex/agent:x": 2 * each}


def test_a_plain_thread_without_context_is_a_new_tree(two: World) -> None:
    chain = nested(two)

    def step(_: Any) -> None:
        thread = threading.Thread(target=chain.invoke, args=("hi", named("globex")))
        thread.start()
        thread.join()

    RunnableLambda(step).invoke("hi", OUTER)
    assert scopes(two) == {"tenant:globex/agent:x"}


def test_a_task_that_outlives_its_chain_still_acts_for_the_same_tenant(two: World) -> None:
    model = two.guard(two.model(), None)

    async def late(x: Any) -> Any:
        return await model.ainvoke(x)

    inner = RunnableLambda(late).with_config(metadata=INNER)

    async def outer() -> None:
        over = asyncio.Event()

        async def waits() -> None:
            await over.wait()
            await inner.ainvoke("hi")

        async def step(_: Any) -> Any:
            return [asyncio.create_task(waits())]

        (task,) = await RunnableLambda(step).ainvoke("hi", OUTER)
        over.set()
        await task

    two.run(outer())
    assert scopes(two) == {KEPT}


# --- what it costs


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> runtrees.Runs:
    """Those of this test alone."""
    made = runtrees.Runs()
    monkeypatch.setattr(runtrees, "runs", made)
    return made


def is_over(world: World, seen: Callable[[], None]) -> None:
    model = world.guard(world.model(), None)
    inner = RunnableLambda(lambda x: (seen(), model.invoke(x)))
    RunnableLambda(lambda x: inner.invoke(x)).invoke("hi", OUTER)


def has_failed(world: World, seen: Callable[[], None]) -> None:
    def fails(_: Any) -> None:
        seen()
        raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        (RunnablePassthrough() | fails).invoke("hi", OUTER)


def is_left(world: World, seen: Callable[[], None]) -> None:
    chunks = (RunnablePassthrough() | world.guard(world.model("+drip-5"), None)).stream("hi", OUTER)
    next(chunks)
    seen()


def is_left_async(world: World, seen: Callable[[], None]) -> None:
    async def work() -> None:
        chunks = (RunnablePassthrough() | world.guard(world.model("+drip-5"), None)).astream("hi", OUTER)
        await anext(chunks)
        seen()
        del chunks
        gc.collect()
        await asyncio.sleep(0.05)

    world.run(work())


def is_cancelled(world: World, seen: Callable[[], None]) -> None:
    model = world.guard(world.model("+slow-2000"), None)

    async def step(x: Any) -> Any:
        return await model.ainvoke(x)

    async def work() -> None:
        asking = asyncio.create_task(RunnableLambda(step).ainvoke("hi", OUTER))
        await started(world)
        seen()
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)

    world.run(work())


@pytest.mark.parametrize("end", [is_over, has_failed, is_left, is_left_async, is_cancelled])
def test_nothing_is_kept_of_a_tree_that(two: World, runs: runtrees.Runs, end: Callable[..., None]) -> None:
    two.guard(two.model(), None)
    while_under_way: list[int] = []
    end(two, lambda: while_under_way.append(len(runs)))
    two.rest()
    gc.collect()
    assert while_under_way[0] > 0
    assert len(runs) == 0


def test_ids_that_are_no_uuids_are_remembered_up_to_a_bound(
    two: World, runs: runtrees.Runs, monkeypatch: pytest.MonkeyPatch
) -> None:
    two.guard(two.model(), None)
    monkeypatch.setattr(runtrees, "MAX_FOREIGN_RUNS", 5)
    for number in range(20):
        config: Any = {**OUTER, "run_id": f"run {number}"}
        RunnableLambda(lambda x: x).invoke("hi", config)
    assert len(runs) == 5


@pytest.mark.parametrize(("subject", "handlers"), [("Subject(tenant='acme')", 0), ("None", 1)])
def test_only_where_somebody_asks_the_context_do_runs_have_a_handler(subject: str, handlers: int) -> None:
    program = f"""
from langchain_core.language_models.fake_chat_models import FakeListChatModel
from langchain_core.runnables import RunnableLambda
from clearance.connecting import connect
from clearance.model.subject import Subject
from clearance_langchain import guard
for _ in range(2):
    guard(FakeListChatModel(responses=["hi"]), connect("memory://"), {subject})
RunnableLambda(lambda x, config: print(len(config["callbacks"].handlers))).invoke("hi")
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.split() == [str(handlers)]


def handlers_seen(config: Any) -> list[str]:
    seen: list[str] = []

    def step(_: Any, config: RunnableConfig) -> None:
        seen.extend(type(handler).__name__ for handler in config["callbacks"].handlers)  # type: ignore[union-attr]

    RunnableLambda(step).invoke("hi", config)
    return seen


def test_a_handler_of_ours_needs_no_second_one_beside_it(two: World) -> None:
    two.guard(two.model(), None)
    assert handlers_seen({"callbacks": [two.handler(None)]}) == ["ClearanceCallbackHandler"]
    assert len(handlers_seen({})) == 1


class Others(AsyncCallbackHandler):
    """Somebody else's, which is not inline."""

    def __init__(self) -> None:
        self.heard: list[str] = []

    async def on_llm_start(self, *args: Any, **kwargs: Any) -> None:
        self.heard.append("llm started")

    async def on_chain_start(self, *args: Any, **kwargs: Any) -> None:
        self.heard.append("chain started")


def test_other_handlers_hear_of_completion_models_as_before(two: World) -> None:
    two.guard(two.model(), None)
    chain, others = RunnablePassthrough() | FakeListLLM(responses=["hi"]), Others()
    two.run(chain.ainvoke("hi", {"callbacks": [others]}))
    assert others.heard == ["chain started", "chain started", "llm started"]


def test_what_is_no_subject_is_told_where_it_matters_only(two: World, caplog: pytest.LogCaptureFixture) -> None:
    wrong: Any = {"metadata": {"tenant": "not a name!"}}
    model = two.guard(two.model(), None)
    RunnableLambda(lambda x: RunnableLambda(lambda y: y).invoke(x)).invoke("hi", wrong)
    assert caplog.text == ""
    with pytest.raises(SubjectMissing):
        model.invoke("hi", wrong)
    assert "no subject" in caplog.text

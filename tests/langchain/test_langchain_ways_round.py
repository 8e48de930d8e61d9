"""Ways round a guard that users take without meaning to: each is governed as well, or refused with a reason."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import pytest
from langchain.agents.middleware import ModelFallbackMiddleware, ModelRetryMiddleware
from langchain_core.load import dumps, loads
from langchain_core.output_parsers import StrOutputParser
from langchain_core.runnables import ConfigurableField, RunnableConfig, RunnableLambda
from langchain_core.runnables.base import RunnableSequence
from langchain_core.tools import StructuredTool
from langchain_core.tools import tool as make_tool
from langchain_world import ACME, World

from clearance.errors import CapsViolated, Denied, InvalidRequest, Paused
from clearance.model.amount import credits, usd
from clearance.model.caps import Caps
from clearance.model.subject import Subject
from clearance.simulator import Reply, ScriptedRequest, ToolCall
from clearance_langchain import guard, is_guarded

pytestmark = [
    pytest.mark.filterwarnings("ignore::langchain_core._api.beta_decorator.LangChainBetaWarning"),
    pytest.mark.filterwarnings("ignore:Unexpected type for token usage"),  # LangChain's, for two prompts at once
]

by_sync = pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
Make = Callable[..., World]


def paused(world: World) -> World:
    world.authority.pause("tenant:acme", reason="test")
    return world


def call(world: World, model: Any, is_async: bool, **config: Any) -> Any:
    return world.run(model.ainvoke("hi", config)) if is_async else model.invoke("hi", config)


# --- fallbacks and alternatives that are added after the guard

ADDED: dict[str, Callable[[World, Any, Any], Any]] = {
    "a model": lambda world, first, second: first.with_fallbacks([second]),
    "bound": lambda world, first, second: first.bind(stop=["x"]).with_fallbacks([second.bind(stop=["x"])]),
    "with tools": lambda world, first, second: first.bind_tools([world.tool()]).with_fallbacks(
        [second.bind_tools([world.tool()])]
    ),
    "configured": lambda world, first, second: first.with_config(tags=["x"]).with_fallbacks([second]),
    "retried": lambda world, first, second: first.with_retry(stop_after_attempt=1).with_fallbacks([second]),
    "a chain": lambda world, first, second: first.with_fallbacks([second | StrOutputParser()]),
    "guarded when bound": lambda world, first, second: world.guard(world.model("+429").bind(stop=["x"])).with_fallbacks(
        [second]
    ),
    "one after another": lambda world, first, second: first.with_fallbacks([world.model("+500")]).with_fallbacks(
        [second]
    ),
    "guarded as fallbacks": lambda world, first, second: world.guard(
        world.model("+429").with_fallbacks([world.model("+429")])
    ).with_fallbacks([second]),
    "fallbacks of its own": lambda world, first, second: first.with_fallbacks(
        [world.model("+500").with_fallbacks([second])]
    ),
}


@by_sync
@pytest.mark.parametrize("add", ADDED.values(), ids=ADDED)
def test_a_fallback_added_to_a_guarded_model_is_governed(
    world: World, add: Callable[[World, Any, Any], Any], is_async: bool
) -> None:
    model = add(world, world.guard(world.model("+429")), world.model())
    call(world, model, is_async)
    assert world.requests == len(world.all()) >= 2
    assert world.spent() >= world.cost > 0
    before = world.requests
    paused(world)
    with pytest.raises(Denied):
        call(world, model, is_async)
    assert world.requests == before


def test_what_has_no_provider_may_be_a_fallback(world: World) -> None:
    model = world.guard(world.model("+500")).with_fallbacks([RunnableLambda(lambda _: "sorry")])
    assert model.invoke("hi") == "sorry"


def test_a_completion_model_as_a_fallback_is_refused(world: World) -> None:
    from langchain_core.language_models import FakeListLLM

    with pytest.raises(InvalidRequest, match="ClearanceCallbackHandler"):
        world.guard(world.model()).with_fallbacks([FakeListLLM(responses=["x"])])


def test_a_fallback_that_is_guarded_keeps_its_settings(world: World) -> None:
    other = Subject(tenant="acme", agent="other")
    model = world.guard(world.model("+429")).with_fallbacks([world.guard(world.model(), other)])
    model.invoke("hi")
    (answered,) = world.all("COMMITTED")
    assert answered.scope_path == other.scope_path


@pytest.mark.parametrize("lazy", [False, True])
def test_configurable_alternatives_are_governed(world: World, lazy: bool) -> None:
    plain = world.model()
    model = world.guard(world.model("+500")).configurable_alternatives(
        ConfigurableField(id="llm"), default_key="dear", cheap=(lambda: plain) if lazy else plain
    )
    chosen = model.with_config(configurable={"llm": "cheap"})
    chosen.invoke("hi")
    assert world.requests == len(world.all()) == 1
    paused(world)
    with pytest.raises(Paused):
        chosen.invoke("hi")
    assert world.requests == 1


@by_sync
def test_configurable_fields_stay_governed(world: World, is_async: bool) -> None:
    model = world.guard(world.model()).configurable_fields(max_tokens=ConfigurableField(id="most"))
    call(world, model, is_async, configurable={"most": 9})
    call(world, model, is_async)
    assert [request.body["max_completion_tokens"] for request in world.sim.requests] == [9, 50]
    assert len(world.all()) == 2
    assert world.spent() == world.cost
    paused(world)
    for configurable in ({"most": 9}, {}):
        with pytest.raises(Paused):
            call(world, model, is_async, configurable=configurable)
    assert world.requests == 2


# --- other middleware


@by_sync
@pytest.mark.parametrize("order", ["last", "first"])
def test_a_fallback_middleware_is_governed_in_either_place(world: World, order: str, is_async: bool) -> None:
    ours, fallback = world.middleware(on_deny="raise"), ModelFallbackMiddleware(world.model())
    middleware = [fallback, ours] if order == "last" else [ours, fallback]
    agent = world.agent(world.model("+429"), middleware=middleware)
    talk = {"messages": "hi"}
    world.run(agent.ainvoke(talk)) if is_async else agent.invoke(talk)
    assert world.requests == len(world.all()) == 2
    assert world.spent() == world.cost > 0
    paused(world)
    with pytest.raises(Denied):
        world.run(agent.ainvoke(talk)) if is_async else agent.invoke(talk)
    assert world.requests == 2


@pytest.mark.parametrize("order", ["last", "first"])
def test_retries_are_counted_in_either_place(world: World, order: str) -> None:
    ours = world.middleware(on_deny="raise")
    retry = ModelRetryMiddleware(max_retries=2, initial_delay=0, jitter=False, on_failure="error")
    middleware = [retry, ours] if order == "last" else [ours, retry]
    with pytest.raises(Exception, match="500"):
        world.agent(world.model("+500"), middleware=middleware).invoke({"messages": "hi"})
    assert world.requests == len(world.all()) == 3


def test_a_cap_that_a_swapped_model_would_break_denies_it(make_world: Make) -> None:
    world = make_world(budget=None)
    world.budget(caps=Caps(max_tokens=7))
    middleware = [world.middleware(on_deny="raise"), ModelFallbackMiddleware(world.model())]
    with pytest.raises(CapsViolated, match="at most 7 tokens"):
        world.agent(world.model("+500"), middleware=middleware).invoke({"messages": "hi"})
    assert world.requests == 1


# --- settings given twice


def one_call(request: ScriptedRequest) -> Reply:
    return Reply(text="done") if request.tool_results else Reply(tool_calls=[ToolCall("send", {"word": "x"})])


def test_a_guarded_tool_takes_from_the_middleware_what_it_lacks(make_world: Make) -> None:
    world = make_world(one_call)
    world.budget(credits(5))
    send = guard(world.tool("send"), world.authority)
    agent = world.agent(world.model(), [send], middleware=[world.middleware(tool_costs={"send": credits(2)})])
    agent.invoke({"messages": "hi"})
    assert world.tool_runs == ["send"]
    assert world.authority.balance("tenant:acme", "CREDITS").spent == 2


def test_a_guarded_model_takes_the_subject_of_the_middleware(world: World) -> None:
    model = guard(world.model(), world.authority)
    for given in (model, model.bind(stop=["x"])):
        world.agent(given, middleware=[world.middleware()]).invoke({"messages": "hi"})
    assert {it.scope_path for it in world.all()} == {ACME.scope_path}


@pytest.mark.parametrize("same", [True, False])
@by_sync
def test_settings_that_differ_are_refused(make_world: Make, same: bool, is_async: bool) -> None:
    world = make_world(one_call)
    world.budget(credits(5))
    send = world.guard(world.tool("send"), tool_costs={"send": credits(1)})
    middleware = world.middleware(tool_costs={"send": credits(1 if same else 2), "other": credits(4)})
    agent = world.agent(world.model(), [send], middleware=[middleware])
    talk = {"messages": "hi"}
    if same:
        world.run(agent.ainvoke(talk)) if is_async else agent.invoke(talk)
        assert world.tool_runs == ["send"]
        return
    with pytest.raises(InvalidRequest, match="tool_costs: tool 'send' was guarded with another one"):
        world.run(agent.ainvoke(talk)) if is_async else agent.invoke(talk)
    assert world.tool_runs == []


def test_another_subject_than_the_middlewares_is_refused(world: World) -> None:
    model = world.guard(world.model(), Subject(tenant="acme", agent="other"))
    with pytest.raises(InvalidRequest, match="subject: the model was guarded with another one"):
        world.agent(model, middleware=[world.middleware()]).invoke({"messages": "hi"})
    assert world.requests == 0


# --- a request inside the request


@pytest.mark.parametrize("how", ["handler", "guard"])
@pytest.mark.parametrize("place", ["constructor", "bind"])
@pytest.mark.parametrize("api", [{}, {"use_responses_api": True}], ids=["chat", "responses"])
@pytest.mark.parametrize(
    "smuggled",
    [
        {"model": "gpt-5-pro"},
        {"models": ["gpt-5-pro"]},
        {"messages": [{"role": "user", "content": "x" * 10_000}]},
        {"input": "x" * 10_000},
        {"tools": [{"type": "function", "function": {"name": "rm", "parameters": {}}}]},
        {"functions": [{"name": "rm", "parameters": {}}]},
    ],
    ids=lambda it: next(iter(it)),
)
def test_extra_body_cannot_make_it_another_request(
    world: World, how: str, place: str, api: dict[str, Any], smuggled: dict[str, Any]
) -> None:
    in_constructor = {"extra_body": smuggled} if place == "constructor" else {}
    model: Any = world.model(**in_constructor, **api)
    model = world.guard(model) if how == "guard" else model
    model = model.bind(extra_body=smuggled) if place == "bind" else model
    config: Any = {"callbacks": [world.handler()] if how == "handler" else []}
    with pytest.raises(InvalidRequest, match=f"extra_body: {next(iter(smuggled))} in it"):
        model.invoke("hi", config)
    assert world.requests == 0


@pytest.mark.parametrize("how", ["handler", "guard"])
@pytest.mark.parametrize("place", ["constructor", "bind"])
@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens"])
def test_a_longer_answer_in_extra_body_is_estimated(world: World, how: str, place: str, name: str) -> None:
    config: Any = {"callbacks": [world.handler()] if how == "handler" else []}

    def asked(**options: Any) -> int:
        model: Any = world.model(**{"max_tokens": None if name == "max_tokens" else 50, **options})
        model = world.guard(model) if how == "guard" else model
        return_ = model.bind(extra_body={name: 900}) if place == "bind" and not options else model
        return_.invoke("hi", config)
        return max(world.all(), key=lambda it: it.created_at_ms).estimate

    smuggled = asked(**({"extra_body": {name: 900}} if place == "constructor" else {}))
    assert smuggled == asked(max_tokens=900)
    assert world.sim.requests[0].body[name] == 900


def test_other_things_in_extra_body_pass(world: World) -> None:
    world.guard(world.model(extra_body={"repetition_penalty": 1.1})).invoke("hi")
    (request,) = world.sim.requests
    assert request.body["repetition_penalty"] == 1.1


# --- the mark of a guarded object


def test_nothing_that_is_copied_from_a_guarded_model_passes_for_guarded(world: World) -> None:
    handler = world.handler()
    guarded = world.guard(world.model(metadata={"mine": 1}))
    guarded.invoke("hi", {"callbacks": [handler]})
    for copied in (guarded.metadata, dict(guarded.metadata or {})):
        world.model(metadata=copied).invoke("hi", {"callbacks": [handler], "metadata": copied})
    assert world.requests == len(world.all()) == 3


def test_a_mark_overheard_from_a_running_call_is_worth_nothing(world: World) -> None:
    from langchain_core.callbacks import BaseCallbackHandler

    heard: list[dict[str, Any]] = []

    class Listener(BaseCallbackHandler):
        def on_chat_model_start(self, *args: Any, metadata: Any = None, **kwargs: Any) -> None:
            heard.append(dict(metadata))

    handler = world.handler()
    world.guard(world.model()).invoke("hi", {"callbacks": [handler, Listener()]})
    world.model(metadata=heard[0]).invoke("hi", {"callbacks": [handler], "metadata": heard[0]})
    assert world.requests == len(world.all()) == 2


@by_sync
def test_a_batch_under_two_handlers_is_counted_once(world: World, is_async: bool) -> None:
    model, config = world.guard(world.model()), {"callbacks": [world.handler(), world.handler()]}
    prompts = [[("user", text)] for text in ("hi", "ho", "hu")]
    from langchain_core.messages import HumanMessage

    messages = [[HumanMessage(text)] for ((_, text),) in prompts]
    if is_async:
        world.run(model.agenerate(messages, callbacks=config["callbacks"]))
    else:
        model.generate(messages, callbacks=config["callbacks"])
    assert world.requests == len(world.all()) == 3
    assert world.spent() == world.cost


# --- the parts of guarded objects


def test_the_function_of_a_guarded_tool_is_governed(world: World) -> None:
    guarded: Any = world.guard(world.tool(), tool_costs={"look_up": usd("0.01")})
    assert guarded.func(word="x") == guarded.func("x") == "x is known"
    assert guarded.invoke({"word": "x"}) == "x is known"
    assert len(world.all("COMMITTED")) == len(world.tool_runs) == 3
    assert world.spent() == usd("0.03").amount
    paused(world)
    with pytest.raises(Paused):
        guarded.func(word="x")
    assert len(world.tool_runs) == 3


def test_the_coroutine_of_a_guarded_tool_is_governed(world: World) -> None:
    guarded: Any = world.guard(world.atool())
    assert world.run(guarded.coroutine(word="x")) == world.run(guarded.ainvoke({"word": "x"})) == "x is known"
    assert len(world.all()) == len(world.tool_runs) == 2
    paused(world)
    with pytest.raises(Paused):
        world.run(guarded.coroutine(word="x"))
    assert len(world.tool_runs) == 2


def test_a_tool_that_calls_itself_is_counted_each_time(world: World) -> None:
    guarded: Any = None

    def countdown(left: int) -> int:
        """Count down."""
        world.tool_runs.append("countdown")
        return 0 if left == 0 else int(guarded.func(left=left - 1))

    guarded = world.guard(StructuredTool.from_function(countdown))
    guarded.invoke({"left": 2})
    assert len(world.all()) == len(world.tool_runs) == 3


def test_a_guarded_function_keeps_its_signature_and_what_is_injected(world: World) -> None:
    from inspect import signature

    @make_tool
    def who(word: str, config: RunnableConfig) -> str:
        """Say who asks."""
        return f"{word} {config['metadata']['user']}"

    guarded: Any = world.guard(who)
    assert signature(guarded.func) == signature(who.func)  # type: ignore[attr-defined]
    assert guarded.invoke({"word": "hi"}, {"metadata": {"user": "ann"}}) == "hi ann"


def test_guarding_a_tool_again_leaves_one_gate(world: World) -> None:
    guarded: Any = world.guard(world.guard(world.tool(), None))
    guarded.func(word="x")
    guarded.invoke({"word": "x"})
    assert len(world.all()) == len(world.tool_runs) == 2


def test_a_guarded_model_cannot_be_loaded_as_a_plain_one(world: World) -> None:
    text = dumps(world.guard(world.model()))
    with pytest.raises((ValueError, NotImplementedError)):
        loads(text, secrets_map={"OPENAI_API_KEY": "x"}, allowed_objects="all")
    plain: Any = loads(dumps(world.model()), secrets_map={"OPENAI_API_KEY": "x"}, allowed_objects="all")
    assert not is_guarded(plain)


def test_a_guarded_tool_cannot_be_loaded_at_all(world: World) -> None:
    with pytest.raises((ValueError, NotImplementedError)):
        loads(dumps(world.guard(world.tool())), allowed_objects="all")


def test_a_chain_of_a_guarded_model_is_an_ordinary_chain(world: World) -> None:
    chain = world.guard(world.model()) | StrOutputParser()
    assert type(chain) is RunnableSequence
    chain.invoke("hi")
    assert len(world.all()) == 1


# --- what the log says


def test_a_denial_is_no_fault_of_the_handler_and_is_not_logged_as_one(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    paused(world)
    with pytest.raises(Denied):
        world.model().invoke("hi", {"callbacks": [world.handler()]})
    assert [it for it in caplog.records if it.name.startswith("langchain")] == []


def test_other_errors_of_handlers_are_logged_as_before(world: World, caplog: pytest.LogCaptureFixture) -> None:
    class Broken(type(world.handler())):  # type: ignore[misc]
        def on_chat_model_start(self, *args: Any, **kwargs: Any) -> None:
            raise RuntimeError("broken")

    world.handler()
    with pytest.raises(RuntimeError):
        world.model().invoke("hi", {"callbacks": [Broken(world.authority, ACME)]})
    assert [it.getMessage() for it in caplog.records if it.name.startswith("langchain")] == [
        "Error in Broken.on_chat_model_start callback: RuntimeError('broken')"
    ]


@pytest.mark.parametrize(("retries", "warnings"), [(0, 0), (2, 1), (None, 1)])
def test_retries_that_a_handler_cannot_see_are_warned_of_once(
    world: World, caplog: pytest.LogCaptureFixture, retries: int | None, warnings: int
) -> None:
    caplog.set_level(logging.WARNING, logger="clearance.langchain")
    model, handler = world.model(max_retries=retries), world.handler()
    for _ in range(2):
        model.invoke("hi", {"callbacks": [handler]})
    assert [it.getMessage() for it in caplog.records if "max_retries=0" in it.getMessage()] == [
        "ChatOpenAI tries again by itself, and what that costs is not seen: give it max_retries=0, or use guard(model)"
    ] * warnings

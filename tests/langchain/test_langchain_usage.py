"""What a call has cost, in every shape in which LangChain tells it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from langchain_core.caches import InMemoryCache
from langchain_core.language_models import BaseChatModel
from langchain_core.language_models.llms import LLM, BaseLLM
from langchain_core.messages import AIMessage, AIMessageChunk, HumanMessage
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult, Generation, LLMResult
from langchain_world import MODEL, PRICES, World

from clearance.errors import Denied, PriceUnknown
from clearance.pricing import PriceBook, Usage
from clearance.simulator import always
from clearance_langchain.usage import Reported, Streamed, asked, reported

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


# --- requests, read


def test_an_image_counts_as_tokens_not_as_bytes() -> None:
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 1_000_000}}
    call = asked([HumanMessage([image])], {"model": "m"})
    assert 48_169 < call.prompt_bytes < 60_000


def test_sound_is_marked() -> None:
    sound = {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}}
    assert asked([HumanMessage([sound])], {"model": "m"}).audio
    assert asked(["hi"], {"model": "m", "modalities": ["text", "audio"]}).audio


@pytest.mark.parametrize(
    ("params", "most"),
    [
        ({}, None),
        ({"max_tokens": 5}, 5),
        ({"max_tokens": 5, "max_completion_tokens": 50}, 50),
        ({"max_tokens": 5, "extra_body": {"max_output_tokens": 60}}, 60),
        ({"max_tokens": -1}, None),
    ],
)
def test_of_several_output_limits_the_highest_counts(params: dict[str, Any], most: int | None) -> None:
    assert asked(["hi"], {"model": "m", **params}).max_output_tokens == most


def test_earlier_turns_kept_by_the_provider_are_counted() -> None:
    plain, later = (asked(["hi"], {"model": "m", **more}) for more in ({}, {"previous_response_id": "resp_1"}))
    assert later.prompt_bytes >= plain.prompt_bytes + 100_000


def test_the_model_of_the_call_goes_before_that_of_the_constructor() -> None:
    assert asked(["hi"], {"model": "bound", "model_name": "constructed"}, "ls").model == "bound"
    assert asked(["hi"], {"model_name": "constructed"}, "ls").model == "ls"


def test_a_service_tier_is_part_of_the_question() -> None:
    assert asked(["hi"], {"model": "m", "service_tier": "flex"}).service_tier == "flex"
    assert asked(["hi"], {"model": "m", "service_tier": "auto"}).service_tier == ""


# --- answers, read


def test_cache_reads_are_not_priced_twice() -> None:
    usage = {"input_tokens": 100, "output_tokens": 1, "total_tokens": 101, "input_token_details": {"cache_read": 90}}
    cost = Reported(usage).cost("fake", BOOK)
    assert cost is not None
    assert cost.amount == 10 * PER_TOKEN + 90 * PER_TOKEN // 10 + 10 * PER_TOKEN


def test_the_usage_of_chunks_is_summed() -> None:
    seen = Streamed()
    seen.add(_chunk({"input_tokens": 10, "output_tokens": 0, "total_tokens": 10}))
    assert seen.reported().facts is None, "a stream cut after its first chunk has told its input only"
    assert seen.add(_chunk({"input_tokens": 0, "output_tokens": 4, "total_tokens": 4}, finish_reason="stop"))
    cost = seen.reported().cost("fake", BOOK)
    assert cost is not None
    assert cost.amount == 10 * PER_TOKEN + 40 * PER_TOKEN


def _chunk(usage: Any, **info: Any) -> ChatGenerationChunk:
    return ChatGenerationChunk(message=AIMessageChunk("x", usage_metadata=usage), generation_info=info or None)


def test_usage_is_copied_before_the_cache_changes_it() -> None:
    message = AIMessage("x", usage_metadata={"input_tokens": 1, "output_tokens": 1, "total_tokens": 2})
    said = reported(LLMResult(generations=[[ChatGeneration(message=message)]]))
    message.usage_metadata["total_cost"] = 0  # type: ignore[index,typeddict-unknown-key]
    cost = said.cost("fake", BOOK)
    assert cost is not None
    assert cost.amount > 0


# --- completion models and unusual classes


class Completing(BaseLLM):
    """A completion model that reports the usage of all prompts at once, as the real ones do."""

    model_name: str = "fake"
    calls: int = 0

    @property
    def _llm_type(self) -> str:
        return "completing"

    @property
    def _identifying_params(self) -> dict[str, Any]:
        return {"model_name": self.model_name}

    def _generate(self, prompts: list[str], stop: Any = None, run_manager: Any = None, **kwargs: Any) -> LLMResult:
        self.calls += 1
        usage = {"prompt_tokens": 3 * len(prompts), "completion_tokens": 2 * len(prompts)}
        texts = [[Generation(text="x")] for _ in prompts]
        return LLMResult(generations=texts, llm_output={"token_usage": usage, "model_name": "fake"})


def test_completion_models_through_the_handler(make_world: Callable[..., World]) -> None:
    world = make_world(budget="100")
    model, config = Completing(), {"callbacks": [world.handler(prices=BOOK)]}
    model.invoke("hi", config)  # type: ignore[arg-type]
    assert world.spent() == 3 * PER_TOKEN + 20 * PER_TOKEN
    model.generate(["a", "b", "c"], callbacks=config["callbacks"])  # type: ignore[arg-type]
    assert world.spent() == 4 * (3 * PER_TOKEN + 20 * PER_TOKEN)
    world.run(model.ainvoke("hi", config))  # type: ignore[arg-type]
    world.authority.kill("tenant:acme", reason="test")
    for call in (lambda: model.invoke("hi", config), lambda: world.run(model.ainvoke("hi", config))):  # type: ignore[arg-type]
        with pytest.raises(Denied):
            call()
    assert model.calls == 3


def test_a_completion_model_beside_another_inline_handler_is_still_blocked(world: World) -> None:
    from langchain_core.callbacks import BaseCallbackHandler

    class Other(BaseCallbackHandler):
        run_inline = True

    class Plain(LLM):
        calls: int = 0

        @property
        def _llm_type(self) -> str:
            return "plain"

        def _call(self, prompt: str, *args: Any, **kwargs: Any) -> str:
            self.calls += 1
            return "x"

    world.authority.kill("tenant:acme", reason="test")
    model = Plain()
    prices = PriceBook({"Plain": {"input": "1", "output": "1"}})
    with pytest.raises(Denied):
        world.run(model.ainvoke("hi", {"callbacks": [Other(), world.handler(prices=prices)]}))
    assert model.calls == 0


class Roundabout(BaseChatModel):
    """A provider class whose hooks call each other, which is one call all the same."""

    calls: int = 0

    @property
    def _llm_type(self) -> str:
        return "roundabout"

    def _generate(self, messages: Any, stop: Any = None, run_manager: Any = None, **kwargs: Any) -> ChatResult:
        parts = list(self._stream(messages, stop, run_manager, **kwargs))
        return ChatResult(generations=[ChatGeneration(message=AIMessage("".join(str(p.text) for p in parts)))])

    def _stream(
        self, messages: Any, stop: Any = None, run_manager: Any = None, **kwargs: Any
    ) -> Iterator[ChatGenerationChunk]:
        self.calls += 1
        yield ChatGenerationChunk(message=AIMessageChunk("hello"))


def test_hooks_that_call_each_other_are_one_call(world: World) -> None:
    prices = PriceBook({"Roundabout": {"input": "1", "output": "1"}})
    model = world.guard(Roundabout(), prices=prices)
    model.invoke("hi")
    assert len(world.all()) == 1
    list(model.stream("hi"))
    assert (len(world.all()), model.calls) == (2, 2)


def test_the_price_is_not_chosen_by_a_run_name(make_world: Callable[..., World]) -> None:
    world = make_world(always("hello"))
    prices = PriceBook({"Roundabout": {"input": "1", "output": "1"}, "cheap": {"input": "0", "output": "0"}})
    config: Any = {"callbacks": [world.handler(prices=prices)], "run_name": "cheap"}
    Roundabout().invoke("hi", config)
    assert world.only().action["name"] == "Roundabout"


class Native(Roundabout):
    """A provider class with a short cut past `_stream`."""

    def _stream_chat_model_events(self, messages: Any, **kwargs: Any) -> Iterator[Any]:
        raise AssertionError("the short cut was taken")


@pytest.mark.filterwarnings("ignore::langchain_core._api.beta_decorator.LangChainBetaWarning")
def test_a_providers_short_cut_past_its_stream_hook_is_closed(world: World) -> None:
    prices = PriceBook({"Native": {"input": "1", "output": "1"}})
    assert type(world.guard(Native(), prices=prices))._stream_chat_model_events is None
    list(world.guard(Native(), prices=prices).stream_events("hi", version="v3"))
    assert len(world.all()) == 1


def test_a_model_that_streams_only_by_its_default_is_still_seen_as_such(world: World) -> None:
    """LangChain compares the hooks by identity to see what a model can do: the guard must not add any."""

    class Whole(BaseChatModel):
        @property
        def _llm_type(self) -> str:
            return "whole"

        def _generate(self, messages: Any, stop: Any = None, run_manager: Any = None, **kwargs: Any) -> ChatResult:
            return ChatResult(generations=[ChatGeneration(message=AIMessage("hello"))])

    prices = PriceBook({"Whole": {"input": "1", "output": "1"}})
    model = world.guard(Whole(), prices=prices)
    assert type(model)._stream is BaseChatModel._stream
    assert [chunk.content for chunk in model.stream("hi")] == ["hello"]
    world.run(model.ainvoke("hi"))
    assert len(world.all()) == 2


def test_without_prices_the_public_list_is_used(world: World) -> None:
    model = world.guard(world.model(), prices=None, action_kinds=None, tool_costs=None)
    model.invoke("hi")
    assert world.spent() == world.cost > 0

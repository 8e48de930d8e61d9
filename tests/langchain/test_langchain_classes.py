"""Completion models, and chat models whose classes are unusual."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from langchain_core.language_models import BaseChatModel
from langchain_core.language_models.llms import LLM, BaseLLM
from langchain_core.messages import AIMessage, AIMessageChunk
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult, Generation, LLMResult
from langchain_world import World

from clearance.errors import Denied
from clearance.pricing import PriceBook
from clearance.simulator import always

BOOK = PriceBook({"fake": {"input": "1.00", "cached_input": "0.10", "output": "10.00"}})
PER_TOKEN = 100  # microcents at 1 USD a million


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
    assert world.spent() == 5 * (3 * PER_TOKEN + 20 * PER_TOKEN)
    world.authority.kill("tenant:acme", reason="test")
    for call in (lambda: model.invoke("hi", config), lambda: world.run(model.ainvoke("hi", config))):  # type: ignore[arg-type]
        with pytest.raises(Denied):
            call()
    assert model.calls == 3


@pytest.mark.parametrize("end", ["cancelled", "timed out in a task that lives on"])
def test_an_async_completion_that_does_not_end_is_charged_as_estimated(
    make_world: Callable[..., World], end: str
) -> None:
    world = make_world(budget="100")

    class Endless(Completing):
        async def _agenerate(self, *args: Any, **kwargs: Any) -> LLMResult:
            await asyncio.sleep(60)
            raise AssertionError("never")

    async def work() -> None:
        call = Endless().ainvoke("hi", {"callbacks": [world.handler(prices=BOOK)]})
        if end == "cancelled":
            task = asyncio.ensure_future(call)
            await world.soon(lambda: world.open() == 1)
            task.cancel()
            await asyncio.wait([task])
            return
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await call
        await world.soon(lambda: world.open() == 0)

    world.run(work())
    world.until(lambda: world.open() == 0)
    assert world.spent() == world.only().estimate


def test_several_completions_at_once_are_counted_once_each(make_world: Callable[..., World]) -> None:
    world = make_world(budget="100")
    world.run(Completing().agenerate(["a", "b", "c"], callbacks=[world.handler(prices=BOOK)]))
    assert len(world.all("COMMITTED")) == 3
    assert world.spent() == 3 * (3 * PER_TOKEN + 20 * PER_TOKEN)


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

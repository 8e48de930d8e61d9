"""What is measured with LangChain: a model and tools that answer at once, agents of them, and an authority that does
nothing."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from itertools import count
from typing import Any

from langchain.agents import create_agent
from langchain.agents.middleware import AgentMiddleware
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage, ToolMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_core.tools import BaseTool, tool
from langchain_core.utils.function_calling import convert_to_openai_tool

from benchmarks.workload import ACTUAL, ESTIMATE
from clearance.model.results import Decision, Settlement, Stop

MODEL = "gpt-4o-mini"
QUESTION = "What does the word mean?"
ASKED = {"messages": [("user", QUESTION)]}
CALLS_OF_A_RUN = 3
"""Two of the model and one of the tool."""
_call_ids = count()


class InstantModel(BaseChatModel):
    """Answers at once and reports its usage. With tools it asks for the first one, and answers after its result."""

    model_name: str = MODEL
    max_tokens: int = 200

    @property
    def _llm_type(self) -> str:
        return "instant"

    @property
    def _identifying_params(self) -> dict[str, Any]:
        return {"model": self.model_name, "max_tokens": self.max_tokens}

    def bind_tools(self, tools: Sequence[Any], **kwargs: Any) -> Any:
        return self.bind(tools=[convert_to_openai_tool(it) for it in tools], **kwargs)

    def _generate(
        self, messages: list[BaseMessage], stop: list[str] | None = None, run_manager: Any = None, **kwargs: Any
    ) -> ChatResult:
        return _answer(messages, kwargs.get("tools"))

    async def _agenerate(
        self, messages: list[BaseMessage], stop: list[str] | None = None, run_manager: Any = None, **kwargs: Any
    ) -> ChatResult:
        return _answer(messages, kwargs.get("tools"))


def _answer(messages: list[BaseMessage], tools: list[dict[str, Any]] | None) -> ChatResult:
    calls = []
    if tools and not isinstance(messages[-1], ToolMessage):
        calls = [{"name": tools[0]["function"]["name"], "args": {"word": "word"}, "id": f"call_{next(_call_ids)}"}]
    message = AIMessage(
        "" if calls else "It means a lot.",
        tool_calls=calls,
        usage_metadata={"input_tokens": 120, "output_tokens": 20, "total_tokens": 140},
        response_metadata={"model_name": MODEL, "finish_reason": "tool_calls" if calls else "stop"},
    )
    return ChatResult(generations=[ChatGeneration(message=message)])


def sync_tool() -> BaseTool:
    @tool
    def look_up(word: str) -> str:
        """Look a word up."""
        return "known"

    return look_up


def async_tool() -> BaseTool:
    @tool
    async def look_up(word: str) -> str:
        """Look a word up."""
        return "known"

    return look_up


class EmptyMiddleware(AgentMiddleware[Any, Any, Any]):
    """Wraps both kinds of calls and does nothing: what LangChain itself takes for any middleware of this kind."""

    def wrap_model_call(self, request: Any, handler: Any) -> Any:
        return handler(request)

    async def awrap_model_call(self, request: Any, handler: Any) -> Any:
        return await handler(request)

    def wrap_tool_call(self, request: Any, handler: Any) -> Any:
        return handler(request)

    async def awrap_tool_call(self, request: Any, handler: Any) -> Any:
        return await handler(request)


def agent(
    *middleware: AgentMiddleware[Any, Any, Any], asynchronous: bool, governed: Callable[[Any], Any] = lambda it: it
) -> Any:
    """One run of it is CALLS_OF_A_RUN calls. `governed` gets its model and its tool."""
    tool = governed(async_tool() if asynchronous else sync_tool())
    return create_agent(governed(InstantModel()), [tool], middleware=middleware)


class NoAuthority:
    """Allows everything and keeps nothing. Each reservation has an id of its own, as guards go by it."""

    def __init__(self) -> None:
        self._ids = count()

    def reserve(self, *_: object, **__: object) -> Decision:
        return Decision("ALLOW", (), ESTIMATE.unit, ESTIMATE.amount, reservation_id=f"rsv_{next(self._ids)}")

    async def areserve(self, *_: object, **__: object) -> Decision:
        return self.reserve()

    def commit(self, *_: object, **__: object) -> Settlement:
        return SETTLED

    async def acommit(self, *_: object, **__: object) -> Settlement:
        return SETTLED

    def stopped(self, reservation_ids: Collection[str]) -> dict[str, Stop]:
        return {}


SETTLED = Settlement("COMMITTED", ESTIMATE.unit, ESTIMATE.amount, ACTUAL.amount, ACTUAL.amount)

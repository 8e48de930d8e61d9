"""A world for one test: a simulated provider, an authority in memory, and real LangChain clients between them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from contextvars import copy_context
from typing import Any, TypeVar

from langchain.agents import create_agent
from langchain_classic.agents import AgentExecutor, create_tool_calling_agent
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.tools import BaseTool, tool
from langchain_openai import ChatOpenAI, OpenAIEmbeddings
from langgraph.graph import END, START, MessagesState, StateGraph

from clearance.authority.budgets import BudgetSpec
from clearance.connecting import LocalAuthority
from clearance.model.amount import Amount, Unit, usd
from clearance.model.caps import Caps, CapsRule
from clearance.model.reservation import Reservation
from clearance.model.subject import Subject
from clearance.pricing import PriceBook, Rates, Usage
from clearance.simulator import Simulator, always, default_script
from clearance.store.interface import ReservationQuery
from clearance_langchain import ClearanceCallbackHandler, ClearanceMiddleware, guard

T = TypeVar("T")
MODEL = "gpt-4o-mini"
ACME = Subject(tenant="acme", agent="bot")
OUTER: Any = {"metadata": {"tenant": "acme"}}
INNER: dict[str, Any] = {"tenant": "globex", "agent": "x"}
KEPT = "tenant:acme/agent:x"
"""The scope of a call that INNER may only narrow, as OUTER has named its tenant."""
LONG = always("one two three four five six seven eight nine ten " * 3)


class SimulatedPrices:
    """The public price list, for names with the simulator's fault suffixes too."""

    def __init__(self) -> None:
        self.book = PriceBook()

    def rates(self, model: str, provider: str | None = None) -> Rates:
        return self.book.rates(_plain(model))

    def price(self, model: str, usage: Usage, provider: str | None = None) -> Amount:
        return self.book.price(_plain(model), usage)

    def estimate(
        self,
        model: str,
        prompt_bytes: int,
        max_output_tokens: int | None = None,
        provider: str | None = None,
        n: int = 1,
    ) -> Amount:
        return self.book.estimate(_plain(model), prompt_bytes, max_output_tokens, n=n)


def _plain(model: str) -> str:
    return model.split("+")[0]


PRICES = SimulatedPrices()


class Stage:
    """What all tests share, as it takes time to make: the provider, and one loop for the clients that keep to one."""

    def __init__(self) -> None:
        self.script: Any = default_script
        self.sim = Simulator(script=lambda request: self.script(request))
        self.runner = asyncio.Runner()
        self.clients: list[ChatOpenAI] = []


class World:
    """What a test sees of the provider, of the money and of the tools."""

    def __init__(self, stage: Stage, authority: LocalAuthority) -> None:
        self.stage = stage
        self.sim = stage.sim
        self.authority = authority
        self.tool_runs: list[str] = []
        self._embeddings: list[OpenAIEmbeddings] = []

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return self.stage.runner.run(work, context=copy_context())

    def rest(self) -> None:
        """Let what was left running on the loop come to its end."""

        async def others() -> None:
            left = asyncio.all_tasks() - {asyncio.current_task()}
            if left:
                await asyncio.wait(left, timeout=5)

        self.run(others())
        assert self.sim.wait_idle()

    def close(self) -> None:
        for made in self._embeddings:  # each has connections of its own
            made.client._client.close()
            self.run(made.async_client._client.close())
        self.authority.close()

    # --- makers

    def budget(self, amount: str | Amount = "1", scope: str = "tenant:acme", caps: Caps | None = None) -> None:
        allocated = usd(amount) if isinstance(amount, str) else amount
        rules = () if caps is None else (CapsRule(caps=caps),)
        self.authority.set_budget(BudgetSpec(scope=scope, allocated=allocated, caps=rules))

    def model(self, faults: str = "", **options: Any) -> ChatOpenAI:
        settings: dict[str, Any] = {
            "model": MODEL + faults,
            "base_url": self.sim.base_url,
            "api_key": "sim",
            "max_retries": 0,
            "max_tokens": 50,
            "stream_usage": True,
            "timeout": 20,
        }
        made = ChatOpenAI(**{**settings, **options})
        self.stage.clients.append(made)
        return made

    def embeddings(self) -> OpenAIEmbeddings:
        made = OpenAIEmbeddings(
            model="text-embedding-3-small",
            base_url=self.sim.base_url,
            api_key="sim",  # type: ignore[arg-type]
            check_embedding_ctx_length=False,
            max_retries=0,
        )
        self._embeddings.append(made)
        return made

    def handler(self, subject: Subject | None = ACME, **options: Any) -> ClearanceCallbackHandler:
        return ClearanceCallbackHandler(self.authority, subject, **{"prices": PRICES, **options})

    def guard(self, obj: Any, subject: Subject | None = ACME, **options: Any) -> Any:
        return guard(obj, self.authority, subject, **{"prices": PRICES, **options})

    def middleware(self, subject: Subject | None = ACME, **options: Any) -> ClearanceMiddleware:
        return ClearanceMiddleware(self.authority, subject, **{"prices": PRICES, **options})

    def tool(self, name: str = "look_up", work: Callable[[str], str] | None = None) -> BaseTool:
        @tool(name)
        def body(word: str) -> str:
            """Look a word up."""
            self.tool_runs.append(name)
            return work(word) if work else f"{word} is known"

        return body

    def atool(self, name: str = "look_up", work: Callable[[str], Any] | None = None) -> BaseTool:
        @tool(name)
        async def body(word: str) -> str:
            """Look a word up."""
            self.tool_runs.append(name)
            return str(await work(word)) if work else f"{word} is known"

        return body

    def executor(self, model: Any, tools: list[Any], **options: Any) -> AgentExecutor:
        prompt = ChatPromptTemplate.from_messages([("human", "{input}"), ("placeholder", "{agent_scratchpad}")])
        agent = create_tool_calling_agent(model, tools, prompt)
        return AgentExecutor(agent=agent, tools=tools, max_iterations=None, **options)

    def agent(self, model: Any, tools: list[Any] | None = None, **options: Any) -> Any:
        return create_agent(model, tools or [], **options)

    async def soon(self, true: Callable[[], Any]) -> None:
        """`until`, without holding up the loop."""
        async with asyncio.timeout(5):
            while not true():  # noqa: ASYNC110 - what is waited for happens in other threads
                await asyncio.sleep(0.005)

    # --- counts

    @property
    def requests(self) -> int:
        """Finished requests; those in flight are waited for."""
        assert self.sim.wait_idle()
        return len(self.sim.requests)

    @property
    def cost(self) -> int:
        """Microcents that the provider would charge for all that it answered."""
        assert self.sim.wait_idle()
        stats = self.sim.stats()
        assert stats["unpriced"] == 0
        return stats["cost"]

    def spent(self, scope: str = "tenant:acme", unit: Unit = Unit.USD_MICROCENTS) -> int:
        self.authority.flush()
        return self.authority.balance(scope, unit.value).spent

    def all(self, status: Any = None) -> list[Reservation]:
        self.authority.flush()
        query = ReservationQuery() if status is None else ReservationQuery(status=status)
        return self.authority.reservations(query).items

    def open(self) -> int:
        return len(self.all("ACTIVE"))

    def only(self) -> Reservation:
        (found,) = [it for it in self.all() if it.kind == "call"]
        return found

    def until(self, true: Callable[[], Any], timeout_s: float = 5.0) -> None:
        deadline = time.monotonic() + timeout_s
        while not true():
            assert time.monotonic() < deadline, "it never became true"
            time.sleep(0.01)


# --- what several files of tests do


def governed(world: World, how: str, faults: str = "", **options: Any) -> tuple[Any, dict[str, Any]]:
    model = world.model(faults, **options)
    callbacks = [world.handler()] if how in ("handler", "both") else []
    return (model if how == "handler" else world.guard(model)), {"callbacks": callbacks}


def settled_as_estimated(world: World, calls: int = 1) -> None:
    assert world.open() == 0
    committed = world.all("COMMITTED")
    assert len(committed) == len(world.all()) == calls
    assert world.spent() == sum(it.estimate for it in committed) >= world.cost


async def started(world: World, calls: int = 1) -> None:
    """Until that many requests have arrived at the provider."""
    await world.soon(lambda: world.sim.stats()["in_flight"] >= calls)


async def drain(stream: Any) -> None:
    async for _ in stream:
        pass


def graph_of(node: Any) -> Any:
    graph = StateGraph(MessagesState)
    graph.add_node("node", node)
    graph.add_edge(START, "node")
    graph.add_edge("node", END)
    return graph.compile()


def scopes(world: World) -> set[str]:
    return {it.scope_path for it in world.all()}

"""The cast: the simulated model and the agents that run away with it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from langchain_classic.agents import AgentExecutor, create_tool_calling_agent
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from pydantic import SecretStr

from clearance.simulator import Reply, ScriptedRequest, SimulatedUsage, ToolCall

MODEL = "gpt-5.2"
TASK = "Write the product page of the Meridian desk lamp. Hand it in when the quality check has passed."
MAX_OUTPUT_TOKENS = 1_400
REASONING_TOKENS = 1_100
VISIBLE_TOKENS = 140

_SYSTEM = (
    "You write product pages for a shop that sells lamps. Call check_quality with every draft. When the check fails, "
    "mend what it names and call it again. Never hand in a draft that has not passed."
)
_DRAFT = (
    "Draft {number}. The Meridian desk lamp puts even, warm light on the whole desk and none of it in your eyes. One "
    "turn of the dial takes it from reading light to evening light. The arm stays where you leave it, the foot is a "
    "single piece of recycled aluminium, and every part can be replaced. "
    "Two years of warranty, at your door in three days."
)
_VERDICT = (
    "FAILED, score 71 of 100, 95 needed. Rule 4: the first sentence does not name the customer's problem. Rule 9: the "
    "tone is too plain. Rule 12: the warranty is named before the price. Mend these and check again."
)


class Halted(Exception):
    """The demo's own clock has run out. No agent framework handles it."""


def reasons_and_retries(request: ScriptedRequest) -> Reply:
    """A reasoning model that believes the quality check: it thinks, writes one more draft and has it checked."""
    draft = _DRAFT.format(number=len(request.tool_results) + 1)
    usage = SimulatedUsage(request.input_tokens, 0, REASONING_TOKENS + VISIBLE_TOKENS, REASONING_TOKENS)
    return Reply(tool_calls=(ToolCall("check_quality", {"draft": draft}),), usage=usage)


def chat_model(sim_url: str, max_output_tokens: int = MAX_OUTPUT_TOKENS, **options: Any) -> ChatOpenAI:
    """The real client; only its address is the simulator's. It tries once, so that one call is one request."""
    return ChatOpenAI(
        model=MODEL,
        base_url=sim_url,
        api_key=SecretStr("no key needed"),
        max_completion_tokens=max_output_tokens,
        stream_usage=True,
        max_retries=0,
        **options,
    )


def writer(sim_url: str, before_check: Callable[[], None]) -> AgentExecutor:
    """The agent with the bug: its quality check never passes and nothing limits its steps.

    `before_check` is called at the start of every check; it may raise to end an agent that nothing else ends.
    """

    @tool
    def check_quality(draft: str) -> str:
        """Check a draft against the house style. Answers PASSED, or what to mend."""
        before_check()
        return _VERDICT

    turns = [("system", _SYSTEM), ("human", "{input}"), ("placeholder", "{agent_scratchpad}")]
    prompt = ChatPromptTemplate.from_messages(turns)
    agent = create_tool_calling_agent(chat_model(sim_url), [check_quality], prompt)
    return AgentExecutor(agent=agent, tools=[check_quality], max_iterations=None)

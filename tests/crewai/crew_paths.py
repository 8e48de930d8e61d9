"""Every way in which CrewAI comes to call a model or a tool, each as something that can be started in a run."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from crew_world import MODEL, World
from crewai import Crew, Flow, Memory
from crewai.agent.planning_config import PlanningConfig
from crewai.flow.flow import listen, start
from crewai.llms.base_llm import BaseLLM
from crewai.llms.providers.openai.completion import OpenAICompletion
from pydantic import BaseModel

from clearance.simulator import Reply, ScriptedRequest, ToolCall, default_script

Script = Callable[[ScriptedRequest], Reply]


class Words(BaseModel):
    words: str


class TextLLM(OpenAICompletion):
    """An LLM without function calling: its agents read tools out of text (ReAct)."""

    def supports_function_calling(self) -> bool:
        return False


class OwnLLM(BaseLLM):
    """A class of a user's own, over any HTTP client; it tells CrewAI nothing but what it has used."""

    inner: Any = None

    def call(self, messages: Any, tools: Any = None, callbacks: Any = None, *args: Any, **kwargs: Any) -> Any:
        sent = [{"role": "user", "content": messages}] if isinstance(messages, str) else messages
        answer = self.inner._client.with_options(max_retries=0).chat.completions.create(
            model=self.model, messages=sent, max_tokens=self.max_tokens
        )
        self._track_token_usage_internal(answer.usage.model_dump())
        return answer.choices[0].message.content

    def supports_function_calling(self) -> bool:
        return False


def text_llm(world: World) -> TextLLM:
    return TextLLM(model=MODEL, base_url=world.sim.base_url, api_key="sim", max_tokens=50)


def own_llm(world: World) -> OwnLLM:
    return OwnLLM(model=MODEL, max_tokens=50, inner=world.llm())


def react(request: ScriptedRequest) -> Reply:
    """Acts once, in text, then answers."""
    said = "".join(message.text for message in request.messages)
    if said.count("Observation: ") > 1 or "is known" in said or "Denied" in said:
        return Reply(text="Thought: I now know the final answer\nFinal Answer: done")
    return Reply(text='Thought: look\nAction: look_up\nAction Input: {"word": "sun"}')


def two_at_once(request: ScriptedRequest) -> Reply:
    if request.tools and not request.tool_results:
        return Reply(tool_calls=(ToolCall("look_up", {"word": "sun"}), ToolCall("look_up", {"word": "moon"})))
    return Reply(text="done")


def delegating(request: ScriptedRequest) -> Reply:
    """The manager delegates once; the worker, who has no delegation tool, does the work."""
    delegate = next((tool for tool in request.tools if tool.name == "delegate_work_to_coworker"), None)
    if delegate is not None and not request.tool_results:
        return Reply(tool_calls=(ToolCall(delegate.name, {"task": "find", "context": "words", "coworker": "Worker"}),))
    if delegate is None and request.tools and not request.tool_results:
        return Reply(tool_calls=(ToolCall("look_up", {"word": "sun"}),))
    return Reply(text="done")


def once(request: ScriptedRequest) -> Reply:
    """The tool is called in the first request only: what it said may be compacted away."""
    return default_script(request) if request.number == 1 else Reply(text="done")


def plain(request: ScriptedRequest) -> Reply:
    if request.output_schema is not None or request.tools:
        return default_script(request)
    return Reply(text="done")


def judging(request: ScriptedRequest) -> Reply:
    """Answers as a task's agent, and as the guardrail that judges the answer."""
    if request.output_schema is not None:
        return Reply(text=json.dumps({"valid": True, "feedback": None}))
    if "guardrail" in "".join(message.text for message in request.messages).lower():
        return Reply(text=json.dumps({"valid": True, "feedback": ""}))
    return Reply(text="done")


@dataclass(frozen=True)
class Path:
    """One path. `requests` and `tools` are what it takes when all is allowed."""

    name: str
    start: Callable[[World], Any]
    requests: int
    tools: int = 0
    script: Script = default_script
    is_async: bool = False
    retries: bool = True
    """Whether CrewAI tries a failed call of this path again."""


def _read(stream: Any) -> Any:
    for _ in stream:
        pass
    return stream.result


async def _aread(stream: Any) -> Any:
    async for _ in stream:
        pass
    return stream.result


def _flow_of_crews(world: World) -> Any:
    class Inside(Flow):  # type: ignore[type-arg]
        @start()
        def first(self) -> Any:
            return world.crew([world.tool()]).kickoff().raw

        @listen(first)
        def then(self, _: Any) -> str:
            return str(world.llm().call("again"))

    return Inside()


def _calls_function(world: World) -> Any:
    def look_up(word: str) -> str:
        world.tool_runs.append("look_up")
        return f"{word} is known"

    schema = {"type": "object", "properties": {"word": {"type": "string"}}, "required": ["word"]}
    function = {"name": "look_up", "description": "Look a word up.", "parameters": schema}
    return world.llm().call(
        "look", tools=[{"type": "function", "function": function}], available_functions={"look_up": look_up}
    )


def _parallel_tasks(world: World) -> Crew:
    agent, other = world.agent("A"), world.agent("B")
    return Crew(agents=[agent, other], tasks=[world.task(agent, "a", async_execution=True), world.task(other, "b")])


def _guarded_task(world: World) -> Crew:
    agent = world.agent()
    return Crew(agents=[agent], tasks=[world.task(agent, guardrail="the answer is one word")])


def _json_of_function_caller(world: World) -> Crew:
    return world.crew(task={"output_json": Words})


async def _for_each(world: World, method: str) -> Any:
    return await getattr(world.crew([world.tool()]), method)(inputs=[{"n": 1}, {"n": 2}])


class SmallLLM(OpenAICompletion):
    """Takes so little that the executor must compact what the agent has said and heard."""

    def get_context_window_size(self) -> int:
        return 700


def _compacting(world: World) -> Crew:
    small = SmallLLM(model=MODEL, base_url=world.sim.base_url, api_key="sim", max_tokens=50)
    return world.crew(
        [world.tool(work=lambda word: "long " * 700)], agent={"llm": small, "use_better_compaction": False}
    )


def _remembering(world: World) -> Crew:
    def vectors(texts: list[str]) -> list[list[float]]:
        return [[float(len(text)), 1.0, 0.0, 0.5] for text in texts]

    memory = Memory(llm=world.llm(), embedder=vectors, storage=f"{os.environ['HOME']}/memory-{id(world)}")
    return world.crew(memory=memory)


def _planned(world: World) -> Crew:
    return world.crew(planning=True, planning_llm=world.llm())


PATHS = [
    Path("kickoff", lambda w: w.crew([w.tool()]).kickoff(), 2, 1),
    Path("kickoff, text tools", lambda w: w.crew([w.tool()], agent={"llm": text_llm(w)}).kickoff(), 2, 1, react),
    Path("kickoff, two tasks", lambda w: w.crew(tasks=2).kickoff(), 2),
    Path("kickoff_async", lambda w: w.crew([w.tool()]).kickoff_async(), 2, 1, is_async=True),
    Path("akickoff", lambda w: w.crew([w.tool()]).akickoff(), 2, 1, is_async=True),
    Path("stream", lambda w: _read(w.crew([w.tool()], stream=True).kickoff()), 2, 1),
    Path("async stream", lambda w: _astream(w), 2, 1, is_async=True),
    Path("kickoff_for_each", lambda w: w.crew([w.tool()]).kickoff_for_each(inputs=[{"n": 1}, {"n": 2}]), 4, 2),
    Path("kickoff_for_each_async", lambda w: _for_each(w, "kickoff_for_each_async"), 4, 2, is_async=True),
    Path("akickoff_for_each", lambda w: _for_each(w, "akickoff_for_each"), 4, 2, is_async=True),
    Path("tasks side by side", lambda w: _parallel_tasks(w).kickoff(), 2),
    Path("hierarchy", lambda w: w.hierarchy(tools=[w.tool()]).kickoff(), 4, 1, delegating),
    Path("tools side by side", lambda w: w.crew([w.tool()]).kickoff(), 2, 2, two_at_once),
    Path("agent", lambda w: w.agent(tools=[w.tool()]).kickoff("look"), 2, 1, retries=False),
    Path("agent, async", lambda w: w.agent(tools=[w.tool()]).kickoff_async("look"), 2, 1, is_async=True, retries=False),
    Path("flow", lambda w: _flow_of_crews(w).kickoff(), 3, 1),
    Path("LLM.call", lambda w: w.llm().call("look"), 1, retries=False),
    Path("LLM.call, streaming", lambda w: w.llm(stream=True).call("look"), 1, retries=False),
    Path("LLM.call, responses", lambda w: w.llm(api="responses").call("look"), 1, retries=False),
    Path("LLM.acall", lambda w: w.llm().acall("look"), 1, is_async=True, retries=False),
    Path("LLM.call with functions", _calls_function, 1, 1, retries=False),
    Path(
        "reasoning",
        lambda w: w.crew([w.tool()], agent={"planning_config": PlanningConfig(max_attempts=1)}).kickoff(),
        6,
        1,
    ),
    Path("guardrail", lambda w: _guarded_task(w).kickoff(), 2, 0, judging),
    Path("pydantic output", lambda w: w.crew(task={"output_pydantic": Words}).kickoff(), 1, 0, plain),
    Path("json output", lambda w: _json_of_function_caller(w).kickoff(), 1, 0, plain),
    Path("json output after tools", lambda w: w.crew([w.tool()], task={"output_json": Words}).kickoff(), 3, 1),
    Path("compaction", lambda w: _compacting(w).kickoff(), 6, 1, once),
    Path("memory", lambda w: _remembering(w).kickoff(), 4, 0, plain),
    Path("crew planning", lambda w: _planned(w).kickoff(), 2, 0, plain),
    Path("an LLM of one's own", lambda w: w.crew([w.tool()], agent={"llm": own_llm(w)}).kickoff(), 2, 1, react),
    Path("time limit", lambda w: w.crew([w.tool()], agent={"max_execution_time": 30}).kickoff(), 2, 1),
]


async def _astream(world: World) -> Any:
    return await _aread(await world.crew([world.tool()], stream=True).akickoff())


def after_one(script: Callable[[ScriptedRequest], Reply], act: Callable[[], object]) -> Any:
    """Something happens while the first request is under way; no request beside it is answered before."""
    acted: list[bool] = []
    one_at_a_time = asyncio.Lock()

    async def acting(request: ScriptedRequest) -> Reply:
        async with one_at_a_time:
            if not acted:
                await asyncio.to_thread(act)
                acted.append(True)
        return script(request)

    return acting


def go(path: Path, world: World, **options: Any) -> Any:
    """The path in a run, sync or async."""
    if not path.is_async:
        with world.run(**options):
            return path.start(world)

    async def main() -> Any:
        async with world.run(**options):
            return await path.start(world)

    return asyncio.run(main())

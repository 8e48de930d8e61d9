"""Functions of CrewAI's that are wrapped while at least one run is open, and given back when the last one has ended.

Outside of runs' own threads and tasks the wrappers only pass on.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import wraps
from importlib import import_module
from threading import Lock, Thread
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import crewai.lite_agent
from chromadb.api.models.CollectionCommon import CollectionCommon
from crewai import Agent
from crewai.agents import agent_executor, step_executor
from crewai.hooks.tool_hooks import ToolCallHookContext
from crewai.llm import LLM
from crewai.llms.base_llm import BaseLLM
from crewai.llms.providers.openai.completion import OpenAICompletion
from crewai.memory import encoding_flow, recall_flow, unified_memory
from crewai.tools.base_tool import BaseTool, Tool
from crewai.tools.structured_tool import CrewStructuredTool
from crewai.types.streaming import StreamingOutputBase, StreamSessionBase
from crewai.utilities.internal_instructor import InternalInstructor

from clearance_crewai.claims import refuse_outside
from clearance_crewai.converter import converting
from clearance_crewai.directcalls import claiming, counting, invoking, running
from clearance_crewai.embedders import in_collections, in_memory
from clearance_crewai.hooks import HOOKS, remembering_input, with_ours
from clearance_crewai.llms import current_call_id, kept_to
from clearance_crewai.streams import Bound, BoundAsync
from clearance_crewai.threads import agent_starts, starting, submitting
from clearance_crewai.toolcalls import current_admission

Method = Callable[..., Any]

_dispatching = import_module("crewai.hooks.dispatch")  # the package has a function of that name


class _Seam(NamedTuple):
    holder: Any
    name: str
    wrap: Callable[[Method], Method]


def _run() -> Any:
    from clearance_crewai.crewrun import current_crew_run

    return current_crew_run()


def _capping(original: Method) -> Method:
    """The parameters of a request, kept to the caps that its reservation came with."""

    def prepare(self: Any, *args: Any, **kwargs: Any) -> Any:
        params = original(self, *args, **kwargs)
        run = _run()
        opened = None if run is None else run.models.get(current_call_id(run))
        if opened is None or opened.call.asked is None:
            return params
        wanted = opened.call.asked.max_output_tokens
        return kept_to(params, opened.permit.caps, opened.call.model, self, wanted)

    return prepare


_without_retries: WeakKeyDictionary[Any, Any] = WeakKeyDictionary()
"""OpenAI clients, and the same without retries. The values share the connections of their keys."""


def _not_retrying(original: Method) -> Method:
    """The SDK's own attempts are paid and cannot be seen; CrewAI's are seen, each with a reservation of its own."""

    def client_of(self: Any) -> Any:
        client = original(self)
        run = _run()
        if run is None or run.gate.sdk_retries or not getattr(client, "max_retries", 0):
            return client
        quiet = _without_retries.get(client)
        if quiet is None:
            quiet = _without_retries[client] = client.with_options(max_retries=0)
        return quiet

    return client_of


def _noting_usage(original: Method) -> Method:
    """Some answers have usage and no event that tells it."""

    def track(self: Any, usage_data: Any) -> None:
        original(self, usage_data)
        run = _run()
        if run is not None:
            run.models.note(current_call_id(run), usage_data)

    return track


def _in_a_run(original: Method) -> Method:
    """No event of ours is heard in a thread of a user's own: there a run's LLM is refused."""

    def emit(self: Any, *args: Any, **kwargs: Any) -> Any:
        if _run() is None:
            refuse_outside(self)
        return original(self, *args, **kwargs)

    return emit


def _settling(original: Method) -> Method:
    """One call of a tool: what is no Exception (SystemExit, an interrupt) leaves it without any event or hook."""

    def call(*args: Any, **kwargs: Any) -> Any:
        run = _run()
        if run is None:
            return original(*args, **kwargs)
        outer = current_admission()
        try:
            return original(*args, **kwargs)
        except BaseException as error:
            run.tools.left_inside(outer, error)
            raise

    return call


def _not_final(original: Method) -> Method:
    """A tool's result may be its agent's final answer (`result_as_answer`); that it was refused is none."""
    settled = _settling(original)

    def call(self: Any, tool_call: Any) -> Any:
        run = _run()
        if run is None:
            return original(self, tool_call)
        before = run.tools.latest()
        result = settled(self, tool_call)
        latest = run.tools.latest()
        if latest is not before and latest.denied is not None:
            return {**result, "original_tool": None}  # asked only whether its result is the answer
        return result

    return call


def _answering(original: Method) -> Method:
    """A function that the model has called: where it is refused CrewAI answers nothing, and the model must know."""

    settled = _settling(original)

    def handle(self: Any, *args: Any, **kwargs: Any) -> Any:
        result = settled(self, *args, **kwargs)
        run = _run()
        words = None if run is None else run.tools.answer_to_refused()
        if words is None:
            return result
        run.models.end(current_call_id(run))  # the model has answered; CrewAI tells the end only with its own results
        return words

    return handle


def _binding(original: Method) -> Method:
    """A stream starts its work where it is first read: bind it to the run that it was made in."""

    def __init__(self: Any, sync_iterator: Any = None, async_iterator: Any = None) -> None:
        if _run() is not None:
            sync_iterator = None if sync_iterator is None else Bound(sync_iterator)
            async_iterator = None if async_iterator is None else BoundAsync(async_iterator)
        original(self, sync_iterator=sync_iterator, async_iterator=async_iterator)

    return __init__


def _quietly(original: Method) -> Method:
    """CrewAI makes an event of every dispatch that has hooks: not for ours alone, which nobody has registered."""

    def emit(point: Any, outcome: str, hook_count: int, *args: Any, **kwargs: Any) -> None:
        if outcome != "proceeded" or hook_count != len(HOOKS.get(point, ())) or _run() is None:
            original(point, outcome, hook_count, *args, **kwargs)

    return emit


_TEXT_TOOL = "execute_tool_and_check_finality"

SEAMS = (
    _Seam(OpenAICompletion, "_prepare_completion_params", _capping),
    _Seam(OpenAICompletion, "_prepare_responses_params", _capping),
    _Seam(LLM, "_prepare_completion_params", _capping),
    _Seam(OpenAICompletion, "_get_sync_client", _not_retrying),
    _Seam(OpenAICompletion, "_get_async_client", _not_retrying),
    _Seam(BaseLLM, "_emit_call_started_event", _in_a_run),
    _Seam(BaseLLM, "_handle_tool_execution", _answering),
    _Seam(LLM, "_handle_tool_call", _answering),
    _Seam(BaseLLM, "_track_token_usage_internal", _noting_usage),
    *(_Seam(kind, name, running) for kind in (BaseTool, Tool) for name in ("run", "arun") if name in vars(kind)),
    _Seam(BaseTool, "_claim_usage", claiming),
    *(_Seam(CrewStructuredTool, name, invoking) for name in ("invoke", "ainvoke")),
    _Seam(CrewStructuredTool, "_increment_usage_count", counting),
    _Seam(StreamingOutputBase, "__init__", _binding),
    _Seam(StreamSessionBase, "__init__", _binding),
    _Seam(encoding_flow, "embed_texts", in_memory),
    _Seam(recall_flow, "embed_texts", in_memory),
    _Seam(unified_memory, "embed_text", in_memory),
    _Seam(CollectionCommon, "_embed", in_collections),
    _Seam(agent_executor.AgentExecutor, "_execute_single_native_tool_call", _not_final),
    _Seam(step_executor, "execute_single_native_tool_call", _settling),
    *(_Seam(home, _TEXT_TOOL, _settling) for home in (agent_executor, step_executor, crewai.lite_agent)),
    _Seam(ToolCallHookContext, "__init__", remembering_input),
    _Seam(_dispatching, "_resolve_hooks", with_ours),
    _Seam(_dispatching, "get_scoped_hooks", with_ours),
    *(_Seam(Agent, name, agent_starts) for name in ("kickoff", "akickoff", "execute_task", "aexecute_task")),
    _Seam(Thread, "start", starting),
    _Seam(ThreadPoolExecutor, "submit", submitting),
    _Seam(InternalInstructor, "to_pydantic", converting),
    # A version without it only takes longer.
    *([_Seam(_dispatching, "_emit_telemetry", _quietly)] if hasattr(_dispatching, "_emit_telemetry") else []),
)


class _Installation:
    def __init__(self) -> None:
        self.lock = Lock()
        self.runs = 0
        self.ours: list[tuple[_Seam, Method, Method]] = []
        self.made: dict[_Seam, tuple[Method, Method]] = {}
        """What is to be wrapped, and its wrapper, as made for an earlier run: both are nearly always the same."""

    def wrapper_of(self, seam: _Seam, original: Method) -> Method:
        known = self.made.get(seam)
        if known is None or known[0] is not original:
            known = self.made[seam] = original, wraps(original)(seam.wrap(original))
        return known[1]


_installation = _Installation()


def install() -> None:
    """One more run is open."""
    with _installation.lock:
        _installation.runs += 1
        if _installation.runs > 1:
            return
        for seam in SEAMS:
            original = vars(seam.holder)[seam.name]
            wrapper = _installation.wrapper_of(seam, original)
            setattr(seam.holder, seam.name, wrapper)
            _installation.ours.append((seam, original, wrapper))


def uninstall() -> None:
    """One run less."""
    with _installation.lock:
        _installation.runs -= 1
        if _installation.runs:
            return
        for seam, original, wrapper in _installation.ours:
            if vars(seam.holder)[seam.name] is wrapper:  # else somebody has wrapped ours, which only passes on
                setattr(seam.holder, seam.name, original)
        _installation.ours.clear()


def is_installed() -> bool:
    return bool(_installation.ours)

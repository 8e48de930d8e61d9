"""LLM objects: which of them tell what they do, what caps mean on their wire, and `guard_llm` for the silent ones."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, TypeVar

from crewai.llm import LLM
from crewai.llms.base_llm import BaseLLM, _current_call_id
from crewai.llms.providers.openai.completion import OpenAICompletion

from clearance.errors import ClearanceError, InvalidRequest
from clearance.guard.process import new_key
from clearance.model.caps import Caps
from clearance_crewai.claims import STRICT, refuse_outside
from clearance_crewai.errors import Refusal, refusing
from clearance_crewai.toolcalls import Admission, current_admission
from clearance_crewai.usage import OUTPUT_CAPS, asked

if TYPE_CHECKING:
    from clearance_crewai.crewrun import CrewRun

L = TypeVar("L", bound=BaseLLM)

_GUARDED = "_clearance_guarded"
_PREPARE = "_prepare_completion_params"
_TOOL_SETTINGS = ("tools", "tool_choice", "parallel_tool_calls")


# --- what a class can do


def can_cap(llm: object) -> bool:
    """True where the request passes through a method that the run keeps to the caps, unless a subclass replaced it."""
    return isinstance(llm, OpenAICompletion | LLM) and is_crewais(type(llm), _PREPARE)


def can_swap(llm: object) -> bool:
    """True where another model is only another name: OpenAI itself, and what passes for it."""
    return isinstance(llm, OpenAICompletion) and llm.provider == "openai" and can_cap(llm)


def tells_events(llm: BaseLLM) -> bool:
    """True for CrewAI's own classes; an LLM class of somebody else need not tell anything."""
    return is_crewais(type(llm), "call")


def is_crewais(kind: type, method: str) -> bool:
    home = next((base for base in kind.__mro__ if method in vars(base)), None)
    return home is not None and home.__module__.partition(".")[0] == "crewai"


# --- caps on the wire


def kept_to(
    params: dict[str, Any], caps: Caps | None, model: str | None, llm: Any, wanted: int | None
) -> dict[str, Any]:
    """The parameters of one request, kept within the caps; `wanted` is the most tokens that it would have asked for."""
    if model is not None:
        params = {**params, "model": model}
    if caps is None:
        return params
    if caps.max_tokens is not None:
        most = caps.max_tokens if wanted is None else min(caps.max_tokens, wanted)
        name = _cap_name(params, llm)
        params = {key: value for key, value in params.items() if key not in OUTPUT_CAPS} | {name: most}
    if caps.tool_allowlist or caps.tool_denylist:
        params = _with_tools(params, caps)
    return params


def _cap_name(params: Mapping[str, Any], llm: Any) -> str:
    """One name for the cap: that of the Responses API, else what the request has used, else what the class takes."""
    if "input" in params:
        return "max_output_tokens"
    used = next((name for name in OUTPUT_CAPS if params.get(name) is not None), None)
    return used or ("max_completion_tokens" if getattr(llm, "provider", "") == "openai" else "max_tokens")


def _with_tools(params: dict[str, Any], caps: Caps) -> dict[str, Any]:
    """Tools that are not allowed are not shown to the model; calling them all the same is denied by their own gate."""
    offered = list(params.get("tools") or ())
    kept = [tool for tool in offered if not (name := _tool_name(tool)) or caps.allows_tool(name)]
    if len(kept) == len(offered):
        return params
    if not kept:
        return {key: value for key, value in params.items() if key not in _TOOL_SETTINGS}
    return {**params, "tools": kept}


def _tool_name(tool: Any) -> str | None:
    if not isinstance(tool, Mapping):
        return None
    function = tool.get("function")
    named = function.get("name") if isinstance(function, Mapping) else None
    found = named or tool.get("name") or tool.get("type")
    return found if isinstance(found, str) else None


# --- LLMs that tell nothing


@dataclass(slots=True)
class Guarded:
    """One call of a guarded LLM; `call_id` is that of the event which it has told in spite of all.

    `around` is the id of the call that it is made in, `tool` the tool, `outer` the guarded LLM that passes it on.
    `delegated` says that another call, reserved by itself, has worked for it, `refused` why one was refused.
    """

    llm: object
    key: str
    around: str | None
    tool: Admission | None
    outer: Guarded | None
    call_id: str | None = None
    delegated: bool = False
    refused: ClearanceError | None = None

    def passed_on(self, refused: ClearanceError | None = None) -> None:
        """To a call that has worked, or that was refused."""
        frame: Guarded | None = self
        while frame is not None:
            frame.delegated, frame.refused = frame.delegated or refused is None, refused
            frame = frame.outer

    def has_done_nothing(self, error: BaseException | None = None) -> bool:
        """As far as is known: what it tells or reports itself is work of its own."""
        refused = isinstance(error, Refusal) and error.original is self.refused
        return self.call_id is None and (self.delegated or refused)


_guarded: ContextVar[Guarded | None] = ContextVar("clearance_guarded_llm", default=None)


def guard_llm(llm: L) -> L:
    """The same object, which from now on reserves each of its calls in the run around it.

    For an LLM class of your own (a `BaseLLM`), which tells CrewAI nothing, and for litellm models that are called
    directly. In a crew it is done by itself. Without usage (`self._track_token_usage_internal(usage)`) a call is
    charged its estimate. Outside a run its calls are refused with OutsideRun (a SubjectMissing). Raises InvalidRequest
    for other objects.

    One that asks another LLM, which is reserved by itself, costs nothing besides: its own reservation is held until it
    has answered and then given back. Usage that it reports itself is charged all the same, for nobody can tell a copy
    of the other's from a request of its own.
    """
    if not isinstance(llm, BaseLLM):
        raise InvalidRequest("llm", f"{type(llm).__name__} is not an LLM of CrewAI", "a BaseLLM")
    govern(llm)
    llm.__dict__[STRICT] = True
    return llm


_covered: ContextVar[bool] = ContextVar("clearance_covered", default=False)


@contextmanager
def covered() -> Iterator[None]:
    """Model calls inside are reserved where they are sent."""
    token = _covered.set(True)
    try:
        yield
    finally:
        _covered.reset(token)


def before_call(run: CrewRun, context: Any) -> ClearanceError | None:
    """A hook says that a model is about to be asked. The refusal, where nobody else will reserve this call."""
    llm = context.llm
    if not isinstance(llm, BaseLLM) or is_reserved(run) or _covered.get():
        return None
    if context.executor is not None:
        if not tells_events(llm):
            govern(llm)
        return None  # its `call` comes next, and is reserved there
    # Asked without any event or end: nobody will say what it cost.
    key = new_key()
    refused = run.models.begin(key, asked(llm, context.messages), run.who(getattr(context.agent, "role", None), None))
    if refused is None:
        run.models.end(key)
    return refused


def current_call_id(run: CrewRun) -> str | None:
    """The key of the innermost model call that this thread or task is in."""
    frame, call_id = _guarded.get(), _current_call_id.get()
    if frame is None or (call_id not in (frame.around, frame.call_id) and run.models.get(call_id) is not None):
        return call_id
    return frame.key


def is_reserved(run: CrewRun) -> bool:
    return run.models.get(current_call_id(run)) is not None


def passing_on() -> Guarded | None:
    """The call of a guarded LLM which passes on to the one that begins here, not in a tool that it calls."""
    frame = _guarded.get()
    return frame if frame is not None and frame.call_id is None and frame.tool is current_admission() else None


def guarded_call(llm: object, call_id: str) -> bool:
    """True for the first event of a guarded LLM's call: it is the one that is reserved already."""
    frame = _guarded.get()
    if frame is None or frame.llm is not llm or frame.call_id not in (None, call_id):
        return False
    frame.call_id = call_id
    return True


def govern(llm: BaseLLM) -> None:
    """From now on its calls in a run are reserved, also where it tells no events."""
    if not getattr(type(llm), _GUARDED, False):
        object.__setattr__(llm, "__class__", _guarded_class(type(llm)))


@cache
def _guarded_class(base: type[BaseLLM]) -> type[BaseLLM]:
    """Under the name of `base`: what CrewAI saves and prints goes by it."""
    body = {
        "__module__": base.__module__,
        "__qualname__": base.__qualname__,
        "__doc__": base.__doc__,
        "call": _call(base.call),
        "acall": _acall(base.acall),
    }
    metaclass: Any = type(base)
    made: type[BaseLLM] = metaclass(base.__name__, (base,), body)
    setattr(made, _GUARDED, True)
    return made


def _call(plain: Callable[..., Any]) -> Callable[..., Any]:
    def call(self: BaseLLM, messages: Any, *args: Any, **kwargs: Any) -> Any:
        entered = _begin(self, messages, args, kwargs)
        if entered is None:
            return plain(self, messages, *args, **kwargs)
        run, frame = entered
        token = _guarded.set(frame)
        try:
            result = plain(self, messages, *args, **kwargs)
        except BaseException as error:
            run.models.end(frame.key, error, idle=frame.has_done_nothing(error))
            raise
        finally:
            _guarded.reset(token)
        run.models.end(frame.key, idle=frame.has_done_nothing())
        return result

    return call


def _acall(plain: Callable[..., Any]) -> Callable[..., Any]:
    async def acall(self: BaseLLM, messages: Any, *args: Any, **kwargs: Any) -> Any:
        entered = _begin(self, messages, args, kwargs)
        if entered is None:
            return await plain(self, messages, *args, **kwargs)
        run, frame = entered
        token = _guarded.set(frame)
        try:
            result = await plain(self, messages, *args, **kwargs)
        except BaseException as error:
            run.models.end(frame.key, error, idle=frame.has_done_nothing(error))
            raise
        finally:
            _guarded.reset(token)
        run.models.end(frame.key, idle=frame.has_done_nothing())
        return result

    return acall


_ARGUMENTS = ("tools", "callbacks", "available_functions", "from_task", "from_agent", "response_model")


def _begin(
    llm: BaseLLM, messages: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> tuple[CrewRun, Guarded] | None:
    """Reserve one call; None outside a run, where only what was guarded by hand is refused."""
    from clearance_crewai.crewrun import current_crew_run

    run = current_crew_run()
    if run is None:
        refuse_outside(llm)
        return None
    run.claims.add(llm)
    given = {**dict(zip(_ARGUMENTS, args, strict=False)), **kwargs}
    agent, task = given.get("from_agent"), given.get("from_task")
    who = run.who(getattr(agent, "role", None), str(task.id) if task is not None else None)
    frame = Guarded(llm, new_key(), _current_call_id.get(), current_admission(), passing_on())
    wanted = asked(llm, messages, given.get("tools"), schema=given.get("response_model"))
    refused = run.models.begin(frame.key, wanted, who, can_cap=can_cap(llm), can_swap=can_swap(llm))
    if refused is not None:
        refusal, why = refusing(refused)
        raise refusal from why
    return run, frame

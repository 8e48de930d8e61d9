"""`guard(obj, authority)`: the same object, governed at the hook where it meets the provider."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, TypeVar, Unpack, overload

from langchain_core.language_models import BaseChatModel
from langchain_core.runnables import Runnable, RunnableWithFallbacks
from langchain_core.runnables.base import RunnableBindingBase
from langchain_core.tools import BaseTool, tool

from clearance.authority.interface import Authority
from clearance.errors import InvalidRequest
from clearance.model.subject import Subject
from clearance_langchain import models, tools
from clearance_langchain.capping import is_openai
from clearance_langchain.chaining import chaining_hooks, configurable_fields, kept_guarded, parts_guarded
from clearance_langchain.gate import Gate, Options

T = TypeVar("T")
_GUARDED = "_clearance_guarded"
ToolLike = BaseTool | Callable[..., Any] | dict[str, Any]

_ALLOWED = "a chat model, a tool, a binding or fallbacks of them, or a list of tools"
_HINTS = {
    "_ConfigurableModel": "a configurable model chooses its class at each call: guard what it is made of",
    "BaseLLM": "completion models have no hook to guard: use ClearanceCallbackHandler",
    "BaseRetriever": "retrievers have no hook to guard: use ClearanceCallbackHandler",
    "Embeddings": "use guard_embeddings",
}


@overload
def guard(
    obj: list[ToolLike],
    authority: Authority,
    subject: Subject | None = None,
    *,
    sdk_retries: bool = False,
    stream_usage: bool = False,
    **options: Unpack[Options],
) -> list[BaseTool | dict[str, Any]]: ...


@overload
def guard(
    obj: T,
    authority: Authority,
    subject: Subject | None = None,
    *,
    sdk_retries: bool = False,
    stream_usage: bool = False,
    **options: Unpack[Options],
) -> T: ...


def guard(
    obj: Any,
    authority: Authority,
    subject: Subject | None = None,
    *,
    sdk_retries: bool = False,
    stream_usage: bool = False,
    **options: Unpack[Options],
) -> Any:
    """A copy of `obj` that asks the authority before each call and settles after it. Its class keeps its name.

        model = guard(ChatOpenAI(model="gpt-5.2"), authority, Subject(tenant="acme"))
        tools = guard([search, send_email], authority, tool_costs={"send_email": credits(1)})

    It cannot be bypassed by config, callbacks or threads, applies caps to the request on the wire, sees each retry and
    fallback, does not charge answers from LangChain's cache, and ends calls in flight when they are killed. Guarding a
    guarded object again replaces its settings; one call stays one reservation. In a list functions become tools, and
    tools that the provider runs itself (dicts) stay as they are: only the model call that names them can be governed.
    Fallbacks and alternatives that are added to a guarded object later are guarded like it; those that are added to a
    chain of it (`guard(model) | parser`) are not, so guard their models too.

    Args:
        subject: who acts; by default the context says (see `Options` and `ClearanceCallbackHandler`).
        sdk_retries: leave the OpenAI client's own retries on. Off by default, since they are paid and cannot be seen:
            retry with `with_retry` or ModelRetryMiddleware instead, where each attempt is reserved.
        stream_usage: make an OpenAI-compatible model report its usage in streams, which behind another base URL it
            does not; without it each stream is charged its estimate.
        options: see `Options`.

    Raises InvalidRequest for what cannot be guarded.
    """
    return Guarding(Gate(authority, subject, **options), sdk_retries, stream_usage).of(obj)


def is_guarded(obj: object) -> bool:
    return models.GATE in getattr(obj, "__dict__", {})


class Guarding:
    """Guards objects with one gate."""

    def __init__(self, gate: Gate, sdk_retries: bool = False, stream_usage: bool = False) -> None:
        self._gate = gate
        self._sdk_retries = sdk_retries
        self._stream_usage = stream_usage

    def of(self, obj: Any) -> Any:
        if isinstance(obj, BaseChatModel):
            return self._model(obj)
        if isinstance(obj, BaseTool):
            return _governed(obj, self._gate, _tool_class, {})
        if isinstance(obj, RunnableWithFallbacks | RunnableBindingBase):
            return kept_guarded(parts_guarded(obj, self.of), _guarded_like)
        if isinstance(obj, list):
            return [self._listed(item) for item in obj]
        raise InvalidRequest("obj", f"{type(obj).__name__} cannot be guarded{_hint(obj)}", _ALLOWED)

    def part(self, obj: Any) -> Any:
        """What a chain around a guarded object is made of. What has no hook and no handler either is left alone."""
        if is_guarded(obj):
            return obj
        if isinstance(obj, BaseChatModel | BaseTool):
            return self.of(obj)
        if hint := _hint(obj):
            raise InvalidRequest(
                "obj", f"{type(obj).__name__} beside a guarded object stays ungoverned{hint}", _ALLOWED
            )
        return parts_guarded(obj, self.part)

    def filled(self, obj: Any) -> Any:
        """What is guarded already keeps its settings and takes from here those that it lacks.

        Raises InvalidRequest where two settings differ, since one of them would be ignored.
        """
        if isinstance(obj, RunnableWithFallbacks | RunnableBindingBase):
            return parts_guarded(obj, self.filled)
        if not is_guarded(obj):
            return self.of(obj)
        gate, tool_name = models.gate_of(obj), obj.name if isinstance(obj, BaseTool) else None
        if gate.authority is not self._gate.authority:
            raise InvalidRequest("middleware", "was given an object that another authority guards", "one authority")
        gapless = gate.with_gaps_filled(self._gate, tool_name)
        return obj if gapless is gate else regate(obj, gapless)

    def _listed(self, item: Any) -> Any:
        if isinstance(item, dict):
            return item
        if callable(item) and not isinstance(item, Runnable):
            return self.of(tool(item))
        return self.of(item)

    def _model(self, model: BaseChatModel) -> BaseChatModel:
        changes: dict[str, Any] = {}
        if is_openai(model):
            if not self._sdk_retries:
                changes.update(_without_retries(model))
            if self._stream_usage:
                changes["stream_usage"] = True
        governed: BaseChatModel = _governed(model, self._gate, _model_class, changes)
        return governed


def regate(obj: Any, gate: Gate) -> Any:
    """A copy of a guarded object with another gate."""
    return _governed(obj, gate, _tool_class if isinstance(obj, BaseTool) else _model_class, {})


def _governed(obj: Any, gate: Gate, class_of: Callable[[type], type], changes: dict[str, Any]) -> Any:
    """A copy of the same fields in a subclass with guarding hooks; pydantic's own ways in are not for `__class__`."""
    copy = obj.model_copy(update=changes)
    copy.__dict__[models.GATE] = gate
    if not getattr(type(obj), _GUARDED, False):
        object.__setattr__(copy, "__class__", class_of(type(obj)))
    if isinstance(copy, BaseTool):
        tools.guard_functions(copy)
    return copy


def _guarded_like(part: Any, like: Any) -> Any:
    """Also an object of a guarded class that LangChain has made of the fields alone, and that has no gate."""
    gate = models.gate_of(like)
    if getattr(type(part), _GUARDED, False) and not is_guarded(part):
        return regate(part, gate)
    return Guarding(gate).part(part)


@cache
def _model_class(base: type[BaseChatModel]) -> type[BaseChatModel]:
    made: type[BaseChatModel] = _subclass(base, models.guarding_hooks(base))
    for name in models.NATIVE_EVENT_HOOKS:
        if getattr(base, name, None) is not None:
            setattr(made, name, None)  # in the class body pydantic would take it for a private attribute
    return made


@cache
def _tool_class(base: type[BaseTool]) -> type[BaseTool]:
    made: type[BaseTool] = _subclass(base, tools.guarding_hooks(base))
    return made


def _subclass(base: Any, hooks: dict[str, Any]) -> Any:
    """Under the name of `base`: what LangChain saves, traces and compares goes by it."""
    chains = chaining_hooks(base, _guarded_like)
    chains["configurable_fields"] = configurable_fields(base.configurable_fields, _guarded_like)
    body = {"__module__": base.__module__, "__qualname__": base.__qualname__, "__doc__": base.__doc__}
    made = type(base)(base.__name__, (base,), {**body, **chains, **hooks})
    setattr(made, _GUARDED, True)
    return made


def _without_retries(model: Any) -> dict[str, Any]:
    """The clients are made with the model, so it is they who must be told."""
    changes: dict[str, Any] = {"max_retries": 0}
    for root, part in (("root_client", "client"), ("root_async_client", "async_client")):
        client = getattr(model, root, None)
        if client is not None and hasattr(client, "with_options"):
            quiet = client.with_options(max_retries=0)
            changes.update({root: quiet, part: quiet.chat.completions})
    return changes


def _hint(obj: object) -> str:
    names = [kind.__name__ for kind in type(obj).__mro__]
    return next((f" ({hint})" for name, hint in _HINTS.items() if name in names), "")

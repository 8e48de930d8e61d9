"""`ClearanceMiddleware`: denials inside `create_agent` become messages. It keeps no accounts; guarded objects do."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Awaitable, Callable, Generator, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from threading import Lock
from typing import Any, Literal, TypeVar, Unpack

from langchain.agents.middleware import AgentMiddleware, ModelRequest, ModelResponse, ToolCallRequest
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, ToolMessage
from langchain_core.tracers.context import register_configure_hook
from langgraph.types import Command, interrupt

from clearance.authority.interface import Authority
from clearance.errors import ApprovalRequired, Denied, InvalidRequest
from clearance.model.subject import Subject
from clearance.pricing.names import known_as
from clearance_langchain.approvals import Yes, answer, question, saying
from clearance_langchain.gate import Gate, Options
from clearance_langchain.guarding import Guarding
from clearance_langchain.handler import ClearanceCallbackHandler

Q = TypeVar("Q")
A = TypeVar("A")
Attempts = Generator[Q, Any, A]
ModelAnswer = ModelResponse[Any] | AIMessage
ToolAnswer = ToolMessage | Command[Any]
"""Yields the requests to try, receives each one's result or error there, and returns the answer."""

_watching: ContextVar[ClearanceCallbackHandler | None] = ContextVar("clearance_langchain_watching", default=None)
register_configure_hook(_watching, inheritable=True)
"""Governs the models that middleware listed after ours puts in the place of the guarded one."""

FINISH_REASON = "clearance_denied"
_MAX_REMEMBERED = 256


class ClearanceMiddleware(AgentMiddleware[Any, Any, Any]):
    """Guards the models and tools of a `create_agent` and turns denials into messages that end the work in peace.

        agent = create_agent(model, tools, middleware=[ClearanceMiddleware(authority, Subject(tenant="acme"))])

    A denied model call becomes the final AIMessage (`response_metadata["finish_reason"]` is "clearance_denied"), a
    denied tool call a ToolMessage with status "error" that tells the model not to try again. Caps are applied by the
    guard: `max_tokens` and the tool list in the request, the tool lists again at the tool.

    A tool that needs a person's approval (`approval_tools` of a budget's caps) pauses the agent with `interrupt`; the
    payload names the tool, the hash and size of its arguments (more with `arguments=`), the reason and the scope.
    `Command(resume={"approved": True, "by": "ann"})` runs it once; so does "yes". Anything else is a no, which the
    model is told. Nothing is held while it waits. Without a checkpointer the run ends there, with `__interrupt__`.

    Put it last, next to the model: then it sees each retry, each fallback and each swapped model. Models that
    middleware listed after it puts in are governed as under a callback handler, which cannot lower `max_tokens`. With
    a fallback middleware outside use `on_deny="raise"`, so that a denial of the dear model can lead to the cheap one.
    The models that middleware listed before it calls by itself (summaries, tool selection) are not seen here: `guard`
    them. Objects that were guarded before keep their settings; one that contradicts this middleware is refused.

    Budget for a whole run: `with authority.run(subject, budget=...): agent.invoke(...)`. The middleware opens none,
    as an agent that fails or is interrupted tells it nothing.

    Args:
        subject: who acts; by default the context says.
        on_deny: "message", or "raise" to let `clearance.Denied` end the run.
        on_approval: "interrupt", or "deny" to treat a missing approval as a denial.
        models: stand-ins to choose from when a cap allows only certain models, e.g. [ChatOpenAI(model="gpt-5-nano")].
        options: see `Options`.
    """

    def __init__(
        self,
        authority: Authority,
        subject: Subject | None = None,
        *,
        on_deny: Literal["message", "raise"] = "message",
        on_approval: Literal["interrupt", "deny"] = "interrupt",
        models: Iterable[BaseChatModel] = (),
        **options: Unpack[Options],
    ) -> None:
        super().__init__()
        if on_deny not in ("message", "raise"):
            raise InvalidRequest("on_deny", f"{on_deny!r} is unknown", '"message" or "raise"')
        if on_approval not in ("interrupt", "deny"):
            raise InvalidRequest("on_approval", f"{on_approval!r} is unknown", '"interrupt" or "deny"')
        self.authority = authority
        self._on_deny = on_deny
        self._on_approval = on_approval
        self._guarding = Guarding(Gate(authority, subject, **options))
        self._handler = ClearanceCallbackHandler(authority, subject, **options)
        self._guarded: OrderedDict[int, tuple[Any, Any]] = OrderedDict()
        self._lock = Lock()
        self._stand_ins: dict[str, BaseChatModel] = {_model_name(model): self._governed(model) for model in models}

    # --- LangChain's hooks

    def wrap_model_call(
        self, request: ModelRequest[Any], handler: Callable[[ModelRequest[Any]], ModelResponse[Any]]
    ) -> ModelAnswer:
        with _watched_by(self._handler):
            return _drive(self._model_attempts(request), handler)

    async def awrap_model_call(
        self, request: ModelRequest[Any], handler: Callable[[ModelRequest[Any]], Awaitable[ModelResponse[Any]]]
    ) -> ModelAnswer:
        with _watched_by(self._handler):
            return await _adrive(self._model_attempts(request), handler)

    def wrap_tool_call(self, request: ToolCallRequest, handler: Callable[[ToolCallRequest], ToolAnswer]) -> ToolAnswer:
        return _drive(self._tool_attempts(request), handler)

    async def awrap_tool_call(
        self, request: ToolCallRequest, handler: Callable[[ToolCallRequest], Awaitable[ToolAnswer]]
    ) -> ToolAnswer:
        return await _adrive(self._tool_attempts(request), handler)

    # --- what sync and async have in common

    def _model_attempts(self, request: ModelRequest[Any]) -> Attempts[ModelRequest[Any], ModelAnswer]:
        answer: ModelAnswer
        try:
            answer = yield request.override(model=self._governed(request.model))
            return answer
        except Denied as denied:
            stand_in = self._stand_in(denied)
            if stand_in is None:
                return self._final(denied)
        try:
            answer = yield request.override(model=stand_in)
            return answer
        except Denied as denied:
            return self._final(denied)

    def _tool_attempts(self, request: ToolCallRequest) -> Attempts[ToolCallRequest, ToolAnswer]:
        """An unknown tool has no object to guard: LangGraph answers for it, and nothing runs."""
        governed = request if request.tool is None else request.override(tool=self._governed(request.tool))
        yes: Yes | None = None
        while True:
            try:
                with saying(yes):
                    result: ToolAnswer = yield governed
                return result
            except ApprovalRequired as denied:
                needed = denied
            except Denied as denied:
                return self._refused(request, denied)
            if self._on_approval == "deny" or not _is_of(needed, request):
                return self._refused(request, needed)
            asked = question(needed)
            by, why = answer(interrupt(asked), asked)
            if by is None:
                return self._refused(request, needed, f"Not approved{': ' if why else ''}{why}")
            yes = Yes(asked["tool"], asked["tool_call_id"], by)

    def _refused(self, request: ToolCallRequest, denied: Denied, text: str = "") -> ToolMessage:
        if self._on_deny == "raise":
            raise denied
        name = request.tool_call["name"]
        text = f"{text or 'Denied: ' + denied.message}. Do not call {name} again."
        return ToolMessage(text, name=name, tool_call_id=request.tool_call["id"] or "", status="error")

    def _final(self, denied: Denied) -> AIMessage:
        if self._on_deny == "raise":
            raise denied
        facts = {"reason_code": denied.reason_code, "scope": denied.scope, "retry_after_ms": denied.retry_after_ms}
        return AIMessage(
            f"Stopped: {denied.message}.", response_metadata={"finish_reason": FINISH_REASON, "clearance": facts}
        )

    def _stand_in(self, denied: Denied) -> BaseChatModel | None:
        """The first model that the caps prefer and that we were given."""
        for allowed in denied.details.get("models") or ():
            for name, model in self._stand_ins.items():
                if known_as(name, [allowed.lower()]):
                    return model
        return None

    def _governed(self, obj: Any) -> Any:
        """One guarded copy for each original: a copy has private counters of its own, and making one takes time.

        The original is kept as well, else its id could become another's.
        """
        with self._lock:
            kept = self._guarded.get(id(obj))
            if kept is None:
                kept = self._guarded[id(obj)] = (obj, self._guarding.filled(obj))
                if len(self._guarded) > _MAX_REMEMBERED:
                    self._guarded.popitem(last=False)
            return kept[1]


@contextmanager
def _watched_by(handler: ClearanceCallbackHandler) -> Iterator[None]:
    token = _watching.set(handler)
    try:
        yield
    finally:
        _watching.reset(token)


def _is_of(needed: ApprovalRequired, request: ToolCallRequest) -> bool:
    """A tool inside the body of this one may need an approval too, and no yes to this one would give it."""
    details = needed.details
    called = (request.tool_call["name"], request.tool_call["id"])
    return "tool_call_id" in details and (details["tool"], details["tool_call_id"]) == called


def _drive(attempts: Attempts[Q, A], handler: Callable[[Q], Any]) -> A:
    try:
        request = next(attempts)
        while True:
            try:
                result = handler(request)
            except Exception as error:
                request = attempts.throw(error)
            else:
                request = attempts.send(result)
    except StopIteration as end:
        answer: A = end.value
        return answer


async def _adrive(attempts: Attempts[Q, A], handler: Callable[[Q], Awaitable[Any]]) -> A:
    try:
        request = next(attempts)
        while True:
            try:
                result = await handler(request)
            except Exception as error:
                request = attempts.throw(error)
            else:
                request = attempts.send(result)
    except StopIteration as end:
        answer: A = end.value
        return answer


def _model_name(model: Any) -> str:
    named = (getattr(model, field, None) for field in ("model_name", "model", "model_id"))
    return next((name for name in named if isinstance(name, str) and name), type(model).__name__)

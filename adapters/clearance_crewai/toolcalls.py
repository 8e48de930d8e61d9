"""The tool calls of a run: one reservation and at most one run of the body for each time that a tool is called."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import wraps
from threading import get_ident
from typing import TYPE_CHECKING, Any

from crewai.tools.structured_tool import CrewStructuredTool
from crewai.utilities.string_utils import sanitize_tool_name

from clearance.errors import AuthorityUnavailable, ClearanceError, Denied, Stopped
from clearance.guard import Permit
from clearance.guard.context import permit_in_force
from clearance.guard.outcome import Commit, Outcome, Release, of_another_call, outcome_of
from clearance_crewai.errors import refusing
from clearance_crewai.gate import Call, Who
from clearance_crewai.report import CrewLine

if TYPE_CHECKING:
    from clearance_crewai.crewrun import CrewRun

log = logging.getLogger("clearance.crewai")

_admission: ContextVar[Admission | None] = ContextVar("clearance_crew_tool", default=None)
_refused: ContextVar[Admission | None] = ContextVar("clearance_crew_refused", default=None)
"""The function of `available_functions` that was refused in the call of a model which goes on here."""

_latest: ContextVar[Admission | None] = ContextVar("clearance_crew_ended", default=None)

_WATCH = "_clearance_watch"


@dataclass(slots=True)
class Admission:
    """CrewAI's one call of a tool. `permit` is None where it was refused, with `denied`.

    `key` is what CrewAI knows the call by, `tool` the object whose body may run, None where nobody has said it yet,
    `silent` that nobody tells whether its body begins, `body` the text agent's watch on it, `ends` says whether the
    refusal ends the run, `outer` is the call that this one is made in. `began`, `value` and `error` are of the body.
    """

    key: object
    tool: Any
    name: str
    thread: int
    call: Call | None = None
    permit: Permit | None = None
    denied: ClearanceError | None = None
    ends: bool = False
    silent: bool = False
    body: Any = None
    outer: Admission | None = None
    outer_permit: Permit | None = None
    began: bool = False
    value: Any = None
    error: BaseException | None = None

    @property
    def words(self) -> str:
        """What the model is told of a call that was refused."""
        assert self.denied is not None, "asked only where it was refused"
        return f"Denied: {self.denied.message}. Do not call {self.name} again."

    @property
    def is_open(self) -> bool:
        return self.permit is not None and not self.permit.over

    def once(self, body: Callable[[], Any]) -> Any:
        """Run the body, or repeat what it gave: CrewAI's text agents call a failing tool up to six times."""
        if not self.began:
            self.began = True
            try:
                self.value = body()
            except BaseException as error:
                self.error = error
        return self._again()

    async def aonce(self, body: Callable[[], Any]) -> Any:
        if not self.began:
            self.began = True
            try:
                self.value = await body()
            except BaseException as error:
                self.error = error
        return self._again()

    def _again(self) -> Any:
        if self.error is not None:
            raise self.error
        return self.value


def current_admission() -> Admission | None:
    """The innermost call of a tool that runs here."""
    return _admission.get()


class ToolCalls:
    """Keyed by the call's arguments object, which is the same before and after. Thread-safe."""

    def __init__(self, run: CrewRun) -> None:
        self._run = run
        self.open: dict[int, Admission] = {}

    def begin(self, key: object, name: str, arguments: object, tool: Any, who: Who) -> Admission:
        """Reserve one call of a tool. Raises interruptions only: what is refused says so in the answer."""
        admitted = Admission(key, tool, name, get_ident(), outer=_admission.get(), outer_permit=permit_in_force.get())
        run = self._run
        admitted.denied = run.refusal()
        if admitted.denied is not None:
            admitted.ends = True
        else:
            self._reserve(admitted, arguments, who)
        self.open[id(key)] = admitted  # which holds the key, so that its id stays its own
        if admitted.permit is not None:
            _admission.set(admitted)
            permit_in_force.set(admitted.permit)
        return admitted

    def _reserve(self, admitted: Admission, arguments: object, who: Who) -> None:
        run = self._run
        try:
            admitted.call = run.gate.tool_call(admitted.name, arguments, who)
            admitted.permit = run.gate.open_tool(admitted.call, arguments, run.core)
        except ClearanceError as error:
            admitted.denied = error
            admitted.ends = isinstance(error, Stopped) or not isinstance(error, Denied)
            if admitted.ends:
                run.deny(error)
            else:
                run.ledger.refused()
        except Exception as error:  # a fault of ours must not let a tool run
            log.exception("a tool call could not be reserved")
            admitted.denied = AuthorityUnavailable(f"the tool could not be reserved ({type(error).__name__})")
            admitted.ends = True

    @contextmanager
    def calling(self, tool: Any, arguments: object) -> Iterator[None]:
        """One call that the run's own code makes: there is no agent to tell, so a refusal is raised."""
        outer, key = self.open.get(id(getattr(_admission.get(), "key", None))), object()
        who = self._run.who(None, None) if outer is None or outer.call is None else outer.call.who
        admitted = self.begin(key, sanitize_tool_name(tool.name), arguments, tool, who)
        if admitted.denied is not None:
            self.end(key)
            of_another_call(admitted.denied)  # what it was called in has begun
            refusal, why = refusing(admitted.denied)
            raise refusal from why
        try:
            yield
        except BaseException as error:
            admitted.error = admitted.error or error
            raise
        finally:
            self.end(key)

    def end(self, key: object) -> Admission | None:
        """The call is over: settle it. Its value stays for CrewAI."""
        admitted = self.open.pop(id(key), None)
        if admitted is not None and admitted.permit is not None:
            _admission.set(admitted.outer)
            permit_in_force.set(admitted.outer_permit)
            self._finish(admitted)
        _latest.set(admitted)
        return admitted

    def latest(self) -> Admission | None:
        """The call of a tool that has ended last here."""
        return _latest.get()

    def refused_function(self, admitted: Admission) -> None:
        """CrewAI makes nothing of the error that stops it; whoever has called asks `answer_to_refused`."""
        self.end(admitted.key)
        _refused.set(admitted)

    def answer_to_refused(self) -> str | None:
        """The words for the model, None where nothing was refused here. Raises where the refusal ends the run."""
        admitted = _refused.get()
        if admitted is None or admitted.denied is None:
            return None
        _refused.set(None)
        if admitted.ends:
            refusal, why = refusing(admitted.denied)
            raise refusal from why
        return admitted.words

    def left_inside(self, outer: Admission | None, error: BaseException) -> None:
        """An error has left the calls that run here inside of `outer`: CrewAI lets no Exception out, but SystemExit."""
        admitted = _admission.get()
        while admitted is not None and admitted is not outer:
            if admitted.error is None:
                admitted.error = error
            around = admitted.outer
            self.end(admitted.key)
            admitted = around

    def end_current(self) -> None:
        """The innermost call that runs here is over."""
        admitted = _admission.get()
        if admitted is not None:
            self.end(admitted.key)

    def failed(self, error: object) -> None:
        """CrewAI has caught an error of the body that runs here."""
        admitted = _admission.get()
        if admitted is not None and admitted.error is None and isinstance(error, BaseException):
            admitted.error = error

    def left_here(self) -> None:
        self._leave(lambda admitted: admitted.thread == get_ident())

    def left_all(self) -> None:
        self._leave(lambda admitted: True)

    def _leave(self, is_left: Callable[[Admission], bool]) -> None:
        for key, admitted in list(self.open.items()):
            if is_left(admitted) and self.open.pop(key, None) is not None and admitted.permit is not None:
                self._finish(admitted)

    def _finish(self, admitted: Admission) -> None:
        permit, call = admitted.permit, admitted.call
        assert permit is not None, "asked only for what was admitted"
        outcome = _outcome(admitted, permit)
        permit.finish(outcome)
        if isinstance(outcome, Commit) and call is not None:
            line = CrewLine(
                call.who.agent,
                call.who.task,
                call.action.kind,
                "",
                call.action.name,
                permit.estimate.unit,
                calls=1,
                estimate=permit.estimate.amount,
                actual=outcome.amount.amount,
            )
            self._run.ledger.add(line)
        with self._run.idle:
            self._run.idle.notify_all()


def _outcome(admitted: Admission, permit: Permit) -> Outcome:
    if not admitted.began and not admitted.silent:
        return Release("the tool did not run")  # cached, unknown, used up, or its arguments were refused
    return outcome_of(admitted.error, permit.actual, permit.estimate, body_ran=True)


def is_admitted(tool: Any) -> bool:
    """True where what was let in here is this call: of this tool, and its body has not begun."""
    admitted = _admission.get()
    if admitted is None:
        return False
    if _is_watched(tool, admitted):
        return True
    if admitted.tool is None and not admitted.began and admitted.name == sanitize_tool_name(tool.name):
        admitted.tool = tool  # the function that was let in under its name calls it
    return admitted.tool is tool and not admitted.began


def body_begins(tool: Any) -> None:
    """Told right before the body of a tool runs that was called by `run`, `arun`, `invoke` or `ainvoke`."""
    admitted = _admission.get()
    if admitted is not None and admitted.tool is tool and not _is_watched(tool, admitted):
        admitted.began = True


def _is_watched(tool: Any, admitted: Admission) -> bool:
    """A text agent's tool, which it may call again: `once` knows when its body begins."""
    return admitted.body is not None and getattr(getattr(tool, "func", None), _WATCH, None) is admitted.body


def watch_body(tool: Any, admitted: Admission) -> None:
    """Make the body of a text agent's tool run once for each admission. The object is the executor's own."""
    if not isinstance(tool, CrewStructuredTool) or tool.func is None:
        return
    if not isinstance(getattr(tool.func, _WATCH, None), _Watch):
        tool.func = _watched(tool.func)
    watch: _Watch = getattr(tool.func, _WATCH)
    watch.latest = admitted
    admitted.body = watch


class _Watch:
    """Finds the admission that a body runs for."""

    def __init__(self) -> None:
        self.latest: Admission | None = None

    def admission(self) -> Admission | None:
        admitted = _admission.get()
        if admitted is not None:
            return admitted if admitted.body is self else None
        # CrewAI's executor threads do not inherit the context; a text agent calls one tool at a time.
        latest = self.latest
        return latest if latest is not None and latest.is_open else None


def _watched(func: Callable[..., Any]) -> Callable[..., Any]:
    watch = _Watch()
    watched: Callable[..., Any]
    if inspect.iscoroutinefunction(func):

        @wraps(func)
        async def awatched(*args: Any, **kwargs: Any) -> Any:
            admitted = watch.admission()
            if admitted is None:
                return await func(*args, **kwargs)
            return await admitted.aonce(lambda: func(*args, **kwargs))

        watched = awatched
    else:

        @wraps(func)
        def run_watched(*args: Any, **kwargs: Any) -> Any:
            admitted = watch.admission()
            return func(*args, **kwargs) if admitted is None else admitted.once(lambda: func(*args, **kwargs))

        watched = run_watched
    setattr(watched, _WATCH, watch)
    return watched

"""`CrewRun`: one governed piece of CrewAI work, whatever it is made of: crews, flows, agents, single LLM calls."""

from __future__ import annotations

import asyncio
import inspect
import json
import logging
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, suppress
from contextvars import ContextVar, Token, copy_context
from functools import wraps
from threading import Condition, Thread
from types import TracebackType
from typing import Any, Literal, ParamSpec, TypeVar, Unpack, cast

from crewai.events.stream_context import add_stream_sink, reset_stream_sinks
from crewai.hooks.dispatch import InterceptionPoint, get_scoped_hooks, scoped_hooks
from crewai.llms.base_llm import BaseLLM
from crewai.tasks.task_output import TaskOutput

from clearance.authority.interface import Authority
from clearance.errors import AuthorityUnavailable, ClearanceError, Denied, InvalidRequest
from clearance.guard.context import pop, push
from clearance.guard.run import Run
from clearance.model.amount import Amount, AmountLike, to_amount
from clearance.model.results import Stop
from clearance.model.subject import Subject
from clearance_crewai import claims, seams
from clearance_crewai.checking import check_authority, check_names, check_subject
from clearance_crewai.claims import Claims
from clearance_crewai.errors import Refusal, RunEnded, attach
from clearance_crewai.gate import Gate, Options, Who, narrowed
from clearance_crewai.landing import Start
from clearance_crewai.llms import govern, tells_events
from clearance_crewai.modelcalls import ModelCalls
from clearance_crewai.report import CrewReport, Ledger
from clearance_crewai.threads import entered
from clearance_crewai.toolcalls import ToolCalls

log = logging.getLogger("clearance.crewai")

OnDenyRun = Literal["raise", "finish"]

SETTLE_WAIT_S = 900.0
"""How long the end of a run waits, in the background, for calls that run on in other threads."""

MAX_TASKS = 10_000
"""Task names and outputs remembered in one run."""

_inside: ContextVar[CrewRun | None] = ContextVar("clearance_crew_run", default=None)


def current_crew_run() -> CrewRun | None:
    """The run that this thread or task is in, also when it is over: then nothing more may start."""
    return _inside.get()


P = ParamSpec("P")
R = TypeVar("R")


class CrewRun:
    """Made by `run(...)`; a `with` or `async with` block, used once.

    Attributes:
        denial: the denial that ended the run, or None. From then on each call inside is refused with it.
        outputs: the outputs of the tasks that were completed inside, in their order.
    """

    def __init__(
        self,
        authority: Authority,
        subject: Subject | None = None,
        budget: AmountLike | None = None,
        *,
        name: str = "crew",
        on_deny: OnDenyRun = "raise",
        **options: Unpack[Options],
    ) -> None:
        if on_deny not in ("raise", "finish"):
            raise InvalidRequest("on_deny", f"{on_deny!r} is unknown", '"raise" or "finish"')
        check_authority(authority)
        check_subject(subject)
        check_names(options, Options.__annotations__)
        if not isinstance(name, str) or not name.strip():
            raise InvalidRequest("name", f"{name!r:.40} names no run", "text")
        self.gate = Gate(authority, **options)
        self.authority = authority
        self.on_deny: OnDenyRun = on_deny
        self.denial: ClearanceError | None = None
        self.outputs: list[TaskOutput] = []
        self.start: Start | None = None
        self.ledger = Ledger()
        self.idle = Condition()
        self.models = ModelCalls(self)
        self.tools = ToolCalls(self)
        self.claims = Claims()
        self.core = Run(
            authority,
            subject,
            None if budget is None else to_amount(budget, "budget"),
            name=name,
            ttl_ms=self.gate.ttl_ms,
            overage_policy=self.gate.overage_policy,
            on_stop=None,
            metadata={"via": "crewai"},
        )
        self._tasks: dict[str, Who] = {}
        self._schemas: dict[str, str] = {}
        self._whos: dict[tuple[str | None, str | None], Who] = {}
        self._over = False
        self._scopes: list[_Scope] = []

    # --- what users ask

    @property
    def id(self) -> str:
        """For `clearance kill run:<id>`; empty before the run has begun."""
        return self.core.id

    @property
    def subject(self) -> Subject:
        return self.core.subject

    @property
    def budget(self) -> Amount | None:
        return self.core.budget

    @property
    def stopped(self) -> Stop | None:
        """The kill or pause of this run, else None."""
        return self.core.stopped

    @property
    def over(self) -> bool:
        """True once it has ended or was given up: nothing more starts in it."""
        return self._over

    def report(self) -> CrewReport:
        """What the calls inside have used so far."""
        return self.ledger.report(self.id, self.denial)

    # --- what the gates ask

    def refusal(self) -> ClearanceError | None:
        """Why nothing may start, or None."""
        if self.denial is not None:
            return self.denial
        if self._over:
            return RunEnded(f"run {self.id} is over; nothing more starts in it")
        return None

    def deny(self, error: ClearanceError) -> None:
        """The run is refused from now on. The first denial stays; an outage is none, another try may find it over."""
        self.ledger.refused()
        if self.denial is None and not isinstance(error, AuthorityUnavailable):
            self.denial = error

    def known_task(self, task: Any) -> None:
        """Remember how a task that starts is called. Its description is a prompt, and stays out of the ledger."""
        if len(self._tasks) < MAX_TASKS:
            self._tasks[str(task.id)] = _named(task, len(self._tasks) + 1)
            self._schemas[str(task.id)] = _schema(task)
            self._whos.clear()

    def claim(self, llms: Iterable[BaseLLM]) -> None:
        """These work in the run, and nowhere outside of all runs as long as it lasts."""
        for llm in llms:
            self.claims.add(llm)
            if not tells_events(llm):
                govern(llm)

    def schema_of(self, task_id: str | None) -> str:
        """What the answers of a task must fit, as JSON; it is part of the prompts."""
        return self._schemas.get(task_id or "", "")

    def completed(self, output: TaskOutput) -> None:
        if len(self.outputs) < MAX_TASKS:
            self.outputs.append(output)

    def who(self, agent: str | None, task_id: str | None) -> Who:
        known = self._whos.get((agent, task_id))
        if known is None:
            task, role = self._tasks.get(task_id or ""), (agent or "").strip()
            subject = narrowed(self.core.subject, role) if self.id else None
            known = Who(task.crew if task else "", role, task.task if task else "", subject)
            if self.id and len(self._whos) < MAX_TASKS:
                self._whos[agent, task_id] = known
        return known

    # --- beginning and ending

    def begin(self) -> None:
        """Raises Denied, AuthorityUnavailable or InvalidRequest; then nothing has begun."""
        copy_context().run(self.core.__enter__)
        self._opened()

    async def abegin(self) -> None:
        """Cancelled meanwhile, it first learns whether the run has begun, and ends it: it would hold its budget."""
        entering = asyncio.create_task(self.core.__aenter__(), context=copy_context())
        try:
            await asyncio.shield(entering)
        except asyncio.CancelledError:
            await asyncio.wait([entering])
            if not entering.cancelled() and entering.exception() is None:
                await self.core.__aexit__(None, None, None)
            raise
        self._opened()

    def _opened(self) -> None:
        outer = current_crew_run()
        if outer is not None and outer.core is self.core.parent:
            self.ledger.outer = outer.ledger
        seams.install()
        claims.opened(self)

    def _closed(self) -> None:
        claims.closed(self)
        seams.uninstall()

    def step_in(self) -> None:
        self._scopes.append(_Scope(self))

    def step_out(self) -> None:
        self._scopes.pop().leave()

    def carry(self, function: Callable[P, R]) -> Callable[P, R]:
        """`function` inside this run, for a thread or an executor of your own: they inherit no run.

        Functions and coroutine functions. Raises InvalidRequest for generators, which run after their call.
        """
        if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
            raise InvalidRequest("carry", "it is a generator, which runs after its call", "a function or a coroutine")
        context = copy_context()
        if inspect.iscoroutinefunction(function):

            async def awithin(*args: P.args, **kwargs: P.kwargs) -> Any:
                scope = _Scope(self)
                try:
                    return await function(*args, **kwargs)
                finally:
                    scope.leave()

            @wraps(function)
            async def acarried(*args: P.args, **kwargs: P.kwargs) -> Any:
                return await asyncio.create_task(awithin(*args, **kwargs), context=context.copy())

            return cast(Callable[P, R], acarried)

        def within(*args: P.args, **kwargs: P.kwargs) -> R:
            scope = _Scope(self)
            try:
                return function(*args, **kwargs)
            finally:
                scope.leave()

        @wraps(function)
        def carried(*args: P.args, **kwargs: P.kwargs) -> R:
            return context.copy().run(within, *args, **kwargs)  # a context cannot be entered twice at a time

        return carried

    def end(self) -> None:
        """Nothing more starts. What still runs elsewhere is settled when it is done, and then the run with it."""
        if self._give_up():
            self._close()

    async def aend(self) -> None:
        if self._give_up():
            await self.core.__aexit__(None, None, None)
            self._closed()

    def _give_up(self) -> bool:
        """True if the caller is to close the run now."""
        if self._over:
            return False
        self._over = True
        self.models.left_here()
        self.tools.left_here()
        if self._is_idle():
            return True
        Thread(target=self._close_when_idle, name="clearance-crewai-end", daemon=True).start()
        return False

    def _is_idle(self) -> bool:
        return not self.models.open and not self.tools.open

    def _close_when_idle(self) -> None:
        with self.idle:
            if not self.idle.wait_for(self._is_idle, SETTLE_WAIT_S):
                log.warning("run %s ends with calls that have not; their estimate is charged", self.id)
        self._close()

    def _close(self) -> None:
        self.models.left_all()
        self.tools.left_all()
        self.core.__exit__(None, None, None)
        self._closed()

    def leaving(self, error: BaseException | None) -> BaseException | None:
        """The error that the caller gets: the denial itself in place of what CrewAI has made of it."""
        if isinstance(error, Refusal):
            if self.denial is None and isinstance(error.original, Denied) and not isinstance(error.original, RunEnded):
                self.denial = error.original  # of one call, but nobody has caught it
            return attach(self.denial or error.original, self.outputs, self.report())
        if self.denial is not None and (error is None or isinstance(error, Exception)):
            return attach(self.denial, self.outputs, self.report())
        return error

    # --- with

    def __enter__(self) -> CrewRun:
        self.begin()
        self.step_in()
        return self

    async def __aenter__(self) -> CrewRun:
        await self.abegin()
        self.step_in()
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: TracebackType | None) -> bool:
        self.step_out()
        self.end()
        return self._exit(error)

    async def __aexit__(self, kind: object, error: BaseException | None, trace: TracebackType | None) -> bool:
        self.step_out()
        if isinstance(error, GeneratorExit):
            self.end()  # a coroutine that is being closed must not wait
        else:
            await self.aend()
        return self._exit(error)

    def _exit(self, error: BaseException | None) -> bool:
        if error is None:
            return False
        out = self.leaving(error)
        if out is error or out is None:
            return False
        if self.on_deny == "finish" and out is self.denial:
            return True
        raise out from None


class _Scope:
    """One place where a run is in force: our own mark, the run for guards inside, CrewAI's event sink and hooks."""

    def __init__(self, run: CrewRun) -> None:
        from clearance_crewai.events import sink
        from clearance_crewai.hooks import HOOKS

        self._mark: Token[CrewRun | None] = _inside.set(run)
        self._frame = push(run.core, None)
        self._left = entered(run.id)
        self._sink = None if _has_sink(sink) else add_stream_sink(sink)
        # A scope of CrewAI's replaces the one around it, so that one's hooks are taken in.
        ours: dict[Any, list[Any]] = HOOKS
        both = {point: [*get_scoped_hooks(point), *ours.get(point, [])] for point in InterceptionPoint}
        self._hooks: AbstractContextManager[Any] = scoped_hooks(
            {point: list(dict.fromkeys(hooks)) for point, hooks in both.items() if hooks}
        )
        self._hooks.__enter__()

    def leave(self) -> None:
        """In another task or thread than it was entered nothing is in force that could be taken back."""
        with suppress(ValueError):
            self._hooks.__exit__(None, None, None)
        if self._sink is not None:
            with suppress(ValueError):
                reset_stream_sinks(self._sink)
        pop(self._frame)
        with suppress(ValueError):
            _inside.reset(self._mark)
        self._left()


def _has_sink(sink: Any) -> bool:
    from crewai.events.stream_context import _stream_sinks

    return sink in _stream_sinks.get()


def _schema(task: Any) -> str:
    kinds = (getattr(task, name, None) for name in ("output_pydantic", "output_json", "response_model"))
    schemas = [kind.model_json_schema() for kind in kinds if kind is not None and hasattr(kind, "model_json_schema")]
    return json.dumps(schemas) if schemas else ""


def _named(task: Any, number: int) -> Who:
    crew = getattr(getattr(task, "agent", None), "crew", None)
    tasks = list(getattr(crew, "tasks", None) or ())
    place = next((index for index, one in enumerate(tasks, 1) if one is task or one.id == task.id), number)
    return Who(str(getattr(crew, "name", None) or ""), "", str(task.name or f"task {place}"))

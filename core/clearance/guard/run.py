"""One agent run: a budget of its own, kept alive while it lasts, and the place of the calls inside."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable
from contextlib import suppress
from contextvars import Token, copy_context
from functools import wraps
from types import TracebackType
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, cast
from weakref import ref

from clearance.authority.interface import Authority, Metadata
from clearance.errors import (
    AuthorityUnavailable,
    BadAnswer,
    ClearanceError,
    Conflict,
    Denied,
    InvalidRequest,
    NotFound,
    StoreError,
)
from clearance.guard.arrears import UNDECIDED, Job
from clearance.guard.cancellation import stopped_error
from clearance.guard.context import Frame, acting_subject, current_run, pop, push
from clearance.guard.desk import desk_of
from clearance.guard.outcome import Commit, of_another_call
from clearance.guard.process import current_pid, new_key
from clearance.guard.report import RunReport, Tally
from clearance.guard.steps import Ask, Steps, aperform, perform
from clearance.model.account import OveragePolicy
from clearance.model.amount import Amount
from clearance.model.results import Decision, Settlement, Stop
from clearance.model.subject import Subject

if TYPE_CHECKING:
    from clearance.guard.permit import Permit

P = ParamSpec("P")
R = TypeVar("R")
log = logging.getLogger("clearance.guard")


class Run:
    """Made by `authority.run(...)`, opened by `with` or `async with`, once.

    Attributes (from `with` on):
        id: the run's id, for `run_id=` of the authority's verbs.
        subject: who acts inside unless someone else is named.
        parent: the enclosing run, or None.
        decision: the authority's answer to opening it.
    """

    def __init__(
        self,
        authority: Authority,
        subject: Subject | None,
        budget: Amount | None,
        *,
        name: str,
        ttl_ms: int,
        overage_policy: OveragePolicy | None,
        on_stop: Callable[[Stop], object] | None,
        metadata: Metadata | None,
    ) -> None:
        self.authority = authority
        self.budget = budget
        self.name = name
        self.ttl_ms = ttl_ms
        self.lease_end = 0.0
        self.id = ""
        self.parent: Run | None = None
        self.decision: Decision | None = None
        self.settlement: Settlement | None = None
        self.tally = Tally()
        self._subject = subject
        self._overage_policy = overage_policy
        self._on_stop = on_stop
        self._metadata = metadata
        self._stop: Stop | None = None
        self._over = False
        self._token: Token[Frame | None] | None = None
        self._pid = current_pid()
        self._permits: dict[str, ref[Permit]] = {}
        self._children: dict[str, ref[Run]] = {}

    @property
    def subject(self) -> Subject:
        if self._subject is None:
            raise InvalidRequest("run", f"{self.name!r} has not begun", "a subject, or use inside `with`")
        return self._subject

    @property
    def over(self) -> bool:
        """True once it has ended or is ending."""
        return self._over

    @property
    def stopped(self) -> Stop | None:
        """The kill or pause of this run, else None."""
        return self._stop

    def check(self) -> None:
        """Raise Killed or Paused if the run was stopped; for long work between guarded calls."""
        if self._stop is not None:
            raise stopped_error(self._stop)

    def report(self) -> RunReport:
        """What the calls inside have used so far, as far as this process has settled them."""
        return self.tally.report()

    def carry(self, fn: Callable[P, R]) -> Callable[P, R]:
        """`fn` as it would run here, inside this run, for raw threads and executors, which do not inherit it."""
        if inspect.iscoroutinefunction(fn):

            @wraps(fn)
            async def carried_async(*args: P.args, **kwargs: P.kwargs) -> Any:
                token = push(self, None)
                try:
                    return await fn(*args, **kwargs)
                finally:
                    pop(token)

            return cast(Callable[P, R], carried_async)

        context = copy_context()

        @wraps(fn)
        def carried(*args: P.args, **kwargs: P.kwargs) -> R:
            return context.copy().run(inside, *args, **kwargs)  # a context cannot be entered twice at a time

        def inside(*args: P.args, **kwargs: P.kwargs) -> R:
            push(self, None)
            return fn(*args, **kwargs)

        return carried

    # --- what guards, the scheduler and inner runs tell it

    def entered(self, permit: Permit) -> None:
        self._permits[permit.id] = ref(permit)

    def left(self, permit: Permit) -> None:
        self._permits.pop(permit.id, None)

    def mark(self, stop: Stop) -> None:
        self._stop = stop
        if self._on_stop is not None:
            self._on_stop(stop)

    # --- beginning and ending

    def _beginning(self) -> Steps[Run]:
        if self.id:
            raise InvalidRequest("run", f"{self.name!r} was used before", "a new run for each `with`")
        self._subject = acting_subject(self._subject, self.parent)
        desk = desk_of(self.authority)
        sent = desk.scheduler.clock()
        options: dict[str, Any] = {
            "name": self.name,
            "ttl_ms": self.ttl_ms,
            "overage_policy": self._overage_policy,
            "run_id": None if self.parent is None else self.parent.id,
            "metadata": self._metadata,
            "idempotency_key": new_key(),
        }
        start = Ask("start_run", (self._subject, self.budget), options)
        try:
            decision: Decision = yield start
        except ClearanceError as error:
            of_another_call(error)
            if isinstance(error, AuthorityUnavailable | BadAnswer) and not isinstance(error, StoreError):
                self._take_back_later(start)  # nobody knows: it may have begun all the same
            raise
        except BaseException:
            self._take_back_later(start)  # interrupted before the answer
            raise
        self._begun(decision, sent)
        desk.scheduler.watch(self)
        return self

    def _take_back_later(self, start: Ask) -> None:
        """Nobody will use the run that may have begun. Asked again with the same key it answers the id to end."""
        desk = desk_of(self.authority)
        lease_end = desk.scheduler.clock() + self.ttl_ms / 1000

        def steps() -> Steps[None]:
            if desk.scheduler.clock() > lease_end:
                return  # whatever was held has expired by itself
            with suppress(Denied, Conflict, NotFound):  # it never began, or has ended
                decision: Decision = yield start
                if decision.reservation_id is not None:
                    yield Ask("end_run", (decision.reservation_id,), {})

        desk.arrears.add(Job(self.authority, steps, f"end of run {self.name!r} that nobody uses"))

    def _begun(self, decision: Decision, sent: float) -> None:
        if decision.reservation_id is None:
            raise InvalidRequest("run", "the authority gave it no id")
        self.decision = decision
        self.id = decision.reservation_id
        remaining_ms = self.ttl_ms if decision.remaining_ttl_ms is None else decision.remaining_ttl_ms
        self.lease_end = sent + remaining_ms / 1000
        if self.parent is not None:
            self.parent._children[self.id] = ref(self)
            self.tally = Tally(self.parent.tally)

    def _ending(self) -> Steps[None]:
        """First what is still open inside, then the run itself. Logs what is refused; raises interruptions only."""
        if self._over or not self.id or self._pid != current_pid():
            return
        self._over = True
        desk = desk_of(self.authority)
        desk.scheduler.unwatch(self.id)
        desk.caps.forget(self.id)
        if self.parent is not None:
            self.parent._children.pop(self.id, None)
        yield from self._settling_what_is_open()
        try:
            self.settlement = yield self._end
        except UNDECIDED as error:
            desk.arrears.add_undecided(self._end_job(), error)
        except ClearanceError as error:
            log.warning("the end of run %s was refused (%s: %s)", self.id, type(error).__name__, error)
        except Exception:  # the work is done: a fault here must not take the result from the user
            log.exception("ending run %s failed", self.id)
        except BaseException:  # interrupted in flight
            desk.arrears.add(self._end_job())
            raise

    def _settling_what_is_open(self) -> Steps[None]:
        for child in [child for reference in list(self._children.values()) if (child := reference())]:
            yield from child._ending()
        for permit in [permit for reference in list(self._permits.values()) if (permit := reference())]:
            log.warning("reservation %s was open when its run ended; its cost is unknown", permit.id)
            known = permit.actual
            outcome = Commit(known or permit.estimate, "actual" if known else "estimate", "RunEnded")
            yield from permit.finishing(outcome)

    @property
    def _end(self) -> Ask:
        return Ask("end_run", (self.id,), {})

    def _end_job(self) -> Job:
        ask = self._end

        def steps() -> Steps[None]:
            with suppress(Conflict, NotFound):  # it had arrived, or the lease ended it
                yield ask

        return Job(self.authority, steps, f"end of run {self.id}")

    def __enter__(self) -> Run:
        self.parent = current_run(self.authority)
        perform(self.authority, self._beginning())
        self._token = push(self, None)
        return self

    async def __aenter__(self) -> Run:
        self.parent = current_run(self.authority)
        await aperform(self.authority, self._beginning())
        self._token = push(self, None)
        return self

    def __exit__(self, kind: object, exc: BaseException | None, trace: TracebackType | None) -> None:
        self._step_out()
        perform(self.authority, self._ending())

    async def __aexit__(self, kind: object, exc: BaseException | None, trace: TracebackType | None) -> None:
        self._step_out()
        if isinstance(exc, GeneratorExit):
            perform(self.authority, self._ending())  # a coroutine that is being closed must not wait
        else:
            await aperform(self.authority, self._ending())

    def _step_out(self) -> None:
        if self._token is not None:
            pop(self._token)
            self._token = None

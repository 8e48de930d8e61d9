"""The life of one reservation, from the authority's yes to its settlement."""

from __future__ import annotations

import logging
from threading import Lock
from types import TracebackType
from typing import Literal

from clearance.authority.interface import Authority
from clearance.errors import ClearanceError
from clearance.guard.cancellation import TaskWatch, stopped_error, watch_here
from clearance.guard.outcome import Commit, Outcome, Release, of_another_call, outcome_of
from clearance.guard.process import current_pid
from clearance.guard.settlement import Ticket, settle_later, settling
from clearance.guard.steps import Steps, aperform, perform
from clearance.model.action import Action
from clearance.model.amount import Amount, AmountLike, same_unit, to_amount
from clearance.model.caps import Caps
from clearance.model.results import Decision, Settlement, Stop
from clearance.model.subject import Subject

log = logging.getLogger("clearance.guard")


class Permit:
    """Leave to do one action once. Settled exactly once, by whichever way out comes first; thread-safe.

    Use it `with`, or call `finish` (`afinish`) yourself. A permit that is dropped unsettled is charged its estimate.

    Attributes:
        decision: the authority's answer; DENY only where a denial was merely observed.
        id: the reservation, or a private name where nothing was reserved.
        ttl_ms, lease_end: the lease; `lease_end` in seconds of the scheduler's monotonic clock.
    """

    def __init__(self, ticket: Ticket, decision: Decision, ttl_ms: int, lease_end: float, observing: bool) -> None:
        self.decision = decision
        self.id = ticket.reservation_id or ticket.key
        self.authority: Authority = ticket.authority
        self.ttl_ms = ttl_ms
        self.lease_end = lease_end
        self._ticket = ticket
        self._observing = observing
        self._actual: Amount | None = None
        self._stop: Stop | None = None
        self._watch: TaskWatch | None = None
        self._pid = current_pid()
        self._lock = Lock()
        self._settled = False

    @property
    def reservation_id(self) -> str | None:
        return self._ticket.reservation_id

    @property
    def action(self) -> Action:
        return self._ticket.action

    @property
    def subject(self) -> Subject:
        return self._ticket.subject

    @property
    def estimate(self) -> Amount:
        return self._ticket.estimate

    @property
    def caps(self) -> Caps | None:
        """Tool lists, steps and cooldown are enforced already; `max_tokens` and `models` are for the caller."""
        return self.decision.caps

    @property
    def actual(self) -> Amount | None:
        """What `settle` was last told."""
        return self._actual

    @property
    def stopped(self) -> Stop | None:
        """The kill or pause that came while the action ran, else None. Long sync work should look at it."""
        return self._stop

    @property
    def over(self) -> bool:
        """True once it is settled or being settled."""
        return self._settled

    # --- settling

    def settle(self, actual: AmountLike) -> None:
        """Record what it has really cost, to be committed at the end whatever happens then. The last call wins.

        Raises InvalidRequest for what is not an amount, UnitMismatch for another unit than the estimate's.
        """
        try:
            amount = to_amount(actual, "actual")
            same_unit(amount, self.estimate.unit, "actual")
        except ClearanceError as error:
            of_another_call(error)  # the action was done; a wrong amount must not make it free
            raise
        if self._settled:
            log.warning("reservation %s is settled already; the later amount is not recorded", self.id)
        self._actual = amount

    def settle_now(self, actual: AmountLike | None = None) -> Settlement | None:
        """Commit now: `actual`, else what `settle` was told, else the estimate."""
        return self.finish(self._success(actual))

    async def asettle_now(self, actual: AmountLike | None = None) -> Settlement | None:
        return await self.afinish(self._success(actual))

    def release(self, reason: str = "not done") -> Settlement | None:
        """Give everything back now: the action was certainly not done."""
        return self.finish(Release(reason))

    async def arelease(self, reason: str = "not done") -> Settlement | None:
        return await self.afinish(Release(reason))

    def finish(self, outcome: Outcome) -> Settlement | None:
        """Settle now. None if it was settled before, or the authority's answer is still to come (see the log)."""
        return perform(self.authority, self.finishing(outcome))

    async def afinish(self, outcome: Outcome) -> Settlement | None:
        return await aperform(self.authority, self.finishing(outcome))

    def finish_later(self, outcome: Outcome) -> None:
        """`finish` on the scheduler's thread, for callers that must not wait, such as finalizers."""
        if self._claim():
            settle_later(self._ticket, outcome)

    def outcome_of(self, exc: BaseException | None) -> Outcome:
        """What the settlement table says about this action if it ends with `exc`."""
        return outcome_of(exc, self._actual, self.estimate, action=self.action, body_ran=True)

    def finishing(self, outcome: Outcome) -> Steps[Settlement | None]:
        """The steps of `finish`, for callers that run steps themselves."""
        if not self._claim():
            return None
        return (yield from settling(self._ticket, outcome))

    def _success(self, actual: AmountLike | None) -> Outcome:
        if actual is not None:
            self.settle(actual)
        return self.outcome_of(None)

    def _claim(self) -> bool:
        """True for the first caller only, and never in a child of the process that opened the permit."""
        if self._pid != current_pid():
            return False
        with self._lock:
            if self._settled:
                return False
            self._settled = True
        self._ticket.desk.scheduler.unwatch(self.id)
        if self._ticket.run is not None:
            self._ticket.run.left(self)
        return True

    def __del__(self) -> None:
        try:
            if not self._settled and self._claim():
                settle_later(self._ticket, self._lost())
        except Exception:  # nothing is left at the interpreter's end; the lease then settles it
            pass

    def _lost(self) -> Outcome:
        how: Literal["actual", "estimate"] = "actual" if self._actual else "estimate"
        log.warning("reservation %s was dropped unsettled; its %s is charged", self.id, how)
        return Commit(self._actual or self.estimate, how, "Dropped")

    # --- stops

    def mark(self, stop: Stop) -> None:
        """The authority stopped this action: cancel the task that does it, if there is one. From any thread."""
        self._stop = stop
        watch = self._watch
        if watch is not None and not self._observing:
            watch.cancel_soon()

    def watch_task(self) -> None:
        """From now on the current asyncio task does the work, and a stop cancels it."""
        self._watch = watch_here()
        if self._stop is not None and self._watch is not None and not self._observing:
            self._watch.cancel_soon()

    def unwatch_task(self, exc: BaseException | None = None) -> BaseException | None:
        """The task is done with it. Answers the error that its caller gets: Killed or Paused for our own
        cancellation, else `exc`."""
        watch, self._watch = self._watch, None
        if watch is None:
            return exc
        ours = watch.end(exc, self._stop is not None)
        return stopped_error(self._stop) if ours and self._stop is not None else exc

    def check(self) -> None:
        """Raise Killed or Paused if this action was stopped; for work that comes in pieces."""
        if self._stop is not None and not self._observing:
            raise stopped_error(self._stop)

    # --- with

    def __enter__(self) -> Permit:
        self.watch_task()
        return self

    def __exit__(self, kind: object, exc: BaseException | None, trace: TracebackType | None) -> None:
        error = self.unwatch_task(exc)
        perform(self.authority, self.finishing(self.outcome_of(error)))
        if error is not None and error is not exc:
            raise error from exc

    async def __aenter__(self) -> Permit:
        self.watch_task()
        return self

    async def __aexit__(self, kind: object, exc: BaseException | None, trace: TracebackType | None) -> None:
        error = self.unwatch_task(exc)
        steps = self.finishing(self.outcome_of(error))
        if isinstance(exc, GeneratorExit):
            perform(self.authority, steps)  # a coroutine that is being closed must not wait
        else:
            await aperform(self.authority, steps)
        if error is not None and error is not exc:
            raise error from exc

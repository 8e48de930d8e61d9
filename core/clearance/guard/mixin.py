"""What every authority offers to the code that it governs."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Literal, cast

from clearance.authority.interface import DEFAULT_GRACE_MS, DEFAULT_TTL_MS, Authority, Metadata
from clearance.errors import InvalidRequest
from clearance.guard.admission import Terms
from clearance.guard.context import acting_as
from clearance.guard.denial import OnDeny
from clearance.guard.desk import desk_of
from clearance.guard.guard import ActionLike, ActualLike, ApproverLike, EstimateLike, Guard, SubjectLike
from clearance.guard.run import Run
from clearance.model.account import OveragePolicy
from clearance.model.amount import AmountLike, to_amount
from clearance.model.results import Stop
from clearance.model.subject import Subject


class Guarding:
    """Mixed into every authority, embedded or remote; `self` must satisfy the Authority protocol."""

    def guard(
        self,
        action: ActionLike,
        estimate: EstimateLike,
        *,
        actual: ActualLike = None,
        subject: SubjectLike = None,
        run: Run | None = None,
        ttl_ms: int = DEFAULT_TTL_MS,
        grace_period_ms: int = DEFAULT_GRACE_MS,
        overage_policy: OveragePolicy | None = None,
        on_deny: OnDeny = "raise",
        dry_run: Literal["observe"] | None = None,
        metadata: Metadata | None = None,
        approved_by: ApproverLike = None,
    ) -> Guard:
        """Reserve `estimate` before an action, settle after it: `with`, `async with` or a decorator.

        Args:
            action: an Action or "kind:name", e.g. "tool.call:search".
            estimate: the most that it should cost; an Amount, USD as "0.02", or an int of microcents.
            actual: what it did cost, when it succeeds without telling `permit.settle`. A callable gets the result
                and the call's arguments, and the permit if it takes a parameter `permit`; the result of a generator
                is what it returns, None for an async one. In a with block it gets no result and no arguments.
            subject: who acts; by default the one of `acting_as` or of the run.
            run: the run to act in; by default the one around.
            ttl_ms, grace_period_ms: the lease, kept alive while the work lasts.
            on_deny: for decorated functions; see OnDeny.
            dry_run: "observe" does the work whatever the authority says, and records what it cost.
            metadata: kept with the reservation; JSON-able, no secrets.
            approved_by: the person who has approved this tool call, where the caps ask for one (`approval_tools`);
                kept with the reservation. Without it such a call is denied with ApprovalRequired.

        `action`, `estimate`, `subject` and `approved_by` may be callables: they get the decorated call's arguments, or
        nothing in a with block. Entering raises Denied, AuthorityUnavailable or InvalidRequest; then nothing is held or
        done.
        """
        if dry_run not in (None, "observe"):
            raise InvalidRequest("dry_run", f"{dry_run!r} is unknown", 'None or "observe"')
        terms = Terms(ttl_ms, grace_period_ms, overage_policy, dry_run == "observe", metadata)
        return Guard(
            cast(Authority, self),
            action,
            estimate,
            actual=actual,
            subject=subject,
            run=run,
            on_deny=on_deny,
            terms=terms,
            approved_by=approved_by,
        )

    def run(
        self,
        subject: Subject | None = None,
        budget: AmountLike | None = None,
        *,
        name: str = "run",
        ttl_ms: int = DEFAULT_TTL_MS,
        overage_policy: OveragePolicy | None = None,
        on_stop: Callable[[Stop], object] | None = None,
        metadata: Metadata | None = None,
    ) -> Run:
        """One agent run, for `with` or `async with`; guards inside find it and draw on its budget.

        Args:
            subject: who acts inside; by default the one of `acting_as` or of the run around.
            budget: held at once, a slice of the enclosing run's budget if there is one. None carries identity only.
            ttl_ms: the lease, kept alive while the run lasts.
            on_stop: told once when the run was killed or paused, on the heartbeat thread: be quick.

        Entering raises Denied, AuthorityUnavailable or InvalidRequest.
        """
        return Run(
            cast(Authority, self),
            subject,
            None if budget is None else to_amount(budget, "budget"),
            name=name,
            ttl_ms=ttl_ms,
            overage_policy=overage_policy,
            on_stop=on_stop,
            metadata=metadata,
        )

    def acting_as(self, subject: Subject) -> AbstractContextManager[Subject]:
        """`with authority.acting_as(subject):` guards inside act as `subject`. The same in sync and async code."""
        return acting_as(subject)

    def flush(self, timeout: float = 5.0) -> bool:
        """Settle now what an outage has left unsettled, for at most `timeout` seconds; `close` calls it.

        True when nothing is left.
        """
        return desk_of(cast(Authority, self)).arrears.flush(timeout)

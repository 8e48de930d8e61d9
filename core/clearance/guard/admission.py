"""From a wish to a permit: reserve, keep to the caps, and lose nothing when interrupted in between."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

from clearance.authority.interface import DEFAULT_GRACE_MS, DEFAULT_TTL_MS, Authority, Metadata
from clearance.errors import (
    ApprovalRequired,
    AuthorityUnavailable,
    BadAnswer,
    CapsViolated,
    ClearanceError,
    Conflict,
    Denied,
    InvalidRequest,
    LimitExceeded,
    NotFound,
    StoreError,
    SubjectMissing,
)
from clearance.guard.arrears import Job
from clearance.guard.context import acting_subject, current_run
from clearance.guard.desk import Desk, desk_of
from clearance.guard.outcome import Release, of_another_call
from clearance.guard.permit import Permit
from clearance.guard.process import new_key
from clearance.guard.run import Run
from clearance.guard.settlement import Ticket
from clearance.guard.steps import Ask, Steps, aperform, perform
from clearance.model.account import OveragePolicy
from clearance.model.action import Action
from clearance.model.action import action as parse_action
from clearance.model.amount import Amount, AmountLike, to_amount
from clearance.model.caps import Caps
from clearance.model.results import Decision
from clearance.model.subject import DEFAULT_TENANT, Subject

log = logging.getLogger("clearance.guard")

MAX_APPROVER = 256


@dataclass(frozen=True, slots=True)
class Terms:
    """How to hold, whatever is held. Times in ms.

    `approved_by` names the person who has approved this call; `tool` is the name of the tool that it uses, where the
    action's kind does not say so (`tool.*` does).
    """

    ttl_ms: int = DEFAULT_TTL_MS
    grace_period_ms: int = DEFAULT_GRACE_MS
    overage_policy: OveragePolicy | None = None
    observe: bool = False
    metadata: Metadata | None = None
    approved_by: str | None = None
    tool: str | None = None

    def __post_init__(self) -> None:
        who = self.approved_by
        if who is not None and not (isinstance(who, str) and who.strip() and len(who) <= MAX_APPROVER):
            raise InvalidRequest("approved_by", f"{str(who)[:40]!r} names nobody", f"1 to {MAX_APPROVER} characters")

    @property
    def kept(self) -> Metadata | None:
        """What the reservation keeps of them."""
        facts = {"mode": "observe"} if self.observe else {}
        if self.approved_by is not None:
            facts["approved_by"] = self.approved_by
        return {**(self.metadata or {}), **facts} if facts else self.metadata


@dataclass(slots=True)
class Wish:
    """One action that somebody wants to do, with everything decided but the answer."""

    authority: Authority
    desk: Desk
    subject: Subject
    action: Action
    estimate: Amount
    run: Run | None
    terms: Terms
    key: str

    @property
    def reserve(self) -> Ask:
        terms = self.terms
        options: dict[str, Any] = {
            "ttl_ms": terms.ttl_ms,
            "grace_period_ms": terms.grace_period_ms,
            "overage_policy": terms.overage_policy,
            "run_id": None if self.run is None else self.run.id,
            "idempotency_key": self.key,
            "metadata": terms.kept,
        }
        return Ask("reserve", (self.subject, self.action, self.estimate), options)

    @property
    def place(self) -> str:
        """Where steps and cooldown are counted."""
        return self.subject.scope_path if self.run is None else self.run.id

    def ticket(self, reservation_id: str | None) -> Ticket:
        return Ticket(
            self.authority,
            self.desk,
            self.subject,
            self.action,
            self.estimate,
            self.run,
            self.terms.overage_policy,
            reservation_id,
            self.key + "-settle",
        )


def wish(
    authority: Authority,
    action: Action | str,
    estimate: AmountLike,
    *,
    subject: Subject | None = None,
    run: Run | None = None,
    terms: Terms,
) -> Wish:
    """Fill in who acts and in which run. Raises SubjectMissing or InvalidRequest."""
    if run is None:
        inside, named = current_run(authority), False
    else:
        inside, named = run, True
    try:
        who = acting_subject(subject, inside, named)
    except SubjectMissing:
        if not terms.observe:
            raise
        log.warning("observed only: nobody said who acts; taken for tenant %s", DEFAULT_TENANT)
        who = Subject(tenant=DEFAULT_TENANT)
    what = parse_action(action) if isinstance(action, str) else action
    return Wish(authority, desk_of(authority), who, what, to_amount(estimate, "estimate"), inside, terms, new_key())


def admitting(wanted: Wish) -> Steps[Permit]:
    """The steps from a wish to a live permit. Raises Denied, AuthorityUnavailable and InvalidRequest."""
    sent = wanted.desk.scheduler.clock()
    try:
        decision: Decision = yield wanted.reserve
    except ClearanceError as error:
        of_another_call(error)
        if isinstance(error, AuthorityUnavailable | BadAnswer) and not isinstance(error, StoreError):
            _take_back_later(wanted)  # nobody knows: it may hold all the same
        if wanted.terms.observe and isinstance(error, Denied | AuthorityUnavailable | BadAnswer | LimitExceeded):
            return _observed(wanted, error)
        raise
    except BaseException:
        _take_back_later(wanted)  # interrupted before the answer
        raise
    permit = _permit(wanted, decision, sent)
    try:
        _keep_to(decision.caps, wanted)
    except (CapsViolated, ApprovalRequired) as refused:
        of_another_call(refused)
        if not wanted.terms.observe:
            yield from permit.finishing(Release(type(refused).__name__))
            raise
        log.warning("observed only: %s", refused)
    if wanted.run is not None:
        wanted.run.entered(permit)
    wanted.desk.scheduler.watch(permit)
    return permit


def _keep_to(caps: Caps | None, wanted: Wish) -> None:
    terms = wanted.terms
    approved = terms.approved_by is not None
    try:
        wanted.desk.caps.admit(wanted.place, wanted.action, caps, tool=terms.tool, approved=approved)
    except ApprovalRequired as needed:
        needed.scope = wanted.subject.scope_path  # who asks for it, which a person must know, also inside a run
        raise


def _permit(wanted: Wish, decision: Decision, sent: float) -> Permit:
    terms = wanted.terms
    remaining_ms = terms.ttl_ms if decision.remaining_ttl_ms is None else decision.remaining_ttl_ms
    ticket = wanted.ticket(decision.reservation_id)
    return Permit(ticket, decision, terms.ttl_ms, sent + remaining_ms / 1000, terms.observe)


def _observed(wanted: Wish, error: ClearanceError) -> Permit:
    """The action happens all the same, and is recorded as an event when it is over."""
    log.warning("observed only: %s %s would not run (%s)", wanted.action.kind, wanted.action.name, error)
    decision = Decision(
        decision="DENY",
        affected_scopes=wanted.subject.scopes,
        unit=wanted.estimate.unit,
        estimate=wanted.estimate.amount,
        reason_code=error.reason_code,
        message=error.message,
        scope=error.scope,
        retry_after_ms=error.retry_after_ms,
        details=error.details,
    )
    return Permit(wanted.ticket(None), decision, wanted.terms.ttl_ms, 0.0, observing=True)


def _take_back_later(wanted: Wish) -> None:
    """Nobody will use what this reserve may have got. Asked again with the same key it answers the id to release."""
    clock = wanted.desk.scheduler.clock
    lease_end = clock() + (wanted.terms.ttl_ms + wanted.terms.grace_period_ms) / 1000

    def steps() -> Steps[None]:
        if clock() > lease_end:
            return  # whatever was held has expired by itself
        try:
            decision: Decision = yield wanted.reserve
            if decision.reservation_id is not None:
                options = {"reason": "caller was interrupted", "idempotency_key": wanted.key + "-settle"}
                yield Ask("release", (decision.reservation_id,), options)
        except (Denied, Conflict, NotFound):
            pass  # nothing is held

    wanted.desk.arrears.add(Job(wanted.authority, steps, "release of an unused reservation"))


def open_permit(
    authority: Authority,
    action: Action | str,
    estimate: AmountLike,
    *,
    subject: Subject | None = None,
    run: Run | None = None,
    ttl_ms: int = DEFAULT_TTL_MS,
    grace_period_ms: int = DEFAULT_GRACE_MS,
    overage_policy: OveragePolicy | None = None,
    observe: bool = False,
    metadata: Metadata | None = None,
    approved_by: str | None = None,
    tool: str | None = None,
) -> Permit:
    """A permit without a guard around it, for adapters: end it with `finish`, or use it `with`.

    `approved_by` and `tool` are as in `Terms`. Only a permit that is used `with` or `async with` has its task cancelled
    by a stop.
    Raises Denied, AuthorityUnavailable, InvalidRequest; then nothing is held.
    """
    terms = Terms(ttl_ms, grace_period_ms, overage_policy, observe, metadata, approved_by, tool)
    return perform(authority, admitting(wish(authority, action, estimate, subject=subject, run=run, terms=terms)))


async def aopen_permit(
    authority: Authority,
    action: Action | str,
    estimate: AmountLike,
    *,
    subject: Subject | None = None,
    run: Run | None = None,
    ttl_ms: int = DEFAULT_TTL_MS,
    grace_period_ms: int = DEFAULT_GRACE_MS,
    overage_policy: OveragePolicy | None = None,
    observe: bool = False,
    metadata: Metadata | None = None,
    approved_by: str | None = None,
    tool: str | None = None,
) -> Permit:
    """`open_permit` with the async verbs."""
    terms = Terms(ttl_ms, grace_period_ms, overage_policy, observe, metadata, approved_by, tool)
    wanted = wish(authority, action, estimate, subject=subject, run=run, terms=terms)
    return await aperform(authority, admitting(wanted))

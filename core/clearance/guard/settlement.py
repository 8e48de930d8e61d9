"""Telling the authority how a reservation ended, through every answer that it may give."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from clearance.authority.interface import Authority
from clearance.errors import (
    BudgetExceeded,
    ClearanceError,
    NotFound,
    OverdraftLimitExceeded,
    ReservationExpired,
    ReservationFinalized,
)
from clearance.guard.arrears import UNDECIDED, Job
from clearance.guard.desk import Desk
from clearance.guard.outcome import Commit, Outcome, Release
from clearance.guard.steps import Ask, Steps
from clearance.model.account import ALLOW_IF_AVAILABLE, OveragePolicy
from clearance.model.action import Action
from clearance.model.amount import Amount
from clearance.model.results import Settlement
from clearance.model.subject import Subject

if TYPE_CHECKING:
    from clearance.guard.run import Run

log = logging.getLogger("clearance.guard")


@dataclass(slots=True)
class Ticket:
    """What must be known to settle one action, also after its permit is gone.

    `reservation_id` is None for an action that was only observed; `key` is the idempotency key of its settlement.
    """

    authority: Authority
    desk: Desk
    subject: Subject
    action: Action
    estimate: Amount
    run: Run | None
    overage_policy: OveragePolicy | None
    reservation_id: str | None
    key: str

    @property
    def run_id(self) -> str | None:
        return None if self.run is None else self.run.id


def settling(ticket: Ticket, outcome: Outcome) -> Steps[Settlement | None]:
    """Settle once and for all. Only an interruption (cancellation, KeyboardInterrupt) is raised.

    What is undecided is kept and tried again with the same key; every refusal is logged.
    """
    if ticket.run is not None and isinstance(outcome, Commit):
        ticket.run.tally.add(ticket.action.kind, ticket.estimate, outcome.amount)
    try:
        return (yield from _telling(ticket, outcome))
    except UNDECIDED as error:
        ticket.desk.arrears.add_undecided(_job(ticket, outcome), error)
    except ClearanceError as error:
        log.error("the %s was refused (%s: %s)", _what(ticket, outcome), type(error).__name__, error)
    except Exception:  # the work is done: a fault here must not take the result from the user
        log.exception("the %s failed", _what(ticket, outcome))
    except BaseException:  # interrupted in flight: it may or may not have arrived
        ticket.desk.arrears.add(_job(ticket, outcome))
        raise
    return None


def settle_later(ticket: Ticket, outcome: Outcome) -> None:
    """Leave it to the scheduler's thread; safe in a finalizer."""
    if ticket.run is not None and isinstance(outcome, Commit):
        ticket.run.tally.add(ticket.action.kind, ticket.estimate, outcome.amount)
    ticket.desk.arrears.add(_job(ticket, outcome))


def _job(ticket: Ticket, outcome: Outcome) -> Job:
    return Job(ticket.authority, partial(_telling, ticket, outcome), _what(ticket, outcome))


def _what(ticket: Ticket, outcome: Outcome) -> str:
    verb = "release" if isinstance(outcome, Release) else "commit"
    return f"{verb} of reservation {ticket.reservation_id}" if ticket.reservation_id else "event of an observed action"


def _telling(ticket: Ticket, outcome: Outcome) -> Steps[Settlement | None]:
    try:
        if isinstance(outcome, Release):
            return (yield from _releasing(ticket, outcome))
        return (yield from _committing(ticket, outcome))
    except ReservationFinalized:
        log.warning("reservation %s was settled before, by someone else", ticket.reservation_id)
        return None


def _releasing(ticket: Ticket, outcome: Release) -> Steps[Settlement | None]:
    if ticket.reservation_id is None:
        return None
    try:
        answer: Settlement = yield Ask(
            "release", (ticket.reservation_id,), {"reason": outcome.reason, "idempotency_key": ticket.key}
        )
    except ReservationExpired:
        log.warning("reservation %s had expired before its release", ticket.reservation_id)
        return None
    return answer


def _committing(ticket: Ticket, outcome: Commit) -> Steps[Settlement | None]:
    if ticket.reservation_id is None:
        return (yield from _recording(ticket, outcome.amount, ticket.overage_policy, ticket.key, outcome.metadata))
    try:
        answer: Settlement = yield _commit(ticket, outcome.amount, ticket.key, outcome.metadata)
        return answer
    except (ReservationExpired, NotFound):
        # Not found: a power cut or fail-over has forgotten the hold. The money is spent all the same.
        facts = {**outcome.metadata, "reservation_id": ticket.reservation_id}
        return (yield from _recording(ticket, outcome.amount, ticket.overage_policy, ticket.key, facts))
    except (BudgetExceeded, OverdraftLimitExceeded) as refused:
        return (yield from _splitting(ticket, outcome, refused))


def _splitting(ticket: Ticket, outcome: Commit, refused: ClearanceError) -> Steps[Settlement | None]:
    """The overage was refused, but the money is spent: commit what was held, record the rest as an event.

    In this order, so that nothing is counted twice and the hold is charged even if the event never arrives.
    """
    held = min(outcome.amount.amount, ticket.estimate.amount)
    excess = outcome.amount.amount - held
    log.error(
        "reservation %s cost %s, %s was held; the rest is recorded as an event (%s)",
        ticket.reservation_id,
        outcome.amount,
        ticket.estimate,
        type(refused).__name__,
    )
    facts = {**outcome.metadata, "actual": outcome.amount.amount}
    amount = ticket.estimate.model_copy(update={"amount": held})
    answer: Settlement = yield _commit(ticket, amount, ticket.key + "-held", facts)
    if excess:
        rest = amount.model_copy(update={"amount": excess})
        facts = {**outcome.metadata, "overage_of": ticket.reservation_id}
        yield from _recording(ticket, rest, ALLOW_IF_AVAILABLE, ticket.key, facts)
    return answer


def _commit(ticket: Ticket, amount: Amount, key: str, metadata: dict[str, Any]) -> Ask:
    return Ask("commit", (ticket.reservation_id, amount), {"idempotency_key": key, "metadata": metadata})


def _recording(
    ticket: Ticket, amount: Amount, policy: OveragePolicy | None, key: str, metadata: dict[str, Any]
) -> Steps[Settlement]:
    answer: Settlement = yield Ask(
        "event",
        (ticket.subject, ticket.action, amount),
        {"overage_policy": policy, "run_id": ticket.run_id, "idempotency_key": key, "metadata": metadata},
    )
    return answer

"""`clearance kill | pause | resume`: the stop button."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from clearance.cli import facts, views
from clearance.cli.session import Session, command
from clearance.errors import ClearanceError

if TYPE_CHECKING:
    from clearance.cli.session import Ledger
    from clearance.model.results import Stop

_PANEL = "The stop button"
_TARGET = "A scope such as tenant:acme/agent:bot, a run as run:<id>, or '*' for everybody (quote the star)."

Target = Annotated[str, typer.Argument(metavar="SCOPE", help=_TARGET)]
Reason = Annotated[str, typer.Option("--reason", help="Why; it stands in the audit log and in every denial.")]
Actor = Annotated[str | None, typer.Option("--actor", help="Who; default: the user of this system.")]


def register(app: typer.Typer) -> None:
    command(app, "kill", rich_help_panel=_PANEL)(kill)
    command(app, "pause", rich_help_panel=_PANEL)(pause)
    command(app, "resume", rich_help_panel=_PANEL)(resume)


def kill(session: Session, scope: Target, reason: Reason, actor: Actor = None) -> None:
    """Stop everything below a scope until it is resumed, and name what is in flight.

    Once this has answered, nothing new is granted there, by any process. What is in flight may still settle.
    """
    with session.authority() as authority:
        stop = authority.kill(scope, reason=reason, actor=actor)
        session.show(_stopped(authority, stop, "KILLED"), views.stopped)


def pause(session: Session, scope: Target, reason: Reason, actor: Actor = None) -> None:
    """Like kill, for work that is meant to go on later. What was killed stays killed."""
    with session.authority() as authority:
        stop = authority.pause(scope, reason=reason, actor=actor)
        session.show(_stopped(authority, stop, "PAUSED"), views.stopped)


def resume(session: Session, scope: Target, reason: Reason, actor: Actor = None) -> None:
    """End a kill or a pause of exactly this scope. Stops above it stay in force and are named."""
    with session.authority() as authority:
        before = facts.stops_in_force(authority)
        stop = authority.resume(scope, reason=reason, actor=actor)
        was_stopped = any(it.scope == stop.scope for it in before)
        above = [facts.stop_facts(it) for it in before if it.scope != stop.scope and _covers(it.scope, stop.scope)]
        answer = {**facts.stop_facts(stop), "was_stopped": was_stopped, "still_stopped_by": above}
        session.show(answer, views.resumed)


def _stopped(authority: Ledger, stop: Stop, asked: str) -> dict[str, Any]:
    answer = {**facts.stop_facts(stop), "asked": asked, "in_flight_count": len(stop.in_flight)}
    try:
        known, in_flight = _is_known(authority, stop.scope), facts.in_flight(authority, stop.in_flight)
    except ClearanceError as error:
        # The stop is in force, whatever becomes of what is told about it.
        unnamed = [{"reservation_id": it} for it in stop.in_flight]
        return {**answer, "known": None, "in_flight": unnamed, "untold": error.message}
    return {**answer, "known": known, "in_flight": in_flight}


def _is_known(authority: Ledger, scope: str) -> bool:
    """Has anything below this scope a budget, or ever asked for one? If not, it may be misspelt."""
    from clearance.store.interface import ReservationQuery

    if scope == "*" or scope.startswith("run:"):
        return True
    if authority.balances(scope, limit=1).items:
        return True
    return bool(authority.reservations(ReservationQuery(scope=scope), limit=1).items)


def _covers(stopped: str, scope: str) -> bool:
    from clearance.model.subject import covers

    return stopped == "*" or covers(stopped, scope)

"""`clearance reservations` and `clearance events`: what was held, and the audit log."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated, Any, get_args

import typer

from clearance.cli import facts, views
from clearance.cli.output import console, line, say
from clearance.cli.session import Session, command, default
from clearance.errors import AuthorityUnavailable, InvalidRequest, LimitExceeded, StoreError

if TYPE_CHECKING:
    from clearance.cli.session import Ledger
    from clearance.model.results import Event
    from clearance.store.interface import EventQuery

_PANEL = "Records"
POLL_SECONDS = 0.25
OUTAGE_SECONDS = 1.0
FOLLOWED_BATCH = 500
Text = str | None


def register(app: typer.Typer) -> None:
    group = typer.Typer(name="reservations")
    default(group)(reservations)
    command(group, "show")(show)
    app.add_typer(group, rich_help_panel=_PANEL)
    command(app, "events", rich_help_panel=_PANEL)(events)


def reservations(
    session: Session,
    scope: Annotated[Text, typer.Option("--scope", help="Only at and below this scope.")] = None,
    status: Annotated[Text, typer.Option("--status", help="active, committed, released or expired.")] = None,
    kind: Annotated[Text, typer.Option("--kind", help="call or run.")] = None,
    run: Annotated[Text, typer.Option("--run", help="Only inside this run.")] = None,
    tenant: Annotated[Text, typer.Option("--tenant", help="Only this tenant's.")] = None,
    key: Annotated[Text, typer.Option("--idempotency-key", help="Only the one made with this key.")] = None,
    oldest_first: Annotated[bool, typer.Option("--oldest-first", help="Default is the newest first.")] = False,
    limit: Annotated[int, typer.Option("--limit", help="1 to 200.")] = 50,
    cursor: Annotated[Text, typer.Option("--cursor", help="Where the last page ended.")] = None,
) -> None:
    """Holds and runs, the newest first; `reservations show ID` is one in full."""
    from clearance.model.reservation import ReservationKind, ReservationStatus
    from clearance.model.subject import parse_scope
    from clearance.store.interface import ReservationQuery

    query = ReservationQuery(
        tenant=tenant.lower() if tenant else None,
        status=_one_of("status", status.upper() if status else None, get_args(ReservationStatus)),
        kind=_one_of("kind", kind.lower() if kind else None, get_args(ReservationKind)),
        run_id=run.removeprefix("run:") if run else None,
        scope=parse_scope(scope) if scope else None,
        idempotency_key=key,
        descending=not oldest_first,
    )
    with session.authority() as authority:
        page = authority.reservations(query, limit=limit, cursor=cursor)
        found = [facts.reservation_line(it) for it in page.items]
        session.show({"reservations": found, "next_cursor": page.next_cursor}, views.reservations)


def show(session: Session, reservation_id: Annotated[str, typer.Argument(metavar="ID")]) -> None:
    """One reservation or run in full."""
    with session.authority() as authority:
        session.show(authority.find(reservation_id.removeprefix("run:")).as_dict(), views.reservation)


def _one_of(field: str, value: str | None, allowed: tuple[str, ...]) -> str | None:
    if value is not None and value not in allowed:
        raise InvalidRequest(field, f"{value!r} is unknown", ", ".join(allowed).lower())
    return value


def events(
    session: Session,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Wait for new ones until Ctrl-C.")] = False,
    scope: Annotated[Text, typer.Option("--scope", help="Only at and below this scope.")] = None,
    types: Annotated[list[str] | None, typer.Option("--type", help="Such as budget.funded; repeat it.")] = None,
    tenant: Annotated[Text, typer.Option("--tenant", help="Only this tenant's.")] = None,
    reservation: Annotated[Text, typer.Option("--reservation", help="Only those of this reservation.")] = None,
    after: Annotated[int | None, typer.Option("--after", min=0, help="Only later ones than this number.")] = None,
    limit: Annotated[int, typer.Option("--limit", help="1 to 1000; without --after: the last ones.")] = 50,
) -> None:
    """The audit log, the oldest first. With --follow and --json one JSON object a line."""
    from clearance.model.subject import parse_scope
    from clearance.store.interface import EventQuery

    query = EventQuery(
        after=after or 0,
        tenant=tenant.lower() if tenant else None,
        scope=_event_scope(scope, parse_scope),
        types=tuple(types or ()),
        reservation_id=reservation,
        descending=after is None,
    )
    with session.authority() as authority:
        found = authority.events(query, limit=limit)
        found.sort(key=lambda event: event.seq)
        if follow:
            _follow(session, authority, query, found)
            return
        last = found[-1].seq if found else after or 0
        session.show({"events": [event.as_dict() for event in found], "last_seq": last}, views.events)


def _event_scope(scope: str | None, parse: Any) -> str | None:
    """Controls on a run or on everybody are logged under `run:<id>` and `*`."""
    if scope is None or scope == "*" or scope.startswith("run:"):
        return scope
    return str(parse(scope))


def _follow(session: Session, authority: Ledger, query: EventQuery, found: list[Event]) -> None:
    from dataclasses import replace

    out = console()
    seq = found[-1].seq if found else query.after
    try:
        while True:
            for event in found:
                if session.as_json:
                    line(event.as_dict())
                else:
                    out.print(views.event_line(event.as_dict()), soft_wrap=True)
            seq = found[-1].seq if found else seq
            found = _later(authority, replace(query, after=seq, descending=False))
            if not found:
                time.sleep(POLL_SECONDS)
    except KeyboardInterrupt:
        return


def _later(authority: Ledger, query: EventQuery) -> list[Event]:
    """What came after; the outage of a server is told once and waited through."""
    told = False
    while True:
        try:
            return authority.events(query, limit=FOLLOWED_BATCH)
        except StoreError:
            raise
        except (AuthorityUnavailable, LimitExceeded) as error:
            if not told:
                say(f"{error.message}; waiting for it")
            told = True
            time.sleep(OUTAGE_SECONDS)

"""`clearance journal list | flush`: settlements that are not known to have arrived at a server."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from clearance.cli import adminviews
from clearance.cli.operator import PANEL, ServerOption, server_url
from clearance.cli.session import Session, command
from clearance.errors import InvalidRequest

if TYPE_CHECKING:
    from clearance.remote import JournalLine

LEFT = 3
_FOLDER = "The journal's folder; default: where connect() keeps it."
FolderOption = Annotated[Path | None, typer.Option("--folder", metavar="DIR", help=_FOLDER)]


def register(app: typer.Typer) -> None:
    journal = typer.Typer(help="Settlements that wait for a server.", no_args_is_help=True)
    app.add_typer(journal, name="journal", rich_help_panel=PANEL)
    command(journal, "list")(list_)
    command(journal, "flush")(flush)


def list_(session: Session, folder: FolderOption = None) -> None:
    """What was spent and is not known to be recorded, for every server and key of this user. Reads only."""
    from clearance.remote import list_journal

    base = _base(folder)
    partitions = [
        {
            "folder": str(found.folder),
            "waiting": [_line(line) for line in found.lines],
            "quarantined": found.quarantined,
        }
        for found in list_journal(base)
    ]
    waiting = sum(len(it["waiting"]) for it in partitions)
    session.show({"folder": str(base), "waiting": waiting, "partitions": partitions}, adminviews.journal)


def _base(folder: Path | None) -> Path:
    from clearance.connecting import journal_folder

    return folder.expanduser() if folder is not None else journal_folder()


def _line(line: JournalLine) -> dict[str, Any]:
    return {
        "file": line.file,
        "mode": line.mode,
        "reservation_id": line.reservation_id,
        "amount": line.actual.amount if line.actual else None,
        "unit": line.actual.unit.value if line.actual else None,
        "action": line.action,
        "scope": line.scope,
        "created_at_ms": line.created_at_ms,
        "not_before_ms": line.not_before_ms,
        "refused": line.refused,
        "problem": line.problem,
    }


def flush(
    session: Session,
    timeout: Annotated[
        float, typer.Option("--timeout", min=0.1, max=600, help="Seconds; then the rest is left.")
    ] = 10.0,
    tenant: Annotated[str | None, typer.Option("--tenant", help="Default: CLEARANCE_TENANT, as in connect().")] = None,
    folder: FolderOption = None,
    server: ServerOption = None,
) -> None:
    """Settle now what waits for one server, with the key in CLEARANCE_API_KEY. Exit code 3 when something is left."""
    from clearance.connecting import API_KEY_VARIABLE, TENANT_VARIABLE
    from clearance.remote import RemoteAuthority

    url = server_url(session, server)
    api_key = os.environ.get(API_KEY_VARIABLE)
    if not api_key:
        raise InvalidRequest(API_KEY_VARIABLE, "is not set", f"the tenant's key at {url}")
    authority = RemoteAuthority(
        url,
        api_key=api_key,
        tenant=tenant or os.environ.get(TENANT_VARIABLE) or None,
        journal=_base(folder),
        background=False,
    )
    try:
        done = authority.flush_journal(timeout)
    finally:
        authority.close()
    answer = {
        "server": authority.url,
        "settled": done.settled,
        "waiting": done.waiting,
        "refused": done.refused,
        "quarantined": done.quarantined,
        "errors": sorted(set(done.errors)),
    }
    session.show(answer, adminviews.flushed)
    if done.waiting or done.refused or done.quarantined:
        raise typer.Exit(LEFT)

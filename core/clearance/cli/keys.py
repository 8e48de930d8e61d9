"""`clearance key ...`: the API keys of a server's tenants. A secret is shown once, when it is made."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from clearance.cli import adminviews
from clearance.cli.operator import PANEL, ServerOption, operator
from clearance.cli.session import Session, command

Text = str | None
KeyId = Annotated[str, typer.Argument(metavar="KEY_ID", help="As `clearance key list` shows it; not the secret.")]


def register(app: typer.Typer) -> None:
    key = typer.Typer(help="API keys of a server: create, list, rotate, revoke.", no_args_is_help=True)
    app.add_typer(key, name="key", rich_help_panel=PANEL)
    for verb in (create, rotate, revoke):
        command(key, verb.__name__)(verb)
    command(key, "list")(list_)


def create(
    session: Session,
    tenant: Annotated[str, typer.Argument(metavar="TENANT")],
    name: Annotated[str, typer.Option("--name", help="What the key is for.")] = "key",
    description: Annotated[Text, typer.Option("--description")] = None,
    permission: Annotated[
        list[str] | None,
        typer.Option("--permission", help="Such as reservations:create; repeat it. Default: to reserve and settle."),
    ] = None,
    expires_at: Annotated[Text, typer.Option("--expires-at", help="Such as 2027-01-31T00:00:00Z.")] = None,
    server: ServerOption = None,
) -> None:
    """Make a key and show its secret, this once."""
    given: dict[str, Any] = {"description": description, "permissions": permission, "expires_at": expires_at}
    facts = {"name": name, **{key: value for key, value in given.items() if value}}
    with operator(session, server) as admin:
        session.show({"key": admin.create_key(tenant, facts)}, adminviews.new_key)


def list_(
    session: Session,
    tenant: Annotated[Text, typer.Option("--tenant", help="Only this tenant's.")] = None,
    status: Annotated[Text, typer.Option("--status", help="active, revoked or expired.")] = None,
    server: ServerOption = None,
) -> None:
    """Keys without their secrets, which nobody has."""
    with operator(session, server) as admin:
        found = admin.keys(tenant, status.upper() if status else None)
    session.show({"keys": found}, adminviews.keys)


def rotate(
    session: Session,
    key_id: KeyId,
    overlap_seconds: Annotated[
        int, typer.Option("--overlap-seconds", min=0, help="How long the old secret still opens; default: not at all.")
    ] = 0,
    server: ServerOption = None,
) -> None:
    """A new secret with the same rights; shown this once."""
    with operator(session, server) as admin:
        made = admin.rotate_key(key_id, overlap_seconds)
    session.show({"key": made, "replaces": key_id, "overlap_seconds": overlap_seconds}, adminviews.new_key)


def revoke(
    session: Session,
    key_id: KeyId,
    reason: Annotated[Text, typer.Option("--reason", help="Why; it stands in the audit log.")] = None,
    server: ServerOption = None,
) -> None:
    """End a key, at once and for good."""
    with operator(session, server) as admin:
        session.show({"key": admin.revoke_key(key_id, reason)}, adminviews.key)

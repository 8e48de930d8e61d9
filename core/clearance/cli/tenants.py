"""`clearance tenant ...`: the tenants of a server."""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer

from clearance.cli import adminviews
from clearance.cli.operator import PANEL, ServerOption, operator
from clearance.cli.session import Session, command

Text = str | None
TenantId = Annotated[str, typer.Argument(metavar="TENANT", help="Small letters, digits and hyphens, 3 to 64.")]
Name = Annotated[Text, typer.Option("--name", help="For people; default: the id.")]
Policy = Annotated[
    Text,
    typer.Option("--overage-policy", help="REJECT, ALLOW_IF_AVAILABLE or ALLOW_WITH_OVERDRAFT, where no budget says."),
]
DefaultTtl = Annotated[int | None, typer.Option("--default-ttl-ms", help="Of a hold that names none.")]
MaxTtl = Annotated[int | None, typer.Option("--max-ttl-ms", help="Longer leases are cut to this.")]
MaxExtensions = Annotated[int | None, typer.Option("--max-extensions", help="Of one hold.")]


def register(app: typer.Typer) -> None:
    tenant = typer.Typer(help="Tenants of a server: create, list, show, suspend, close.", no_args_is_help=True)
    app.add_typer(tenant, name="tenant", rich_help_panel=PANEL)
    for verb in (create, show, update, suspend, resume, close):
        command(tenant, verb.__name__)(verb)
    command(tenant, "list")(list_)


def create(
    session: Session,
    tenant: TenantId,
    name: Name = None,
    overage_policy: Policy = None,
    default_ttl_ms: DefaultTtl = None,
    max_ttl_ms: MaxTtl = None,
    max_extensions: MaxExtensions = None,
    server: ServerOption = None,
) -> None:
    """Make a tenant; one that is there stays as it is."""
    facts = {"name": name or tenant, **_settings(overage_policy, default_ttl_ms, max_ttl_ms, max_extensions)}
    with operator(session, server) as admin:
        made, is_new = admin.create_tenant(tenant, facts)
    session.show({"tenant": made, "created": is_new}, adminviews.tenant)


def _settings(
    overage_policy: str | None, default_ttl_ms: int | None, max_ttl_ms: int | None, max_extensions: int | None
) -> dict[str, Any]:
    given = {
        "default_commit_overage_policy": overage_policy.upper() if overage_policy else None,
        "default_reservation_ttl_ms": default_ttl_ms,
        "max_reservation_ttl_ms": max_ttl_ms,
        "max_reservation_extensions": max_extensions,
    }
    return {key: value for key, value in given.items() if value is not None}


def list_(
    session: Session,
    status: Annotated[Text, typer.Option("--status", help="active, suspended or closed.")] = None,
    server: ServerOption = None,
) -> None:
    """All tenants."""
    with operator(session, server) as admin:
        found = admin.tenants(status.upper() if status else None)
    session.show({"tenants": found}, adminviews.tenants)


def show(session: Session, tenant: TenantId, server: ServerOption = None) -> None:
    """One tenant in full, with its keys."""
    with operator(session, server) as admin:
        facts = {"tenant": admin.tenant(tenant), "keys": admin.keys(tenant)}
    session.show(facts, adminviews.tenant)


def update(
    session: Session,
    tenant: TenantId,
    name: Name = None,
    overage_policy: Policy = None,
    default_ttl_ms: DefaultTtl = None,
    max_ttl_ms: MaxTtl = None,
    max_extensions: MaxExtensions = None,
    server: ServerOption = None,
) -> None:
    """Change what is given; the rest stays."""
    facts = _settings(overage_policy, default_ttl_ms, max_ttl_ms, max_extensions) | ({"name": name} if name else {})
    _change(session, server, tenant, facts)


def suspend(session: Session, tenant: TenantId, server: ServerOption = None) -> None:
    """Refuse every request of its keys until `resume`. Nothing is released."""
    _change(session, server, tenant, {"status": "SUSPENDED"})


def resume(session: Session, tenant: TenantId, server: ServerOption = None) -> None:
    """End a suspension."""
    _change(session, server, tenant, {"status": "ACTIVE"})


def close(
    session: Session,
    tenant: TenantId,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    server: ServerOption = None,
) -> None:
    """For good: holds released, budgets closed, keys revoked, webhooks disabled. Asks first when someone is there."""
    if not yes and not session.as_json and sys.stdin.isatty():
        typer.confirm(f"Close the tenant {tenant} for good?", abort=True, err=True)
    _change(session, server, tenant, {"status": "CLOSED"})


def _change(session: Session, server: str | None, tenant: str, facts: dict[str, Any]) -> None:
    with operator(session, server) as admin:
        session.show({"tenant": admin.change_tenant(tenant, facts)}, adminviews.tenant)

"""`clearance webhook ...`: where a server sends its events, and what became of them."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from clearance.cli import adminviews
from clearance.cli.operator import PANEL, ServerOption, operator
from clearance.cli.session import Session, command
from clearance.errors import InvalidRequest

Text = str | None
Names = list[str] | None
WebhookId = Annotated[str, typer.Argument(metavar="WEBHOOK_ID")]
Types = Annotated[Names, typer.Option("--type", help="Such as budget.exhausted; repeat it.")]
MAX_SHOWN = 1000


def register(app: typer.Typer) -> None:
    webhook = typer.Typer(help="Webhooks of a server, and their deliveries.", no_args_is_help=True)
    app.add_typer(webhook, name="webhook", rich_help_panel=PANEL)
    for verb in (create, show, pause, resume, delete, deliveries, replay):
        command(webhook, verb.__name__)(verb)
    command(webhook, "list")(list_)


def create(
    session: Session,
    url: Annotated[str, typer.Argument(metavar="URL", help="https and public, unless the server allows more.")],
    types: Types = None,
    category: Annotated[Names, typer.Option("--category", help="All types of budget, reservation, ...")] = None,
    tenant: Annotated[Text, typer.Option("--tenant", help="Whose events; default with the admin key: all.")] = None,
    scope: Annotated[Text, typer.Option("--scope", help="Only this scope; with * at its end, what is below.")] = None,
    name: Annotated[Text, typer.Option("--name")] = None,
    disable_after: Annotated[int | None, typer.Option("--disable-after", help="Failures in a row (10).")] = None,
    server: ServerOption = None,
) -> None:
    """Subscribe a URL and show the signing secret, this once. With CLEARANCE_API_KEY alone: your tenant's events."""
    if not types:
        raise InvalidRequest("type", "is missing", "--type, once for each event type")
    given: dict[str, Any] = {
        "event_types": types,
        "event_categories": category,
        "tenant_id": tenant,
        "scope_filter": scope,
        "name": name,
        "disable_after_failures": disable_after,
    }
    facts = {"url": url, **{key: value for key, value in given.items() if value}}
    with operator(session, server, tenant_may=True) as admin:
        session.show({"webhook": admin.create_webhook(facts)}, adminviews.new_webhook)


def list_(
    session: Session,
    tenant: Annotated[Text, typer.Option("--tenant", help="Only this tenant's.")] = None,
    server: ServerOption = None,
) -> None:
    """All webhooks, without their secrets."""
    with operator(session, server, tenant_may=True) as admin:
        session.show({"webhooks": admin.webhooks(tenant)}, adminviews.webhooks)


def show(session: Session, webhook_id: WebhookId, server: ServerOption = None) -> None:
    """One webhook in full."""
    with operator(session, server, tenant_may=True) as admin:
        session.show({"webhook": admin.webhook(webhook_id)}, adminviews.webhook)


def pause(session: Session, webhook_id: WebhookId, server: ServerOption = None) -> None:
    """Deliver nothing until `resume`. What was missed is for `replay`."""
    _change(session, server, webhook_id, "PAUSED")


def resume(session: Session, webhook_id: WebhookId, server: ServerOption = None) -> None:
    """Deliver again, also after too many failures have disabled it."""
    _change(session, server, webhook_id, "ACTIVE")


def _change(session: Session, server: str | None, webhook_id: str, status: str) -> None:
    with operator(session, server, tenant_may=True) as admin:
        session.show({"webhook": admin.change_webhook(webhook_id, {"status": status})}, adminviews.webhook)


def delete(session: Session, webhook_id: WebhookId, server: ServerOption = None) -> None:
    """Forget it. What was not delivered yet is given up."""
    with operator(session, server, tenant_may=True) as admin:
        admin.delete_webhook(webhook_id)
    session.show({"webhook": {"subscription_id": webhook_id, "status": "DELETED"}}, adminviews.webhook)


def deliveries(
    session: Session,
    webhook_id: WebhookId,
    status: Annotated[Text, typer.Option("--status", help="pending, success, failed or retrying.")] = None,
    limit: Annotated[int, typer.Option("--limit", min=1, max=MAX_SHOWN, help="The latest.")] = 50,
    server: ServerOption = None,
) -> None:
    """What became of each event; kept for two weeks."""
    with operator(session, server, tenant_may=True) as admin:
        found = admin.deliveries(webhook_id, status.upper() if status else None, limit)
    session.show({"deliveries": found}, adminviews.deliveries)


def replay(
    session: Session,
    webhook_id: WebhookId,
    start: Annotated[str, typer.Option("--from", help="Such as 2026-11-20T12:00:00Z.")],
    end: Annotated[str, typer.Option("--to", help="The end of the window.")],
    types: Types = None,
    max_events: Annotated[int, typer.Option("--max", min=1, max=1000, help="More than that is refused.")] = 100,
    server: ServerOption = None,
) -> None:
    """Deliver again what happened in a window. Receivers compare event ids."""
    facts: dict[str, Any] = {"from": start, "to": end, "max_events": max_events}
    if types:
        facts["event_types"] = types
    with operator(session, server) as admin:
        session.show({"replay": admin.replay(webhook_id, facts)}, adminviews.replayed)

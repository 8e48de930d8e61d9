"""`clearance apply`: bring the budgets to what clearance.yaml says."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from clearance.cli import facts, views
from clearance.cli.output import console
from clearance.cli.session import DEFAULT_CONFIG, Session, command
from clearance.errors import InvalidRequest

if TYPE_CHECKING:
    from clearance.config import Config, Plan

CHANGES_FOUND = 3


def register(app: typer.Typer) -> None:
    command(app, "apply", rich_help_panel="Budgets")(apply)


def apply(
    session: Session,
    file: Annotated[
        str | None, typer.Argument(metavar="[FILE]", help=f"Default: --config, else ./{DEFAULT_CONFIG}.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only show; exit code 3 when there is something to do.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask; needed where nobody can answer.")] = False,
) -> None:
    """Bring budgets to what a file says, all or none, after showing what would change.

    A second time changes nothing. Budgets that the file does not name are listed and left alone.
    """
    session = session.over(None, file, False)
    config = _config(session)
    plan = _plan(session, config)
    _show(session, plan, "dry-run" if dry_run else "plan")
    if not plan.changes:
        _finish(session, plan, applied=False)
    elif dry_run:
        _finish(session, plan, applied=False)
        raise typer.Exit(CHANGES_FOUND)
    else:
        _confirm(session, plan, yes)
        with session.authority(create=True) as authority:
            authority.apply_budgets(plan.specs)
        _finish(session, plan, applied=True)


def _config(session: Session) -> Config:
    from clearance.config import load

    path = session.config_path() or Path(DEFAULT_CONFIG)
    return load(path)


def _plan(session: Session, config: Config) -> Plan:
    from clearance.config import plan
    from clearance.model.subject import tenant_of

    if session.is_missing():
        return plan(config.budgets, [])
    with session.authority() as authority:
        # The file may name tenants that a server does not list to its operator.
        owners = sorted({f"tenant:{tenant_of(it.scope)}" for it in config.budgets})
        found = [it for owner in (None, *owners) for it in facts.all_balances(authority, owner)]
        present = {(it.scope, it.unit): it for it in found}
        if any((it.scope, it.unit) in present for it in config.budgets):
            facts.require_whole_budgets(authority)
        return plan(config.budgets, present.values())


def _show(session: Session, plan: Plan, mode: str) -> None:
    if not session.as_json:
        console().print(views.plan({**plan.as_dict(), "mode": mode}))


def _confirm(session: Session, plan: Plan, yes: bool) -> None:
    if yes:
        return
    if session.as_json or not sys.stdin.isatty():
        raise InvalidRequest(
            "yes",
            f"is needed to change {plan.changed} budgets where nobody can be asked",
            "--yes, or --dry-run to look",
        )
    if not typer.confirm(f"Apply to {plan.changed} budgets?", err=True):
        raise InvalidRequest("apply", "was not confirmed; nothing was changed")


def _finish(session: Session, plan: Plan, *, applied: bool) -> None:
    answer = {**plan.as_dict(), "applied": applied, "changed": plan.changed}
    if session.as_json or applied:
        session.show(answer, views.applied)

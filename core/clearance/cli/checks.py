"""`clearance doctor`."""

from __future__ import annotations

import typer

from clearance.cli import overviews
from clearance.cli.session import Session, command


def register(app: typer.Typer) -> None:
    command(app, "doctor", rich_help_panel="Look")(doctor)


def doctor(session: Session) -> None:
    """Check the installation and the ledger: what is wrong and what to do. Exit code 1 when something failed."""
    from clearance.cli.doctor import examine

    session.local_place("doctor", "ask it with `clearance status`, or run this on its machine with --ledger")
    findings = examine(session)
    failed = sum(finding.level == "fail" for finding in findings)
    warned = sum(finding.level == "warn" for finding in findings)
    checks = [finding._asdict() for finding in findings]
    session.show({"checks": checks, "failed": failed, "warned": warned}, overviews.doctor)
    if failed:
        raise typer.Exit(1)

"""`clearance hosts`: agent hosts with the plugin, what is gated there, and whether it works."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from clearance.cli import overviews
from clearance.cli.session import Session, command
from clearance.errors import InvalidRequest, NotFound

if TYPE_CHECKING:
    from rich.console import RenderableType

    from clearance_hooks.capabilities import Capabilities

hosts = typer.Typer(help="Agent hosts with the Clearance plugin.", no_args_is_help=True)

HostFile = Annotated[Path, typer.Argument(metavar="FILE", help="The host's configuration: YAML, JSON or TOML.")]
HostId = Annotated[str, typer.Option("--host", help="minihost, hermes, pydantic-ai or openclaw.")]


def register(app: typer.Typer) -> None:
    app.add_typer(hosts, name="hosts", rich_help_panel="Look")
    command(hosts, "doctor")(doctor)
    command(hosts, "list")(list_)


def doctor(session: Session, file: HostFile, host: HostId = "minihost") -> None:
    """Check a host's configuration: found, enabled, armed, secrets there, authority answers. Exit code 1 if not."""
    found = _host(host)
    if not file.exists():
        raise NotFound(f"there is no file {file}")
    from clearance_hooks.doctor import examine, table

    findings = examine(file, found)
    failed = sum(finding.level == "fail" for finding in findings)
    warned = sum(finding.level == "warn" for finding in findings)
    checks = [finding._asdict() for finding in findings]
    gated = [{"what": what, "answer": answer} for what, answer in table(found)]
    session.show({"host": host, "checks": checks, "failed": failed, "warned": warned, "capabilities": gated}, _report)
    if failed:
        raise typer.Exit(1)


def list_(session: Session) -> None:
    """What is gated in each host."""
    from clearance_hooks.capabilities import HOSTS

    session.show({"hosts": [host.as_dict() for host in HOSTS.values()]}, _overview)


def _host(name: str) -> Capabilities:
    try:
        from clearance_hooks.capabilities import capabilities_of
    except ModuleNotFoundError as error:
        raise InvalidRequest("hosts", f"needs {error.name}, which is not installed", "pip install clearance") from None
    return capabilities_of(name)


def _report(facts: dict[str, Any]) -> RenderableType:
    from rich.console import Group

    return Group(overviews.doctor(facts), _capabilities(facts))


def _capabilities(facts: dict[str, Any]) -> RenderableType:
    from rich.table import Table

    table = Table(f"in {facts['host']}", "", box=None, pad_edge=False)
    for row in facts["capabilities"]:
        table.add_row(row["what"], row["answer"])
    return table


def _overview(facts: dict[str, Any]) -> RenderableType:
    from rich.table import Table

    from clearance_hooks.capabilities import HOSTS
    from clearance_hooks.doctor import table as rows_of

    columns = [rows_of(host) for host in HOSTS.values()]
    table = Table("", *(host.name for host in HOSTS.values()), box=None, pad_edge=False)
    for cells in zip(*columns, strict=True):
        table.add_row(cells[0][0], *(answer for _, answer in cells))
    return table

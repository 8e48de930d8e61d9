"""`clearance serve` and `clearance db`: the authority behind HTTP, and its ledger as a whole."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from clearance.cli import views
from clearance.cli.session import Session, command
from clearance.errors import InvalidRequest

if TYPE_CHECKING:
    from clearance.store.interface import Store

_PANEL = "Serve and move"

StoreOption = Annotated[str | None, typer.Option("--store", metavar="URL", help="The ledger; default: as elsewhere.")]
Host = Annotated[str, typer.Option("--host", help="Where to listen; beyond loopback only with keys.")]
Port = Annotated[int, typer.Option("--port", min=0, max=65535)]
AdminPort = Annotated[int | None, typer.Option("--admin-port", min=0, max=65535, help="A second port, same routes.")]
File = Annotated[Path, typer.Argument(metavar="FILE", help="JSON lines; - for standard output or input.")]

database = typer.Typer(help="Migrate, export and import a whole ledger.", no_args_is_help=True)


def register(app: typer.Typer) -> None:
    command(app, "serve", rich_help_panel=_PANEL)(serve)
    app.add_typer(database, name="db", rich_help_panel=_PANEL)
    command(database, "status")(status)
    command(database, "migrate")(migrate)
    command(database, "export")(export)
    command(database, "import")(import_)


def serve(
    session: Session,
    store: StoreOption = None,
    host: Host = "127.0.0.1",
    port: Port = 7878,
    admin_port: AdminPort = None,
) -> None:
    """Answer the Cycles protocol over HTTP until Ctrl-C. The first start makes an admin key and shows it once."""
    url, durability = (store, "settlements") if store else session.place()
    try:
        from clearance.server import serve as run
    except ImportError as error:
        hint = "pip install 'clearance[server]'"
        raise InvalidRequest("serve", f"needs {error.name}, which is not installed", hint) from None
    run(url, host=host, port=port, admin_port=admin_port, durability=durability, tell=_tell)


def _tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def status(session: Session) -> None:
    """What the ledger is kept in, and its totals."""
    from clearance.store.move import totals

    with _opened(session) as store:
        session.show({**store.describe(), "totals": totals(store).as_dict()}, views.facts)


def migrate(session: Session) -> None:
    """Bring the ledger's schema up to date; opening it does the same."""
    with _opened(session, create=True) as store:
        session.show(store.describe(), views.facts)


def export(session: Session, file: File) -> None:
    """Write the whole ledger as JSON lines, as it is at one moment."""
    from clearance.store.move import export_ledger

    with _opened(session) as store:
        if str(file) == "-":
            export_ledger(store, sys.stdout)
            return
        with file.open("x", encoding="utf-8") as out:
            moved = export_ledger(store, out)
        session.show({"file": str(file), **moved.as_dict()}, views.facts)


def import_(session: Session, file: File) -> None:
    """Fill an empty ledger from an export; nothing is written unless every balance is equal at the end."""
    from clearance.store.move import import_ledger

    with _opened(session, create=True) as store:
        if str(file) == "-":
            moved = import_ledger(store, sys.stdin)
        else:
            with file.open(encoding="utf-8") as lines:
                moved = import_ledger(store, lines)
        session.show(moved.as_dict(), views.facts)


def _opened(session: Session, *, create: bool = False) -> Any:
    from contextlib import closing

    from clearance.cli.session import ledger_path
    from clearance.connecting import open_store
    from clearance.errors import NotFound

    url, _ = session.place()
    path = ledger_path(url)
    if not create and path is not None and not path.exists():
        raise NotFound(f"there is no ledger at {path}")
    store: Store = open_store(url)
    return closing(store)

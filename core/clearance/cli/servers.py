"""`clearance serve` and `clearance db`: the authority behind HTTP, and its ledger as a whole."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Annotated, Any, TextIO

import typer

from clearance.cli import views
from clearance.cli.session import URL_VARIABLE, Session, command
from clearance.errors import InvalidRequest

if TYPE_CHECKING:
    from clearance.config import Config
    from clearance.store.compaction import Compaction
    from clearance.store.interface import Store
    from clearance.store.move import Totals

_PANEL = "Serve and move"
PROGRESS_SECONDS = 1.0
_AGES_MS = {"h": 3_600_000, "d": 86_400_000, "w": 7 * 86_400_000}

StoreOption = Annotated[str | None, typer.Option("--store", metavar="URL", help="The ledger; default: as elsewhere.")]
Host = Annotated[
    str | None, typer.Option("--host", help="Where to listen (127.0.0.1); beyond loopback only with keys.")
]
Port = Annotated[int | None, typer.Option("--port", min=0, max=65535, help="0 takes a free one (7878).")]
Durability = Annotated[str | None, typer.Option("--durability", help="power, settlements or process.")]
AdminPort = Annotated[int | None, typer.Option("--admin-port", min=0, max=65535, help="A second port, same routes.")]
OlderThan = Annotated[str, typer.Option("--older-than", metavar="AGE", help="What may go: 90d, 12w or 36h.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would go, and change nothing.")]
File = Annotated[Path, typer.Argument(metavar="FILE", help="JSON lines; - for standard output or input.")]

database = typer.Typer(help="Migrate, compact, export and import a whole ledger.", no_args_is_help=True)


def register(app: typer.Typer) -> None:
    command(app, "serve", rich_help_panel=_PANEL)(serve)
    app.add_typer(database, name="db", rich_help_panel=_PANEL)
    command(database, "status")(status)
    command(database, "migrate")(migrate)
    command(database, "compact")(compact)
    command(database, "export")(export)
    command(database, "import")(import_)


def serve(
    session: Session,
    store: StoreOption = None,
    host: Host = None,
    port: Port = None,
    admin_port: AdminPort = None,
    durability: Durability = None,
) -> None:
    """Answer the Cycles protocol over HTTP until Ctrl-C. The first start makes an admin key and shows it once.

    What is not given here is taken from `server:` in the configuration. The admin key is that of CLEARANCE_ADMIN_KEY.
    """
    from clearance.config.server import ServerOptions
    from clearance.connecting import DEFAULT_DURABILITY

    try:
        from clearance.server import serve as run
        from clearance.server.settings import DEFAULT_HOST, DEFAULT_PORT, settings_of
    except ImportError as error:
        hint = "pip install 'clearance[server]'"
        raise InvalidRequest("serve", f"needs {error.name}, which is not installed", hint) from None
    config = session.config(("ledger", "durability", "server"))
    options = config.server if config else ServerOptions()
    kept = durability or options.durability or (config.durability if config else DEFAULT_DURABILITY)
    run(
        store or _stored(session, config),
        host=host or options.host or DEFAULT_HOST,
        port=next(it for it in (port, options.port, DEFAULT_PORT) if it is not None),
        admin_port=admin_port if admin_port is not None else options.admin_port,
        durability=kept,
        settings=settings_of(options, config.admin_key_file if config else None),
        tell=_tell,
    )


def _stored(session: Session, config: Config | None) -> str:
    """The ledger: --ledger, CLEARANCE_URL, what the configuration says, the default. A server has no server's URL."""
    from clearance.connecting import data_folder, is_server

    named = session.ledger or os.environ.get(URL_VARIABLE) or ""
    if named and not is_server(named):
        return named
    return (config.store_url if config else None) or str(data_folder() / "ledger.db")


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


def compact(session: Session, older_than: OlderThan, dry_run: DryRun = False) -> None:
    """Remove settled reservations, lines of the log and used keys of before AGE, beside the traffic. Balances stay."""
    from clearance.authority.clock import SystemClock
    from clearance.store import compaction

    age_ms = _age_ms(older_than)
    with _opened(session) as store:
        done = compaction.compact(store, age_ms, SystemClock().now_ms(), dry_run=dry_run, progress=_Progress().tell)
        session.show(done.as_dict(), views.facts)


class _Progress:
    """A line a second on standard error, none for what is done sooner."""

    def __init__(self) -> None:
        self._told_at = monotonic()

    def tell(self, stage: str, done: Compaction) -> None:
        if monotonic() - self._told_at < PROGRESS_SECONDS:
            return
        self._told_at = monotonic()
        _tell(
            f"{stage}: {done.keys_removed:,} keys, {done.lines_seen:,} lines looked at, {done.lines_removed:,} removed"
        )


def _age_ms(text: str) -> int:
    found = re.fullmatch(r"([1-9]\d{0,5})([hdw])", text.strip())
    if found is None:
        raise InvalidRequest("older-than", f"{text!r} is no age", "a number of hours, days or weeks: 36h, 90d, 12w")
    return int(found[1]) * _AGES_MS[found[2]]


def export(session: Session, file: File) -> None:
    """Write the whole ledger as JSON lines, as it is at one moment."""
    from clearance.store.move import export_ledger

    with _opened(session) as store:
        if str(file) == "-":
            export_ledger(store, sys.stdout)
            return
        with _told_of(file, "written", "a new file in a folder that is there, or - for standard output"):
            moved = _write_new(file, lambda out: export_ledger(store, out))
        session.show({"file": str(file), **moved.as_dict()}, views.facts)


def _write_new(file: Path, write: Callable[[TextIO], Totals]) -> Totals:
    out = file.open("x", encoding="utf-8")
    try:
        with out:
            return write(out)
    except BaseException:
        # A part of an export is none, and would be in the way of the next try.
        file.unlink()
        raise


def import_(session: Session, file: File) -> None:
    """Fill an empty ledger from an export; nothing is written unless every balance is equal at the end."""
    from clearance.store.move import import_ledger

    is_input = str(file) == "-"
    with _told_of(file, "read", "a file that `clearance db export` wrote, or - for standard input"):
        # What is not UTF-8 arrives, so that the line it is in can be named.
        lines = nullcontext(sys.stdin) if is_input else file.open(encoding="utf-8", errors="surrogateescape")
    with lines as text, _opened(session, create=True) as store:
        moved = import_ledger(store, text, name="standard input" if is_input else str(file))
        session.show(moved.as_dict(), views.facts)


@contextmanager
def _told_of(file: Path, done: str, allowed: str) -> Iterator[None]:
    from clearance.errors import ClearanceError

    try:
        yield
    except (ClearanceError, BrokenPipeError):
        # Some of ours are OSErrors too.
        raise
    except FileExistsError:
        raise InvalidRequest("file", f"{file} is there already, and is not overwritten", allowed) from None
    except OSError as error:
        raise InvalidRequest("file", f"{file} cannot be {done} ({error.strerror or error})", allowed) from None


def _opened(session: Session, *, create: bool = False) -> Any:
    from contextlib import closing

    from clearance.cli.session import ledger_path
    from clearance.connecting import open_store
    from clearance.errors import NotFound

    url, _ = session.local_place("db", "run this on its machine with --ledger and what it was started with as --store")
    missing = session.is_missing()
    if missing and not create:
        raise NotFound(f"there is no ledger at {ledger_path(url)}")
    store: Store = open_store(url)
    return closing(store)

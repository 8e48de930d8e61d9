"""One command's surroundings: which ledger, which configuration, how to answer."""

from __future__ import annotations

import inspect
import os
import re
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from clearance.cli.output import hang_up, show
from clearance.errors import InvalidRequest, NotFound

if TYPE_CHECKING:
    from rich.console import RenderableType

    from clearance.cli.serverledger import ServerLedger
    from clearance.config import Config
    from clearance.connecting import LocalAuthority

    Ledger = LocalAuthority | ServerLedger

URL_VARIABLE = "CLEARANCE_URL"
DEFAULT_CONFIG = "clearance.yaml"
_PANEL = "Everywhere"

_LEDGER = "The ledger: a file's path, sqlite:///path, postgresql://..., or a server: http://host:7878."
LedgerOption = Annotated[
    str | None, typer.Option("--ledger", "--url", metavar="URL", help=_LEDGER, rich_help_panel=_PANEL)
]
_LedgerAlone = Annotated[str | None, typer.Option("--ledger", metavar="URL", help=_LEDGER, rich_help_panel=_PANEL)]
ConfigOption = Annotated[
    str | None,
    typer.Option(
        "--config", metavar="FILE", help=f"The configuration (default: ./{DEFAULT_CONFIG}).", rich_help_panel=_PANEL
    ),
]
JsonOption = Annotated[
    bool, typer.Option("--json", help="Answer in JSON; amounts are ints in their unit.", rich_help_panel=_PANEL)
]
EVERYWHERE: dict[str, Any] = {"ledger": LedgerOption, "config": ConfigOption, "as_json": JsonOption}


@dataclass(frozen=True, slots=True)
class Session:
    ledger: str | None = None
    config_file: str | None = None
    as_json: bool = False

    def over(self, ledger: str | None, config: str | None, as_json: bool) -> Session:
        """The same with what was given after the command's name, which goes first."""
        return Session(ledger or self.ledger, config or self.config_file, as_json or self.as_json)

    def show(self, facts: dict[str, Any], view: Callable[[dict[str, Any]], RenderableType]) -> None:
        show(facts, view, self.as_json)

    def config_path(self) -> Path | None:
        """The configuration: the one given, else ./clearance.yaml where there is one."""
        if self.config_file is not None:
            return Path(self.config_file)
        return Path(DEFAULT_CONFIG) if Path(DEFAULT_CONFIG).is_file() else None

    def config(self, sections: Collection[str]) -> Config | None:
        """What these sections of the configuration say; raises ConfigInvalid for problems in them."""
        path = self.config_path()
        if path is None:
            return None
        from clearance.config import load

        return load(path, sections)

    def place(self) -> tuple[str, str]:
        """URL and durability of the ledger: --ledger, CLEARANCE_URL, `ledger:` in the configuration, the default."""
        from clearance.connecting import DEFAULT_DURABILITY, default_place

        if self.ledger is not None:
            return self.ledger, DEFAULT_DURABILITY
        if self.config_file is None or os.environ.get(URL_VARIABLE):
            return default_place()
        config = self.config(("ledger", "durability"))
        assert config is not None, "a configuration was named"
        return config.ledger_url or default_place()[0], config.durability

    @contextmanager
    def authority(self, *, create: bool = False) -> Iterator[Ledger]:
        """The ledger, here or at a server. Without `create` one that is not there is an error: a mistyped path is none.

        What a process that is gone has left behind expires first, so that the figures shown are true.
        """
        from clearance.connecting import is_server

        url, durability = self.place()
        if is_server(url):
            from clearance.cli.operator import operator

            with operator(self, url, tenant_may=True) as server:
                server.reach()
                yield server
            return
        missing = self.is_missing()
        if missing and not create:
            raise NotFound(
                f"there is no ledger at {ledger_path(url)}; `clearance budget set` or `clearance apply` makes one"
            )
        authority = open_authority(url, durability)
        try:
            authority.sweep()
            yield authority
        finally:
            authority.close()

    def is_missing(self) -> bool:
        """Is the ledger a file that nobody has made yet?"""
        from clearance.connecting import is_server

        url, _ = self.place()
        path = None if is_server(url) else ledger_path(url)
        return path is not None and not path.exists()

    def local_place(self, command: str, instead: str) -> tuple[str, str]:
        """`place` for a command that needs the ledger itself. Raises NotOffered for a server."""
        from clearance.connecting import is_server

        url, durability = self.place()
        if is_server(url):
            from clearance.remote import NotOffered

            raise NotOffered(f"`clearance {command}` needs the ledger itself, and {url} is a server: {instead}")
        return url, durability


def open_authority(url: str, durability: str = "settlements") -> LocalAuthority:
    from clearance.connecting import open_ledger

    return open_ledger(url, durability=durability)


def ledger_path(url: str) -> Path | None:
    """The file behind a URL, None for a ledger that is no file. Raises InvalidRequest for a URL that is none."""
    from clearance.connecting import is_postgres, ledger_file
    from clearance.store.sqlite import MEMORY

    if is_postgres(url):
        return None
    if re.fullmatch(r"[\w.-]+:\d+", url):
        raise InvalidRequest("url", f"{url} is no ledger", f"http://{url} for a server, ./{url} for a file")
    path = ledger_file(url)
    return None if path == MEMORY else Path(path).expanduser().absolute()


Register = Callable[[Callable[..., None]], None]


def command(app: typer.Typer, name: str, **options: Any) -> Register:
    """Register a function `(session, ...)` as a command that also takes --ledger, --config and --json."""

    def register(function: Callable[..., None]) -> None:
        app.command(name, **options)(_everywhere(function))

    return register


def default(group: typer.Typer) -> Register:
    """Register a function `(session, ...)` as what a group does without a further command."""

    def register(function: Callable[..., None]) -> None:
        group.callback(invoke_without_command=True)(_everywhere(function))

    return register


def _everywhere(function: Callable[..., None]) -> Callable[..., None]:
    def run(ctx: typer.Context, **given: Any) -> None:
        ctx.obj = ctx.obj.over(*(given.pop(key) for key in EVERYWHERE))
        if ctx.invoked_subcommand is not None:
            return
        try:
            function(ctx.obj, **given)
        except BrokenPipeError:
            hang_up()
            raise typer.Exit from None

    own = list(inspect.signature(function, eval_str=True).parameters.values())[1:]
    parameters = [_keyword("ctx", typer.Context), *(p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in own)]
    # A command may have a --url of its own, such as `openclaw install`.
    options = EVERYWHERE | ({"ledger": _LedgerAlone} if "--url" in _option_names(own) else {})
    parameters += [_keyword(key, kind, False if key == "as_json" else None) for key, kind in options.items()]
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    run.__name__, run.__doc__ = function.__name__, function.__doc__
    return run


def _option_names(parameters: list[inspect.Parameter]) -> set[str]:
    options = [it for parameter in parameters for it in getattr(parameter.annotation, "__metadata__", ())]
    # Inside Annotated, typer takes the first name for a default until the command is built.
    return {
        str(name) for it in options for name in (getattr(it, "default", ""), *(getattr(it, "param_decls", ()) or ()))
    }


def _keyword(name: str, kind: Any, default: Any = inspect.Parameter.empty) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, annotation=kind, default=default)

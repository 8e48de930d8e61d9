"""Which server the operator's commands talk to, and with which key. Keys come from the environment or a private file,
never from the command line, where other users of the machine could read them.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from clearance.cli.session import URL_VARIABLE, Session
from clearance.errors import InvalidRequest

if TYPE_CHECKING:
    from clearance.cli.serverledger import ServerLedger

PANEL = "Administer a server"
_HELP = "The server; default: CLEARANCE_URL if that is one, `server:` of the configuration, http://127.0.0.1:7878."
ServerOption = Annotated[str | None, typer.Option("--server", metavar="URL", help=_HELP)]
_EVERY_ADDRESS = ("0.0.0.0", "::")


def server_url(session: Session, given: str | None) -> str:
    from clearance.connecting import is_server

    for named in (given, session.ledger, os.environ.get(URL_VARIABLE)):
        if named and (is_server(named) or named is given):
            return named
    config = session.config(("server",))
    options = config.server if config else None
    host = (options and options.host) or "127.0.0.1"
    host = "127.0.0.1" if host in _EVERY_ADDRESS else host
    port = (options and options.port) or 7878
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"


def operator(session: Session, given: str | None, *, tenant_may: bool = False) -> ServerLedger:
    """With the admin key; where a tenant may ask as well and there is none, with the tenant's key."""
    from clearance.cli.serverledger import ServerLedger
    from clearance.connecting import ADMIN_KEY_VARIABLE, API_KEY_VARIABLE

    url = server_url(session, given)
    if admin_key := os.environ.get(ADMIN_KEY_VARIABLE):
        return ServerLedger(url, admin_key=admin_key, key_from=f"the key in {ADMIN_KEY_VARIABLE}")
    path = _key_file(session, url)
    if path and (admin_key := _read_key(path)):
        return ServerLedger(url, admin_key=admin_key, key_from=f"the key in {path}")
    if tenant_may and (api_key := os.environ.get(API_KEY_VARIABLE)):
        return ServerLedger(url, api_key=api_key, key_from=f"the key in {API_KEY_VARIABLE}")
    allowed = "the key that `clearance serve` showed at its first start"
    allowed += f", or a tenant's key in {API_KEY_VARIABLE}" if tenant_may else ""
    raise InvalidRequest(ADMIN_KEY_VARIABLE, f"is not set, and there is no key file for {url}", allowed)


def _key_file(session: Session, url: str) -> Path | None:
    """Where a server of this machine has written down its key, which goes nowhere else."""
    from urllib.parse import urlsplit

    from clearance.config import ConfigInvalid
    from clearance.connecting import data_folder

    if (urlsplit(url).hostname or "") not in ("127.0.0.1", "localhost", "::1"):
        return None
    try:
        config = session.config(("server",))
    except ConfigInvalid:
        if session.config_file is not None:
            raise
        config = None  # whoever stops something must not be held up by a file that lies there
    return (config.admin_key_file if config else None) or data_folder() / "admin.key"


def _read_key(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8").strip() or None
    except FileNotFoundError:
        return None
    except OSError as error:
        raise InvalidRequest("admin_key_file", f"{path} cannot be read ({error.strerror})", "a file of yours") from None

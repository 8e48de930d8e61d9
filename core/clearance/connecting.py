"""`connect`: from a URL to an authority with guards."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from urllib.parse import unquote

from clearance.authority.clock import Clock
from clearance.authority.embedded import EmbeddedAuthority
from clearance.errors import InvalidRequest
from clearance.guard import Guarding
from clearance.store.sqlite import MEMORY, SqliteStore

URL_VARIABLE = "CLEARANCE_URL"
_KINDS = "sqlite:///relative/path, sqlite:////absolute/path, memory:// or a file's path"


class LocalAuthority(Guarding, EmbeddedAuthority):
    """The embedded authority with guards: what `connect` returns for a file or for memory."""

    def close(self) -> None:
        self.flush()
        super().close()


def connect(
    url: str | Path | None = None,
    *,
    durability: str = "settlements",
    clock: Clock | None = None,
) -> LocalAuthority:
    """Open the authority at `url`.

    `sqlite:///budget.db` (relative), `sqlite:////var/lib/budget.db` (absolute), a plain path, or `memory://`. Without a
    URL: the environment variable CLEARANCE_URL, else a file in the user's data folder. `durability` is "power",
    "settlements" (default) or "process": see `EmbeddedAuthority`.

    Raises InvalidRequest for a URL it does not know, and StoreError kinds for a file it must not or cannot open.
    """
    store = SqliteStore(ledger_file(str(url) if url is not None else default_url()))
    return LocalAuthority(store, durability=durability, clock=clock)


def default_url() -> str:
    """CLEARANCE_URL, else the ledger in the user's data folder."""
    return os.environ.get(URL_VARIABLE) or str(data_folder() / "ledger.db")


def data_folder() -> Path:
    """Where this user's data lives, by the custom of the system."""
    if sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Application Support"
    else:
        base = Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share")
    return base / "clearance"


def ledger_file(url: str) -> str:
    """The file that a URL names, or `:memory:`. Raises InvalidRequest."""
    scheme, sep, rest = url.partition("://")
    if not sep:
        if not url.strip():
            raise InvalidRequest("url", "is empty", _KINDS)
        return url
    if scheme == "memory":
        return MEMORY
    if scheme != "sqlite":
        raise InvalidRequest("url", f"{scheme}:// is not known here", _KINDS)
    if not rest.startswith("/") or len(rest) < 2:
        raise InvalidRequest("url", f"{url!r} names no file", _KINDS)
    return unquote(rest[1:])

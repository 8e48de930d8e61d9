"""`connect`: from a URL to an authority with guards."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote

from clearance.authority.clock import Clock
from clearance.authority.embedded import EmbeddedAuthority
from clearance.errors import InvalidRequest
from clearance.guard import Guarding
from clearance.store.interface import Store
from clearance.store.sqlite import MEMORY, SqliteStore
from clearance.telemetry import traced

if TYPE_CHECKING:
    from clearance.pricing import PriceBook
    from clearance.remote import OnOutage, RemoteAuthority

URL_VARIABLE = "CLEARANCE_URL"
CONFIGURATION = "clearance.yaml"
DEFAULT_DURABILITY = "settlements"
API_KEY_VARIABLE = "CLEARANCE_API_KEY"
TENANT_VARIABLE = "CLEARANCE_TENANT"
ADMIN_KEY_VARIABLE = "CLEARANCE_ADMIN_KEY"
_WITH_LOGIN = re.compile(r"\w+:/+[^/]*:[^/]*@")
_KINDS = "sqlite:///relative/path, sqlite:////absolute/path, memory://, postgresql://... or a file's path"


class LocalAuthority(Guarding, EmbeddedAuthority):
    """The embedded authority with guards: what `connect` returns for a ledger."""

    def on_stops_changed(self, changed: Callable[[], None]) -> None:
        """Have this called when another process may have set or lifted a stop, if the engine can tell (PostgreSQL)."""
        tell = getattr(self._store, "on_stops_changed", None)
        if tell is not None:
            tell(changed)

    def close(self) -> None:
        self.flush()
        super().close()


def connect(
    url: str | Path | None = None,
    *,
    durability: str | None = None,
    clock: Clock | None = None,
    api_key: str | None = None,
    admin_key: str | None = None,
    tenant: str | None = None,
    on_outage: OnOutage | None = None,
    timeout_ms: int | None = None,
) -> LocalAuthority | RemoteAuthority:
    """Open the authority at `url`.

    A ledger of this process: `sqlite:///budget.db` (relative), `sqlite:////var/lib/budget.db` (absolute), a plain path,
    `memory://`, or `postgresql://...` (extra `postgres`). A server: `http://host:7878`, with `api_key` or the variable
    CLEARANCE_API_KEY (and CLEARANCE_ADMIN_KEY for the verbs of operators). Without a URL:
    CLEARANCE_URL, else `ledger:` of ./clearance.yaml, else a file in the user's data folder; the command line looks in
    the same places. `durability` is of ledgers only: see `EmbeddedAuthority`.

    Of servers only: `tenant`, the tenant's name or CLEARANCE_TENANT, with which the journal of settlements outlives a
    change of the key; `on_outage`, "deny" (default) or an allowance for each action kind that may go on while the
    server does not answer, `{"tool.call": Allowance(usd(1), every_s=3600)}`; `timeout_ms`, what one verb may take with
    all its attempts (2,000).

    Raises InvalidRequest for a URL it does not know, and StoreError kinds for a ledger it must not or cannot open.
    """
    if url is None:
        url, configured = default_place()
        durability = durability or configured
    if not isinstance(url, str | Path):
        raise InvalidRequest("url", f"is a {type(url).__name__}", _KINDS)
    place = str(url)
    if not is_server(place):
        _refuse({"tenant": tenant, "on_outage": on_outage, "timeout_ms": timeout_ms}, "servers", "a server's URL")
        return open_ledger(place, durability=durability or DEFAULT_DURABILITY, clock=clock)
    _refuse({"clock": clock}, "ledgers", "a ledger's URL")
    from clearance.remote import DEFAULT_TIMEOUT_MS, RemoteAuthority

    key = api_key or os.environ.get(API_KEY_VARIABLE)
    if not key:
        raise InvalidRequest("api_key", f"is missing for {place}", f"api_key=, or the variable {API_KEY_VARIABLE}")
    admin = admin_key or os.environ.get(ADMIN_KEY_VARIABLE)
    remote = RemoteAuthority(
        place,
        api_key=key,
        admin_key=admin,
        tenant=tenant or os.environ.get(TENANT_VARIABLE) or None,
        timeout_ms=DEFAULT_TIMEOUT_MS if timeout_ms is None else timeout_ms,
        journal=journal_folder(),
        on_outage="deny" if on_outage is None else on_outage,
    )
    traced(remote)
    return remote


def is_server(url: str) -> bool:
    return url.partition("://")[0].lower() in ("http", "https")


def is_postgres(url: str) -> bool:
    return url.partition("://")[0] in ("postgresql", "postgres")


def _refuse(given: dict[str, object], of: str, allowed: str) -> None:
    for name, value in given.items():
        if value is not None:
            raise InvalidRequest(name, f"is of {of} only", f"{allowed}, or no {name}")


def open_ledger(url: str | Path, *, durability: str = DEFAULT_DURABILITY, clock: Clock | None = None) -> LocalAuthority:
    """`connect` for what is decided in this process: a file, memory or PostgreSQL."""
    authority = LocalAuthority(open_store(str(url)), durability=durability, clock=clock)
    traced(authority)
    return authority


def open_store(url: str, *, migrate: bool = True) -> Store:
    """The engine that a URL names, opened; without `migrate` PostgreSQL's schema is left as it is (StoreVersion)."""
    if not is_postgres(url):
        return SqliteStore(ledger_file(url))
    try:
        from clearance.store.postgres import PostgresStore
    except ImportError as error:
        raise InvalidRequest("url", f"PostgreSQL needs {error.name}", "pip install 'clearance[postgres]'") from None
    return PostgresStore(url, migrate=migrate)


def default_place() -> tuple[str, str]:
    """URL and durability where nobody names one: CLEARANCE_URL, ./clearance.yaml, the user's data folder."""
    given = os.environ.get(URL_VARIABLE)
    if given:
        return given, DEFAULT_DURABILITY
    fallback = str(data_folder() / "ledger.db")
    if not Path(CONFIGURATION).is_file():
        return fallback, DEFAULT_DURABILITY
    try:
        from clearance.config import load
    except ImportError as error:
        # Going on with another ledger than the operator's commands use would make a kill miss its aim.
        problem = f"{CONFIGURATION} is here, but {error.name} is not installed to read it"
        raise InvalidRequest("url", problem, "a URL, CLEARANCE_URL, or pip install 'clearance[cli]'") from None
    config = load(CONFIGURATION, ("ledger", "durability"))
    return config.ledger_url or fallback, config.durability


def journal_folder() -> Path:
    """Where clients of servers keep the settlements that are not known to have arrived."""
    return data_folder() / "journal"


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
    """The file that a URL names, or `:memory:`. Raises InvalidRequest, which shows nothing of a URL with a login."""
    if _WITH_LOGIN.match(url):
        raise InvalidRequest("url", "has a login, which a file has not", _KINDS)
    scheme, sep, rest = url.partition("://")
    if not sep:
        if not url.strip() or "\0" in url:
            raise InvalidRequest("url", f"{url!r} names no file", _KINDS)
        return url
    if scheme == "memory" and not rest:
        return MEMORY
    if scheme != "sqlite":
        raise InvalidRequest("url", f"{scheme}:// is not known here", _KINDS)
    if not rest.startswith("/") or len(rest) < 2 or "\0" in unquote(rest):
        raise InvalidRequest("url", f"{url!r} names no file", _KINDS)
    return unquote(rest[1:])


@cache
def default_prices() -> PriceBook:
    """One book for all who bring none: `prices:` of ./clearance.yaml over the public list."""
    from clearance.pricing import PriceBook

    if not Path(CONFIGURATION).is_file():
        return PriceBook()
    from clearance.config import load

    return load(CONFIGURATION, ("prices",)).price_book()

"""Running the server: sockets, the admin key, signals, the end."""

from __future__ import annotations

import contextlib
import gc
import ipaddress
import logging
import os
import secrets
import signal
import socket
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import uvicorn

from clearance.authority.embedded import EmbeddedAuthority
from clearance.connecting import data_folder, default_place, open_ledger
from clearance.errors import InvalidRequest
from clearance.server import keys
from clearance.server.app import App, create_app
from clearance.server.bounded import bounded_protocol
from clearance.server.settings import DEFAULT_HOST, DEFAULT_PORT, Settings

log = logging.getLogger("clearance.server")

ADMIN_VARIABLE = "CLEARANCE_ADMIN_KEY"
MIN_ADMIN_KEY = 16
BACKLOG = 2048


def serve(
    store: str | Path | None = None,
    *,
    host: str = DEFAULT_HOST,
    port: int = DEFAULT_PORT,
    admin_port: int | None = None,
    durability: str = "settlements",
    settings: Settings | None = None,
    tell: Callable[[str], None] = print,
) -> None:
    """Answer requests until SIGTERM or Ctrl-C. `admin_port` opens a second port with the same routes.

    The admin key is that of the settings, else CLEARANCE_ADMIN_KEY, else that of the key file, else a new one, which is
    told once and written to the key file. Raises InvalidRequest for a host other than loopback before there are keys.
    """
    authority = open_ledger(store if store is not None else default_place()[0], durability=durability)
    try:
        chosen = with_admin_key(settings or Settings(), tell, _is_loopback(host), authority)
        sockets = [listening(host, number) for number in (port, admin_port) if number is not None]
        for bound in sockets:
            where, number = bound.getsockname()[:2]
            tell(f"listening on http://{f'[{where}]' if ':' in where else where}:{number}")
        run(create_app(authority, chosen), sockets)
    finally:
        authority.close()


def run(app: App, sockets: list[socket.socket]) -> None:
    server = Serving(app)
    # What is loaded by now stays: looking through it again and again is most of a server's slowest answers.
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)
    # uvicorn hands a signal on once it has ended; ours to hear, so that the ledger is closed as well.
    before = {kind: signal.signal(kind, lambda *_: None) for kind in (signal.SIGTERM, signal.SIGINT)}
    try:
        server.run(sockets=sockets)
    finally:
        for kind, handler in before.items():
            signal.signal(kind, handler)


class Serving(uvicorn.Server):
    """A uvicorn server that ends its event streams first and then answers what it has accepted."""

    def __init__(self, app: App) -> None:
        settings = app.server.settings
        super().__init__(
            uvicorn.Config(
                app,
                http=bounded_protocol(settings.max_header_bytes, settings.read_seconds),
                loop=_loop(),
                ws="none",
                lifespan="on",
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=False,
                timeout_keep_alive=settings.keep_alive_seconds,
                timeout_graceful_shutdown=settings.drain_seconds,
                backlog=BACKLOG,
            )
        )
        self._app = app

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._app.watch.close()
        await super().shutdown(sockets)


def _loop() -> str:
    with contextlib.suppress(ImportError):
        import uvloop  # noqa: F401

        return "uvloop"
    return "asyncio"


def listening(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    made = socket.socket(family, socket.SOCK_STREAM)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        made.bind((host, port))
        # From here on clients wait instead of being refused, though nothing answers yet.
        made.listen(BACKLOG)
    except OSError as error:
        made.close()
        raise InvalidRequest("port", f"{host}:{port} cannot be used ({error.strerror})", "a free port") from None
    return made


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


# -- the admin key --------------------------------------------------------------------------------


def with_admin_key(
    settings: Settings, tell: Callable[[str], None], loopback: bool, authority: EmbeddedAuthority
) -> Settings:
    given = settings.admin_key or os.environ.get(ADMIN_VARIABLE)
    path = settings.admin_key_file or data_folder() / "admin.key"
    if not given and path.exists():
        given = path.read_text(encoding="utf-8").strip()
    if given:
        if len(given) < MIN_ADMIN_KEY or not given.isascii() or not given.isprintable():
            raise InvalidRequest(
                ADMIN_VARIABLE, "is too short or not printable", f"{MIN_ADMIN_KEY} printable ASCII characters or more"
            )
        return replace(settings, admin_key=given)
    if not loopback and not authority.records(keys.KIND, limit=1):
        raise InvalidRequest(
            "host",
            "would open a server without keys to the network",
            f"set {ADMIN_VARIABLE}, or serve on 127.0.0.1 once",
        )
    made = "cyc_admin_" + secrets.token_urlsafe(32)
    _write_private(path, made)
    tell(f"admin key (shown once, kept in {path}): {made}")
    return replace(settings, admin_key=made)


def _write_private(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    # Never readable by others, not even for a moment, and never through somebody else's link.
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text + "\n")

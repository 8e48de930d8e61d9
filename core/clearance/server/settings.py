"""What an operator can set."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from pathlib import Path

from clearance.config.server import ServerOptions

DEFAULT_HOST = "127.0.0.1"
DEFAULT_PORT = 7878
DEFAULT_ADMIN_PORT = 7979


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything has a default that is safe on one machine.

    Attributes:
        admin_key: the operator's key. None: no route accepts one (`serve` makes one when it finds none).
        requests_per_second: per API key, with a burst of one second; 0 means no limit.
        max_body_bytes, max_header_bytes: a longer request is answered 413 or 431.
        read_seconds: how long a client may take to send one request.
        drain_seconds: how long a shutdown waits for requests that were accepted.
        max_streams: event streams that may be open at a time.
        key_cache_seconds: another process on the same ledger sees a revoked key at most this late; this one at once.
        webhook_private: may deliveries go to private and loopback addresses?
        webhook_http: may they go to http:// URLs?
    """

    admin_key: str | None = None
    requests_per_second: int = 0
    max_body_bytes: int = 256 * 1024
    max_header_bytes: int = 16 * 1024
    read_seconds: float = 15.0
    keep_alive_seconds: int = 75
    drain_seconds: int = 15
    max_streams: int = 200
    key_cache_seconds: float = 1.0
    webhook_private: bool = False
    webhook_http: bool = False
    webhook_timeout_seconds: float = 10.0
    poll_seconds: float = 0.1
    admin_key_file: Path | None = None


def settings_of(options: ServerOptions, admin_key_file: Path | None = None) -> Settings:
    """The settings that a configuration asks for; what it does not name keeps its default."""
    names = {field.name for field in fields(Settings)} & {field.name for field in fields(options)} - {"admin_key_file"}
    given = {name: value for name in names if (value := getattr(options, name)) is not None}
    return replace(Settings(), admin_key_file=admin_key_file, **given)

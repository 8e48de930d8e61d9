"""The key `server:`: what `clearance serve` is told. Its names are those of the server's settings."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from clearance.authority.embedded import DURABILITY
from clearance.config.problems import Path, Report, Unquoted, shown

SECRETS = {"admin_key": "CLEARANCE_ADMIN_KEY", "api_key": "CLEARANCE_API_KEY", "api_keys": "CLEARANCE_API_KEY"}
MAX_SECONDS = 3600


@dataclass(frozen=True, slots=True)
class ServerOptions:
    """As written; None where the file says nothing and the server's own default holds."""

    host: str | None = None
    port: int | None = None
    admin_port: int | None = None
    store: str | None = None
    durability: str | None = None
    admin_key_file: str | None = None
    requests_per_second: int | None = None
    max_body_bytes: int | None = None
    max_header_bytes: int | None = None
    read_seconds: float | None = None
    keep_alive_seconds: int | None = None
    drain_seconds: int | None = None
    max_streams: int | None = None
    key_cache_seconds: float | None = None
    webhook_private: bool | None = None
    webhook_http: bool | None = None
    webhook_timeout_seconds: float | None = None
    poll_seconds: float | None = None


def read_server(report: Report, value: Any, path: Path) -> ServerOptions:
    if value is None:
        return ServerOptions()
    if isinstance(value, dict):
        value = {key: it for key, it in value.items() if not _is_secret(report, key, (*path, key))}
    given = report.mapping(value, path, _READERS) or {}
    found = {name: _READERS[name](report, it, (*path, name)) for name, it in given.items() if it is not None}
    return ServerOptions(**found)


def _is_secret(report: Report, key: str, path: Path) -> bool:
    variable = SECRETS.get(key)
    if variable is not None:
        report.refuse(path, "is a secret, and this file is not the place for one", f"the variable {variable}")
    return variable is not None


Reader = Callable[[Report, Any, Path], Any]


def read_url(report: Report, value: Any, path: Path) -> str | None:
    if value is None:
        return None
    if not isinstance(value, str) or not value.strip():
        report.refuse(path, f"{shown(value)} is not a URL", "sqlite:///path, memory:// or a file's path")
        return None
    return value.strip()


def read_durability(report: Report, value: Any, path: Path) -> str | None:
    if value is None:
        return None
    if value not in DURABILITY:
        near = difflib.get_close_matches(value, DURABILITY, n=1) if isinstance(value, str) else []
        hint = f"; did you mean {near[0]}?" if near else ""
        report.refuse(path, f"{shown(value)} is unknown{hint}", ", ".join(DURABILITY))
        return None
    return str(value)


def _text(what: str, example: str) -> Reader:
    def read(report: Report, value: Any, path: Path) -> str | None:
        if not isinstance(value, str) or not value.strip():
            report.refuse(path, f"{shown(value)} is no {what}", example)
            return None
        return value.strip()

    return read


def _whole(least: int, most: int) -> Reader:
    def read(report: Report, value: Any, path: Path) -> int | None:
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
            report.refuse(path, f"{shown(value)} is refused", f"a whole number, {least} to {most}")
            return None
        return value

    return read


def _seconds(least: float) -> Reader:
    allowed = f"seconds, {least:g} to {MAX_SECONDS}"

    def read(report: Report, value: Any, path: Path) -> float | None:
        text = value.text if isinstance(value, Unquoted) else value
        try:
            number = float("nan") if isinstance(text, bool) else float(text)
        except (TypeError, ValueError):
            number = float("nan")
        if not least <= number <= MAX_SECONDS:
            report.refuse(path, f"{shown(value)} is refused", allowed)
            return None
        return number

    return read


def _flag(report: Report, value: Any, path: Path) -> bool | None:
    if not isinstance(value, bool):
        report.refuse(path, f"{shown(value)} is refused", "true or false")
        return None
    return value


_READERS: dict[str, Reader] = {
    "host": _text("host", "such as 127.0.0.1 or 0.0.0.0"),
    "port": _whole(0, 65535),
    "admin_port": _whole(0, 65535),
    "store": read_url,
    "durability": read_durability,
    "admin_key_file": _text("path", "a file's path"),
    "requests_per_second": _whole(0, 1_000_000),
    "max_body_bytes": _whole(1024, 64 * 1024 * 1024),
    "max_header_bytes": _whole(1024, 1024 * 1024),
    "read_seconds": _seconds(0.1),
    "keep_alive_seconds": _whole(1, MAX_SECONDS),
    "drain_seconds": _whole(0, MAX_SECONDS),
    "max_streams": _whole(0, 100_000),
    "key_cache_seconds": _seconds(0),
    "webhook_private": _flag,
    "webhook_http": _flag,
    "webhook_timeout_seconds": _seconds(0.1),
    "poll_seconds": _seconds(0.01),
}

"""Where a webhook may go: no address inside our network, however it is written or resolved."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from typing import NamedTuple
from urllib.parse import SplitResult, urlsplit

from clearance.server.errors import Refused
from clearance.server.settings import Settings

MAX_URL = 2048


class Target(NamedTuple):
    """A URL whose host has been resolved and checked: connect to `address` and nowhere else."""

    url: str
    host: str
    netloc: str
    address: str


class Blocked(Exception):
    """This delivery must not be made."""


def check_url(url: str, settings: Settings) -> None:
    """What can be told without resolving; 400 WEBHOOK_URL_INVALID."""
    problem = _problem(url, settings)
    if problem:
        raise Refused(400, "WEBHOOK_URL_INVALID", f"url: {problem}", {"field": "url"})


def _problem(url: str, settings: Settings) -> str | None:
    parts = _split(url)
    if parts is None or not parts.hostname or len(url) > MAX_URL or any(char.isspace() for char in url):
        return "is not a URL"
    if parts.scheme != "https" and not (parts.scheme == "http" and settings.webhook_http):
        return "must begin with https://"
    if parts.username or parts.password or parts.fragment:
        return "must not carry credentials or a fragment"
    literal = _address(parts.hostname)
    if literal is not None and not _is_allowed(literal, settings):
        return "names an address that is not public"
    return None


def _split(url: str) -> SplitResult | None:
    try:
        parts = urlsplit(url)
        _ = parts.port
        return parts
    except ValueError:
        return None


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None


def _is_allowed(address: ipaddress.IPv4Address | ipaddress.IPv6Address, settings: Settings) -> bool:
    if settings.webhook_private:
        return True
    if isinstance(address, ipaddress.IPv6Address):
        inner = address.ipv4_mapped or address.sixtofour or (address.teredo[1] if address.teredo else None)
        if inner is not None:
            return _is_allowed(inner, settings)
    return address.is_global and not address.is_multicast and not address.is_reserved


async def resolve(url: str, settings: Settings) -> Target:
    """Resolve once and check every answer; the connection then goes to the address that was checked, so a name that
    changes its mind in between (DNS rebinding) gains nothing.
    """
    problem = _problem(url, settings)
    if problem:
        raise Blocked(f"url {problem}")
    parts = urlsplit(url)
    host = parts.hostname or ""
    port = parts.port or (443 if parts.scheme == "https" else 80)
    loop = asyncio.get_running_loop()
    try:
        found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError as error:
        raise Blocked(f"the host cannot be resolved ({error.strerror or type(error).__name__})") from None
    addresses = [str(entry[4][0]) for entry in found]
    for text in addresses:
        address = _address(text)
        if address is None or not _is_allowed(address, settings):
            raise Blocked("the host resolves to an address that is not public")
    if not addresses:
        raise Blocked("the host has no address")
    shown = f"[{addresses[0]}]" if ":" in addresses[0] else addresses[0]
    pinned = parts._replace(netloc=f"{shown}:{port}").geturl()
    return Target(pinned, host, parts.netloc, addresses[0])

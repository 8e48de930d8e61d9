"""API keys: made once, kept as a hash, found by their prefix.

A secret has 190 random bits, so nobody can guess it from its hash however fast the hash is; a slow one (bcrypt, scrypt)
would only cost every request a tenth of a second. HMAC-SHA256 under a random salt of the key's own means that equal
hashes say nothing and that a table of hashes is of no use.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import string
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

from clearance.authority.embedded import EmbeddedAuthority
from clearance.server.errors import not_found, unauthorized
from clearance.server.settings import Settings
from clearance.server.wire import Wire, iso
from clearance.store.interface import Changes, NewEvent, Record, Transaction

KIND, PREFIX_KIND = "api_key", "api_key_prefix"
ACTIVE, REVOKED = "ACTIVE", "REVOKED"
PREFIX_LENGTH = 17
_ALPHABET = string.ascii_letters + string.digits
MAX_CACHED = 10_000


class NewKey(NamedTuple):
    record: Record
    secret: str


class _Known:
    """A key as it was read, and the mark of the secret that has opened it."""

    __slots__ = ("hash", "mark", "read_at", "record", "salt")

    def __init__(self, record: Record, read_at: float, mark: bytes) -> None:
        self.record = record
        self.salt = bytes.fromhex(record.body["salt"])
        self.hash = bytes.fromhex(record.body["hash"])
        self.read_at = read_at
        self.mark = mark


def hashed(salt: bytes, secret: str) -> bytes:
    return hmac.digest(salt, secret.encode(), "sha256")


def new_key(key_id: str, tenant: str, now_ms: int, facts: Wire) -> NewKey:
    """A key that is not kept yet; `facts` are its name, permissions, expires_at_ms and so on."""
    secret = "cyc_live_" + "".join(secrets.choice(_ALPHABET) for _ in range(32))
    salt = secrets.token_bytes(32)
    body: Wire = {
        **facts,
        "prefix": secret[:PREFIX_LENGTH],
        "status": ACTIVE,
        "salt": salt.hex(),
        "hash": hashed(salt, secret).hex(),
        "created_at_ms": now_ms,
    }
    return NewKey(Record(KIND, key_id, tenant, body), secret)


def written(made: NewKey) -> Changes:
    record = made.record
    prefix = Record(PREFIX_KIND, record.body["prefix"], record.tenant, {"key_id": record.id})
    event = NewEvent("api_key.created", record.tenant, None, None, _event_data(record))
    return Changes(records=[record, prefix], events=[event])


def revoked(record: Record, now_ms: int, event: str = "api_key.revoked", reason: str | None = None) -> Changes:
    """Empty if it was revoked before."""
    if record.body["status"] == REVOKED:
        return Changes()
    body = {**record.body, "status": REVOKED, "revoked_at_ms": now_ms}
    if reason:
        body["revoked_reason"] = reason
    after = record._replace(body=body)
    return Changes(records=[after], events=[NewEvent(event, record.tenant, None, None, _event_data(after))])


def expiring(record: Record, at_ms: int) -> Record:
    """The same key, valid until then at the latest."""
    before = record.body.get("expires_at_ms")
    return record._replace(body={**record.body, "expires_at_ms": min(at_ms, before) if before else at_ms})


def _event_data(record: Record) -> Wire:
    return {"key_id": record.id, "key_name": record.body.get("name"), "new_status": record.body["status"]}


def of_tenant(tx: Transaction, tenant: str) -> list[Record]:
    found: list[Record] = []
    while rows := tx.records(KIND, tenant, found[-1].id if found else "", 200):
        found += rows
    return found


def existing(rows: Any, key_id: str) -> Record:
    record: Record | None = rows.record(KIND, key_id)
    if record is None:
        raise not_found(f"no API key {key_id}")
    return record


def shown(record: Record, now_ms: int) -> Wire:
    """A key without what could open anything."""
    body = record.body
    expires = body.get("expires_at_ms")
    status = "EXPIRED" if body["status"] == ACTIVE and expires and now_ms > expires else body["status"]
    wire: Wire = {
        "key_id": record.id,
        "tenant_id": record.tenant,
        "key_prefix": body["prefix"],
        "name": body.get("name"),
        "description": body.get("description"),
        "permissions": body["permissions"],
        "status": status,
        "created_at": iso(body["created_at_ms"]),
        "expires_at": iso(expires) if expires else None,
        "revoked_at": iso(body["revoked_at_ms"]) if "revoked_at_ms" in body else None,
        "revoked_reason": body.get("revoked_reason"),
        "metadata": body.get("metadata"),
    }
    return {name: value for name, value in wire.items() if value is not None}


class KeyRing:
    """Finds the key of a secret. What this process changes it sees at once, what others change within a second."""

    def __init__(self, authority: EmbeddedAuthority, settings: Settings) -> None:
        self._authority = authority
        self._seconds = settings.key_cache_seconds
        self._mark_key = secrets.token_bytes(32)
        self._known: dict[str, _Known] = {}

    def forget(self) -> None:
        self._known.clear()

    def find(self, secret: str | None) -> Record:
        """The key, or 401 with the reason."""
        if not secret:
            raise unauthorized("Missing API key")
        known = self._lookup(secret[:PREFIX_LENGTH]) if secret.startswith("cyc_") else None
        if known is None or not self._opens(known, secret):
            raise unauthorized("INVALID_KEY")
        body = known.record.body
        if body["status"] != ACTIVE:
            raise unauthorized("KEY_REVOKED")
        expires = body.get("expires_at_ms")
        if expires is not None and self._authority.now_ms() > expires:
            raise unauthorized("KEY_EXPIRED")
        return known.record

    def _opens(self, known: _Known, secret: str) -> bool:
        """A secret that was right before is known by a mark that is quicker than its hash and dies with the process."""
        mark = hashlib.blake2b(secret.encode(), key=self._mark_key, digest_size=32).digest()
        if hmac.compare_digest(mark, known.mark):
            return True
        if not hmac.compare_digest(hashed(known.salt, secret), known.hash):
            return False
        known.mark = mark
        return True

    def _lookup(self, prefix: str) -> _Known | None:
        known = self._known.get(prefix)
        now = time.monotonic()
        if known is not None and now - known.read_at < self._seconds:
            return known
        key_id = known.record.id if known else self._key_id(prefix)
        record = self._authority.record(KIND, key_id) if key_id else None
        if record is None:
            self._known.pop(prefix, None)
            return None
        if len(self._known) >= MAX_CACHED:
            self._known.clear()
        same = known is not None and known.record.body["hash"] == record.body["hash"]
        made = _Known(record, now, known.mark if known is not None and same else b"")
        self._known[prefix] = made
        return made

    def _key_id(self, prefix: str) -> str | None:
        found = self._authority.record(PREFIX_KIND, prefix)
        return found.body["key_id"] if found else None


def listed(records: Sequence[Record], now_ms: int) -> list[Wire]:
    return [shown(record, now_ms) for record in records]

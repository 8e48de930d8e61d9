"""What callers ask for, checked before anything is queued."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any, NamedTuple

from pydantic_core import to_json

from clearance.authority.interface import (
    MAX_EXTEND_MS,
    MAX_GRACE_MS,
    MAX_KEY_LENGTH,
    MAX_METADATA_BYTES,
    MAX_TTL_MS,
    MIN_TTL_MS,
)
from clearance.errors import InvalidRequest
from clearance.model.account import ALLOW_IF_AVAILABLE, ALLOW_WITH_OVERDRAFT, REJECT, OveragePolicy
from clearance.model.action import Action
from clearance.model.amount import INT64_MAX, Amount, Unit
from clearance.model.reservation import ReservationKind
from clearance.model.subject import Subject
from clearance.store.interface import Needs, Place

_POLICIES = (REJECT, ALLOW_IF_AVAILABLE, ALLOW_WITH_OVERDRAFT)
_MAX_ID = 128
_MOST_ESCAPED, _AROUND = 6, 32
"""Bytes of JSON: for one ASCII character at most, and for quotes, commas and a number."""
_ALL_UNITS = {str(first): (str(first), *(str(unit) for unit in Unit if unit is not first)) for first in Unit}


class Ask(NamedTuple):
    """May this subject do this action for this estimate? The request of reserve, decide, dry_run and start_run."""

    subject: Subject
    action: Action
    estimate: Amount
    ttl_ms: int
    grace_period_ms: int
    overage_policy: OveragePolicy | None
    run_id: str | None
    metadata: dict[str, Any]
    idempotency_key: str | None
    unit: str
    kind: ReservationKind = "call"
    unfunded: bool = False
    """A run without a budget: it holds nothing."""

    def place(self, endpoint: str) -> Place | None:
        """Where the answer is kept, None without a key."""
        if self.idempotency_key is None:
            return None
        payload = [
            self.subject.wire,
            self.action.wire,
            self.unit,
            self.estimate.amount,
            self.ttl_ms,
            self.grace_period_ms,
            self.overage_policy,
            self.run_id,
            self.metadata,
            endpoint,
        ]
        # decide has a namespace of its own; live and dry-run reserves share one (protocol section 13).
        space = "decide" if endpoint == "decide" else "reserve"
        return place_of(self.subject.tenant_key, space, self.idempotency_key, payload)

    @property
    def units(self) -> tuple[str, ...]:
        """Whose budgets have a say, its own first: a tool list holds in whatever unit a tool is paid."""
        if self.kind == "run" or self.action.kind.startswith("llm"):
            return (self.unit,)
        return _ALL_UNITS[self.unit]

    def needs(self, place: Place | None) -> Needs:
        return Needs(
            ((self.subject.tenant_key, self.subject.scopes, self.units),),
            (self.run_id,) if self.run_id else (),
            (place.key,) if place else (),
        )


def ask(
    subject: Subject,
    action: Action,
    estimate: Amount,
    *,
    ttl_ms: int,
    grace_period_ms: int,
    overage_policy: OveragePolicy | None,
    run_id: str | None,
    idempotency_key: str | None,
    metadata: Mapping[str, Any] | None,
    kind: ReservationKind = "call",
    unfunded: bool = False,
) -> Ask:
    check_subject(subject, action)
    check_amount(estimate, "estimate")
    _in_range("ttl_ms", ttl_ms, MIN_TTL_MS, MAX_TTL_MS)
    _in_range("grace_period_ms", grace_period_ms, 0, MAX_GRACE_MS)
    return Ask(
        subject,
        action,
        estimate,
        ttl_ms,
        grace_period_ms,
        None if overage_policy is None else check_policy(overage_policy),
        None if run_id is None else check_id(run_id, "run_id"),
        check_metadata(metadata) if metadata else {},
        None if idempotency_key is None else check_key(idempotency_key),
        str(estimate.unit),
        kind,
        unfunded,
    )


def check_policy(policy: OveragePolicy | None) -> OveragePolicy | None:
    if policy is not None and policy not in _POLICIES:
        raise InvalidRequest("overage_policy", f"{policy!r} is unknown", ", ".join(_POLICIES))
    return policy


def check_id(value: str, field: str) -> str:
    if not isinstance(value, str) or not 1 <= len(value) <= _MAX_ID or not _storable(value):
        raise InvalidRequest(field, f"{str(value)[:40]!r} is not an id", f"1 to {_MAX_ID} characters")
    return value


def check_key(key: str | None) -> str | None:
    if key is not None and (not isinstance(key, str) or not 1 <= len(key) <= MAX_KEY_LENGTH or not _storable(key)):
        raise InvalidRequest(
            "idempotency_key", "has a wrong length or type", f"a string of 1 to {MAX_KEY_LENGTH} characters"
        )
    return key


def check_extension(extend_by_ms: int) -> int:
    _in_range("extend_by_ms", extend_by_ms, 1, MAX_EXTEND_MS)
    return extend_by_ms


def check_subject(subject: Subject, action: Action) -> None:
    if not isinstance(subject, Subject) or not isinstance(action, Action):
        check_kind(subject, Subject, "subject")
        check_kind(action, Action, "action")


def check_amount(amount: Amount, field: str) -> Amount:
    if not isinstance(amount, Amount):
        check_kind(amount, Amount, field)
    return amount


def check_metadata(metadata: Mapping[str, Any] | None) -> dict[str, Any]:
    if not metadata:
        return {}
    if type(metadata) is dict and _is_plain(metadata):
        return dict(sorted(metadata.items()))
    try:
        # Sorted, so that equal metadata has equal bytes however it was built.
        text = json.dumps(dict(metadata), allow_nan=False, sort_keys=True, ensure_ascii=False).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidRequest("metadata", f"is not JSON ({error})", "an object of JSON values") from None
    if len(text) > MAX_METADATA_BYTES:
        raise InvalidRequest("metadata", f"is {len(text):,} bytes long", f"at most {MAX_METADATA_BYTES:,} bytes")
    copy: dict[str, Any] = json.loads(text)
    return copy


def _is_plain(metadata: Mapping[str, Any]) -> bool:
    """Short ASCII texts, int64s, bools and nulls under such names, as guards send them: surely small enough JSON."""
    room = MAX_METADATA_BYTES
    for name, value in metadata.items():
        kind = type(value)
        if kind is str and value.isascii():
            room -= len(value) * _MOST_ESCAPED
        elif value is not None and kind is not bool and not (kind is int and -INT64_MAX <= value <= INT64_MAX):
            return False
        if type(name) is not str or not name.isascii():
            return False
        room -= len(name) * _MOST_ESCAPED + _AROUND
    return room > 0


def check_text(value: str, field: str, most: int) -> str:
    if not isinstance(value, str) or not value.strip() or len(value) > most or not _storable(value):
        raise InvalidRequest(field, "is missing, blank or too long", f"1 to {most} characters that say something")
    return value.strip()


def check_remark(value: str | None, field: str, most: int) -> str | None:
    """Words that may be left out."""
    if value is not None and (not isinstance(value, str) or len(value) > most or not _storable(value)):
        raise InvalidRequest(field, "is no text or too long", f"at most {most} characters")
    return value


def _storable(text: str) -> bool:
    """Half a surrogate pair is no text that could be written down."""
    return text.isascii() or not any("\ud800" <= char <= "\udfff" for char in text)


def place_of(owner: str, endpoint: str, key: str, payload: list[Any]) -> Place:
    """16-byte hashes; only ever compared with our own. `owner` is the tenant, or the reservation of a settlement."""
    spot = hashlib.blake2b(f"{owner}\0{endpoint}\0{key}".encode(), digest_size=16).digest()
    return Place(_time_in(owner, key) + spot, hashlib.blake2b(to_json(payload), digest_size=16).digest())


def _time_in(owner: str, key: str) -> bytes:
    """What rises with time in an id of ours or a UUIDv7, so that answers of one moment are stored side by side."""
    settling = owner.startswith(("rsv_", "run_"))
    for digits in (owner[4:16],) if settling else (key[:12], key[:8] + key[9:13]):
        try:
            return bytes.fromhex(digits)
        except ValueError:
            continue
    return b""


def _in_range(field: str, value: int, least: int, most: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise InvalidRequest(field, f"{value!r} is refused", f"a whole number from {least} to {most}")


def check_kind(value: object, kind: type, field: str) -> None:
    if not isinstance(value, kind):
        raise InvalidRequest(field, f"is a {type(value).__name__}", f"a {kind.__name__}")

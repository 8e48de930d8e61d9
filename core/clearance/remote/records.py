"""What the journal keeps of one settlement: enough to make it again, word for word, and nothing secret."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from pydantic_core import from_json, to_json

from clearance.authority.interface import MAX_KEY_LENGTH
from clearance.authority.requests import check_metadata
from clearance.errors import InvalidRequest
from clearance.model.account import OveragePolicy
from clearance.model.action import Action
from clearance.model.amount import Amount
from clearance.model.subject import Subject
from clearance.remote import requests
from clearance.remote.wire import Call

VERSION = 2
Mode = Literal["commit", "event"]


class BadRecord(Exception):
    """Malformed, or written by a version that we do not know."""


@dataclass(frozen=True, slots=True)
class Origin:
    """What the reservation was for: an expired commit is recorded as an event of the same subject and action."""

    subject: Subject
    action: Action
    overage_policy: OveragePolicy | None = None
    run_id: str | None = None
    estimate: int | None = None


@dataclass(frozen=True, slots=True)
class Record:
    """One settlement that is not known to have arrived.

    Attributes:
        reservation_id: None for spend that was never reserved.
        mode: what is to be sent; an expired commit becomes an event.
        not_before_ms: epoch ms; nothing is sent earlier.
        refused: the code of a refusal that left the spend unrecorded. It is kept for people, and tried again only by a
            restart or an explicit flush.
    """

    key: str
    actual: Amount
    mode: Mode
    reservation_id: str | None = None
    origin: Origin | None = None
    metadata: dict[str, Any] = field(default_factory=dict)
    created_at_ms: int = 0
    not_before_ms: int = 0
    refused: str | None = None

    @property
    def name(self) -> str:
        """The file's name. Any id is allowed, so it is hashed; no two ids share a file."""
        if self.reservation_id is not None:
            return reservation_name(self.reservation_id)
        return f"event-v{VERSION}-{_sha256(self.key)}.json"

    @property
    def call(self) -> Call[Any]:
        """The request that it stands for. Raises BadRecord where nothing can be sent."""
        if self.mode == "commit" and self.reservation_id is not None:
            estimate = self.origin.estimate if self.origin else None
            return requests.commit(self.reservation_id, self.actual, self.key, self.metadata, estimate)
        if self.origin is None:
            raise BadRecord("nobody knows what the reservation was for")
        return requests.event(
            self.origin.subject,
            self.origin.action,
            self.actual,
            key=self.key,
            overage_policy=self.origin.overage_policy,
            run_id=self.origin.run_id,
            metadata=self.metadata,
        )

    def as_event(self) -> Record:
        return replace(self, mode="event", refused=None)

    def encoded(self) -> bytes:
        facts: dict[str, Any] = {
            "version": VERSION,
            "mode": self.mode,
            "idempotency_key": self.key,
            "actual": requests.wire_amount(self.actual),
            "created_at_ms": self.created_at_ms,
        }
        if self.reservation_id is not None:
            facts["reservation_id"] = self.reservation_id
        if self.metadata:
            facts["metadata"] = self.metadata
        if self.not_before_ms:
            facts["not_before_ms"] = self.not_before_ms
        if self.refused:
            facts["refused"] = self.refused
        if self.origin is not None:
            origin = self.origin
            facts["origin"] = {
                "subject": origin.subject.wire,
                "action": origin.action.wire,
                "overage_policy": origin.overage_policy,
                "run_id": origin.run_id,
                "estimate": origin.estimate,
            }
        return to_json(facts)


def reservation_name(reservation_id: str) -> str:
    return f"v{VERSION}-{_sha256(reservation_id)}.json"


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def decoded(data: bytes) -> Record:
    """Raises BadRecord."""
    try:
        facts = from_json(data)
        if not isinstance(facts, dict):
            raise BadRecord("is no object")
        if facts.get("version") != VERSION:
            raise BadRecord(f"version {facts.get('version')!r} is unknown")
        return _record(facts)
    except (KeyError, TypeError, ValueError, InvalidRequest) as error:
        raise BadRecord(f"cannot be read ({type(error).__name__})") from None


def _record(facts: dict[str, Any]) -> Record:
    key, mode, reservation_id = facts["idempotency_key"], facts["mode"], facts.get("reservation_id")
    if not isinstance(key, str) or not 1 <= len(key) <= MAX_KEY_LENGTH or mode not in ("commit", "event"):
        raise ValueError
    if reservation_id is not None and not isinstance(reservation_id, str):
        raise ValueError
    found = facts.get("origin")
    origin = None
    if found is not None:
        origin = Origin(
            Subject(**found["subject"]),
            Action(**found["action"]),
            found.get("overage_policy"),
            found.get("run_id"),
            found.get("estimate"),
        )
    record = Record(
        key,
        Amount(**facts["actual"]),
        mode,
        reservation_id,
        origin,
        check_metadata(facts.get("metadata")),
        int(facts.get("created_at_ms", 0)),
        int(facts.get("not_before_ms", 0)),
        facts.get("refused"),
    )
    if mode == "commit" and reservation_id is None:
        raise ValueError
    return record

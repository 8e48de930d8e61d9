"""Every error as its status, code and body (protocol section 15)."""

from __future__ import annotations

from typing import Any, NamedTuple

from clearance.errors import AuthorityUnavailable, ClearanceError, Denied, InvalidRequest
from clearance.server.names import names

WIRE_CODES = {
    # The protocol's list of codes is closed and a stop is nearest to a frozen budget: an operator said no and a retry
    # is of no use. `details.reason_code` says what it really was.
    "KILLED": "BUDGET_FROZEN",
    "PAUSED": "BUDGET_FROZEN",
    "STOPPED": "BUDGET_FROZEN",
    "CONFLICT": "INVALID_REQUEST",
}
KNOWN_CODES = frozenset(
    names(
        "INVALID_REQUEST UNAUTHORIZED FORBIDDEN NOT_FOUND BUDGET_EXCEEDED BUDGET_FROZEN BUDGET_CLOSED "
        "RESERVATION_EXPIRED RESERVATION_FINALIZED IDEMPOTENCY_MISMATCH UNIT_MISMATCH OVERDRAFT_LIMIT_EXCEEDED "
        "DEBT_OUTSTANDING MAX_EXTENSIONS_EXCEEDED LIMIT_EXCEEDED TENANT_CLOSED INTERNAL_ERROR "
        # The governance plane's own:
        "TENANT_NOT_FOUND DUPLICATE_RESOURCE BUDGET_NOT_FOUND INSUFFICIENT_PERMISSIONS WEBHOOK_NOT_FOUND "
        "WEBHOOK_URL_INVALID EVENT_NOT_FOUND REPLAY_IN_PROGRESS"
    )
)

Headers = list[tuple[bytes, bytes]]


class Refused(Exception):
    """What only the HTTP face refuses; the authority was not asked."""

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        details: dict[str, Any] | None = None,
        headers: Headers | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.details = details or {}
        self.headers = headers or []


class Told(NamedTuple):
    """What a client is told about an error."""

    status: int
    code: str
    message: str
    details: dict[str, Any]
    headers: Headers


def told(error: Exception) -> Told:
    if isinstance(error, Refused):
        return Told(error.status, error.code, error.message, error.details, error.headers)
    if isinstance(error, AuthorityUnavailable):
        # The message of a store error names files of this machine.
        return Told(500, "INTERNAL_ERROR", "the ledger did not answer; try again with the same key", {}, [])
    if isinstance(error, ClearanceError):
        return _told(error)
    return Told(500, "INTERNAL_ERROR", "the server failed; the log knows more by the request_id", {}, [])


def _told(error: ClearanceError) -> Told:
    code = WIRE_CODES.get(error.code, error.code)
    if code not in KNOWN_CODES:
        code = "BUDGET_FROZEN" if isinstance(error, Denied) else "INTERNAL_ERROR"
    details = dict(error.details)
    if error.reason_code != code:
        details["reason_code"] = error.reason_code
    if error.scope is not None:
        details.setdefault("scope", error.scope)
    if error.retry_after_ms is not None:
        details["retry_after_ms"] = error.retry_after_ms
    if isinstance(error, InvalidRequest):
        details.setdefault("field", error.field)
    return Told(error.status, code, error.message, details, retry_headers(error) if error.status == 429 else [])


def retry_headers(error: ClearanceError) -> Headers:
    return [(b"retry-after", str(-(-(error.retry_after_ms or 1000) // 1000)).encode())]


def unauthorized(message: str) -> Refused:
    return Refused(401, "UNAUTHORIZED", message)


def forbidden(message: str) -> Refused:
    return Refused(403, "FORBIDDEN", message)


def not_found(what: str, code: str = "NOT_FOUND") -> Refused:
    return Refused(404, code, what)


def invalid(field: str, problem: str, allowed: str = "") -> InvalidRequest:
    return InvalidRequest(field, problem, allowed)

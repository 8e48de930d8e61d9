"""Every error that Clearance raises.

    ClearanceError
    ├── InvalidRequest (ValueError)          bad input; nothing was written             400 INVALID_REQUEST
    │   └── UnitMismatch                     the scope has no budget in this unit       400 UNIT_MISMATCH
    ├── NotFound (LookupError)               no such reservation, run or budget         404 NOT_FOUND
    ├── Denied (PermissionError)             the authority said no; the action must not happen
    │   ├── BudgetNotFound (NotFound)        no budget on any scope of the subject      404 NOT_FOUND
    │   ├── BudgetExceeded                   the estimate does not fit in what remains  409 BUDGET_EXCEEDED
    │   ├── BudgetFrozen / BudgetClosed                                                 409
    │   ├── OverdraftLimitExceeded           a scope is over its limit                  409
    │   ├── DebtOutstanding                  a scope owes and has no overdraft          409
    │   ├── TenantClosed                                                                409
    │   ├── Stopped                          the stop button, sticky until resumed
    │   │   ├── Killed
    │   │   └── Paused
    │   ├── CapsViolated                     the caps of the answer forbid this action
    │   ├── ApprovalRequired                 the caps want a person's yes for this tool, and nobody has given it
    │   ├── SubjectMissing                   nobody said who acts
    │   └── PriceUnknown                     the model has no price and the policy is to deny
    ├── Conflict                             the reservation cannot do this any more
    │   ├── IdempotencyMismatch              same key, other payload                    409
    │   ├── ReservationFinalized             committed or released before               409
    │   ├── ReservationExpired               past its lease and grace                   410
    │   ├── MaxExtensionsExceeded                                                       409
    │   └── AlreadyExists                    a budget that is there already             409
    ├── LimitExceeded                        a queue or payload limit of ours           429 LIMIT_EXCEEDED
    ├── BadAnswer                            a server answered, but not in the protocol 502 BAD_ANSWER
    └── AuthorityUnavailable (ConnectionError)   nobody could decide: an outage, not a denial
        └── StoreError                       the ledger's file or database
            ├── StoreCorrupt, StoreFull, StoreReadOnly, StoreUnsafe, StoreVersion

Codes and statuses are those of the Cycles protocol, v0.1.25, section "Errors" (the reason codes KILLED, PAUSED,
CAPS_VIOLATED, APPROVAL_REQUIRED, SUBJECT_MISSING and PRICE_UNKNOWN are ours; the protocol's list of reasons is open).
"""

from __future__ import annotations

from typing import Any, ClassVar

__all__ = [
    "AlreadyExists",
    "ApprovalRequired",
    "AuthorityUnavailable",
    "BadAnswer",
    "BudgetClosed",
    "BudgetExceeded",
    "BudgetFrozen",
    "BudgetNotFound",
    "CapsViolated",
    "ClearanceError",
    "Conflict",
    "DebtOutstanding",
    "Denied",
    "IdempotencyMismatch",
    "InvalidRequest",
    "Killed",
    "LimitExceeded",
    "MaxExtensionsExceeded",
    "NotFound",
    "OverdraftLimitExceeded",
    "Paused",
    "PriceUnknown",
    "ReservationExpired",
    "ReservationFinalized",
    "Stopped",
    "StoreCorrupt",
    "StoreError",
    "StoreFull",
    "StoreReadOnly",
    "StoreUnsafe",
    "StoreVersion",
    "SubjectMissing",
    "TenantClosed",
    "UnitMismatch",
]


class ClearanceError(Exception):
    """Base of all. `message` is for people, the rest for programs.

    Attributes:
        code: the protocol's error code, e.g. `BUDGET_EXCEEDED`.
        status: the HTTP status that the protocol gives this error.
        reason_code: the reason in a DENY answer; equals `code` unless the protocol names them apart.
        scope: the scope that decided, e.g. `tenant:acme/agent:bot`, or None.
        retry_after_ms: when another try could succeed, or None.
        details: further facts, JSON-able, no secrets.
    """

    code: ClassVar[str] = "INTERNAL_ERROR"
    status: ClassVar[int] = 500
    reason: ClassVar[str] = ""

    def __init__(
        self,
        message: str,
        *,
        scope: str | None = None,
        retry_after_ms: int | None = None,
        details: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.scope = scope
        self.retry_after_ms = retry_after_ms
        self.details = details or {}

    def __str__(self) -> str:
        return self.message

    @property
    def reason_code(self) -> str:
        return self.reason or self.code

    def __reduce__(self) -> tuple[Any, ...]:
        """Errors cross process pools with all their facts."""
        return _rebuild, (type(self), self.message, self.__dict__)


def _rebuild(kind: type[ClearanceError], message: str, facts: dict[str, Any]) -> ClearanceError:
    error = kind.__new__(kind, message)
    error.args = (message,)
    error.__dict__.update(facts)
    return error


class InvalidRequest(ClearanceError, ValueError):
    """Bad input. Names the field, what is wrong with its value and what is allowed."""

    code = "INVALID_REQUEST"
    status = 400

    def __init__(
        self,
        field: str,
        problem: str,
        allowed: str = "",
        *,
        scope: str | None = None,
        details: dict[str, Any] | None = None,
    ) -> None:
        message = f"{field}: {problem}" + (f"; allowed: {allowed}" if allowed else "")
        super().__init__(message, scope=scope, details=details)
        self.field = field
        self.problem = problem
        self.allowed = allowed


class UnitMismatch(InvalidRequest):
    """The unit differs from the one that the scope, or the reservation, is kept in."""

    code = "UNIT_MISMATCH"


class NotFound(ClearanceError, LookupError):
    code = "NOT_FOUND"
    status = 404


class Denied(ClearanceError, PermissionError):
    """The authority decided no. Nothing was reserved and the action must not happen.

    `details` carries `requested` and `remaining` (ints in the scope's unit) where a budget decided.
    """

    code = "DENIED"
    status = 409


class BudgetNotFound(Denied, NotFound):
    code = "NOT_FOUND"
    status = 404
    reason = "BUDGET_NOT_FOUND"


class BudgetExceeded(Denied):
    code = "BUDGET_EXCEEDED"


class BudgetFrozen(Denied):
    code = "BUDGET_FROZEN"


class BudgetClosed(Denied):
    code = "BUDGET_CLOSED"


class OverdraftLimitExceeded(Denied):
    code = "OVERDRAFT_LIMIT_EXCEEDED"


class DebtOutstanding(Denied):
    code = "DEBT_OUTSTANDING"


class TenantClosed(Denied):
    code = "TENANT_CLOSED"


class Stopped(Denied):
    """A person stopped this scope. `details` carries `reason`, `actor` and `at_ms`."""

    code = "STOPPED"


class Killed(Stopped):
    code = "KILLED"


class Paused(Stopped):
    code = "PAUSED"


class CapsViolated(Denied):
    code = "CAPS_VIOLATED"


class ApprovalRequired(Denied):
    """A person must approve this tool call first: ask one, then try again with `approved_by=`.

    `details` carries `tool`, the tool's name.
    """

    code = "APPROVAL_REQUIRED"


class SubjectMissing(Denied):
    code = "SUBJECT_MISSING"


class PriceUnknown(Denied):
    code = "PRICE_UNKNOWN"


class Conflict(ClearanceError):
    code = "CONFLICT"
    status = 409


class IdempotencyMismatch(Conflict):
    code = "IDEMPOTENCY_MISMATCH"


class ReservationFinalized(Conflict):
    code = "RESERVATION_FINALIZED"


class ReservationExpired(Conflict):
    code = "RESERVATION_EXPIRED"
    status = 410


class MaxExtensionsExceeded(Conflict):
    code = "MAX_EXTENSIONS_EXCEEDED"


class AlreadyExists(Conflict):
    code = "DUPLICATE_RESOURCE"


class LimitExceeded(ClearanceError):
    code = "LIMIT_EXCEEDED"
    status = 429


class BadAnswer(ClearanceError):
    """The server answered, but not in the protocol. Nobody knows whether the request took effect."""

    code = "BAD_ANSWER"
    status = 502


class AuthorityUnavailable(ClearanceError, ConnectionError):
    """Nobody could decide in time. The default is to act as if denied, but it is not a denial."""

    code = "INTERNAL_ERROR"
    status = 500


class StoreError(AuthorityUnavailable):
    """The ledger's storage failed. The operation did not happen, unless the message says otherwise."""


class StoreCorrupt(StoreError):
    """The file is not a ledger, or is damaged. Nothing was opened or overwritten."""


class StoreFull(StoreError):
    """The disk is full. The operation was rolled back."""


class StoreReadOnly(StoreError):
    """The file or its folder cannot be written."""


class StoreUnsafe(StoreError):
    """This place or this SQLite cannot keep money safely (network file system, too old a library)."""


class StoreVersion(StoreError):
    """The ledger was written by a newer Clearance."""

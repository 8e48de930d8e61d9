"""What the authority answers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Generic, Literal, NamedTuple, TypeVar

from clearance.model.amount import Amount, Unit
from clearance.model.balance import Balance
from clearance.model.caps import Caps

Verdict = Literal["ALLOW", "ALLOW_WITH_CAPS", "DENY"]
T = TypeVar("T")
Figures = Mapping[str, list[int]]
"""Scope -> `Account.figures` after the operation."""
_NOTHING: Mapping[str, Any] = MappingProxyType({})


class Decision(NamedTuple):
    """The answer of reserve, decide and dry_run.

    A live `reserve` never returns DENY: it raises the matching error. `reservation_id` and `expires_at_ms` are None for
    decide and dry_run. `remaining_ttl_ms` is how long the lease still runs at the time of the answer.
    A NamedTuple, like Settlement, because every operation makes one.
    """

    decision: Verdict
    affected_scopes: tuple[str, ...]
    unit: Unit
    estimate: int
    reservation_id: str | None = None
    expires_at_ms: int | None = None
    remaining_ttl_ms: int | None = None
    caps: Caps | None = None
    reason_code: str | None = None
    message: str | None = None
    scope: str | None = None
    retry_after_ms: int | None = None
    details: Mapping[str, Any] = _NOTHING
    figures: Figures = _NOTHING

    @property
    def allowed(self) -> bool:
        return self.decision != "DENY"

    @property
    def scope_path(self) -> str:
        return self.affected_scopes[-1]

    @property
    def reserved(self) -> Amount | None:
        return Amount(unit=self.unit, amount=self.estimate) if self.reservation_id else None

    @property
    def balances(self) -> list[Balance]:
        """The budgeted scopes after the operation, root first."""
        return [Balance.recorded(scope, self.unit, figures) for scope, figures in self.figures.items()]


class Settlement(NamedTuple):
    """The answer of commit, release and event. Amounts are ints in `unit`.

    `charged` is what each budgeted scope was charged; `uncharged` is the part of `actual` that no policy could charge
    (it stays visible in the event log and is never lost).
    """

    status: Literal["COMMITTED", "RELEASED", "APPLIED"]
    unit: Unit
    estimate: int
    actual: int
    charged: int
    released: int = 0
    uncharged: int = 0
    reservation_id: str | None = None
    event_id: str | None = None
    figures: Figures = _NOTHING

    @property
    def balances(self) -> list[Balance]:
        return [Balance.recorded(scope, self.unit, figures) for scope, figures in self.figures.items()]


@dataclass(frozen=True, slots=True)
class Lease:
    """The answer of extend."""

    reservation_id: str
    expires_at_ms: int
    remaining_ttl_ms: int


EVERYTHING = "*"
"""The control scope, under the empty tenant, that stops everybody."""


@dataclass(frozen=True, slots=True)
class Stop:
    """A control on a scope or run, and the answer of kill and pause.

    `in_flight` names the reservations below the scope that were open when it took effect: effects that finish after
    the answer are at most these.
    """

    scope: str
    tenant: str
    state: Literal["RUNNING", "PAUSED", "KILLED"]
    reason: str
    actor: str
    at_ms: int
    in_flight: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Event:
    """One immutable line of the audit log.

    `seq` rises, for one account in the order of its effects, and may have gaps: go on after the last one seen.
    """

    seq: int
    at_ms: int
    tenant: str
    type: str
    scope: str | None
    reservation_id: str | None
    data: dict[str, Any]

    def as_dict(self) -> dict[str, Any]:
        return {
            "seq": self.seq,
            "at_ms": self.at_ms,
            "tenant": self.tenant,
            "type": self.type,
            "scope": self.scope,
            "reservation_id": self.reservation_id,
            "data": self.data,
        }


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """Part of a list; `next_cursor` is None at the end."""

    items: list[T]
    next_cursor: str | None = None

"""Clearance: the runtime authority for AI agents.

*May this agent, for this customer, on this worker, take the next action right now?*

    import clearance

    authority = clearance.connect()
    with authority.run(clearance.Subject(tenant="acme"), budget=clearance.usd("5")):
        agent.invoke(...)
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from clearance.errors import (
    AlreadyExists,
    ApprovalRequired,
    AuthorityUnavailable,
    BadAnswer,
    BudgetClosed,
    BudgetExceeded,
    BudgetFrozen,
    BudgetNotFound,
    CapsViolated,
    ClearanceError,
    Conflict,
    DebtOutstanding,
    Denied,
    IdempotencyMismatch,
    InvalidRequest,
    Killed,
    LimitExceeded,
    MaxExtensionsExceeded,
    NotFound,
    OverdraftLimitExceeded,
    Paused,
    PriceUnknown,
    ReservationExpired,
    ReservationFinalized,
    Stopped,
    StoreCorrupt,
    StoreError,
    StoreFull,
    StoreReadOnly,
    StoreUnsafe,
    StoreVersion,
    SubjectMissing,
    TenantClosed,
    UnitMismatch,
)

if TYPE_CHECKING:
    from clearance.authority.budgets import BudgetSpec
    from clearance.authority.clock import Clock, ManualClock
    from clearance.authority.interface import Authority
    from clearance.connecting import connect
    from clearance.guard import Guard, Permit, Returning, Run
    from clearance.model.action import Action, action
    from clearance.model.amount import Amount, Unit, credits, risk_points, tokens, usd
    from clearance.model.balance import Balance
    from clearance.model.caps import Caps, CapsRule
    from clearance.model.period import Period
    from clearance.model.reservation import Reservation
    from clearance.model.results import Decision, Event, Lease, Page, Settlement, Stop
    from clearance.model.subject import Subject
    from clearance.store.interface import EventQuery, ReservationQuery

# Loaded at first use: a host that only enables a plugin must not pay for pydantic at start-up.
_HOME = {
    "clearance.authority.budgets": "BudgetSpec",
    "clearance.authority.clock": "Clock ManualClock",
    "clearance.authority.interface": "Authority",
    "clearance.connecting": "connect",
    "clearance.guard": "Guard Permit Returning Run",
    "clearance.model.action": "Action action",
    "clearance.model.amount": "Amount Unit credits risk_points tokens usd",
    "clearance.model.balance": "Balance",
    "clearance.model.caps": "Caps CapsRule",
    "clearance.model.period": "Period",
    "clearance.model.reservation": "Reservation",
    "clearance.model.results": "Decision Event Lease Page Settlement Stop",
    "clearance.model.subject": "Subject",
    "clearance.store.interface": "EventQuery ReservationQuery",
}
_MODULE_OF = {name: module for module, names in _HOME.items() for name in names.split()}


def __getattr__(name: str) -> object:
    module = _MODULE_OF.get(name)
    if module is None:
        raise AttributeError(f"module 'clearance' has no attribute {name!r}")
    value = globals()[name] = getattr(importlib.import_module(module), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


__all__ = [
    "Action",
    "AlreadyExists",
    "Amount",
    "ApprovalRequired",
    "Authority",
    "AuthorityUnavailable",
    "BadAnswer",
    "Balance",
    "BudgetClosed",
    "BudgetExceeded",
    "BudgetFrozen",
    "BudgetNotFound",
    "BudgetSpec",
    "Caps",
    "CapsRule",
    "CapsViolated",
    "ClearanceError",
    "Clock",
    "Conflict",
    "DebtOutstanding",
    "Decision",
    "Denied",
    "Event",
    "EventQuery",
    "Guard",
    "IdempotencyMismatch",
    "InvalidRequest",
    "Killed",
    "Lease",
    "LimitExceeded",
    "ManualClock",
    "MaxExtensionsExceeded",
    "NotFound",
    "OverdraftLimitExceeded",
    "Page",
    "Paused",
    "Period",
    "Permit",
    "PriceUnknown",
    "Reservation",
    "ReservationExpired",
    "ReservationFinalized",
    "ReservationQuery",
    "Returning",
    "Run",
    "Settlement",
    "Stop",
    "Stopped",
    "StoreCorrupt",
    "StoreError",
    "StoreFull",
    "StoreReadOnly",
    "StoreUnsafe",
    "StoreVersion",
    "Subject",
    "SubjectMissing",
    "TenantClosed",
    "Unit",
    "UnitMismatch",
    "action",
    "connect",
    "credits",
    "risk_points",
    "tokens",
    "usd",
]

"""The stop button: kill, pause and resume (design, section 7)."""

from __future__ import annotations

from typing import Literal

from clearance.authority.requests import check_id, check_text
from clearance.errors import NotFound
from clearance.model.reservation import run_scope
from clearance.model.results import EVERYTHING, Stop
from clearance.model.subject import parse_scope, tenant_of
from clearance.store.interface import Changes, NewEvent, Rows, Transaction

State = Literal["RUNNING", "PAUSED", "KILLED"]
MAX_REASON, MAX_ACTOR = 512, 128
_EVENTS: dict[State, str] = {"KILLED": "control.killed", "PAUSED": "control.paused", "RUNNING": "control.resumed"}


def parse_target(text: str) -> str:
    """A scope, `run:<id>` (or just the id), or `*` for everybody."""
    if not isinstance(text, str):
        return parse_scope(text)  # says what is wrong
    text = text.strip()
    if text == EVERYTHING:
        return text
    if text.startswith("run_"):
        return run_scope(check_id(text, "run"))
    if text.startswith("run:"):
        return run_scope(check_id(text.removeprefix("run:"), "run"))
    return parse_scope(text)


def check_words(reason: str, actor: str) -> tuple[str, str]:
    return check_text(reason, "reason", MAX_REASON), check_text(actor, "actor", MAX_ACTOR)


def control(tx: Transaction, target: str, state: State, reason: str, actor: str, now_ms: int) -> Stop:
    """Set the state of a scope; the answer names the reservations in flight below it.

    A kill outranks a pause: pausing what was killed leaves it killed. Only a resume ends either.
    """
    tenant = _tenant(tx, target)
    in_flight = tuple(it.id for it in tx.open_below(tenant or None, target)) if state != "RUNNING" else ()
    old = tx.stops().get((tenant, target))
    if old is not None and (old.state == state or (old.state == "KILLED" and state == "PAUSED")):
        return Stop(old.scope, old.tenant, old.state, old.reason, old.actor, old.at_ms, in_flight)
    stop = Stop(target, tenant, state, reason, actor, now_ms, in_flight)
    if old is None and state == "RUNNING":
        return stop
    facts = {"reason": reason, "actor": actor, "in_flight": list(in_flight[:1000]), "in_flight_count": len(in_flight)}
    event = NewEvent(_EVENTS[state], tenant, target, None, facts)
    tx.write(Changes(stops=[stop], events=[event]), now_ms)
    return stop


def _tenant(rows: Rows, target: str) -> str:
    if target == EVERYTHING:
        return ""
    if target.startswith("run:"):
        run_id = target.removeprefix("run:")
        run = rows.reservation(run_id)
        if run is None:
            raise NotFound(f"no run {run_id}")
        return run.tenant
    return tenant_of(target)

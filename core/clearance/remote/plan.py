"""The steps of every verb, written once for sync and async."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

from clearance.authority.requests import Ask, check_amount, check_id
from clearance.errors import AuthorityUnavailable, ClearanceError, InvalidRequest, NotFound, ReservationExpired
from clearance.model.account import OveragePolicy
from clearance.model.action import Action
from clearance.model.amount import Amount
from clearance.model.results import Decision, Lease, Settlement, Stop
from clearance.model.subject import Subject
from clearance.remote import requests
from clearance.remote.errors import BadAnswer
from clearance.remote.exchange import Exchange
from clearance.remote.opened import Opened, OpenReservations
from clearance.remote.outage import OutageDesk
from clearance.remote.records import Origin, Record
from clearance.remote.runs import LocalRuns
from clearance.remote.settling import UNRESOLVED, Settling
from clearance.remote.steps import Steps, Work

Metadata = dict[str, Any]

BASE_PROTOCOL_FOR_S = 300.0
"""How long a server is taken to speak the base protocol only, before it is asked again."""
MAX_STOPPED_IDS = 1_000


class Plan:
    """Where each verb goes: to the server, to a run kept here, or into the allowance of an outage."""

    def __init__(
        self, exchange: Exchange, settling: Settling, runs: LocalRuns, outage: OutageDesk, clock: Callable[[], float]
    ) -> None:
        self._exchange = exchange
        self._settling = settling
        self._runs = runs
        self._outage = outage
        self._clock = clock
        self._opened = OpenReservations()
        self._offers: frozenset[str] | None = None
        self._ask_again_at = 0.0

    def renew(self) -> None:
        self._opened.renew()

    # -- what the server can do -------------------------------------------------------------------

    def offers(self, feature: str) -> Steps[bool]:
        """Asked once. A server without our routes speaks the base protocol."""
        if self._offers is None or (not self._offers and self._clock() >= self._ask_again_at):
            try:
                self._offers = yield from self._exchange.of(requests.capabilities())
            except (BadAnswer, NotFound, InvalidRequest):
                self._offers = frozenset()
            except AuthorityUnavailable as error:
                # The reference server answers 500 to a path that it does not know.
                if error.details.get("status") != 500:
                    raise
                self._offers = frozenset()
            self._ask_again_at = self._clock() + BASE_PROTOCOL_FOR_S
        return feature in self._offers

    # -- deciding ---------------------------------------------------------------------------------

    def reserve(self, asked: Ask) -> Steps[Decision]:
        if self._runs.knows(asked.run_id):
            here = self._runs.inside(asked)
            if here is None:
                asked = self._runs.outside(asked)
            else:
                decision: Decision = yield Work(lambda: self._runs.reserve(here, asked))
                return decision
        sent = self._clock()
        try:
            decision = yield from self._exchange.of(requests.reserve(asked))
        except AuthorityUnavailable:
            allowed = self._outage.allow(asked)
            if allowed is None:
                raise
            return allowed
        self._remember(asked, decision, sent)
        return decision

    def _remember(self, asked: Ask, decision: Decision, sent: float) -> None:
        if decision.reservation_id is None:
            return
        origin = Origin(asked.subject, asked.action, asked.overage_policy, asked.run_id, asked.estimate.amount)
        left_ms = asked.ttl_ms if decision.remaining_ttl_ms is None else decision.remaining_ttl_ms
        self._opened.put(decision.reservation_id, Opened(origin, decision.expires_at_ms, sent + left_ms / 1000))

    def dry_run(self, asked: Ask) -> Steps[Decision]:
        if self._runs.knows(asked.run_id):
            here = self._runs.inside(asked)
            if here is not None:
                decision: Decision = yield Work(lambda: self._runs.dry_run(here, asked))
                return decision
            asked = self._runs.outside(asked)
        return (yield from self._exchange.of(requests.reserve(asked, dry_run=True)))

    def decide(self, subject: Subject, action: Action, estimate: Amount, key: str) -> Steps[Decision]:
        return (yield from self._exchange.of(requests.decide(subject, action, estimate, key)))

    # -- settling ---------------------------------------------------------------------------------

    def commit(self, reservation_id: str, actual: Amount, given: str | None, metadata: Metadata) -> Steps[Settlement]:
        check_id(reservation_id, "reservation_id")
        check_amount(actual, "actual")
        # A caller that tries again without a key must not charge twice.
        key = requests.key_of(given or self._settling.pending_key(reservation_id))
        if self._runs.holds(reservation_id):
            answer: Settlement = yield Work(lambda: self._runs.commit(reservation_id, actual, key, metadata))
            return answer
        if self._outage.knows(reservation_id):
            return self._outage.commit(reservation_id, actual, metadata)
        opened = self._opened.get(reservation_id)
        origin = opened.origin if opened else None
        record = Record(key, actual, "commit", reservation_id, origin, metadata)
        answer = yield from self._settling.first(record)
        self._opened.drop(reservation_id)
        return answer

    def release(self, reservation_id: str, reason: str | None, key: str) -> Steps[Settlement]:
        call = requests.release(reservation_id, reason, key)
        if self._runs.holds(reservation_id):
            answer: Settlement = yield Work(lambda: self._runs.release(reservation_id, reason, key))
            return answer
        if self._outage.knows(reservation_id):
            return self._outage.release(reservation_id)
        answer = yield from self._exchange.of(call)
        self._settling.forget(reservation_id)
        self._opened.drop(reservation_id)
        return answer

    def extend(self, reservation_id: str, extend_by_ms: int, key: str) -> Steps[Lease]:
        opened = self._opened.get(reservation_id)
        now = self._clock()
        left_ms = max(0, int((opened.lease_end - now) * 1000)) if opened else None
        call = requests.extend(reservation_id, extend_by_ms, key, opened.expires_at_ms if opened else None, left_ms)
        if self._runs.holds(reservation_id):
            lease: Lease = yield Work(lambda: self._runs.extend_inside(reservation_id, extend_by_ms))
            return lease
        if self._outage.knows(reservation_id):
            return self._outage.extend(reservation_id, extend_by_ms)
        lease = yield from self._exchange.of(call)
        if opened is not None:
            longer = opened._replace(expires_at_ms=lease.expires_at_ms, lease_end=now + lease.remaining_ttl_ms / 1000)
            self._opened.put(reservation_id, longer)
        if self._runs.funded(reservation_id):
            yield Work(lambda: self._runs.extended(reservation_id, lease))
        return lease

    def event(
        self,
        subject: Subject,
        action: Action,
        actual: Amount,
        policy: OveragePolicy | None,
        run_id: str | None,
        key: str,
        metadata: Metadata,
    ) -> Steps[Settlement]:
        requests.event(
            subject, action, actual, key=key, overage_policy=policy, run_id=run_id, metadata=metadata
        )  # refuses bad arguments before they are written down
        if run_id is not None and self._runs.knows(run_id):
            here = run_id
            if self._runs.funded(here):
                answer: Settlement = yield Work(
                    lambda: self._runs.event(subject, action, actual, policy, here, key, metadata)
                )
                return answer
            run_id = None
        origin = Origin(subject, action, policy, run_id)
        return (yield from self._settling.first(Record(key, actual, "event", None, origin, metadata)))

    # -- runs and stops ---------------------------------------------------------------------------

    def start_run(self, asked: Ask) -> Steps[Decision]:
        if not self._runs.knows(asked.run_id) and (yield from self.offers("runs")):
            keyed = yield from self.offers("runs.keys")
            return (yield from self._exchange.of(requests.start_run(asked, keyed=keyed)))
        if self._runs.funded(asked.run_id):
            decision: Decision = yield Work(lambda: self._runs.start_inside(asked))
            return decision
        asked = self._runs.outside(asked)
        if asked.unfunded:
            return self._runs.start_unfunded(asked)
        sent = self._clock()
        decision = yield from self._exchange.of(requests.reserve(asked))
        self._remember(asked, decision, sent)
        yield Work(lambda: self._runs.start_funded(asked, decision))
        return decision

    def end_run(self, run_id: str, metadata: Metadata) -> Steps[Settlement]:
        if not self._runs.knows(run_id):
            return (yield from self._exchange.of(requests.end_run(run_id, metadata)))
        answer: Settlement | Record = yield Work(lambda: self._runs.end(run_id, metadata))
        if isinstance(answer, Settlement):
            return answer
        try:
            settlement = yield from self._settling.first(answer)
        except UNRESOLVED:
            raise
        except ClearanceError as error:
            if not isinstance(error, ReservationExpired):
                self._runs.forget(run_id)
            raise
        self._runs.forget(run_id)
        self._opened.drop(run_id)
        return settlement

    def stopped(self, reservation_ids: Collection[str]) -> Steps[dict[str, Stop]]:
        asked = [it for it in reservation_ids if not self._runs.is_local(it) and not self._outage.knows(it)]
        if not asked or not (yield from self.offers("stops")):
            return {}
        found: dict[str, Stop] = {}
        for start in range(0, len(asked), MAX_STOPPED_IDS):
            part = asked[start : start + MAX_STOPPED_IDS]
            found |= yield from self._exchange.of(requests.stopped(part))
        return found

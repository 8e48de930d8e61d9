"""Settling through the journal: write it down, send it, and cross it out only when the server has answered."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import replace

from clearance.errors import (
    AuthorityUnavailable,
    ClearanceError,
    Conflict,
    Denied,
    IdempotencyMismatch,
    InvalidRequest,
    LimitExceeded,
    NotFound,
    ReservationExpired,
    ReservationFinalized,
)
from clearance.model.results import Settlement
from clearance.remote.errors import BadAnswer, NotAuthorized
from clearance.remote.exchange import Exchange
from clearance.remote.journal import Entry, Journal
from clearance.remote.records import Record, reservation_name
from clearance.remote.steps import Steps, Work

log = logging.getLogger("clearance.remote")

UNRESOLVED = (AuthorityUnavailable, BadAnswer, LimitExceeded, NotAuthorized)
"""Nobody knows whether it arrived, or it may be accepted later: the record stays."""
DEFAULT_HOLD_OFF_S = 1.0


class Settling:
    """The one way in which a commit or an event leaves this process, at first and again."""

    def __init__(self, journal: Journal, exchange: Exchange, on_left: Callable[[], None]) -> None:
        self.journal = journal
        self._exchange = exchange
        self._on_left = on_left
        self.renew()

    def renew(self) -> None:
        self._lock = threading.Lock()
        self._busy: set[str] = set()
        self.left: set[str] = set()
        self.kept: set[str] = set()

    def busy(self, name: str) -> bool:
        """Somebody in this process is settling it right now."""
        return name in self._busy

    def first(self, record: Record) -> Steps[Settlement]:
        """A settlement that a caller waits for. Written down before it is sent; what stays unresolved is replayed."""
        record = replace(record, created_at_ms=self.journal.now_ms())
        entry = Entry(record, record.encoded())
        self._begin(record.name)
        resolved = False
        try:
            if self.journal.folder is None:
                self.journal.write(record)
            else:
                yield Work(lambda: self.journal.write(record, first=True))
            answer = yield from self._send(entry, first=True)
            resolved = True
            return answer
        except UNRESOLVED:
            if self.journal.folder is not None:
                yield Work(lambda: self.journal.secure(record))
            raise
        except ClearanceError:
            resolved = True
            raise
        finally:
            self._end(record.name)
            if not resolved:
                self.leave(record.name)

    def leave(self, name: str) -> None:
        """This record of ours is for the background to settle."""
        self.left.add(name)
        self._on_left()

    def hold(self, name: str) -> None:
        """This record belongs to work that goes on here; nobody in this process replays it until `leave`."""
        self._begin(name)

    def forget(self, reservation_id: str) -> None:
        """It was released: what was refused of it before is of no concern any more."""
        name = reservation_name(reservation_id)
        if name in self.kept:
            entry = self.journal.read(name)
            if entry is not None:
                self.journal.remove(entry)
            self.kept.discard(name)

    def pending_key(self, reservation_id: str) -> str | None:
        """The key under which an unresolved settlement of this reservation may have arrived."""
        name = reservation_name(reservation_id)
        entry = self.journal.read(name) if name in self.left else None
        return entry.record.key if entry is not None else None

    def again(self, entry: Entry, left_s: float | None = None) -> Steps[Settlement | None]:
        """A settlement from the journal, within `left_s`. None if the server says that it was settled before."""
        name = entry.record.name
        if not self._begin(name):
            return None
        try:
            return (yield from self._send(entry, first=False, left_s=left_s))
        except (ReservationFinalized, IdempotencyMismatch) as error:
            log.warning("reservation %s was settled before (%s)", entry.record.reservation_id, type(error).__name__)
            return None
        finally:
            self._end(name)

    def _send(self, entry: Entry, *, first: bool, left_s: float | None = None) -> Steps[Settlement]:
        timeout_s = self._exchange.timeout_s if left_s is None else max(0.0, min(left_s, self._exchange.timeout_s))
        try:
            answer: Settlement = yield from self._exchange.of(entry.record.call, timeout_s)
        except ReservationExpired:
            if entry.record.mode == "event":
                raise
            return (yield from self._as_event(entry, first, left_s))
        except LimitExceeded as error:
            not_before_ms = self._not_before(error)
            yield Work(lambda: self.journal.hold_off(entry, not_before_ms))
            raise
        except UNRESOLVED:
            raise
        except ClearanceError as error:
            self._refused(entry, error, first)
            raise
        self.journal.remove(entry)
        self.left.discard(entry.record.name)
        return answer

    def _as_event(self, entry: Entry, first: bool, left_s: float | None) -> Steps[Settlement]:
        """Past its lease: the same spend, as an event under the same key. Written down as one before it is sent."""
        record = entry.record
        if record.origin is None:
            self._lost(entry, first)
            raise ReservationExpired(f"{record.reservation_id} has expired; record its spend with event()")
        log.warning("reservation %s had expired; its spend is recorded as an event", record.reservation_id)
        changed: Entry = yield Work(lambda: self.journal.change(entry, record.as_event()))
        return (yield from self._send(changed, first=first, left_s=left_s))

    def _lost(self, entry: Entry, first: bool) -> None:
        if first:
            self.journal.remove(entry)  # the caller is told, and knows what it was for
        else:
            self.journal.quarantine(entry.record.name, "has expired, and nobody knows what it was for")

    def _refused(self, entry: Entry, error: ClearanceError, first: bool) -> None:
        """Final. Where the spend is recorded, or the caller was told that it asked for nonsense, the record goes;
        else it stays for people to see: money was spent that no budget shows."""
        settled = isinstance(error, ReservationFinalized | IdempotencyMismatch)
        nonsense = isinstance(error, InvalidRequest | NotFound | Conflict) and not isinstance(error, Denied)
        if settled or (first and nonsense):
            self.journal.remove(entry)
            return
        if not first:
            log.error("the settlement of %s was refused (%s)", entry.record.reservation_id, error.code)
        self.journal.change(entry, replace(entry.record, refused=error.code))
        self.kept.add(entry.record.name)

    def _not_before(self, error: LimitExceeded) -> int:
        wait_ms = error.retry_after_ms if error.retry_after_ms is not None else int(DEFAULT_HOLD_OFF_S * 1000)
        return self.journal.now_ms() + wait_ms

    def _begin(self, name: str) -> bool:
        with self._lock:
            if name in self._busy:
                return False
            self._busy.add(name)
            return True

    def _end(self, name: str) -> None:
        with self._lock:
            self._busy.discard(name)

"""From a response to a result or an error. Pure. Strict where money depends on it, tolerant everywhere else."""

from __future__ import annotations

from typing import Any, TypeVar

from clearance.errors import (
    AuthorityUnavailable,
    BudgetNotFound,
    ClearanceError,
    Conflict,
    Denied,
    InvalidRequest,
    LimitExceeded,
    NotFound,
)
from clearance.model.amount import Amount
from clearance.model.results import Decision, Lease, Settlement, Stop
from clearance.model.subject import Subject
from clearance.remote.errors import BadAnswer, Forbidden
from clearance.remote.retries import Doubt
from clearance.remote.wire import (
    Call,
    Json,
    Response,
    Unreadable,
    amount,
    caps,
    figures,
    optional_text,
    optional_whole,
    parsed,
    text,
    texts,
    whole,
)

T = TypeVar("T")

MAX_MESSAGE = 500
NO_CONTENT = 204


def judge(call: Call[T], response: Response) -> T | Doubt:
    """The result, or Doubt where it may be asked again; raises what is final."""
    status = response.status
    if 200 <= status < 300:
        return _success(call, response)
    if status == 429:
        error = LimitExceeded(f"{call.verb}: the server asks for fewer requests", retry_after_ms=None)
        wait_s = retry_after_s(response)
        if wait_s is not None:
            error.retry_after_ms = wait_s * 1000
        return Doubt(error, wait_s)
    if status >= 500 or status == 408:
        failed = AuthorityUnavailable(f"{call.verb}: the server answered {status}", details={"status": status})
        return Doubt(failed, outage=status != 408)
    raise refusal(call, response)


def _success(call: Call[T], response: Response) -> T | Doubt:
    try:
        if response.status not in (call.status, call.or_status):
            raise Unreadable(f"status {response.status} instead of {call.status}")
        return call.read({} if response.status == NO_CONTENT else parsed(response.body))
    except Unreadable as problem:
        error = BadAnswer(f"{call.verb}: the answer is not the protocol's ({problem})", details={"verb": call.verb})
        return Doubt(error)


def retry_after_s(response: Response) -> int | None:
    """Delta-seconds only; a date is not valid in this protocol (section 2.2)."""
    given = response.headers.get("retry-after", "").strip()
    return int(given) if given.isascii() and given.isdigit() and len(given) < 9 else None


# -- errors: the codes and statuses are those of the classes in clearance.errors -------------------


def _kinds(kind: type[ClearanceError]) -> list[type[ClearanceError]]:
    return [kind, *(found for below in kind.__subclasses__() for found in _kinds(below))]


_BY_CODE: dict[tuple[str, int], type[ClearanceError]] = {}
_BY_REASON: dict[str, type[Denied]] = {}
for _kind in _kinds(ClearanceError):
    if _kind.status < 500 and not issubclass(_kind, BudgetNotFound):
        _BY_CODE.setdefault((_kind.code, _kind.status), _kind)
    if issubclass(_kind, Denied):
        _BY_REASON.setdefault(_kind.reason or _kind.code, _kind)
# The governance plane has codes of its own, and its own word for a conflict.
_BY_CODE |= {(f"{thing}_NOT_FOUND", 404): NotFound for thing in ("TENANT", "BUDGET", "WEBHOOK", "EVENT")}
_BY_CODE |= {(code, 409): Conflict for code in ("INVALID_REQUEST", "REPLAY_IN_PROGRESS")}
_BY_CODE |= {("INVALID_REQUEST", status): InvalidRequest for status in (413, 415, 431)}
_BY_CODE |= {("WEBHOOK_URL_INVALID", 400): InvalidRequest, ("INSUFFICIENT_PERMISSIONS", 403): Forbidden}


def refusal(call: Call[Any], response: Response) -> ClearanceError:
    """The error of a 4xx. One that is not the protocol's is a bad answer, never a denial."""
    try:
        data = parsed(response.body)
        code = text(data, "error", 256)
    except Unreadable:
        where = " (is the URL right?)" if response.status in (404, 405) or response.status < 400 else ""
        return BadAnswer(
            f"{call.verb}: status {response.status} without a protocol error{where}", details={"verb": call.verb}
        )
    found = data.get("details")
    details: dict[str, Any] = found if isinstance(found, dict) else {}
    message = (optional_text(data, "message") or code)[:MAX_MESSAGE]
    kind = _kind_of(call, response.status, code, optional_text(details, "reason_code"))
    if kind is None:
        return BadAnswer(f"{call.verb}: status {response.status} with the unknown code {code[:64]}", details=details)
    error = _made(kind, message, details)
    error.scope = optional_text(details, "scope")
    retry_ms = details.get("retry_after_ms")
    error.retry_after_ms = retry_ms if isinstance(retry_ms, int) else None
    return error


def _kind_of(call: Call[Any], status: int, code: str, reason: str | None) -> type[ClearanceError] | None:
    kind = _BY_CODE.get((code, status))
    if call.deciding and status in (403, 404, 409):
        named = _BY_REASON.get(reason or "")
        if named is not None and (kind is None or kind is NotFound or issubclass(kind, Denied)):
            return named
        if kind is NotFound and call.run_id is None:
            return BudgetNotFound
        if kind is None and status in (403, 409):
            return Denied  # a reason that is newer than this client
    elif kind is not None and issubclass(kind, Denied) and reason in _BY_REASON:
        return _BY_REASON[reason]  # a stop, which the protocol has no code for
    return kind


def _made(kind: type[ClearanceError], message: str, details: dict[str, Any]) -> ClearanceError:
    if not issubclass(kind, InvalidRequest):
        return kind(message, details=details)
    field = optional_text(details, "field") or "request"
    return kind(field, message.removeprefix(f"{field}: "), details=details)


# -- results --------------------------------------------------------------------------------------


def decision(data: Json, subject: Subject, estimate: Amount, *, live: bool) -> Decision:
    verdict = text(data, "decision")
    reason = optional_text(data, "reason_code")
    if verdict == "DENY" and live:
        kind = _BY_REASON.get(reason or "", Denied)
        raise kind(f"the authority denied it ({reason or 'no reason given'})", details={"reason_code": reason})
    if verdict not in ("ALLOW", "ALLOW_WITH_CAPS", "DENY"):
        raise Unreadable("decision is unknown")
    allowed = verdict != "DENY"
    return Decision(
        verdict,  # type: ignore[arg-type]
        texts(data, "affected_scopes") or subject.scopes,
        estimate.unit,
        estimate.amount,
        text(data, "reservation_id", 128) if live else None,
        optional_whole(data, "expires_at_ms") if live else None,
        optional_whole(data, "remaining_ttl_ms") if live else None,
        caps(data) if verdict == "ALLOW_WITH_CAPS" else None,
        reason,
        optional_text(data, "message"),
        retry_after_ms=optional_whole(data, "retry_after_ms"),
        figures=figures(data, estimate.unit) if allowed else {},
    )


def _status(data: Json, wanted: str) -> None:
    if data.get("status") != wanted:
        raise Unreadable(f"status is not {wanted}")


def committed(data: Json, reservation_id: str, actual: Amount, estimate: int | None) -> Settlement:
    _status(data, "COMMITTED")
    charged = amount(data, "charged", actual.unit).amount
    back = amount(data, "released", actual.unit).amount if data.get("released") is not None else 0
    return Settlement(
        "COMMITTED",
        actual.unit,
        charged + back if estimate is None else estimate,
        actual.amount,
        charged,
        back,
        max(0, actual.amount - charged),
        reservation_id,
        figures=figures(data, actual.unit),
    )


def run_ended(data: Json, run_id: str) -> Settlement:
    _status(data, "COMMITTED")
    charged = amount(data, "charged")
    back = amount(data, "released", charged.unit).amount if data.get("released") is not None else 0
    lost = amount(data, "uncharged", charged.unit).amount if data.get("uncharged") is not None else 0
    return Settlement(
        "COMMITTED",
        charged.unit,
        charged.amount + back,
        charged.amount + lost,
        charged.amount,
        back,
        lost,
        run_id,
        figures=figures(data, charged.unit),
    )


def released(data: Json, reservation_id: str) -> Settlement:
    _status(data, "RELEASED")
    back = amount(data, "released")
    return Settlement(
        "RELEASED",
        back.unit,
        back.amount,
        0,
        0,
        back.amount,
        reservation_id=reservation_id,
        figures=figures(data, back.unit),
    )


def applied(data: Json, actual: Amount) -> Settlement:
    """`charged` is only there when it was less than the actual (protocol section 12)."""
    _status(data, "APPLIED")
    event_id = text(data, "event_id")
    charged = amount(data, "charged", actual.unit).amount if data.get("charged") is not None else actual.amount
    return Settlement(
        "APPLIED",
        actual.unit,
        0,
        actual.amount,
        charged,
        uncharged=max(0, actual.amount - charged),
        event_id=event_id,
        figures=figures(data, actual.unit),
    )


def lease(data: Json, reservation_id: str, by_ms: int, before_ms: int | None, left_ms: int | None) -> Lease:
    _status(data, "ACTIVE")
    expires_at_ms = whole(data, "expires_at_ms")
    remaining_ms = optional_whole(data, "remaining_ttl_ms")
    if remaining_ms is None:
        # An older server: what was left here, and what it has added.
        granted = by_ms if before_ms is None else expires_at_ms - before_ms
        remaining_ms = max(0, (left_ms or 0) + granted)
    return Lease(reservation_id, expires_at_ms, remaining_ms)


def extensions(data: Json) -> frozenset[str]:
    return frozenset(texts(data, "extensions"))


def stop(data: Json) -> Stop:
    state = text(data, "state")
    if state not in ("RUNNING", "PAUSED", "KILLED"):
        raise Unreadable("state is unknown")
    return Stop(
        text(data, "scope"),
        optional_text(data, "tenant") or "",
        state,  # type: ignore[arg-type]
        optional_text(data, "reason") or "",
        optional_text(data, "actor") or "",
        optional_whole(data, "at_ms") or 0,
        texts(data, "in_flight"),
    )


def stops_by_id(data: Json) -> dict[str, Stop]:
    found = data.get("stopped")
    if not isinstance(found, dict):
        raise Unreadable("stopped is no object")
    return {name: stop(item) for name, item in found.items() if isinstance(item, dict)}

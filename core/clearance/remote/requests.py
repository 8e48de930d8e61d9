"""From a verb and its arguments to the request it is. Pure; bad arguments raise InvalidRequest before they are sent."""

from __future__ import annotations

from collections.abc import Collection
from urllib.parse import quote

from clearance.authority.interface import Metadata
from clearance.authority.requests import (
    Ask,
    check_amount,
    check_extension,
    check_id,
    check_key,
    check_metadata,
    check_policy,
    check_remark,
    check_subject,
)
from clearance.errors import InvalidRequest
from clearance.guard.process import new_key
from clearance.model.account import OveragePolicy
from clearance.model.action import Action
from clearance.model.amount import Amount
from clearance.model.results import Decision, Lease, Settlement, Stop
from clearance.model.subject import Subject
from clearance.remote import answers
from clearance.remote.wire import (
    DECIDE,
    EVENTS,
    EXTENSIONS,
    IDEMPOTENCY_KEY,
    RESERVATIONS,
    RUN_ID,
    RUNS,
    STOPPED,
    VENDOR,
    Call,
    Json,
    Request,
    get,
    post,
    reservation_path,
)

Headers = tuple[tuple[bytes, bytes], ...]


def key_of(given: str | None) -> str:
    """The caller's idempotency key, checked, or a new one: no request that changes something goes without."""
    return check_key(given) or new_key()


def wire_amount(amount: Amount) -> Json:
    return {"unit": amount.unit.value, "amount": amount.amount}


def _headers(run_id: str | None) -> Headers:
    if run_id is None:
        return (EXTENSIONS,)
    if not run_id.isascii() or not run_id.isprintable() or run_id != run_id.strip():
        raise InvalidRequest("run_id", "has characters that no header can carry", "printable ASCII")
    return (EXTENSIONS, (RUN_ID, run_id.encode()))


def reserve(asked: Ask, *, dry_run: bool = False) -> Call[Decision]:
    body: Json = {
        "idempotency_key": asked.idempotency_key,
        "subject": asked.subject.wire,
        "action": asked.action.wire,
        "estimate": wire_amount(asked.estimate),
        "ttl_ms": asked.ttl_ms,
        "grace_period_ms": asked.grace_period_ms,
    }
    if asked.overage_policy is not None:
        body["overage_policy"] = asked.overage_policy
    if dry_run:
        body["dry_run"] = True
    if asked.metadata:
        body["metadata"] = asked.metadata

    def read(data: Json) -> Decision:
        return answers.decision(data, asked.subject, asked.estimate, live=not dry_run)

    verb = "dry_run" if dry_run else "reserve"
    return Call(verb, post(RESERVATIONS, body, *_headers(asked.run_id)), read, deciding=True, run_id=asked.run_id)


def decide(subject: Subject, action: Action, estimate: Amount, key: str) -> Call[Decision]:
    check_subject(subject, action)
    check_amount(estimate, "estimate")
    body: Json = {
        "idempotency_key": key,
        "subject": subject.wire,
        "action": action.wire,
        "estimate": wire_amount(estimate),
    }
    return Call(
        "decide",
        post(DECIDE, body, EXTENSIONS),
        lambda data: answers.decision(data, subject, estimate, live=False),
        deciding=True,
    )


def commit(reservation_id: str, actual: Amount, key: str, metadata: Json, estimate: int | None) -> Call[Settlement]:
    """`estimate` is what was held, where it is known."""
    body: Json = {"idempotency_key": key, "actual": wire_amount(actual)}
    if metadata:
        body["metadata"] = metadata
    return Call(
        "commit",
        post(reservation_path(reservation_id, "commit"), body, EXTENSIONS),
        lambda data: answers.committed(data, reservation_id, actual, estimate),
    )


def release(reservation_id: str, reason: str | None, key: str) -> Call[Settlement]:
    body: Json = {"idempotency_key": key}
    if check_remark(reason, "reason", 256):
        body["reason"] = reason
    return Call(
        "release",
        post(reservation_path(check_id(reservation_id, "reservation_id"), "release"), body, EXTENSIONS),
        lambda data: answers.released(data, reservation_id),
    )


def extend(reservation_id: str, extend_by_ms: int, key: str, before_ms: int | None, left_ms: int | None) -> Call[Lease]:
    """`before_ms` is the lease's end so far by the server's clock, `left_ms` what was left of it here: for a server
    that does not tell how long the lease still runs."""
    body: Json = {"idempotency_key": key, "extend_by_ms": check_extension(extend_by_ms)}
    path = reservation_path(check_id(reservation_id, "reservation_id"), "extend")
    return Call(
        "extend",
        post(path, body, EXTENSIONS),
        lambda data: answers.lease(data, reservation_id, extend_by_ms, before_ms, left_ms),
    )


def event(
    subject: Subject,
    action: Action,
    actual: Amount,
    *,
    key: str,
    overage_policy: OveragePolicy | None = None,
    run_id: str | None = None,
    metadata: Metadata | None = None,
) -> Call[Settlement]:
    check_subject(subject, action)
    check_amount(actual, "actual")
    body: Json = {
        "idempotency_key": key,
        "subject": subject.wire,
        "action": action.wire,
        "actual": wire_amount(actual),
    }
    if check_policy(overage_policy) is not None:
        body["overage_policy"] = overage_policy
    facts = check_metadata(metadata)
    if facts:
        body["metadata"] = facts
    run = None if run_id is None else check_id(run_id, "run_id")
    return Call(
        "event", post(EVENTS, body, *_headers(run)), lambda data: answers.applied(data, actual), 201, True, run_id=run
    )


# -- our own routes -------------------------------------------------------------------------------


def capabilities() -> Call[frozenset[str]]:
    return Call("capabilities", get(VENDOR + "/capabilities"), answers.extensions)


def start_run(asked: Ask, *, keyed: bool = False) -> Call[Decision]:
    """`keyed`: the server remembers the key, so that a second try opens no second run."""
    body: Json = {"subject": asked.subject.wire, "name": asked.action.name, "ttl_ms": asked.ttl_ms}
    if not asked.unfunded:
        body["budget"] = wire_amount(asked.estimate)
    if asked.overage_policy is not None:
        body["overage_policy"] = asked.overage_policy
    if asked.run_id is not None:
        body["run_id"] = asked.run_id
    if asked.metadata:
        body["metadata"] = asked.metadata
    key = (asked.idempotency_key or new_key()).encode()
    return Call(
        "start_run",
        post(RUNS, body, EXTENSIONS, (IDEMPOTENCY_KEY, key)),
        lambda data: answers.decision(data, asked.subject, asked.estimate, live=True),
        status=201,
        deciding=True,
        repeatable=keyed,
        run_id=asked.run_id,
    )


def end_run(run_id: str, metadata: Metadata | None) -> Call[Settlement]:
    facts = check_metadata(metadata)
    path = f"{RUNS}/{quote(check_id(run_id, 'run_id'), safe='')}/end"
    return Call(
        "end_run",
        post(path, {"metadata": facts} if facts else {}, EXTENSIONS, (IDEMPOTENCY_KEY, new_key().encode())),
        lambda data: answers.run_ended(data, run_id),
    )


def stopped(reservation_ids: Collection[str]) -> Call[dict[str, Stop]]:
    return Call("stopped", post(STOPPED, {"reservation_ids": list(reservation_ids)}), answers.stops_by_id)


def control(verb: str, scope: str, reason: str, actor: str | None, *, as_admin: bool) -> Call[Stop]:
    body: Json = {"scope": scope, "reason": reason}
    if actor is not None:
        body["actor"] = actor
    request: Request = post(f"{VENDOR}/{verb}", body, as_admin=as_admin)
    return Call(verb, request, answers.stop)

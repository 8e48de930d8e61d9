"""One event on its way to one subscriber, kept until it has arrived or nobody waits for it any more. Pure."""

from __future__ import annotations

import hmac

from pydantic_core import to_json

from clearance.model.results import Event
from clearance.server.eventtypes import event_id, kind_of, trace_of, written
from clearance.server.subscriptions import delay_ms, retry_policy
from clearance.server.tracing import new_trace_id, traceparent
from clearance.server.wire import Wire, iso
from clearance.store.interface import Record

DELIVERY = "delivery"
PENDING, RETRYING, SUCCESS, FAILED = "PENDING", "RETRYING", "SUCCESS", "FAILED"
MAX_AGE_MS = 24 * 3_600_000
MAX_ERROR = 256


def new_delivery(subscription: Record, event: Event, now_ms: int, replay_id: str | None = None) -> Record:
    """The id is that of (subscription, event), so that queueing twice queues once; a replay has its own."""
    place = f"{replay_id}:{event.seq:018d}" if replay_id else f"{event.seq:018d}"
    trace_id, flags = trace_of(event)
    body: Wire = {
        "subscription_id": subscription.id,
        "seq": event.seq,
        "event_type": kind_of(event).type,
        "status": PENDING,
        "attempts": 0,
        "queued_at_ms": now_ms,
        "attempted_at_ms": now_ms,
        "trace_id": trace_id or new_trace_id(),
    }
    if flags:
        body["flags"] = flags
    # Due since it happened, so that what is due first happened first.
    return Record(DELIVERY, f"{subscription.id}:{place}", subscription.tenant, body, min(event.at_ms, now_ms))


def content(event: Event) -> bytes:
    """The raw bytes that are signed and sent; the same for every attempt, because the log never changes."""
    return to_json(written(event))


def request_headers(delivery: Record, subscription: Record, raw: bytes, agent: str) -> dict[str, str]:
    secret = subscription.body["signing_secret"]
    body = delivery.body
    return {
        **(subscription.body.get("headers") or {}),
        "Content-Type": "application/json",
        "User-Agent": agent,
        "X-Cycles-Event-Id": event_id(body["seq"]),
        "X-Cycles-Event-Type": body["event_type"],
        "X-Cycles-Signature": "sha256=" + hmac.digest(secret.encode(), raw, "sha256").hex(),
        "X-Cycles-Trace-Id": body["trace_id"],
        "traceparent": traceparent(body["trace_id"], body.get("flags")),
    }


def arrived(delivery: Record, status: int, took_ms: int, now_ms: int) -> Record:
    body = {
        **delivery.body,
        "status": SUCCESS,
        "attempts": delivery.body["attempts"] + 1,
        "attempted_at_ms": now_ms,
        "completed_at_ms": now_ms,
        "response_status": status,
        "response_time_ms": took_ms,
    }
    body.pop("error_message", None)
    return delivery._replace(body=body, due_at_ms=None)


def failed(delivery: Record, subscription: Record, error: str, status: int | None, took_ms: int, now_ms: int) -> Record:
    """To be tried again, or given up."""
    policy = retry_policy(subscription.body)
    attempts = delivery.body["attempts"] + 1
    body: Wire = {
        **delivery.body,
        "attempts": attempts,
        "attempted_at_ms": now_ms,
        "error_message": error[:MAX_ERROR],
        "response_time_ms": took_ms,
    }
    if status is not None:
        body["response_status"] = status
    if attempts > policy.max_retries:
        return given_up(delivery._replace(body=body), error, now_ms)
    return delivery._replace(body={**body, "status": RETRYING}, due_at_ms=now_ms + delay_ms(policy, attempts))


def given_up(delivery: Record, error: str, now_ms: int) -> Record:
    body = {**delivery.body, "status": FAILED, "completed_at_ms": now_ms, "error_message": error[:MAX_ERROR]}
    return delivery._replace(body=body, due_at_ms=None)


def shown_delivery(delivery: Record) -> Wire:
    body = delivery.body
    wire: Wire = {
        "delivery_id": delivery.id,
        "subscription_id": body["subscription_id"],
        "event_id": event_id(body["seq"]),
        "event_type": body["event_type"],
        "status": body["status"],
        "attempted_at": iso(body["attempted_at_ms"]),
        "attempts": body["attempts"],
        "trace_id": body["trace_id"],
        "trace_flags": body.get("flags") or "01",
        "traceparent_inbound_valid": "flags" in body,
    }
    for name in ("response_status", "response_time_ms", "error_message"):
        if name in body:
            wire[name] = body[name]
    if "completed_at_ms" in body:
        wire["completed_at"] = iso(body["completed_at_ms"])
    if delivery.due_at_ms is not None and body["status"] == RETRYING:
        wire["next_retry_at"] = iso(delivery.due_at_ms)
    return wire

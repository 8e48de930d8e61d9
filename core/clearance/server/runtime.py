"""The runtime plane: decide, reserve, settle, record. Order of checks: protocol section 15."""

from __future__ import annotations

from clearance.authority.interface import DEFAULT_TTL_MS
from clearance.errors import InvalidRequest
from clearance.model.subject import Subject
from clearance.server import wire
from clearance.server.bodies import (
    CommitBody,
    DecideBody,
    EventBody,
    ExtendBody,
    Keyed,
    Metrics,
    ReleaseBody,
    ReserveBody,
    SubjectBody,
)
from clearance.server.context import Server
from clearance.server.errors import forbidden
from clearance.server.http import Call, M, Reply

RUN_HEADER = b"x-clearance-run-id"
EXTENSIONS_HEADER = b"x-clearance-extensions"
MAX_ID = 128


async def decide(server: Server, call: Call) -> Reply:
    body = await keyed(server, call, DecideBody)
    subject = subject_of(call, body.subject)
    answer = await server.authority.adecide(
        subject, body.action.of(), body.estimate.of(), idempotency_key=body.idempotency_key
    )
    return Reply(wire.decision(answer, body.action.name, extended=_extended(call)))


async def create(server: Server, call: Call) -> Reply:
    body = await keyed(server, call, ReserveBody)
    subject = subject_of(call, body.subject)
    run_id = _run_of(server, call)
    if body.dry_run:
        answer = await server.authority.adry_run(
            subject, body.action.of(), body.estimate.of(), run_id=run_id, idempotency_key=body.idempotency_key
        )
        return Reply(wire.reservation(answer, body.action.name, extended=_extended(call)))
    answer = await server.authority.areserve(
        subject,
        body.action.of(),
        body.estimate.of(),
        ttl_ms=server.book.ttl_ms(subject.tenant_key, body.ttl_ms, DEFAULT_TTL_MS),
        grace_period_ms=body.grace_period_ms,
        overage_policy=body.overage_policy,
        run_id=run_id,
        idempotency_key=body.idempotency_key,
        metadata=body.metadata,
    )
    if answer.reservation_id is not None:
        server.remember(answer.reservation_id, subject.tenant_key)
    return Reply(wire.reservation(answer, body.action.name, extended=_extended(call)))


async def commit(server: Server, call: Call) -> Reply:
    reservation_id = reservation_in(call)
    body = await keyed(server, call, CommitBody)
    server.require_own(call, reservation_id)
    answer = await server.authority.acommit(
        reservation_id,
        body.actual.of(),
        idempotency_key=body.idempotency_key,
        metadata=wire.kept_metadata(body.metadata, metrics=_facts(body.metrics)),
    )
    return Reply(wire.commit(answer))


async def release(server: Server, call: Call) -> Reply:
    reservation_id = reservation_in(call)
    body = await keyed(server, call, ReleaseBody)
    server.require_own(call, reservation_id)
    answer = await server.authority.arelease(reservation_id, reason=body.reason, idempotency_key=body.idempotency_key)
    return Reply(wire.release(answer))


async def extend(server: Server, call: Call) -> Reply:
    reservation_id = reservation_in(call)
    body = await keyed(server, call, ExtendBody)
    server.require_own(call, reservation_id)
    answer = await server.authority.aextend(reservation_id, body.extend_by_ms, idempotency_key=body.idempotency_key)
    return Reply(wire.extend(answer))


async def event(server: Server, call: Call) -> Reply:
    body = await keyed(server, call, EventBody)
    subject = subject_of(call, body.subject)
    answer = await server.authority.aevent(
        subject,
        body.action.of(),
        body.actual.of(),
        overage_policy=body.overage_policy,
        run_id=_run_of(server, call),
        idempotency_key=body.idempotency_key,
        metadata=wire.kept_metadata(body.metadata, metrics=_facts(body.metrics), client_time_ms=body.client_time_ms),
    )
    return Reply(wire.event(answer), status=201)


async def keyed(server: Server, call: Call, model: type[M]) -> M:
    """The body, whose key a header may repeat but not contradict."""
    body = await call.body(model, server.settings)
    if isinstance(body, Keyed):
        same_key(call, body.idempotency_key)
    return body


def same_key(call: Call, in_body: str | None) -> str | None:
    """The idempotency key, from the body or, where it may be left out there, from the header."""
    header = call.header(b"x-idempotency-key")
    if header is None or in_body is None:
        return in_body or header
    if header != in_body:
        raise InvalidRequest(
            "X-Idempotency-Key", "differs from idempotency_key in the body", "the same key, or no header"
        )
    return in_body


def reservation_in(call: Call) -> str:
    reservation_id = call.params["reservation_id"]
    if not 1 <= len(reservation_id) <= MAX_ID:
        raise InvalidRequest("reservation_id", "has a wrong length", f"1 to {MAX_ID} characters")
    return reservation_id


def subject_of(call: Call, body: SubjectBody) -> Subject:
    tenant = call.principal.tenant
    if body.tenant and body.tenant != tenant:
        raise forbidden("subject.tenant is not the tenant of this API key")
    return body.of(tenant)


def _run_of(server: Server, call: Call) -> str | None:
    """The run that this call is made in, which only clients of ours name."""
    run_id = call.header(RUN_HEADER)
    if run_id is not None:
        server.require_own(call, run_id)
    return run_id


def _extended(call: Call) -> bool:
    return EXTENSIONS_HEADER in call.headers


def _facts(metrics: Metrics | None) -> wire.Wire | None:
    return metrics.model_dump(exclude_unset=True) if metrics is not None else None

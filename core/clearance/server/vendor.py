"""Our own routes, under a path of our own: what this server can do, runs, and the stop button."""

from __future__ import annotations

from clearance.authority import controls
from clearance.authority.interface import DEFAULT_TTL_MS
from clearance.errors import NotFound
from clearance.model.results import EVERYTHING, Stop
from clearance.model.subject import tenant_of
from clearance.server import wire
from clearance.server.bodies import EndRunBody, RunBody, StopBody, StoppedBody
from clearance.server.context import Server
from clearance.server.errors import forbidden
from clearance.server.http import Call, Reply
from clearance.server.names import names
from clearance.server.runtime import reservation_in, same_key, subject_of

PROTOCOL = "0.1.25"
CAPABILITIES = {
    "protocol": PROTOCOL,
    "server": "clearance",
    "extensions": names(
        "runs runs.keys stops stream events caps.models caps.approval_tools "
        "budget.spec budget.apply budget.close budget.whole key.rotation"
    ),
    "headers": {"run": "X-Clearance-Run-Id", "extensions": "X-Clearance-Extensions"},
}


async def capabilities(server: Server, call: Call) -> Reply:
    return Reply({**CAPABILITIES, "durability": server.authority.durability})


# -- runs -----------------------------------------------------------------------------------------


async def start_run(server: Server, call: Call) -> Reply:
    body = await call.body(RunBody, server.settings)
    subject = subject_of(call, body.subject)
    if body.run_id is not None:
        server.require_own(call, body.run_id)
    answer = await server.authority.astart_run(
        subject,
        body.budget.of() if body.budget is not None else None,
        name=body.name,
        ttl_ms=server.book.ttl_ms(subject.tenant_key, body.ttl_ms, DEFAULT_TTL_MS),
        overage_policy=body.overage_policy,
        run_id=body.run_id,
        idempotency_key=same_key(call, body.idempotency_key),
        metadata=body.metadata,
    )
    if answer.reservation_id is not None:
        server.remember(answer.reservation_id, subject.tenant_key)
    return Reply(wire.reservation(answer, body.name, extended=True), status=201)


async def end_run(server: Server, call: Call) -> Reply:
    run_id = reservation_in(call)
    body = await call.body(EndRunBody, server.settings, optional=True)
    server.require_own(call, run_id)
    answer = await server.authority.aend_run(run_id, metadata=body.metadata)
    settled = wire.commit(answer)
    if answer.uncharged:
        settled["uncharged"] = wire.amount(answer.unit, answer.uncharged)
    return Reply(settled)


# -- the stop button ------------------------------------------------------------------------------


async def kill(server: Server, call: Call) -> Reply:
    return await _control(server, call, "KILLED")


async def pause(server: Server, call: Call) -> Reply:
    return await _control(server, call, "PAUSED")


async def resume(server: Server, call: Call) -> Reply:
    return await _control(server, call, "RUNNING")


async def _control(server: Server, call: Call, state: controls.State) -> Reply:
    body = await call.body(StopBody, server.settings)
    target = controls.parse_target(body.scope)
    _require_below(server, call, target)
    actor = body.actor or call.principal.key_id
    verbs = {"KILLED": server.authority.kill, "PAUSED": server.authority.pause, "RUNNING": server.authority.resume}
    answer: Stop = await server.off_loop(lambda: verbs[state](target, reason=body.reason, actor=actor))
    return Reply(wire.stop(answer))


def _require_below(server: Server, call: Call, target: str) -> None:
    """A tenant's key may stop what lies below its tenant, and its own runs."""
    if call.principal.is_admin:
        return
    if target == EVERYTHING:
        raise forbidden("only the operator may stop everybody")
    if target.startswith("run:"):
        server.require_own(call, target.removeprefix("run:"))
    elif tenant_of(target) != call.principal.tenant:
        raise forbidden("this scope belongs to another tenant")


async def stops(server: Server, call: Call) -> Reply:
    found = await server.off_loop(server.authority.stops)
    own = call.principal.tenant
    return Reply({"stops": [wire.stop(it) for it in found if call.principal.is_admin or it.tenant in (own, "")]})


async def stopped(server: Server, call: Call) -> Reply:
    """Which of these open reservations lie below a stop. Ids that are unknown or another tenant's are left out."""
    body = await call.body(StoppedBody, server.settings)
    mine = [it for it in body.reservation_ids if _is_own(server, call, it)]
    found = await server.off_loop(lambda: server.authority.stopped(mine))
    return Reply({"stopped": {name: wire.stop(it) for name, it in found.items()}})


def _is_own(server: Server, call: Call, reservation_id: str) -> bool:
    try:
        server.require_own(call, reservation_id)
    except Exception as error:
        if isinstance(error, NotFound) or getattr(error, "status", 0) == 403:
            return False
        raise
    return True
